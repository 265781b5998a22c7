"""Haematology: blood smears, single cells and whole fields."""

from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, UNCONFIRMED, Found, Source, shown

PBC = "folders basophil, eosinophil, erythroblast, ig, lymphocyte, monocyte, neutrophil and platelet of images"
BCCD = "images BloodImage_00000 and on (in BCCD/JPEGImages or not)"
CELLS = {"basophil": "basophil", "eosinophil": "eosinophil", "erythroblast": "erythroblast",
         "ig": "immature_granulocyte", "lymphocyte": "lymphocyte",
         "monocyte": "monocyte", "neutrophil": "neutrophil", "platelet": "platelet"}
NEUTROPHILS = {"SNE": "segmented_neutrophil", "BNE": "band_neutrophil"}
GRANULOCYTES = {"PMY": "promyelocyte", "MY": "myelocyte", "MMY": "metamyelocyte"}


def pbc_blood(folder: Path) -> Iterator[Found]:
    """One blood cell an image; the prefix of the name tells the maturity of neutrophils and immature granulocytes."""
    paths = [path for path in files.rasters(folder) if path.parent.name in CELLS]
    files.expect(paths, folder, PBC)
    for path in paths:
        prefix = files.stem(path).partition("_")[0].upper()
        findings = files.one_of(CELLS[path.parent.name], CELLS.values())
        stages = {"neutrophil": NEUTROPHILS, "ig": GRANULOCYTES}.get(path.parent.name, {})
        findings |= files.one_of(stages.get(prefix), stages.values())
        yield shown("pbc_blood", path, "blood_smear", anatomy="peripheral_blood", view="single_cell",
                    technique="may_grunwald_giemsa", findings=findings)


def bccd(folder: Path) -> Iterator[Found]:
    """Blood smear fields with many cells; the boxes around the cells are not read."""
    paths = [path for path in files.rasters(folder) if files.stem(path).startswith("BloodImage_")]
    files.expect(paths, folder, BCCD)
    for path in paths:
        yield shown("bccd", path, "blood_smear", anatomy="peripheral_blood", view="smear_field")


SOURCES = (
    Source("pbc_blood", "Normal peripheral blood cells, CellaVision DM96", ("blood_smear",), ("haematology",),
           "CC-BY-4.0", UNCONFIRMED, "Acevedo et al., Data in Brief 2020; Mendeley Data snkd93bnjr",
           "https://data.mendeley.com/datasets/snkd93bnjr", "near_duplicates", PBC, True, pbc_blood),
    Source("bccd", "Blood cell count and detection", ("blood_smear",), ("haematology",), "MIT", READ,
           "BCCD dataset", "https://github.com/Shenggan/BCCD_Dataset", "near_duplicates", BCCD, True, bccd),
)
