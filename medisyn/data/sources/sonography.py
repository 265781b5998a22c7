"""Ultrasound: the unborn child, the breast, the heart."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, part, shown

HC18 = "training_set/ or test_set/ with images 000_HC and on"
PLANES = "FETAL_PLANES_DB_data.csv (Image_name, Patient_num, Plane; by semicolons) beside Images/"
BUS_BRA = "bus_data.csv (ID, Case, Pathology) beside Images/ with bus_0001-l and on"
CAMUS = "folders patient0001 and on with patient0001_2CH_ED.nii.gz and Info_2CH.cfg"


def hc18(folder: Path) -> Iterator[Found]:
    """Fetal heads; the number before the first underscore is the examination's."""
    named = [(path, re.fullmatch(r"(\d{3})_\d*HC", files.stem(path))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, HC18)
    for path, match in named:
        yield shown("hc18", path, "ultrasound", anatomy="fetal_head", patient=f"{path.parent.name}/{match[1]}")


def fetal_planes(folder: Path) -> Iterator[Found]:
    """Standard planes of fetal screening; "Other" has no anatomy."""
    places = {"Fetal brain": "fetal_head", "Fetal abdomen": "fetal_abdomen", "Fetal femur": "fetal_femur",
              "Fetal thorax": "fetal_thorax", "Maternal cervix": "uterine_cervix"}
    facts = {row["Image_name"]: row for row in files.lines(files.tables(folder, "FETAL_PLANES_DB_data.csv"), ";")
             if row.get("Image_name")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, PLANES)
    for path in paths:
        row = facts[files.stem(path)]
        yield shown("fetal_planes", path, "ultrasound", anatomy=places.get(row.get("Plane", "")),
                    patient=row.get("Patient_num") or None)


def bus_bra(folder: Path) -> Iterator[Found]:
    """Breast lesions, benign or malignant by biopsy."""
    facts = {row["ID"]: row for row in files.lines(files.tables(folder, "bus_data.csv")) if row.get("ID")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, BUS_BRA)
    for path in paths:
        row = facts[files.stem(path)]
        kind = row.get("Pathology", "").lower()
        findings = {"benign_breast_lesion": kind == "benign", "malignant_breast_lesion": kind == "malignant",
                    "normal": False} if kind in ("benign", "malignant") else {}
        yield shown("bus_bra", path, "ultrasound", anatomy="breast", findings=findings, patient=row.get("Case") or None)


def camus(folder: Path) -> Iterator[Found]:
    """Apical views of the heart at end-diastole and end-systole, a picture a NIfTI file; sequences and outlines are left out."""
    named = [(path, re.fullmatch(r"(patient\d{4})_([24])CH_E[DS]\.nii(\.gz)?", path.name))
             for path in files.ending(folder, ".nii", ".nii.gz")]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, CAMUS)
    for path, match in named:
        told = Path(folder) / path.parent / f"Info_{match[2]}CH.cfg"
        text = told.read_text(encoding="utf-8", errors="replace") if told.is_file() else ""
        facts = dict(re.findall(r"^(\w+):[ \t]*(\S+)", text, re.MULTILINE))
        yield part("camus", path, "", "ultrasound", anatomy="heart", view={"2": "two_chamber", "4": "four_chamber"}[match[2]],
                   age_years=files.age(facts.get("Age", "")), sex=files.sex(facts.get("Sex", "")), patient=match[1])


SOURCES = tuple(Source(*row[:2], ("ultrasound",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("hc18", "HC18 fetal head circumference", "CC-BY-4.0", STATED, "van den Heuvel et al., PLOS ONE 2018",
     "https://zenodo.org/records/1327317", "examination", HC18, True, hc18, "1,334 images, 0.2 GB",
     "training_set.zip and test_set.zip; no registration."),
    ("fetal_planes", "Fetal planes", "CC-BY-4.0", STATED, "Burgos-Artizzu et al., Scientific Reports 2020",
     "https://zenodo.org/records/3904280", "patient", PLANES, True, fetal_planes, "12,400 images, 2.1 GB",
     "FETAL_PLANES_ZENODO.zip; no registration."),
    ("bus_bra", "BUS-BRA breast ultrasound", "CC-BY-4.0", STATED, "Gomez-Flores et al., Medical Physics 2024",
     "https://zenodo.org/records/8231412", "case", BUS_BRA, True, bus_bra, "1,875 images",
     "BUSBRA.zip; no registration."),
    ("camus", "CAMUS echocardiography", "CC-BY-NC-SA-4.0", UNCONFIRMED,
     "Leclerc et al., IEEE Transactions on Medical Imaging 2019", "https://www.creatis.insa-lyon.fr/Challenge/camus/", "patient",
     CAMUS, False, camus, "2,000 images of 500 people", "database_nifti; registration needed for older releases."),
))
