"""Fundus photographs and retinal OCT, graded or named by disease."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, shown

APTOS = "train.csv (id_code, diagnosis) beside train_images/"
EYEPACS = "trainLabels.csv (image, level) beside images named like 10_left"
RFMID = "RFMiD_Training_Labels.csv, RFMiD_Validation_Labels.csv or RFMiD_Testing_Labels.csv beside folders of images 1.png and on"
ODIR = "full_df.csv (ID, Left-Fundus, Right-Fundus, Left-Diagnostic Keywords, ...) beside the images 0_left.jpg and on"
DEEPDRID = ("regular-fundus-training.csv and regular-fundus-validation.csv (image_id, left_eye_DR_Level, ...) beside "
            "Images/1/1_l1.jpg and on")
MESSIDOR = "messidor_data.csv (image_id, adjudicated_dr_grade, adjudicated_dme) beside IMAGES/"
DRIVE = "training/images/ and test/images/ with images 21_training and on, 01_test and on"
OCT2017 = "train/, test/ or val/ with folders CNV, DME, DRUSEN and NORMAL of images named like CNV-1016042-1"
OCTDL = "OCTDL_labels.csv (file_name, disease, patient_id, eye, sex) beside folders AMD, DME, ERM, NO, RAO, RVO and VID"
SIDES = {"l": "left", "left": "left", "os": "left", "r": "right", "right": "right", "od": "right"}

GRADES = ("mild_nonproliferative_retinopathy", "moderate_nonproliferative_retinopathy",
          "severe_nonproliferative_retinopathy", "proliferative_retinopathy")


def graded(grade: str) -> dict[str, bool]:
    """Findings of a grade of the international scale, 0 (no diabetic retinopathy) to 4 (proliferative); no retinopathy
    is not yet normal."""
    found = files.number(grade)
    if found not in (0, 1, 2, 3, 4):
        return {}
    findings = {"diabetic_retinopathy": found > 0} | {name: found == n for n, name in enumerate(GRADES, 1)}
    return findings | files.known(normal=False if found else None)


def aptos2019(folder: Path) -> Iterator[Found]:
    """Fundus photographs of a screening in rural India with one grade of retinopathy."""
    facts = {row["id_code"]: row.get("diagnosis", "") for row in files.lines(files.tables(folder, "train*.csv", "valid.csv"))
             if row.get("id_code")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, APTOS)
    for path in paths:
        yield shown("aptos2019", path, "fundus_photograph", anatomy="retina", findings=graded(facts[files.stem(path)]))


def eyepacs(folder: Path) -> Iterator[Found]:
    """Fundus photographs of both eyes with a grade each."""
    facts = {row["image"]: row.get("level", "") for row in files.lines(files.tables(folder, "trainLabels*.csv"))
             if row.get("image")}
    named = [(path, re.fullmatch(r"(\d+)_(left|right)", files.stem(path))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named if facts else [], folder, EYEPACS)
    for path, match in named:
        yield shown("eyepacs", path, "fundus_photograph", anatomy="retina", laterality=SIDES[match[2]],
                    findings=graded(facts.get(match[0], "")), patient=match[1])


RFMID_LABELS = {
    "DR": "diabetic_retinopathy", "ARMD": "age_related_macular_degeneration", "MH": "media_haze", "DN": "drusen",
    "MYA": "pathological_myopia", "BRVO": "retinal_vein_occlusion", "CRVO": "retinal_vein_occlusion",
    "TSLN": "tessellated_fundus", "ERM": "epiretinal_membrane", "LS": "laser_scars", "CSR": "central_serous_retinopathy",
    "ODC": "optic_disc_cupping", "ODP": "optic_disc_pallor", "ODE": "optic_disc_oedema", "CRS": "chorioretinitis",
    "RP": "retinitis_pigmentosa", "CRAO": "retinal_artery_occlusion", "BRAO": "retinal_artery_occlusion"}


def part_of(path: PurePosixPath) -> str | None:
    """ "train", "valid" or "test" by the nearest name on the path that says so: each part numbers its images from 1."""
    for name in (part.lower() for part in reversed(path.parts)):
        found = next((part for part in ("train", "valid", "test") if part in name), None)
        if found:
            return found
    return None


def rfmid(folder: Path) -> Iterator[Found]:
    """Fundus photographs with 46 labels, those that the vocabulary knows present or absent; no disease risk is normal."""
    facts = {(part_of(PurePosixPath(table.name)), row.get("ID")): row
             for table in files.tables(folder, "*RFMiD_*_Labels.csv") for row in files.rows(table)}
    paths = [path for path in files.rasters(folder) if (part_of(path), files.stem(path)) in facts]
    files.expect(paths, folder, RFMID)
    for path in paths:
        row = facts[part_of(path), files.stem(path)]
        ill = files.yes_no(row.get("Disease_Risk", ""))
        findings = files.stated(row, RFMID_LABELS) | files.known(normal=None if ill is None else not ill)
        yield shown("rfmid", path, "fundus_photograph", anatomy="retina", findings=findings)


ODIR_WORDS = (  # a diagnostic keyword holds the first; suspected is not present
    ("normal fundus", "normal"), ("glaucoma", "glaucoma"), ("cataract", "cataract"), ("drusen", "drusen"),
    ("age-related macular degeneration", "age_related_macular_degeneration"),
    ("hypertensive retinopathy", "hypertensive_retinopathy"), ("pathological myopia", "pathological_myopia"),
    ("diabetic retinopathy", "diabetic_retinopathy"), ("nonproliferative retinopathy", "diabetic_retinopathy"),
    ("mild nonproliferative", GRADES[0]), ("moderate nonproliferative", GRADES[1]), ("severe nonproliferative", GRADES[2]),
    ("proliferative diabetic retinopathy", GRADES[3]), ("epiretinal membrane", "epiretinal_membrane"),
    ("vein occlusion", "retinal_vein_occlusion"), ("artery occlusion", "retinal_artery_occlusion"),
    ("laser spot", "laser_scars"), ("retinitis pigmentosa", "retinitis_pigmentosa"),
    ("tessellated fundus", "tessellated_fundus"))


def odir5k(folder: Path) -> Iterator[Found]:
    """Both eyes of 5,000 people with diagnostic keywords an eye; what no keyword names is unknown."""
    facts: dict[str, tuple[dict, str]] = {}
    for row in files.lines(files.tables(folder, "full_df.csv")):
        for side in ("Left", "Right"):
            facts[files.stem(row.get(f"{side}-Fundus", ""))] = (row, side)
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts and "preprocessed" not in str(path)]
    files.expect(paths, folder, ODIR)
    for path in paths:
        row, side = facts[files.stem(path)]
        words = [word.strip().replace("non proliferative", "nonproliferative")  # the table writes it both ways
                 for word in re.split("[,\uff0c]", row.get(f"{side}-Diagnostic Keywords", "").lower())]
        findings = {name: True for word in words if not word.startswith("suspect") for key, name in ODIR_WORDS if key in word}
        if set(words) - {"normal fundus", "lens dust", ""}:
            findings.pop("normal", None)
        if set(findings) - {"normal", "laser_scars", "tessellated_fundus"}:
            findings["normal"] = False
        yield shown("odir5k", path, "fundus_photograph", anatomy="retina", laterality=side.lower(), findings=findings,
                    age_years=files.age(row.get("Patient Age", "")), sex=files.sex(row.get("Patient Sex", "")),
                    patient=row.get("ID") or None)


def deepdrid(folder: Path) -> Iterator[Found]:
    """Two fundus photographs of each eye with a grade; grade 5 (not gradable) is unknown. The widefield part is left out."""
    tables = files.tables(folder, "regular-fundus-training.csv", "regular-fundus-validation.csv")
    facts = {row.get("image_id"): row for row in files.lines(tables)}
    named = [(path, re.fullmatch(r"(\d+)_([lr])\d", files.stem(path))) for path in files.rasters(folder)
             if "ultra-widefield" not in str(path)]
    named = [(path, match) for path, match in named if match]
    files.expect(named if tables else [], folder, DEEPDRID)
    for path, match in named:
        side, row = SIDES[match[2]], facts.get(match[0], {})
        yield shown("deepdrid", path, "fundus_photograph", anatomy="retina", laterality=side,
                    findings=graded(row.get(f"{side}_eye_DR_Level", "")), patient=match[1])


def messidor2(folder: Path) -> Iterator[Found]:
    """Macula-centred photographs, graded by adjudication; the pairs of eyes come from messidor-2.csv where it lies there."""
    facts = {files.stem(row.get("image_id") or row.get("id_code", "")).lower(): row
             for row in files.lines(files.tables(folder, "messidor_data.csv"))}
    paths = [path for path in files.rasters(folder) if files.stem(path).lower() in facts]
    files.expect(paths, folder, MESSIDOR)
    pairs: dict[str, str] = {}
    for table in files.tables(folder, "messidor-2.csv"):
        for number, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines()):
            pairs |= {files.stem(name.strip().strip('"')).lower(): f"pair{number}" for name in line.split(";")}
    for path in paths:
        row = facts[files.stem(path).lower()]
        oedema = files.yes_no(row.get("adjudicated_dme", ""))
        findings = graded(row.get("adjudicated_dr_grade", "")) | files.known(diabetic_macular_oedema=oedema)
        if oedema:
            findings["normal"] = False
        yield shown("messidor2", path, "fundus_photograph", anatomy="retina", view="macula_centred", findings=findings,
                    patient=pairs.get(files.stem(path).lower()))


def drive(folder: Path) -> Iterator[Found]:
    """Forty fundus photographs for the tracing of vessels; findings are not told."""
    paths = [path for path in files.rasters(folder) if re.fullmatch(r"\d\d_(training|test)", files.stem(path))
             and path.parent.name == "images"]
    files.expect(paths, folder, DRIVE)
    for path in paths:
        yield shown("drive", path, "fundus_photograph", anatomy="retina", patient=files.stem(path))


def oct2017(folder: Path) -> Iterator[Found]:
    """OCT with choroidal neovascularisation, diabetic macular oedema, drusen, or normal."""
    kinds = {"CNV": "choroidal_neovascularisation", "DME": "diabetic_macular_oedema", "DRUSEN": "drusen",
             "NORMAL": "normal"}
    named = [(path, re.match(r"[A-Z]+-(\d+)-\d+", files.stem(path))) for path in files.rasters(folder)
             if path.parent.name in kinds]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, OCT2017)
    for path, match in named:
        yield shown("oct2017", path, "oct", anatomy="macula", findings=files.one_of(kinds[path.parent.name], kinds.values()),
                    patient=match[1])


OCTDL_KINDS = {"AMD": "age_related_macular_degeneration", "DME": "diabetic_macular_oedema", "ERM": "epiretinal_membrane",
               "NO": "normal", "RAO": "retinal_artery_occlusion", "RVO": "retinal_vein_occlusion",
               "VID": "vitreomacular_interface_disease"}


def octdl(folder: Path) -> Iterator[Found]:
    """OCT with one of six diseases, or normal; a second disease of the same eye would not be named, so it is unknown."""
    facts = {files.stem(row["file_name"]): row for row in files.lines(files.tables(folder, "OCTDL_labels.csv"))
             if row.get("file_name")}
    paths = [path for path in files.rasters(folder) if files.stem(path) in facts]
    files.expect(paths, folder, OCTDL)
    for path in paths:
        row = facts[files.stem(path)]
        kind = OCTDL_KINDS.get(row.get("disease", ""))
        findings = {} if kind is None else {kind: True} if kind == "normal" else {kind: True, "normal": False}
        yield shown("octdl", path, "oct", anatomy="macula", laterality=SIDES.get(row.get("eye", "").lower()),
                    findings=findings, sex=files.sex(row.get("sex", "")), patient=row.get("patient_id") or None)


SOURCES = tuple(Source(*row[:3], ("ophthalmology",), *row[3:]) for row in (
    # name, title, image types; licence, evidence; citation; address; group, layout, open, read; size, download
    ("aptos2019", "APTOS 2019 blindness detection", ("fundus_photograph",), "competition rules of APTOS (non-commercial)",
     UNCONFIRMED, "Asia Pacific Tele-Ophthalmology Society 2019",
     "https://www.kaggle.com/competitions/aptos2019-blindness-detection", "near_duplicates", APTOS, False, aptos2019,
     "3,662 graded images, 10 GB", "The competition's data; registration at Kaggle needed."),
    ("eyepacs", "EyePACS diabetic retinopathy detection", ("fundus_photograph",), "competition rules (non-commercial)",
     UNCONFIRMED, "Cuadros and Bresnick, EyePACS, Journal of Diabetes Science and Technology 2009",
     "https://www.kaggle.com/competitions/diabetic-retinopathy-detection", "patient", EYEPACS, False, eyepacs,
     "35,126 graded images, 33 GB", "train.zip and trainLabels.csv; registration at Kaggle needed."),
    ("rfmid", "Retinal fundus multi-disease images", ("fundus_photograph",), "CC-BY-4.0", STATED,
     "Pachade et al., RFMiD, Data 2021", "https://doi.org/10.3390/data6020014", "near_duplicates", RFMID, True, rfmid,
     "3,200 images", "The three sets of IEEE DataPort; registration needed."),
    ("odir5k", "Ocular disease intelligent recognition", ("fundus_photograph",), None, UNCONFIRMED,
     "Peking University, ODIR-2019 challenge", "https://www.kaggle.com/datasets/andrewmvd/ocular-disease-recognition-odir5k",
     "patient", ODIR, False, odir5k, "7,000 training images", "The copy with full_df.csv; registration at Kaggle needed."),
    ("deepdrid", "DeepDRiD", ("fundus_photograph",), "CC-BY-SA-4.0", STATED, "Liu et al., DeepDRiD, Patterns 2022",
     "https://github.com/deepdrdoc/DeepDRiD", "patient", DEEPDRID, False, deepdrid, "2,000 regular images",
     "The repository; no registration."),
    ("messidor2", "Messidor-2", ("fundus_photograph",), "research and education only, on request", UNCONFIRMED,
     "Abramoff et al., JAMA Ophthalmology 2013; grades: Krause et al., Ophthalmology 2018",
     "https://www.adcis.net/en/third-party/messidor2/", "pair of eyes", MESSIDOR, False, messidor2, "1,748 images",
     "The images at ADCIS and the adjudicated grades at Kaggle; registration needed at both."),
    ("drive", "DRIVE vessel extraction", ("fundus_photograph",), None, UNCONFIRMED,
     "Staal et al., IEEE Transactions on Medical Imaging 2004", "https://drive.grand-challenge.org/", "patient", DRIVE, False,
     drive, "40 images", "datasets.zip; registration needed."),
    ("oct2017", "Retinal OCT of Kermany", ("oct",), "CC-BY-4.0", STATED,
     "Kermany et al., Cell 2018; Mendeley Data rscbjbr9sj", "https://data.mendeley.com/datasets/rscbjbr9sj", "patient",
     OCT2017, True, oct2017, "109,309 images", "OCT2017 of version 2 or later; no registration."),
    ("octdl", "OCTDL retinal OCT", ("oct",), "CC-BY-4.0", STATED, "Kulyabin et al., Scientific Data 2024",
     "https://data.mendeley.com/datasets/sncdhf53xc", "patient", OCTDL, True, octdl, "2,064 images",
     "OCTDL.zip and OCTDL_labels.csv; no registration."),
))
