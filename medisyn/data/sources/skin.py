"""Skin lesions by the collections that name many of them: dermoscopy and clinical photographs."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, Unfit, shown

HAM = "HAM10000_metadata.csv (lesion_id, image_id, dx, age, sex, localization) beside folders of images ISIC_0024306 and on"
ISIC2018 = "ISIC2018_Task3_Training_GroundTruth.csv (image, MEL, NV, BCC, AKIEC, ...) beside ISIC2018_Task3_Training_Input/"
ISIC2019 = "ISIC_2019_Training_GroundTruth.csv (image, MEL, NV, BCC, AK, ...) beside ISIC_2019_Training_Input/"
ISIC2020 = ("ISIC_2020_Training_GroundTruth.csv or train.csv (image_name, patient_id, diagnosis, target) beside images "
            "ISIC_0015719 and on")
FITZPATRICK = "fitzpatrick17k.csv (md5hash, fitzpatrick_scale, label, three_partition_label) beside images named by md5hash"
DDI = "ddi_metadata.csv (DDI_file, skin_tone, malignant, disease) beside the images 000001.png and on"
DERM7PT = "meta/meta.csv (case_num, diagnosis, clinic, derm) beside images/ with the files that it names"
SITES = {"back": "back", "posterior torso": "back", "abdomen": "abdomen_skin", "chest": "chest_skin", "face": "face",
         "foot": "foot", "neck": "neck", "scalp": "scalp", "hand": "hand", "ear": "ear"}

DX = {"akiec": "actinic_keratosis_or_bowens_disease", "bcc": "basal_cell_carcinoma", "bkl": "benign_keratosis",
      "df": "dermatofibroma", "mel": "melanoma", "nv": "naevus", "vasc": "vascular_skin_lesion"}
CODES = {"MEL": "melanoma", "NV": "naevus", "BCC": "basal_cell_carcinoma", "BKL": "benign_keratosis",
         "DF": "dermatofibroma", "VASC": "vascular_skin_lesion"}
CODES_2018 = CODES | {"AKIEC": "actinic_keratosis_or_bowens_disease"}
CODES_2019 = CODES | {"AK": "actinic_keratosis", "SCC": "squamous_cell_carcinoma"}


def images_of(folder: Path, facts: dict, layout: str) -> list:
    """The images whose name a table holds; ValueError where there are none."""
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, layout)
    return paths


def ham10000(folder: Path) -> Iterator[Found]:
    """Dermoscopy of pigmented lesions, one of seven kinds each; several images may show one lesion."""
    tables = files.tables(folder, "HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab")
    facts = {row["image_id"]: row for table in tables
             for row in files.rows(table, "\t" if table.suffix == ".tab" else ",") if row.get("image_id")}
    for path in images_of(folder, facts, HAM):
        row = facts[files.stem(path)]
        yield shown("ham10000", path, "dermoscopy", anatomy=SITES.get(row.get("localization", ""), "skin"),
                    findings=files.one_of(DX.get(row.get("dx", "")), DX.values()), age_years=files.age(row.get("age", "")),
                    sex=files.sex(row.get("sex", "")), patient=row.get("lesion_id") or None)


def one_hot(row: dict[str, str], codes: dict[str, str]) -> dict[str, bool]:
    """The kind whose column says 1; none where no column or only UNK does."""
    present = [name for code, name in codes.items() if files.yes_no(row.get(code, ""))]
    return files.one_of(present[0] if len(present) == 1 else None, codes.values())


def isic2018(folder: Path) -> Iterator[Found]:
    """Dermoscopy of the 2018 challenge, task 3; its training images are those of HAM10000."""
    tables = files.tables(folder, "ISIC2018_Task3_*_GroundTruth.csv")
    facts = {row["image"]: row for row in files.lines(tables) if row.get("image")}
    lesions = {row.get("image"): row.get("lesion_id") for row in files.lines(files.tables(folder, "*_LesionGroupings.csv"))}
    for path in images_of(folder, facts, ISIC2018):
        yield shown("isic2018", path, "dermoscopy", anatomy="skin", findings=one_hot(facts[files.stem(path)], CODES_2018),
                    patient=lesions.get(files.stem(path)) or None)


def isic2019(folder: Path) -> Iterator[Found]:
    """Dermoscopy of the 2019 challenge, one of eight kinds each; it holds HAM10000 and BCN20000."""
    facts = {row["image"]: row for row in files.lines(files.tables(folder, "ISIC_2019_*_GroundTruth.csv")) if row.get("image")}
    people = {row.get("image"): row for row in files.lines(files.tables(folder, "ISIC_2019_*_Metadata.csv"))}
    for path in images_of(folder, facts, ISIC2019):
        row = people.get(files.stem(path), {})
        yield shown("isic2019", path, "dermoscopy", anatomy=SITES.get(row.get("anatom_site_general", ""), "skin"),
                    findings=one_hot(facts[files.stem(path)], CODES_2019),
                    age_years=files.age(row.get("age_approx", "")), sex=files.sex(row.get("sex", "")),
                    patient=row.get("lesion_id") or None)


def isic2020(folder: Path) -> Iterator[Found]:
    """Dermoscopy of the 2020 challenge: melanoma or benign, a naevus or seborrhoeic keratosis where it says so."""
    tables = files.tables(folder, "ISIC_2020_Training_GroundTruth*.csv", "train.csv")
    facts = {row["image_name"]: row for row in files.lines(tables) if row.get("image_name")}
    for path in images_of(folder, facts, ISIC2020):
        row = facts[files.stem(path)]
        melanoma = files.yes_no(row.get("target", ""))
        kind = {"nevus": "naevus", "melanoma": "melanoma", "seborrheic keratosis": "seborrhoeic_keratosis"}.get(
            row.get("diagnosis", ""))
        findings = files.known(melanoma=melanoma, malignant_skin_lesion=melanoma,
                               benign_skin_lesion=None if melanoma is None else not melanoma)
        if kind:
            findings |= files.one_of(kind, ("naevus", "melanoma", "seborrhoeic_keratosis"))
        yield shown("isic2020", path, "dermoscopy", anatomy=SITES.get(row.get("anatom_site_general_challenge", ""), "skin"),
                    findings=findings, age_years=files.age(row.get("age_approx", "")), sex=files.sex(row.get("sex", "")),
                    patient=row.get("patient_id") or None)


CONDITIONS = {  # spaces for hyphens; a condition that is not here is unknown
    "melanoma": "melanoma", "malignant melanoma": "melanoma", "superficial spreading melanoma ssm": "melanoma",
    "basal cell carcinoma": "basal_cell_carcinoma", "squamous cell carcinoma": "squamous_cell_carcinoma",
    "actinic keratosis": "actinic_keratosis", "seborrheic keratosis": "seborrhoeic_keratosis",
    "dermatofibroma": "dermatofibroma", "psoriasis": "psoriasis", "eczema": "eczema", "lichen planus": "lichen_planus",
    "acne": "acne", "acne vulgaris": "acne", "vitiligo": "vitiligo", "rosacea": "rosacea", "scabies": "scabies",
    "melanocytic nevi": "naevus", "melanocytic nevus": "naevus", "congenital nevus": "naevus", "halo nevus": "naevus"}


def fitzpatrick17k(folder: Path) -> Iterator[Found]:
    """Clinical photographs from two atlases with the Fitzpatrick skin type; those found wrongly labelled are unfit."""
    facts = {row["md5hash"]: row for row in files.lines(files.tables(folder, "fitzpatrick17k*.csv")) if row.get("md5hash")}
    for path in images_of(folder, facts, FITZPATRICK):
        row = facts[files.stem(path)]
        if row.get("qc", "").startswith("3"):
            yield Unfit(str(path), "its table calls it wrongly labelled")
            continue
        skin, part = files.number(row.get("fitzpatrick_scale", "")), row.get("three_partition_label", "")
        findings = files.mentioned([row.get("label", "").replace("-", " ")], CONDITIONS)
        findings |= files.one_of(f"fitzpatrick_{skin:.0f}" if skin else None, [f"fitzpatrick_{n}" for n in range(1, 7)])
        if part in ("malignant", "benign", "non-neoplastic"):
            findings |= {"malignant_skin_lesion": part == "malignant"}
        if part in ("malignant", "benign"):
            findings |= {"benign_skin_lesion": part == "benign"}
        yield shown("fitzpatrick17k", path, "skin_photograph", anatomy="skin", findings=findings)


def ddi(folder: Path) -> Iterator[Found]:
    """Photographs of biopsied lesions on diverse skin; skin tone is told for two Fitzpatrick types together: not kept."""
    facts = {files.stem(row["DDI_file"]): row for row in files.lines(files.tables(folder, "ddi_metadata.csv"))
             if row.get("DDI_file")}
    for path in images_of(folder, facts, DDI):
        row = facts[files.stem(path)]
        malignant = files.yes_no(row.get("malignant", ""))
        findings = files.mentioned([row.get("disease", "").replace("-", " ").lower()], CONDITIONS)
        findings |= files.known(malignant_skin_lesion=malignant,
                                benign_skin_lesion=None if malignant is None else not malignant)
        yield shown("ddi", path, "skin_photograph", anatomy="skin", findings=findings)


def derm7pt(folder: Path) -> Iterator[Found]:
    """A clinical photograph and a dermoscopy image of each lesion, with its diagnosis and the seven-point checklist."""
    rows = [row for row in files.lines(files.tables(folder, "meta.csv")) if row.get("derm")]
    paths = {str(path).partition("images/")[2].lower(): path for path in files.rasters(folder) if "images" in path.parts}
    files.expect(paths if rows else [], folder, DERM7PT)
    kinds = (("nevus", "naevus"), ("melanoma", "melanoma"), ("basal cell carcinoma", "basal_cell_carcinoma"),
             ("seborrheic keratosis", "seborrhoeic_keratosis"), ("dermatofibroma", "dermatofibroma"),
             ("vascular lesion", "vascular_skin_lesion"))
    places = {"back": "back", "abdomen": "abdomen_skin", "chest": "chest_skin"}
    for row in rows:
        diagnosis = row.get("diagnosis", "").lower()
        kind = next((name for word, name in kinds if re.search(rf"\b{word}\b", diagnosis)), None)
        findings = files.one_of(kind, [name for _, name in kinds]) | files.known(
            elevated_lesion={"flat": False, "palpable": True, "nodular": True}.get(row.get("elevation", "")))
        for column, image_type in (("clinic", "skin_photograph"), ("derm", "dermoscopy")):
            path = paths.get(row.get(column, "").lower())
            if path:
                yield shown("derm7pt", path, image_type, anatomy=places.get(row.get("location", ""), "skin"),
                            findings=dict(findings), sex=files.sex(row.get("sex", "")), patient=row.get("case_num") or None)


DERMOSCOPY = ("dermoscopy",)
PHOTO = ("skin_photograph",)
ARCHIVE = "https://challenge.isic-archive.com/data/"
SOURCES = tuple(Source(*row[:3], ("dermatology",), *row[3:]) for row in (
    # name, title, image types; licence, evidence; citation; address; group, layout, open, read; size, download
    ("ham10000", "HAM10000 dermoscopy", DERMOSCOPY, "CC-BY-NC-4.0", STATED, "Tschandl et al., Scientific Data 2018",
     "https://doi.org/10.7910/DVN/DBW86T", "lesion", HAM, False, ham10000, "10,015 images, 2.8 GB",
     "HAM10000_images_part_1 and 2 and HAM10000_metadata; no registration."),
    ("isic2018", "ISIC 2018 challenge, task 3", DERMOSCOPY, "CC-BY-NC-4.0", STATED,
     "Codella et al., arXiv 1902.03368; Tschandl et al. 2018", ARCHIVE + "#2018", "lesion", ISIC2018, False, isic2018,
     "11,720 images", "The inputs and ground truth of task 3; no registration."),
    ("isic2019", "ISIC 2019 challenge", DERMOSCOPY, "CC-BY-NC-4.0", UNCONFIRMED,
     "Tschandl et al. 2018; Codella et al. 2018; Hernandez-Perez et al., BCN20000, Scientific Data 2024",
     ARCHIVE + "#2019", "lesion", ISIC2019, False, isic2019, "25,331 images, 9 GB",
     "The training input, metadata and ground truth; no registration."),
    ("isic2020", "ISIC 2020 challenge", DERMOSCOPY, "CC-BY-NC-4.0", STATED, "Rotemberg et al., Scientific Data 2021",
     ARCHIVE + "#2020", "patient", ISIC2020, False, isic2020, "33,126 images, 23 GB",
     "The training images and ground truth; no registration."),
    ("fitzpatrick17k", "Fitzpatrick 17k", PHOTO, "CC-BY-NC-SA-3.0", STATED, "Groh et al., CVPR workshops 2021",
     "https://github.com/mattgroh/fitzpatrick17k", "near_duplicates", FITZPATRICK, False, fitzpatrick17k, "16,577 images",
     "fitzpatrick17k.csv, and the images from the addresses in it; no registration."),
    ("ddi", "Diverse dermatology images", PHOTO, "Stanford University Dataset Research Use Agreement (non-commercial)",
     UNCONFIRMED, "Daneshjou et al., Science Advances 2022", "https://ddi-dataset.github.io/", "near_duplicates", DDI, False,
     ddi, "656 images", "ddidiversedermatologyimages.zip; registration needed."),
    ("derm7pt", "Seven-point checklist", (*DERMOSCOPY, *PHOTO), "research and education only, on request", UNCONFIRMED,
     "Kawahara et al., IEEE Journal of Biomedical and Health Informatics 2019", "https://derm.cs.sfu.ca/", "case", DERM7PT,
     False, derm7pt, "2,022 images", "release_v0.zip; registration needed."),
))
