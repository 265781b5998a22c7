"""Ophthalmology: photographs of the fundus and optical coherence tomography."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import READ, UNCONFIRMED, Found, Source, shown

IDRID = "lesion_boxes.csv (file, n_hard_exudate, n_haemorrhage_or_ma, visit) beside images/"
CHASEDB1 = "images Image_01L, Image_01R and on"
UNAM = "EYE FUNDUS.csv and OCT.csv (Name, DME, DR) beside folders of images named like 0736_OI_f_1"


def idrid(folder: Path) -> Iterator[Found]:
    """Fundus photographs with counted lesion boxes; no box is unknown, not healthy."""
    table = files.table(folder, "lesion_boxes.csv")
    paths = files.rasters(folder)
    files.expect(paths if table else [], folder, IDRID)
    facts = {files.stem(row.get("file", "")): row for row in files.rows(table)}
    for path in paths:
        row = facts.get(files.stem(path), {})
        counted = {"hard_exudates": "n_hard_exudate", "retinal_haemorrhage_or_microaneurysm": "n_haemorrhage_or_ma"}
        findings = {name: True for name, column in counted.items() if (files.number(row.get(column, "")) or 0) > 0}
        if findings:
            findings["normal"] = False
        yield shown("idrid", path, "fundus_photograph", anatomy="retina", view="macula_centred", findings=findings,
                    patient=row.get("visit") or None)


def chasedb1(folder: Path) -> Iterator[Found]:
    """Fundus photographs of schoolchildren, both eyes; the vessel masks beside them are left out."""
    named = [(path, re.fullmatch(r"Image_(\d+)([LR])", files.stem(path))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, CHASEDB1)
    for path, match in named:
        yield shown("chasedb1", path, "fundus_photograph", anatomy="retina",
                    laterality={"L": "left", "R": "right"}[match[2]], patient=f"Image_{match[1]}")


def unam_fundus_oct(folder: Path) -> Iterator[Found]:
    """Fundus photographs and macular OCT with diabetic macular oedema and retinopathy."""
    pattern = re.compile(r"(\d+)_(OD|OI)_([FO])_(\d+)")
    named = [(path, pattern.fullmatch(files.stem(path).upper())) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, UNAM)
    facts = {row["Name"].upper(): row for table in sorted(Path(folder).rglob("*.csv")) for row in files.rows(table)
             if row.get("Name")}
    for path, match in named:
        row = facts.get(match[0], {})
        retinopathy = {"0": False, "NPDR": True, "PDR": True}.get(row.get("DR", ""))
        findings = files.known(diabetic_macular_oedema=files.yes_no(row.get("DME", "")),
                               diabetic_retinopathy=retinopathy)
        if any(findings.values()):
            findings["normal"] = False
        fundus = match[3] == "F"
        yield shown("unam_fundus_oct", path, "fundus_photograph" if fundus else "oct",
                    anatomy="retina" if fundus else "macula", laterality={"OD": "right", "OI": "left"}[match[2]],
                    findings=findings, patient=match[1])


EYE = ("ophthalmology",)
SOURCES = (
    Source("idrid", "Indian diabetic retinopathy image dataset", ("fundus_photograph",), EYE,
           "CC-BY-4.0 AND CC-BY-SA-4.0", READ,  # images and lesion boxes
           "Porwal et al., Indian Diabetic Retinopathy Image Dataset (IDRiD), Data 2018",
           "https://doi.org/10.3390/data3030025", "visit", IDRID, True, idrid,
           "516 images", "The images at IEEE DataPort, and lesion_boxes.csv counted from the lesions; registration needed."),
    Source("chasedb1", "CHASE_DB1 fundus photographs of schoolchildren", ("fundus_photograph",), EYE, "CC-BY-4.0",
           UNCONFIRMED, "Fraz et al., IEEE Transactions on Biomedical Engineering 2012",
           "https://doi.org/10.1109/TBME.2012.2205687", "patient", CHASEDB1, True, chasedb1,
           "28 images", "CHASEDB1.zip; no registration."),
    Source("unam_fundus_oct", "Fundus photographs and macular OCT, UNAM and IMO", ("fundus_photograph", "oct"), EYE,
           None, UNCONFIRMED, "Hughes-Cano et al., UNAM and IMO", None, "patient", UNAM, False, unam_fundus_oct,
           None, "The folders EYE FUNDUS and OCT with their tables, from the authors."),
)
