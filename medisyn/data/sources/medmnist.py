"""MedMNIST+: eleven public sets as small images in arrays, already split; each row of an array is an image."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from medisyn.data.sources import files
from medisyn.data.sources.chest_xray import NIH_LABELS
from medisyn.data.sources.fundus import graded
from medisyn.data.sources.haematology import CELLS
from medisyn.data.sources.source import READ, Found, Source, Unfit, part
from medisyn.data.sources.tissue import NCT_KINDS

SPLITS = ("train", "val", "test")
GROUP = "official split"  # rows name no patient: the set's own split is all that parts them, and ingest keeps it
Facts = dict[str, object]  # fields of a record
NINE = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
SKIN = ("actinic_keratosis_or_bowens_disease", "basal_cell_carcinoma", "benign_keratosis", "dermatofibroma", "melanoma",
        "naevus", "vascular_skin_lesion")
RETINA = ("choroidal_neovascularisation", "diabetic_macular_oedema", "drusen", "normal")
ORGANS = (("bladder", None), ("femur", "left"), ("femur", "right"), ("heart", None), ("kidney", "left"), ("kidney", "right"),
          ("liver", None), ("lung", "left"), ("lung", "right"), ("pancreas", None), ("spleen", None))


def path_of(label: np.ndarray) -> Facts | None:
    """Colorectal tissue; None: a patch of the empty slide."""
    kind = NCT_KINDS.get(NINE[label[0]])
    if kind is None:
        return None
    findings = files.one_of(kind, NCT_KINDS.values())
    if kind not in ("normal", "adenocarcinoma", "tumour_stroma"):
        del findings["normal"]
    return {"anatomy": "colon", "technique": "haematoxylin_eosin", "findings": findings}


def chest_of(label: np.ndarray) -> Facts:
    """The fourteen findings of NIH ChestX-ray14 in the order of MedMNIST, each present or absent."""
    order = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
             "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
    findings = {NIH_LABELS[name]: bool(present) for name, present in zip(order, label, strict=True)}
    return {"anatomy": "chest", "findings": findings | ({"normal": False} if any(findings.values()) else {})}


def derma_of(label: np.ndarray) -> Facts:
    return {"anatomy": "skin", "findings": files.one_of(SKIN[label[0]], SKIN)}


def oct_of(label: np.ndarray) -> Facts:
    return {"anatomy": "macula", "findings": files.one_of(RETINA[label[0]], RETINA)}


def pneumonia_of(label: np.ndarray) -> Facts:
    return {"anatomy": "chest", "view": "anteroposterior", "findings": files.one_of(("normal", "pneumonia")[label[0]],
                                                                                    ("normal", "pneumonia"))}


def retina_of(label: np.ndarray) -> Facts:
    return {"anatomy": "retina", "findings": graded(str(label[0]))}


def breast_of(label: np.ndarray) -> Facts:
    """0 is malignant; 1 is normal or benign, which of both is unknown."""
    malignant = label[0] == 0
    return {"anatomy": "breast", "findings": {"malignant_breast_lesion": bool(malignant)} | (
        {"normal": False} if malignant else {})}


def blood_of(label: np.ndarray) -> Facts:
    return {"anatomy": "peripheral_blood", "view": "single_cell", "technique": "may_grunwald_giemsa",
            "findings": files.one_of(tuple(CELLS.values())[label[0]], CELLS.values())}


def organ_of(label: np.ndarray, view: str) -> Facts:
    anatomy, side = ORGANS[label[0]]
    return {"anatomy": anatomy, "laterality": side, "view": view}


SETS: dict[str, tuple[str, str, Callable[[np.ndarray], Facts | None]]] = {  # name: image type, what it comes from, facts
    "pathmnist": ("histopathology", "NCT-CRC-HE-100K", path_of), "chestmnist": ("chest_xray", "NIH ChestX-ray14", chest_of),
    "dermamnist": ("dermoscopy", "HAM10000", derma_of), "octmnist": ("oct", "OCT2017", oct_of),
    "pneumoniamnist": ("chest_xray", "Kermany's chest radiographs", pneumonia_of),
    "retinamnist": ("fundus_photograph", "DeepDRiD", retina_of), "breastmnist": ("ultrasound", "BUSI", breast_of),
    "bloodmnist": ("blood_smear", "normal peripheral blood cells", blood_of),
    "organamnist": ("ct", "LiTS, axial", partial(organ_of, view="axial")),
    "organcmnist": ("ct", "LiTS, coronal", partial(organ_of, view="coronal")),
    "organsmnist": ("ct", "LiTS, sagittal", partial(organ_of, view="sagittal")),
}
COUNTS = {"pathmnist": 107_180, "chestmnist": 112_120, "dermamnist": 10_015, "octmnist": 109_309, "pneumoniamnist": 5_856,
          "retinamnist": 1_600, "breastmnist": 780, "bloodmnist": 17_092, "organamnist": 58_830, "organcmnist": 23_583,
          "organsmnist": 25_211}


def layout(name: str) -> str:
    return f"{name}.npz, {name}_64.npz, {name}_128.npz or {name}_224.npz; the largest of them is read"


def medmnist(name: str, folder: Path) -> Iterator[Found]:
    """One set: a record a row, in the split of its array; labels alone are read here."""
    image_type, _, facts_of = SETS[name]
    held = [(int(match[1] or 28), path) for path in files.ending(folder, ".npz")
            if (match := re.fullmatch(rf"{name}(?:_(\d+))?\.npz", path.name))]
    files.expect(held, folder, layout(name))
    path = max(held)[1]
    with np.load(Path(folder) / path, allow_pickle=False) as arrays:
        labels = {split: arrays[f"{split}_labels"] for split in SPLITS if f"{split}_labels" in arrays}
    for split, rows in labels.items():
        for row, label in enumerate(rows.reshape(len(rows), -1)):
            facts, address = facts_of(label), f"{split}_images:{row}"
            if facts is None:
                yield Unfit(f"{path}#{address}", "a patch without tissue")
            else:
                yield part(name, path, address, image_type, split=split, **facts)


SOURCES = tuple(
    Source(name, f"MedMNIST+ {name}, from {origin}", (image_type,),
           ({"histopathology": "pathology", "dermoscopy": "dermatology", "oct": "ophthalmology",
             "fundus_photograph": "ophthalmology", "blood_smear": "haematology"}.get(image_type, "radiology"),),
           "CC-BY-NC-4.0" if name == "dermamnist" else "CC-BY-4.0", READ,
           "Yang et al., MedMNIST v2, Scientific Data 2023, and the paper of the set it comes from", "https://medmnist.com/",
           GROUP, layout(name), name != "dermamnist", partial(medmnist, name), f"{COUNTS[name]:,} images of 28 to 224 pixels",
           f"{name}_224.npz at https://zenodo.org/records/10519652; no registration.")
    for name, (image_type, origin, _) in SETS.items())
