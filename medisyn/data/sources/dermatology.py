"""Dermatology: dermoscopy and photographs of skin."""

from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, shown

ISIC2017 = "images ISIC_0000000 and on with the tables of the 2017 challenge (image_id, melanoma, seborrheic_keratosis)"
PAD_UFES_20 = "metadata.csv (patient_id, diagnostic, img_id) beside folders of images"


def isic2017(folder: Path) -> Iterator[Found]:
    """Dermoscopy: melanoma, seborrhoeic keratosis, or naevus where the tables deny both."""
    paths = [path for path in files.rasters(folder) if files.stem(path).startswith("ISIC_")
             and not files.stem(path).endswith(("_superpixels", "_segmentation"))]
    files.expect(paths, folder, ISIC2017)
    facts: dict[str, dict[str, str]] = {}
    for path in sorted(Path(folder).rglob("*.csv")):
        for row in files.rows(path):
            if "image_id" in row:
                facts.setdefault(row["image_id"], {}).update(row)
    for path in paths:
        row = facts.get(files.stem(path), {})
        melanoma, keratosis = files.yes_no(row.get("melanoma", "")), files.yes_no(row.get("seborrheic_keratosis", ""))
        present = "melanoma" if melanoma else "seborrhoeic_keratosis" if keratosis else None
        if melanoma is False and keratosis is False:
            present = "naevus"
        findings = files.known(melanoma=melanoma, seborrhoeic_keratosis=keratosis)
        findings |= files.one_of(present, ("melanoma", "seborrhoeic_keratosis", "naevus"))
        yield shown("isic2017", path, "dermoscopy", anatomy="skin", findings=findings,
                    age_years=files.age(row.get("age_approximate", "")), sex=files.sex(row.get("sex", "")))


DIAGNOSES = {"BCC": "basal_cell_carcinoma", "ACK": "actinic_keratosis", "NEV": "naevus", "SEK": "seborrhoeic_keratosis",
             "MEL": "melanoma", "SCC": "squamous_cell_carcinoma"}
REGIONS = {name.upper(): name for name in ("face", "forearm", "back", "arm", "nose", "hand", "ear", "neck", "thigh",
                                           "lip", "scalp", "foot")} | {"CHEST": "chest_skin", "ABDOMEN": "abdomen_skin"}


def pad_ufes_20(folder: Path) -> Iterator[Found]:
    """Photographs of skin lesions by telephone, with diagnosis, region and what the patient felt."""
    table = files.table(folder, "metadata.csv")
    paths = [path for path in files.rasters(folder) if files.stem(path).startswith("PAT_")]
    files.expect(paths if table else [], folder, PAD_UFES_20)
    facts = {files.stem(row.get("img_id", "")): row for row in files.rows(table)}
    for path in paths:
        row = facts.get(files.stem(path), {})
        skin = files.number(row.get("fitspatrick", ""))
        findings = files.one_of(DIAGNOSES.get(row.get("diagnostic", "")), DIAGNOSES.values())
        findings |= files.one_of(f"fitzpatrick_{skin:.0f}" if skin else None, [f"fitzpatrick_{n}" for n in range(1, 7)])
        findings |= files.known(elevated_lesion=files.yes_no(row.get("elevation", "")),
                                bleeding_lesion=files.yes_no(row.get("bleed", "")),
                                itching_lesion=files.yes_no(row.get("itch", "")))
        patient = row.get("patient_id") or "_".join(files.stem(path).split("_")[:2])
        yield shown("pad_ufes_20", path, "skin_photograph", anatomy=REGIONS.get(row.get("region", ""), "skin"),
                    findings=findings, age_years=files.age(row.get("age", "")), sex=files.sex(row.get("gender", "")),
                    patient=patient)


SOURCES = (
    Source("isic2017", "ISIC 2017 challenge", ("dermoscopy",), ("dermatology",), "CC0-1.0", UNCONFIRMED,
           "Codella et al., Skin lesion analysis toward melanoma detection, ISBI 2017 challenge, 2018",
           "https://challenge.isic-archive.com/data/#2017", "near_duplicates", ISIC2017, True, isic2017,
           "2,750 images", "The data and part 3 ground truth of each phase; no registration."),
    Source("pad_ufes_20", "PAD-UFES-20 skin lesions by telephone", ("skin_photograph",), ("dermatology",),
           "CC-BY-4.0", STATED, "Pacheco et al., Data in Brief 2020; Mendeley Data zr7vgbcyr2", "https://data.mendeley.com/datasets/zr7vgbcyr2",
           "patient", PAD_UFES_20, True, pad_ufes_20,
           "2,298 images, 3.4 GB", "The zip of the images and metadata.csv; no registration."),
)
