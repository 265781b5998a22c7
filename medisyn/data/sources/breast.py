"""Mammography with density, findings, and what biopsy or the reader made of them."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, shown

CBIS = ("mass_ and calc_case_description_train_set.csv and _test_set.csv beside CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/ "
        "and on (DICOM), or jpeg/")
VINDR = "breast-level_annotations.csv and finding_annotations.csv (study_id, image_id, laterality, view_position) beside images/"
INBREAST = "INbreast.csv (File Name, Laterality, View, ACR, Bi-Rads; by semicolons) beside AllDICOMs/"
VIEWS = {"CC": "craniocaudal", "MLO": "mediolateral_oblique"}
SIDES = {"L": "left", "R": "right", "LEFT": "left", "RIGHT": "right"}
DENSITY = {"1": "fatty_breast", "2": "fatty_glandular_breast", "3": "dense_breast", "4": "dense_breast"}  # c and d are dense
MARGINS = {"SPICULATED": "spiculated_mass", "CIRCUMSCRIBED": "circumscribed_mass", "ILL_DEFINED": "ill_defined_mass"}
SHAPES = {"ARCHITECTURAL_DISTORTION": "architectural_distortion", "ASYMMETRIC_BREAST_TISSUE": "breast_asymmetry",
          "FOCAL_ASYMMETRIC_DENSITY": "breast_asymmetry"}


def dense(grade: str) -> dict[str, bool]:
    """Findings of a density, 1 to 4; none where it is not told."""
    return files.one_of(DENSITY.get(grade.strip()), dict.fromkeys(DENSITY.values()))


def cbis_ddsm(folder: Path) -> Iterator[Found]:
    """Digitised films with proven lesions; whole films only, the crops and masks of lesions are left out."""
    tables = files.tables(folder, "*_case_description_*_set.csv")
    facts: dict[str, list[dict[str, str]]] = {}
    series: dict[str, str] = {}
    for row in files.lines(tables):
        parts = row.get("image file path", "").split("/")
        facts.setdefault(parts[0], []).append(row)
        series |= {parts[2]: parts[0]} if len(parts) > 2 else {}
    found = [(path, next((name for name in path.parts if name in facts), None)) for path in files.ending(folder, ".dcm")]
    found += [(path, series.get(path.parent.name)) for path in files.rasters(folder)]
    found = [(path, name) for path, name in found if name]
    files.expect(found, folder, CBIS)
    for path, name in found:
        match = re.fullmatch(r"(?:Mass|Calc)-(?:Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)", name)
        if match:
            rows = facts[name]
            findings = dense(rows[0].get("breast_density") or rows[0].get("breast density", "")) | {"normal": False}
            for row in rows:
                findings |= {"calcification": True} if row.get("abnormality type") == "calcification" else {}
                findings |= files.mentioned(row.get("mass margins", "").split("-"), MARGINS)
                findings |= files.mentioned(row.get("mass shape", "").split("-"), SHAPES)
            proven = {row.get("pathology", "").upper() for row in rows} - {""}
            if proven:
                findings |= {"malignant_breast_lesion": "MALIGNANT" in proven,
                             "benign_breast_lesion": any(word.startswith("BENIGN") for word in proven)}
            yield shown("cbis_ddsm", path, "mammography", anatomy="breast", view=VIEWS[match[3]], laterality=SIDES[match[2]],
                        findings=findings, patient=match[1])


VINDR_FINDINGS = {"Mass": "mammographic_mass", "Suspicious Calcification": "calcification", "Asymmetry": "breast_asymmetry",
                  "Focal Asymmetry": "breast_asymmetry", "Global Asymmetry": "breast_asymmetry",
                  "Architectural Distortion": "architectural_distortion", "Skin Thickening": "skin_thickening",
                  "Nipple Retraction": "nipple_retraction"}


def vindr_mammo(folder: Path) -> Iterator[Found]:
    """Digital mammograms; benign findings were not listed, so what is not listed is unknown. BI-RADS 1 is normal."""
    tables = files.tables(folder, "breast-level_annotations.csv")
    facts = {row.get("image_id"): row for row in files.lines(tables)}
    listed: dict[str, dict[str, bool]] = {}
    for row in files.lines(files.tables(folder, "finding_annotations.csv")):
        words = re.findall(r"'([^']*)'", row.get("finding_categories", ""))
        listed.setdefault(row.get("image_id", ""), {}).update(files.mentioned(words, VINDR_FINDINGS))
    paths = files.ending(folder, ".dicom", ".dcm")
    files.expect(paths if tables else [], folder, VINDR)
    for path in paths:
        row = facts.get(path.stem, {})
        grade = {"A": "1", "B": "2", "C": "3", "D": "4"}.get(row.get("breast_density", "")[-1:], "")
        birads = re.search(r"\d", row.get("breast_birads", ""))
        yield shown("vindr_mammo", path, "mammography", anatomy="breast", view=VIEWS.get(row.get("view_position", "")),
                    laterality=SIDES.get(row.get("laterality", "")), patient=row.get("study_id") or None,
                    findings=dense(grade) | assessed(birads[0] if birads else "") | listed.get(path.stem, {}))


def assessed(birads: str) -> dict[str, bool]:
    """What a BI-RADS category says: 1 is a breast without a finding, 2 and more have one."""
    return {"normal": birads == "1"} if birads in tuple("123456") else {}


def inbreast(folder: Path) -> Iterator[Found]:
    """Full-field digital mammograms; the name of a file holds the patient's code, side and view."""
    tables = files.tables(folder, "INbreast.csv")
    named = [(path, re.fullmatch(r"(\d+)_([0-9a-f]+)_MG_([LR])_(CC|ML|MLO)_ANON", path.stem))
             for path in files.ending(folder, ".dcm")]
    named = [(path, match) for path, match in named if match]
    files.expect(named if tables else [], folder, INBREAST)
    facts = {row.get("File Name"): row for row in files.lines(tables, ";")}
    for path, match in named:
        row = facts.get(match[1], {})
        yield shown("inbreast", path, "mammography", anatomy="breast", laterality=SIDES[match[3]], patient=match[2],
                    view=VIEWS.get(row.get("View") or match[4], VIEWS["MLO"] if match[4] == "ML" else None),
                    findings=dense(row.get("ACR", "")) | assessed(row.get("Bi-Rads", "")[:1]))


SOURCES = tuple(Source(*row[:2], ("mammography",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("cbis_ddsm", "CBIS-DDSM", "CC-BY-3.0", STATED, "Lee et al., Scientific Data 2017",
     "https://www.cancerimagingarchive.net/collection/cbis-ddsm/", "patient", CBIS, True, cbis_ddsm, "3,103 films, 164 GB",
     "The images by the NBIA Data Retriever and the four tables; no registration."),
    ("vindr_mammo", "VinDr-Mammo, Vietnam", "PhysioNet Credentialed Health Data License 1.5.0", UNCONFIRMED,
     "Nguyen et al., VinDr-Mammo, Scientific Data 2023", "https://physionet.org/content/vindr-mammo/", "study", VINDR, False,
     vindr_mammo, "20,000 images", "The whole project at PhysioNet; credentialed access needed."),
    ("inbreast", "INbreast", "research only, on request", UNCONFIRMED, "Moreira et al., Academic Radiology 2012",
     "https://doi.org/10.1016/j.acra.2011.09.014", "patient", INBREAST, False, inbreast, "410 images",
     "INbreast Release 1.0; registration needed."),
))
