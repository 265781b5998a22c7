"""Radiographs of bones: fractures, and what else the tables tell of limbs."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, shown

MURA = "train/ and valid/ with XR_ELBOW, XR_FINGER, ... and patient00001/study1_positive/image1.png below them"
GRAZ = "dataset.csv (filestem, patient_id, gender, age, laterality, projection, fracture_visible) beside the images"
FRACATLAS = "dataset.csv (image_id, hand, leg, hip, shoulder, fractured, ...) beside images/Fractured/ and images/Non_fractured/"
BONE_AGE = "boneage-training-dataset.csv (id, boneage, male) beside boneage-training-dataset/"
PARTS = {"ELBOW": "elbow", "FINGER": "hand", "FOREARM": "forearm", "HAND": "hand", "HUMERUS": "arm", "SHOULDER": "shoulder",
         "WRIST": "wrist"}


def mura(folder: Path) -> Iterator[Found]:
    """Upper limbs, normal or abnormal by study: of an abnormal study a single image may still be normal, so unknown."""
    pattern = re.compile(r"XR_([A-Z]+)/(patient\d+)/study\d+_(positive|negative)/image\d+")
    named = [(path, pattern.fullmatch(files.key(path, 4))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match and match[1] in PARTS]
    files.expect(named, folder, MURA)
    for path, match in named:
        yield shown("mura", path, "bone_xray", anatomy=PARTS[match[1]], patient=match[2],
                    findings={"normal": True} if match[3] == "negative" else {})


def grazpedwri_dx(folder: Path) -> Iterator[Found]:
    """Wrists of children; an empty column says no, except where the table calls the diagnosis uncertain."""
    facts = {row["filestem"]: row for row in files.lines(files.tables(folder, "dataset.csv")) if row.get("filestem")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, GRAZ)
    columns = {"fracture_visible": "fracture", "osteopenia": "osteopenia", "cast": "plaster_cast", "metal": "metal_implant"}
    views = {"1": "anteroposterior", "2": "lateral", "3": "oblique"}
    for path in paths:
        row = facts[files.stem(path)]
        findings = {name: bool(files.yes_no(row.get(column, ""))) for column, name in columns.items() if column in row}
        if files.yes_no(row.get("diagnosis_uncertain", "")):
            findings.pop("fracture", None)
        if findings.get("fracture"):
            findings["normal"] = False
        yield shown("grazpedwri_dx", path, "bone_xray", anatomy="wrist", view=views.get(row.get("projection", "")[:1]),
                    laterality={"L": "left", "R": "right"}.get(row.get("laterality", "")), findings=findings,
                    age_years=files.age(row.get("age", "")), sex=files.sex(row.get("gender", "")),
                    patient=row.get("patient_id") or None)


def fracatlas(folder: Path) -> Iterator[Found]:
    """Hands, legs, hips and shoulders with or without a fracture; a picture of two views has no view."""
    facts = {files.stem(row["image_id"]): row for row in files.lines(files.tables(folder, "dataset.csv")) if row.get("image_id")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts
             and path.parent.name in ("Fractured", "Non_fractured")]
    files.expect(paths, folder, FRACATLAS)
    for path in paths:
        row = facts[files.stem(path)]
        places = [name for name in ("hand", "leg", "hip", "shoulder") if files.yes_no(row.get(name, ""))]
        views = [name for name in ("frontal", "lateral", "oblique") if files.yes_no(row.get(name, ""))]
        findings = files.stated(row, {"fractured": "fracture", "hardware": "metal_implant"})
        if findings.get("fracture"):
            findings["normal"] = False
        yield shown("fracatlas", path, "bone_xray", anatomy=places[0] if len(places) == 1 else None, findings=findings,
                    view=views[0] if len(views) == 1 and views != ["frontal"] else None)


def rsna_bone_age(folder: Path) -> Iterator[Found]:
    """Hands of children with sex; the table's age is that of the bones, not the child's, and is left out."""
    facts = {row["id"]: row.get("male", "") for row in files.lines(
                 files.tables(folder, "boneage-training-dataset.csv", "train.csv")) if row.get("id") and "boneage" in row}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, BONE_AGE)
    for path in paths:
        male = files.yes_no(facts[files.stem(path)])
        yield shown("rsna_bone_age", path, "bone_xray", anatomy="hand", sex={True: "male", False: "female"}.get(male),
                    patient=files.stem(path))


SOURCES = tuple(Source(*row[:2], ("bone_xray",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("mura", "MURA musculoskeletal radiographs", "Stanford University Dataset Research Use Agreement (non-commercial)", UNCONFIRMED,
     "Rajpurkar et al., MURA, MIDL 2018", "https://stanfordmlgroup.github.io/competitions/mura/", "patient", MURA, False, mura,
     "40,561 images", "MURA-v1.1.zip; registration needed."),
    ("grazpedwri_dx", "Paediatric wrists, Graz", "CC-BY-4.0", STATED, "Nagy et al., GRAZPEDWRI-DX, Scientific Data 2022",
     "https://doi.org/10.6084/m9.figshare.14825193", "patient", GRAZ, True, grazpedwri_dx, "20,327 images, 15 GB",
     "images_part1.zip to images_part4.zip and dataset.csv; no registration."),
    ("fracatlas", "FracAtlas", "CC-BY-4.0", STATED, "Abedeen et al., FracAtlas, Scientific Data 2023",
     "https://doi.org/10.6084/m9.figshare.22363012", "near_duplicates", FRACATLAS, True, fracatlas, "4,083 images, 0.3 GB",
     "FracAtlas.zip; no registration."),
    ("rsna_bone_age", "RSNA paediatric bone age", "terms of the RSNA challenge (non-commercial)", UNCONFIRMED,
     "Halabi et al., Radiology 2019", "https://www.kaggle.com/datasets/kmader/rsna-bone-age", "patient", BONE_AGE, False,
     rsna_bone_age, "12,611 training images, 9 GB", "boneage-training-dataset.zip and its table; registration needed."),
))
