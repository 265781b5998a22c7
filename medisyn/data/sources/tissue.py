"""Tissue on glass in patches: colon, breast, lymph node, with what each patch was called."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, Unfit, shown

NCT = "NCT-CRC-HE-100K/ or CRC-VAL-HE-7K/ with folders ADI, BACK, DEB, LYM, MUC, MUS, NORM, STR and TUM of images"
BREAKHIS = "images named like SOB_B_A-14-22549AB-40-001 in histology_slides/breast/"
MHIST = "annotations.csv (Image Name, Majority Vote Label) beside images/"
NODES = "train_labels.csv (id, label) beside train/ with images named by id"
BACH = "Photos/ with folders Benign, InSitu, Invasive and Normal of images"
HE = "haematoxylin_eosin"

NCT_KINDS = {"ADI": "adipose_tissue", "DEB": "cellular_debris", "LYM": "lymphocytic_infiltrate", "MUC": "mucus",
             "MUS": "smooth_muscle", "NORM": "normal", "STR": "tumour_stroma", "TUM": "adenocarcinoma"}


def nct_crc_he(folder: Path) -> Iterator[Found]:
    """Colorectal tissue, one of nine kinds a patch; patches of the empty slide are unfit."""
    paths = [path for path in files.rasters(folder) if path.parent.name in {*NCT_KINDS, "BACK"}]
    files.expect(paths, folder, NCT)
    for path in paths:
        if path.parent.name == "BACK":
            yield Unfit(str(path), "a patch without tissue")
            continue
        kind = NCT_KINDS[path.parent.name]
        findings = files.one_of(kind, NCT_KINDS.values())
        if kind not in ("normal", "adenocarcinoma", "tumour_stroma"):
            del findings["normal"]  # NORM is normal mucosa; fat and muscle may be normal, too
        yield shown("nct_crc_he", path, "histopathology", anatomy="colon", technique=HE, findings=findings)


SUBTYPES = {"A": "breast_adenosis", "F": "breast_fibroadenoma", "PT": "phyllodes_tumour", "TA": "tubular_breast_adenoma",
            "DC": "ductal_carcinoma", "LC": "lobular_carcinoma", "MC": "mucinous_carcinoma", "PC": "papillary_carcinoma"}


def breakhis(folder: Path) -> Iterator[Found]:
    """Breast tumours in excised tissue at four magnifications; kind and patient stand in the name."""
    named = [(path, re.fullmatch(r"SOB_([BM])_([A-Z]+)-(\d+-\w+)-(40|100|200|400)-\d+", files.stem(path)))
             for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match and match[2] in SUBTYPES]
    files.expect(named, folder, BREAKHIS)
    for path, match in named:
        findings = {"benign_breast_tissue_lesion": match[1] == "B", "breast_carcinoma_tissue": match[1] == "M",
                    "normal": False} | files.one_of(SUBTYPES[match[2]], SUBTYPES.values())
        yield shown("breakhis", path, "histopathology", anatomy="breast", technique=HE, findings=findings, patient=match[3])


def mhist(folder: Path) -> Iterator[Found]:
    """Colorectal polyps, hyperplastic or sessile serrated, by the majority of seven pathologists."""
    kinds = {"HP": "hyperplastic_polyp", "SSA": "sessile_serrated_adenoma"}
    facts = {files.stem(row["Image Name"]): row.get("Majority Vote Label", "")
             for row in files.lines(files.tables(folder, "annotations.csv")) if row.get("Image Name")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, MHIST)
    for path in paths:
        findings = files.one_of(kinds.get(facts[files.stem(path)]), kinds.values())
        yield shown("mhist", path, "histopathology", anatomy="colon", technique=HE,
                    findings=findings | ({"normal": False} if findings else {}))


def lymph_node_patches(folder: Path) -> Iterator[Found]:
    """PatchCamelyon as Kaggle gives it; a label tells of the central 32 x 32 pixels only, so 0 is unknown, not absent."""
    facts = {row["id"]: row.get("label", "") for row in files.lines(files.tables(folder, "train_labels.csv")) if row.get("id")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, NODES)
    for path in paths:
        findings = {"lymph_node_metastasis": True, "normal": False} if files.yes_no(facts[files.stem(path)]) else {}
        yield shown("lymph_node_patches", path, "histopathology", anatomy="lymph_node", technique=HE, findings=findings)


BACH_KINDS = {
    "Normal": {"normal": True}, "Benign": {"normal": False, "benign_breast_tissue_lesion": True,
                                           "breast_carcinoma_tissue": False},
    "InSitu": {"normal": False, "breast_carcinoma_tissue": True, "carcinoma_in_situ": True},
    "Invasive": {"normal": False, "breast_carcinoma_tissue": True, "invasive_carcinoma": True}}


def bach(folder: Path) -> Iterator[Found]:
    """Breast biopsies, the predominant kind of four; of in situ and invasive carcinoma the other one is unknown."""
    paths = [path for path in files.rasters(folder) if path.parent.name in BACH_KINDS]
    files.expect(paths, folder, BACH)
    for path in paths:
        yield shown("bach", path, "histopathology", anatomy="breast", technique=HE,
                    findings=dict(BACH_KINDS[path.parent.name]))


SOURCES = tuple(Source(*row[:2], ("histopathology",), ("pathology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("nct_crc_he", "Colorectal tissue, NCT-CRC-HE-100K and CRC-VAL-HE-7K", "CC-BY-4.0", STATED,
     "Kather et al., PLOS Medicine 2019", "https://zenodo.org/records/1214456", "near_duplicates", NCT, True, nct_crc_he,
     "107,180 images, 12.5 GB", "NCT-CRC-HE-100K.zip and CRC-VAL-HE-7K.zip; no registration."),
    ("breakhis", "BreakHis breast tumours", "CC-BY-4.0", STATED,
     "Spanhol et al., IEEE Transactions on Biomedical Engineering 2016",
     "https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/", "patient", BREAKHIS, True,
     breakhis, "7,909 images, 4 GB", "BreaKHis_v1.tar.gz; no registration."),
    ("mhist", "MHIST colorectal polyps", "MHIST Dataset Research Use Agreement (non-commercial)", UNCONFIRMED,
     "Wei et al., AIME 2021", "https://bmirds.github.io/MHIST/", "near_duplicates", MHIST, False, mhist,
     "3,152 images, 0.3 GB", "annotations.csv and images.zip; registration needed."),
    ("lymph_node_patches", "PatchCamelyon, lymph node patches", "CC0-1.0", STATED,
     "Veeling et al., MICCAI 2018; Bejnordi et al., JAMA 2017",
     "https://www.kaggle.com/competitions/histopathologic-cancer-detection", "near_duplicates", NODES, True,
     lymph_node_patches, "220,025 labelled images, 6.3 GB", "train/ and train_labels.csv; registration at Kaggle needed."),
    ("bach", "BACH breast cancer histology, ICIAR 2018", "CC-BY-NC-ND-4.0", STATED,
     "Aresta et al., Medical Image Analysis 2019", "https://zenodo.org/records/3632035", "near_duplicates", BACH, False, bach,
     "400 images, 10 GB", "ICIAR2018_BACH_Challenge.zip; no registration."),
))
