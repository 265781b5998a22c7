"""Radiology: chest and bone radiographs, CT, MRI, ultrasound, mammography."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, STATED, UNCONFIRMED, Found, Source, Unfit, shown

KERMANY = "train/ and test/ (in chest_xray/ or not) with NORMAL and PNEUMONIA folders of images"
COVID = "metadata.csv (patientid, finding, view, filename, license) beside images/"
KNEE = "folders 0 to 4 (Kellgren-Lawrence grades) of images named with seven digits and L or R"
BRAIN_TUMOUR = "Training/ and Testing/ with glioma, meningioma, pituitary and notumor folders of images"
OPEN_MS = "metadata.csv (file, patient, sequence, skull_stripped, age, sex, ms_type) beside the slices it names"
BUSI = "Dataset_BUSI_with_GT/ with benign, malignant and normal folders of images"
MINI_MIAS = "Info.txt beside images mdb001 to mdb322"
KIDNEY = "Cyst, Normal, Stone and Tumor folders of images"
HEAD_CT = "labels.csv (id, hemorrhage) beside head_ct/ with images 000 to 199"


def kermany_cxr(folder: Path) -> Iterator[Found]:
    """Chest radiographs of children: normal, bacterial and viral pneumonia."""
    paths = [path for path in files.rasters(folder) if path.parent.name in ("NORMAL", "PNEUMONIA")]
    files.expect(paths, folder, KERMANY)
    once = {files.key(path, 3): path for path in reversed(paths)}  # one archive holds the whole set twice
    for path in sorted(once.values()):
        name = files.stem(path)
        person, normal = re.match(r"person(\d+)_(bacteria|virus)", name), re.search(r"IM-(\d+)", name)
        findings = {"normal": path.parent.name == "NORMAL", "pneumonia": path.parent.name == "PNEUMONIA"}
        if person and findings["pneumonia"]:
            findings |= {"bacterial_pneumonia": person[2] == "bacteria", "viral_pneumonia": person[2] == "virus"}
        # train and test number their patients separately, val goes on where train ends
        part = "test" if path.parent.parent.name == "test" else "train"
        patient = f"{part}/{person[2]}/{person[1]}" if person else f"{part}/normal/{normal[1]}" if normal else None
        yield shown("kermany_cxr", path, "chest_xray", anatomy="chest", view="anteroposterior", findings=findings,
                    patient=patient)


COVID_VIEWS = {"pa": "posteroanterior", "ap": "anteroposterior", "ap supine": "anteroposterior_supine", "l": "lateral",
               "axial": "axial", "coronal": "coronal"}
COVID_FINDINGS = {  # a word of the path "Pneumonia/Viral/COVID-19" each; COVID-19 itself may leave the image clear
    "no finding": {"normal": True, "pneumonia": False}, "covid-19": {"covid_19": True},
    "pneumonia": {"pneumonia": True},
    "bacterial": {"bacterial_pneumonia": True}, "viral": {"viral_pneumonia": True},
    "ards": {"acute_respiratory_distress_syndrome": True},
    "pneumocystis": {"pneumocystis_pneumonia": True, "pneumonia": True},
}
OPEN_LICENCE = re.compile(r"(CC0|CC[ -]BY([ -]SA)?)([ -]\d\.\d)?", re.IGNORECASE)


def covid_cxr_open(folder: Path) -> Iterator[Found]:
    """Chest radiographs of COVID-19 and other pneumonias, each under a licence of its own."""
    table = files.table(folder, "metadata.csv")
    paths = files.rasters(folder)
    files.expect(paths if table else [], folder, COVID)
    facts = {files.stem(row.get("filename", "")): row for row in files.rows(table)}
    for path in paths:
        row = facts.get(files.stem(path), {})
        licence = row.get("license", "")
        if not OPEN_LICENCE.fullmatch(licence):
            yield Unfit(str(path), f"its licence is not an open one ({licence or 'none stated'})")
            continue
        findings: dict[str, bool] = {}
        for word in row.get("finding", "").lower().split("/"):
            findings |= COVID_FINDINGS.get(word.strip(), {})
        if findings.get("pneumonia") or findings.get("acute_respiratory_distress_syndrome"):
            findings["normal"] = False
        findings |= files.known(endotracheal_tube=files.yes_no(row.get("intubation_present", "")))
        yield shown("covid_cxr_open", path, "ct" if row.get("modality", "").lower() == "ct" else "chest_xray",
                    anatomy="chest", view=COVID_VIEWS.get(row.get("view", "").lower()), findings=findings,
                    age_years=files.age(row.get("age", "")), sex=files.sex(row.get("sex", "")),
                    patient=row.get("patientid") or None, licence=licence.upper().replace(" ", "-"))


def knee_oa_xray(folder: Path) -> Iterator[Found]:
    """Knee radiographs by Kellgren-Lawrence grade; grade 1 is doubtful, so osteoarthritis is unknown there."""
    named = [(path, re.fullmatch(r"(\d{7})([LR])", files.stem(path))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match and path.parent.name in ("0", "1", "2", "3", "4")]
    files.expect(named, folder, KNEE)
    for path, match in named:
        grade = int(path.parent.name)
        findings = {f"kellgren_lawrence_{g}": g == grade for g in range(5)}
        findings |= files.known(osteoarthritis=None if grade == 1 else grade >= 2)
        yield shown("knee_oa_xray", path, "bone_xray", anatomy="knee", view="posteroanterior",
                    laterality={"L": "left", "R": "right"}[match[2]], findings=findings, patient=match[1])


# Head CT among the MRI of `notumor`: seen by eye in 720 of its files, the others were not looked at.
CT_AMONG_MRI = frozenset("""
    Te-noTr_0009 Te-no_0011 Te-no_0012 Te-no_0040 Te-no_0042 Te-no_0043 Te-no_0048 Te-no_0055 Te-no_0056 Te-no_0092
    Tr-no_0010 Tr-no_0041 Tr-no_0055 Tr-no_0102 Tr-no_0224 Tr-no_0302 Tr-no_0357 Tr-no_0359 Tr-no_0964 Tr-no_0968
    Tr-no_0982 Tr-no_1039 Tr-no_1110 Tr-no_1166""".split())
TUMOURS = {"glioma": "glioma", "meningioma": "meningioma", "pituitary": "pituitary_tumour", "notumor": None}


def brain_tumor_mri(folder: Path) -> Iterator[Found]:
    """Brain MRI with glioma, meningioma, pituitary tumour, or none; no tumour is not yet normal."""
    paths = [path for path in files.rasters(folder) if path.parent.name in TUMOURS]
    files.expect(paths, folder, BRAIN_TUMOUR)
    for path in paths:
        if files.stem(path) in CT_AMONG_MRI:
            yield Unfit(str(path), "a head CT among the MRI")
            continue
        tumour = TUMOURS[path.parent.name]
        findings = {name: name == tumour for name in TUMOURS.values() if name} | {"brain_tumour": tumour is not None}
        findings |= files.known(normal=False if tumour else None)
        yield shown("brain_tumor_mri", path, "mri", anatomy="brain", findings=findings)


SEQUENCES = {"flair": "flair", "t1": "t1", "t2": "t2", "t1 post-contrast": "t1_post_contrast"}


def open_ms_mri(folder: Path) -> Iterator[Found]:
    """Axial brain MRI slices of people with multiple sclerosis."""
    table = files.table(folder, "metadata.csv")
    facts = {files.stem(row.get("file", "")): row for row in files.rows(table)} if table else {}
    paths = files.rasters(folder)
    files.expect([path for path in paths if files.stem(path) in facts], folder, OPEN_MS)
    for path in paths:
        row = facts.get(files.stem(path), {})
        findings = {"multiple_sclerosis": True, "normal": False} | files.known(
            relapsing_remitting_ms=True if row.get("ms_type") == "RR" else None,
            skull_stripped=files.yes_no(row.get("skull_stripped", "")))
        yield shown("open_ms_mri", path, "mri", anatomy="brain", view="axial",
                    technique=SEQUENCES.get(row.get("sequence", "").lower()), findings=findings,
                    age_years=files.age(row.get("age", "")), sex=files.sex(row.get("sex", "")),
                    patient=row.get("patient") or None)


def busi(folder: Path) -> Iterator[Found]:
    """Breast ultrasound: benign, malignant, normal; the mask beside each image is left out."""
    paths = [path for path in files.rasters(folder) if path.parent.name in ("benign", "malignant", "normal")
             and not re.search(r"_mask(_\d+)?$", files.stem(path))]
    files.expect(paths, folder, BUSI)
    for path in paths:
        kind = path.parent.name
        findings = {"normal": kind == "normal", "benign_breast_lesion": kind == "benign",
                    "malignant_breast_lesion": kind == "malignant"}
        yield shown("busi", path, "ultrasound", anatomy="breast", findings=findings)


TISSUES = {"F": "fatty_breast", "G": "fatty_glandular_breast", "D": "dense_breast"}
ABNORMALITIES = {"CALC": "calcification", "CIRC": "circumscribed_mass", "SPIC": "spiculated_mass",
                 "MISC": "ill_defined_mass", "ARCH": "architectural_distortion", "ASYM": "breast_asymmetry"}


def mini_mias(folder: Path) -> Iterator[Found]:
    """Mammograms with tissue and abnormalities; a film with several lesions has several rows."""
    table = files.table(folder, "info.txt")
    paths = [path for path in files.rasters(folder) if re.fullmatch(r"mdb\d{3}", files.stem(path))]
    files.expect(paths if table else [], folder, MINI_MIAS)
    facts: dict[str, list[list[str]]] = {}
    for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) >= 3 and re.fullmatch(r"mdb\d{3}", words[0]) and words[1] in TISSUES:
            facts.setdefault(words[0], []).append(words[1:])
    for path in paths:
        number, lesions = int(files.stem(path)[3:]), facts.get(files.stem(path), [])
        findings = files.one_of(TISSUES[lesions[0][0]], TISSUES.values()) if lesions else {}
        findings |= abnormalities({row[1] for row in lesions}, {row[2] for row in lesions if len(row) > 2})
        # the full-size files, named mdb001ll and mdb002rl, say which breast; one note that circulates has it reversed
        yield shown("mini_mias", path, "mammography", anatomy="breast", view="mediolateral_oblique", findings=findings,
                    laterality="left" if number % 2 else "right", patient=f"pair{(number + 1) // 2}")


def abnormalities(kinds: set[str], severities: set[str]) -> dict[str, bool]:
    """What the third and fourth column of mini-MIAS say of one film; a kind that is not listed is unknown."""
    if kinds == {"NORM"}:
        absent = ("benign_breast_lesion", "malignant_breast_lesion", *ABNORMALITIES.values())
        return {"normal": True} | dict.fromkeys(absent, False)
    findings = {ABNORMALITIES[kind]: True for kind in sorted(kinds) if kind in ABNORMALITIES}
    if kinds:
        findings["normal"] = False
    if severities & {"B", "M"}:
        findings |= {"benign_breast_lesion": "B" in severities, "malignant_breast_lesion": "M" in severities}
    return findings


def kidney_ct(folder: Path) -> Iterator[Found]:
    """Abdominal CT slices with a kidney cyst, stone or tumour, or none."""
    kinds = {"Cyst": "kidney_cyst", "Stone": "kidney_stone", "Tumor": "kidney_tumour", "Normal": "normal"}
    paths = [path for path in files.rasters(folder) if path.parent.name in kinds]
    files.expect(paths, folder, KIDNEY)
    for path in paths:
        yield shown("kidney_ct", path, "ct", anatomy="kidney",
                    findings=files.one_of(kinds[path.parent.name], kinds.values()))


def head_ct(folder: Path) -> Iterator[Found]:
    """Head CT with and without intracranial haemorrhage, one slice a person."""
    table = files.table(folder, "labels.csv")
    paths = [path for path in files.rasters(folder) if files.stem(path).isdigit()]
    files.expect(paths if table else [], folder, HEAD_CT)
    facts = {int(row["id"]): files.yes_no(row.get("hemorrhage", "")) for row in files.rows(table)
             if row.get("id", "").isdigit()}
    for path in paths:
        bleeding = facts.get(int(files.stem(path)))
        findings = files.known(intracranial_haemorrhage=bleeding, normal=None if bleeding is None else not bleeding)
        yield shown("head_ct", path, "ct", anatomy="head", findings=findings, patient=files.stem(path))


SOURCES = tuple(Source(*row[:3], ("radiology",), *row[3:]) for row in (
    # name, title, image types; licence, evidence; citation; address; group, layout, open, read; size, download
    ("kermany_cxr", "Chest radiographs of children, Guangzhou", ("chest_xray",), "CC-BY-4.0", STATED,
     "Kermany et al., Cell 2018; Mendeley Data rscbjbr9sj", "https://data.mendeley.com/datasets/rscbjbr9sj",
     "patient", KERMANY, True, kermany_cxr,
     "5,856 images, 1.2 GB", "ChestXRay2017.zip; no registration."),
    ("covid_cxr_open", "COVID-19 image data collection, the openly licensed part", ("chest_xray", "ct"),
     "CC-BY or CC-BY-SA, stated for each image", READ,
     "Cohen et al., COVID-19 Image Data Collection, 2020", "https://github.com/ieee8023/covid-chestxray-dataset",
     "patient", COVID, True, covid_cxr_open,
     "950 images, of which the openly licensed are read", "The repository, metadata.csv and images/; no registration."),
    ("knee_oa_xray", "Knee osteoarthritis severity grading", ("bone_xray",), "CC-BY-4.0", UNCONFIRMED,
     "Chen 2018, from the Osteoarthritis Initiative; Mendeley Data 56rmx5bjcr",
     "https://data.mendeley.com/datasets/56rmx5bjcr", "patient", KNEE, True, knee_oa_xray,
     "9,786 images", "kneeKL224.zip or kneeKL299.zip; no registration."),
    ("brain_tumor_mri", "Brain tumour MRI", ("mri",), "CC0-1.0 AND CC-BY-4.0 AND MIT", STATED,
     "Nickparvar collection of Cheng (figshare), SARTAJ and Br35H",
     "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
     "near_duplicates", BRAIN_TUMOUR, True, brain_tumor_mri,
     "7,023 images, 0.2 GB", "The whole set; registration at Kaggle needed."),
    ("open_ms_mri", "Brain MRI of people with multiple sclerosis, Ljubljana", ("mri",), "CC BY", READ,
     "Lesjak et al., Neuroinformatics 2016 and 2017", None, "patient", OPEN_MS, True, open_ms_mri,
     None, "Slices of the volumes that the laboratory in Ljubljana gives away, with metadata.csv; no registration."),
    ("busi", "Breast ultrasound images", ("ultrasound",), "CC-BY-4.0", STATED,
     "Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 2020",
     "https://doi.org/10.1016/j.dib.2019.104863", "near_duplicates", BUSI, True, busi,
     "780 images, 0.2 GB", "Dataset_BUSI.zip; no registration."),
    ("mini_mias", "Mini-MIAS database of mammograms", ("mammography",), "CC BY", STATED,
     "Suckling et al. 1994; MIAS database v1.21", "https://www.repository.cam.ac.uk/handle/1810/250394",
     "pair of films", MINI_MIAS, True, mini_mias,
     "322 films, 0.1 GB", "all-mias.tar.gz and Info.txt; no registration."),
    ("kidney_ct", "Kidney cyst, stone and tumour CT", ("ct",), None, UNCONFIRMED,
     "Islam et al., Scientific Reports 2022",
     "https://www.kaggle.com/datasets/nazmul0087/ct-kidney-dataset-normal-cyst-tumor-and-stone",
     "near_duplicates", KIDNEY, False, kidney_ct,
     "12,446 slices", "The whole set; registration at Kaggle needed."),
    ("head_ct", "Head CT with and without haemorrhage", ("ct",), "CC0-1.0", UNCONFIRMED,
     "Kitamura, Head CT - hemorrhage", "https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage",
     "patient", HEAD_CT, False, head_ct,
     "200 slices", "The whole set; registration at Kaggle needed."),
))
