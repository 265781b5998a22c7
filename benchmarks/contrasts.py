"""Contrasts: what must differ between two prompts must differ between their images.

A contrast is a choice between classes of one image type. `shows` tells which real images belong to a class (a record's
field or finding and its value; None: not mentioned), the prompts ask for it in words written by hand.
"""

from dataclasses import dataclass

from medisyn.data.records import Record

FIELDS = ("anatomy", "view", "technique")


@dataclass(frozen=True)
class Choice:
    label: str
    shows: dict[str, str | bool | None]
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Contrast:
    name: str
    image_type: str
    choices: tuple[Choice, ...]

    def of(self, record: Record) -> int:
        """The class of a record, -1 where it belongs to none."""
        if record.image_type != self.image_type:
            return -1
        for k, choice in enumerate(self.choices):
            if all((getattr(record, name) if name in FIELDS else record.findings.get(name)) == value
                   for name, value in choice.shows.items()):
                return k
        return -1


def cell(finding: str, *prompts: str) -> Choice:
    return Choice(finding.replace("_", " "), {finding: True}, prompts)


CONTRASTS = (
    Contrast("pneumonia or normal", "chest_xray", (
        Choice("pneumonia", {"pneumonia": True}, (
            "CXR in a coughing toddler, pneumonia", "chest radiograph, lungs with pneumonia",
            "paediatric chest film with a lung infection")),
        Choice("normal", {"normal": True}, (
            "CXR in a toddler, normal", "unremarkable chest radiograph", "paediatric chest film, no abnormality")))),
    Contrast("bacterial or viral pneumonia", "chest_xray", (
        Choice("bacterial", {"bacterial_pneumonia": True}, (
            "chest x-ray of a child, bacterial pneumonia", "CXR: pneumonia, bacterial",
            "radiograph of the chest consistent with bacterial pneumonia")),
        Choice("viral", {"viral_pneumonia": True}, (
            "chest x-ray of a child, viral pneumonia", "CXR: pneumonia, viral",
            "radiograph of the chest consistent with viral pneumonia")))),
    Contrast("knee osteoarthritis, grade 0 or 4", "bone_xray", (
        Choice("grade 0", {"kellgren_lawrence_0": True}, (
            "knee x-ray, KL 0", "radiograph of the knee, Kellgren-Lawrence grade 0",
            "plain film of a knee, KL grade 0")),
        Choice("grade 4", {"kellgren_lawrence_4": True}, (
            "knee x-ray, KL 4", "radiograph of the knee, Kellgren-Lawrence grade 4",
            "plain film of a knee, KL grade 4")))),
    Contrast("brain tumour", "mri", (
        Choice("glioma", {"glioma": True}, (
            "brain MRI with a glioma", "MRI head: glioma", "MR scan of the brain showing a glial tumour")),
        Choice("meningioma", {"meningioma": True}, (
            "brain MRI with a meningioma", "MRI head: meningioma", "MR scan of the brain showing a meningioma")),
        Choice("pituitary tumour", {"pituitary_tumour": True}, (
            "brain MRI with a pituitary tumour", "MRI head: pituitary adenoma",
            "MR scan of the brain showing a tumour of the pituitary")),
        Choice("no tumour", {"brain_tumour": False}, (
            "brain MRI without a tumour", "MRI head: no tumour", "MR scan of the brain, no brain tumour")))),
    Contrast("blood cell", "blood_smear", (
        cell("neutrophil", "neutrophil on a blood film", "peripheral blood smear, single neutrophil"),
        cell("eosinophil", "eosinophil on a blood film", "peripheral blood smear, single eosinophil"),
        cell("basophil", "basophil on a blood film", "peripheral blood smear, single basophil"),
        cell("lymphocyte", "lymphocyte on a blood film", "peripheral blood smear, single lymphocyte"),
        cell("monocyte", "monocyte on a blood film", "peripheral blood smear, single monocyte"),
        cell("immature_granulocyte", "immature granulocyte on a blood film",
             "peripheral blood smear, single immature granulocyte"),
        cell("erythroblast", "erythroblast on a blood film", "peripheral blood smear, single erythroblast"),
        cell("platelet", "platelet on a blood film", "peripheral blood smear, single platelet"))),
    Contrast("lung or colon", "histopathology", (
        Choice("lung", {"anatomy": "lung"}, (
            "H&E section of lung", "histology slide, lung tissue", "lung biopsy, haematoxylin and eosin")),
        Choice("colon", {"anatomy": "colon"}, (
            "H&E section of colon", "histology slide, colon tissue", "colon biopsy, haematoxylin and eosin")))),
    Contrast("carcinoma", "histopathology", (
        Choice("adenocarcinoma", {"adenocarcinoma": True}, (
            "H&E, adenocarcinoma", "histology of an adenocarcinoma of the colon",
            "lung adenocarcinoma under the microscope, H&E")),
        Choice("squamous cell carcinoma", {"squamous_cell_carcinoma": True}, (
            "H&E, squamous cell carcinoma of the lung", "histology of a squamous carcinoma of the lung",
            "lung SCC under the microscope, H&E")),
        Choice("normal", {"normal": True}, (
            "H&E, normal tissue", "histology of healthy colon", "normal lung under the microscope, H&E")))),
    Contrast("pigmented lesion", "dermoscopy", (
        Choice("melanoma", {"melanoma": True}, (
            "dermoscopy, melanoma", "dermatoscopic picture of a melanoma", "dermatoscopy of a malignant melanoma")),
        Choice("naevus", {"naevus": True}, (
            "dermoscopy, naevus", "dermatoscopic picture of a mole", "dermatoscopy of a melanocytic nevus")),
        Choice("seborrhoeic keratosis", {"seborrhoeic_keratosis": True}, (
            "dermoscopy, seborrhoeic keratosis", "dermatoscopic picture of a seborrheic keratosis",
            "dermatoscopy of a seb K")))),
    Contrast("breast lesion", "ultrasound", (
        Choice("benign", {"benign_breast_lesion": True}, (
            "breast ultrasound, benign lesion", "sonogram of the breast with a benign mass", "US breast: benign")),
        Choice("malignant", {"malignant_breast_lesion": True}, (
            "breast ultrasound, malignant lesion", "sonogram of the breast with a malignant mass",
            "US breast: malignant")),
        Choice("normal", {"normal": True}, (
            "breast ultrasound, normal", "sonogram of a healthy breast", "US breast: normal")))),
    Contrast("hard exudates", "fundus_photograph", (
        Choice("hard exudates", {"hard_exudates": True}, (
            "macula-centred fundus photo with hard exudates",
            "retinal photograph, macula centred, hard exudates present",
            "colour fundus, macula-centred, hard exudates")),
        Choice("not mentioned", {"hard_exudates": None, "view": "macula_centred"}, (
            "macula-centred fundus photo", "retinal photograph, macula centred", "colour fundus, macula-centred")))),
    Contrast("MRI sequence", "mri", (
        Choice("FLAIR", {"technique": "flair"}, (
            "FLAIR MRI of the brain", "MRI brain, FLAIR sequence", "axial brain MRI, FLAIR, multiple sclerosis")),
        Choice("T1", {"technique": "t1"}, (
            "T1-weighted MRI of the brain", "MRI brain, T1 sequence", "axial brain MRI, T1, multiple sclerosis")),
        Choice("T2", {"technique": "t2"}, (
            "T2-weighted MRI of the brain", "MRI brain, T2 sequence", "axial brain MRI, T2, multiple sclerosis")))),
    Contrast("surgical tool", "laryngoscopy", (
        Choice("tool", {"surgical_tool": True}, (
            "laryngoscopy with a surgical instrument in view", "view of the larynx, surgical tool visible",
            "suspension laryngoscopy, instrument present")),
        Choice("no tool", {"surgical_tool": False}, (
            "laryngoscopy without any surgical instrument", "view of the larynx, no surgical tool",
            "suspension laryngoscopy, no instrument")))),
    Contrast("breast density", "mammography", (
        Choice("fatty", {"fatty_breast": True}, (
            "mammogram of a fatty breast", "MLO mammogram, fatty breast tissue", "mammography: breast is fatty")),
        Choice("fatty-glandular", {"fatty_glandular_breast": True}, (
            "mammogram of a fatty-glandular breast", "MLO mammogram, fatty-glandular breast tissue",
            "mammography: breast is fatty-glandular")),
        Choice("dense", {"dense_breast": True}, (
            "mammogram of a dense breast", "MLO mammogram, dense breast tissue", "mammography: breast is dense")))),
)
