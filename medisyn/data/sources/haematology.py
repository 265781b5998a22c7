"""Haematology: blood smears, single cells and whole fields."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, STATED, UNCONFIRMED, Found, Source, shown

PBC = "folders basophil, eosinophil, erythroblast, ig, lymphocyte, monocyte, neutrophil and platelet of images"
BCCD = "images BloodImage_00000 and on (in BCCD/JPEGImages or not)"
RAABIN = "folders Train/, TestA/ or TestB/ with Basophil, Eosinophil, Lymphocyte, Monocyte and Neutrophil"
MALARIA = "cell_images/ with folders Parasitized and Uninfected of images named like C33P1thinF_IMG_20150619_114756a_cell_179"
C_NMC = "C-NMC_training_data/fold_0/all/ and hem/ with images named like UID_11_10_1_all and UID_H10_1_1_hem"
AML = "AML-Cytomorphology_LMU/ with folders BAS, EBO, EOS and on of images named like BAS_0001"
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


def raabin_wbc(folder: Path) -> Iterator[Found]:
    """One white blood cell an image, of five kinds, from two microscopes with telephones."""
    kinds = {name.capitalize(): name for name in ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")}
    paths = [path for path in files.rasters(folder) if path.parent.name in kinds
             and path.parent.parent.name.replace("-", "").lower() in ("train", "testa", "testb")]
    files.expect(paths, folder, RAABIN)
    for path in paths:
        yield shown("raabin_wbc", path, "blood_smear", anatomy="peripheral_blood", view="single_cell",
                    findings=files.one_of(kinds[path.parent.name], kinds.values()))


def malaria_cells(folder: Path) -> Iterator[Found]:
    """Red blood cells with and without malaria parasites, cut out of thin smears; the name begins with the patient."""
    kinds = {"Parasitized": True, "Uninfected": False}
    named = [(path, re.match(r"C\d+", files.stem(path))) for path in files.rasters(folder) if path.parent.name in kinds]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, MALARIA)
    once = {files.key(path, 2): (path, match) for path, match in reversed(named)}  # one archive holds the whole set twice
    for path, match in sorted(once.values(), key=lambda pair: pair[0]):
        yield shown("malaria_cells", path, "blood_smear", anatomy="peripheral_blood", view="single_cell",
                    findings={"malaria_parasite": kinds[path.parent.name]}, patient=match[0])


def c_nmc(folder: Path) -> Iterator[Found]:
    """Cells of bone marrow: leukaemic lymphoblasts of children (all), or normal precursors (hem)."""
    named = [(path, re.fullmatch(r"UID_(H?\d+)_\d+_\d+_(all|hem)", files.stem(path))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, C_NMC)
    for path, match in named:
        yield shown("c_nmc", path, "blood_smear", anatomy="bone_marrow", view="single_cell",
                    findings={"lymphoblast": match[2] == "all"}, patient=match[1])


MORPHOLOGY = {  # folder: the kind of cell, and the stage that it implies
    "BAS": ("basophil",), "EBO": ("erythroblast",), "EOS": ("eosinophil",), "KSC": ("smudge_cell",),
    "LYA": ("atypical_lymphocyte",), "LYT": ("lymphocyte",), "MMZ": ("immature_granulocyte", "metamyelocyte"),
    "MOB": ("monoblast",), "MON": ("monocyte",), "MYB": ("immature_granulocyte", "myelocyte"), "MYO": ("myeloblast",),
    "NGB": ("neutrophil", "band_neutrophil"), "NGS": ("neutrophil", "segmented_neutrophil"),
    "PMB": ("immature_granulocyte", "promyelocyte"), "PMO": ("immature_granulocyte", "promyelocyte")}


def aml_cytomorphology(folder: Path) -> Iterator[Found]:
    """White blood cells of people with acute myeloid leukaemia and of others, fifteen kinds; the patient is not told."""
    paths = [path for path in files.rasters(folder) if path.parent.name in MORPHOLOGY
             and files.stem(path).startswith(path.parent.name)]
    files.expect(paths, folder, AML)
    for path in paths:
        kind = MORPHOLOGY[path.parent.name]
        findings = files.one_of(kind[0], dict.fromkeys(kinds[0] for kinds in MORPHOLOGY.values()))
        yield shown("aml_cytomorphology", path, "blood_smear", anatomy="peripheral_blood", view="single_cell",
                    findings=findings | dict.fromkeys(kind, True))


SOURCES = (
    Source("pbc_blood", "Normal peripheral blood cells, CellaVision DM96", ("blood_smear",), ("haematology",),
           "CC-BY-4.0", UNCONFIRMED, "Acevedo et al., Data in Brief 2020; Mendeley Data snkd93bnjr",
           "https://data.mendeley.com/datasets/snkd93bnjr", "near_duplicates", PBC, True, pbc_blood, "17,092 images, 0.3 GB",
           "PBC_dataset_normal_DIB.zip; no registration."),
    Source("bccd", "Blood cell count and detection", ("blood_smear",), ("haematology",), "MIT", READ,
           "BCCD dataset", "https://github.com/Shenggan/BCCD_Dataset", "near_duplicates", BCCD, True, bccd,
           "364 images", "The repository; no registration."),
    Source("raabin_wbc", "Raabin-WBC, double-labelled cropped cells", ("blood_smear",), ("haematology",), None, UNCONFIRMED,
           "Kouzehkanan et al., Scientific Reports 2022", "https://raabindata.com/free-data/", "near_duplicates", RAABIN, False,
           raabin_wbc, "17,965 images", "Train, TestA (RAR: unpack them) and TestB of the double-labelled cells; no registration."),
    Source("malaria_cells", "Malaria cell images, National Library of Medicine", ("blood_smear",), ("haematology",),
           "free for research, by the National Library of Medicine", UNCONFIRMED, "Rajaraman et al., PeerJ 2018",
           "https://lhncbc.nlm.nih.gov/LHC-research/LHC-projects/image-processing/malaria-datasheet.html", "patient", MALARIA,
           False, malaria_cells, "27,558 images, 0.4 GB", "cell_images.zip; no registration."),
    Source("c_nmc", "C-NMC 2019, acute lymphoblastic leukaemia", ("blood_smear",), ("haematology",), "CC-BY-3.0", UNCONFIRMED,
           "Gupta and Gupta, The Cancer Imaging Archive 2019; doi 10.7937/tcia.2019.dc64i46r",
           "https://www.cancerimagingarchive.net/collection/c-nmc-2019/", "patient", C_NMC, True, c_nmc,
           "10,661 training images", "C-NMC_training_data by Aspera; no registration."),
    Source("aml_cytomorphology", "AML cytomorphology, Munich", ("blood_smear",), ("haematology",), "CC-BY-3.0", STATED,
           "Matek et al., The Cancer Imaging Archive 2019; doi 10.7937/tcia.2019.36f5o9ld",
           "https://www.cancerimagingarchive.net/collection/aml-cytomorphology_lmu/", "near_duplicates", AML, True,
           aml_cytomorphology, "18,365 images, 11 GB", "The images by Aspera; no registration."),
)
