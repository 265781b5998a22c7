"""Chest radiographs in large numbers, labelled with many findings each."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, Unfit, shown

NIH = "Data_Entry_2017.csv (Image Index, Finding Labels, Patient ID) beside images_001/images/00000001_000.png and on"
CHEXPERT = ("train.csv or valid.csv (Path, Sex, Age, AP/PA, No Finding, ...) beside "
            "train/patient00001/study1/view1_frontal.jpg and on")
PADCHEST = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv, packed or not, beside the images that it names in ImageID"
VINDR = ("annotations/image_labels_train.csv or image_labels_test.csv (image_id, one column a finding) beside "
         "train/ and test/ with DICOM files")
MIMIC = "mimic-cxr-2.0.0-chexpert.csv.gz and mimic-cxr-2.0.0-metadata.csv.gz beside files/p10/p10000032/s50414267/ with images"
VIEWS = {"PA": "posteroanterior", "AP": "anteroposterior", "AP_horizontal": "anteroposterior_supine", "L": "lateral",
         "Lateral": "lateral", "LATERAL": "lateral", "LL": "lateral"}

NIH_LABELS = {
    "Atelectasis": "atelectasis", "Cardiomegaly": "cardiomegaly", "Effusion": "pleural_effusion", "Mass": "lung_mass",
    "Infiltration": "pulmonary_infiltration", "Nodule": "lung_nodule", "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax", "Consolidation": "consolidation", "Edema": "pulmonary_oedema",
    "Emphysema": "emphysema", "Fibrosis": "pulmonary_fibrosis", "Pleural_Thickening": "pleural_thickening",
    "Hernia": "hernia"}


def nih_chestxray14(folder: Path) -> Iterator[Found]:
    """Fourteen findings read from reports by a program, each present or absent; "No Finding" is of these fourteen only."""
    tables = files.tables(folder, "Data_Entry_2017*.csv*")
    paths = [path for path in files.rasters(folder) if re.fullmatch(r"\d{8}_\d{3}", files.stem(path))]
    files.expect(paths if tables else [], folder, NIH)
    facts = {files.stem(row.get("Image Index", "")): row for row in files.lines(tables)}
    for path in paths:
        row = facts.get(files.stem(path), {})
        labels = [word.strip() for word in row.get("Finding Labels", "").split("|") if word.strip()]
        findings = files.listed(labels, NIH_LABELS) if labels else {}
        if any(findings.values()):
            findings["normal"] = False
        yield shown("nih_chestxray14", path, "chest_xray", anatomy="chest", view=VIEWS.get(row.get("View Position", "")),
                    findings=findings, age_years=files.years(row.get("Patient Age", "")),
                    sex=files.sex(row.get("Patient Gender", "")), patient=files.stem(path)[:8])


CHEXPERT_LABELS = {
    "No Finding": "normal", "Enlarged Cardiomediastinum": "enlarged_cardiomediastinum", "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "lung_opacity", "Lung Lesion": "lung_lesion", "Edema": "pulmonary_oedema",
    "Consolidation": "consolidation", "Pneumonia": "pneumonia", "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax", "Pleural Effusion": "pleural_effusion", "Fracture": "fracture",
    "Support Devices": "support_devices"}


def of_report(row: dict[str, str]) -> dict[str, bool]:
    """What CheXpert's labels say: 1 present, 0 absent, -1 (uncertain) and empty (not mentioned) unknown.

    "No Finding" 1: the whole report mentions none, so normal; 0 says nothing that the other labels do not.
    """
    findings = files.stated(row, CHEXPERT_LABELS)
    if findings.get("normal") is False:
        del findings["normal"]
    if any(findings.get(name) for name in CHEXPERT_LABELS.values() if name not in ("normal", "support_devices")):
        findings["normal"] = False
    return findings


def chexpert(folder: Path) -> Iterator[Found]:
    """Frontal and lateral views; an age of 0 is unknown."""
    tables = files.tables(folder, "train.csv", "valid.csv", "train.csv.gz", "valid.csv.gz")
    named = [(path, re.fullmatch(r"(patient\d+)/study\d+/view\d+_(frontal|lateral)", files.key(path, 3)))
             for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named if tables else [], folder, CHEXPERT)
    facts = {files.key(row["Path"], 3): row for row in files.lines(tables) if row.get("Path")}
    for path, match in named:
        row = facts.get(match[0], {})
        view = "lateral" if match[2] == "lateral" else VIEWS.get(row.get("AP/PA", ""))
        yield shown("chexpert", path, "chest_xray", anatomy="chest", view=view, findings=of_report(row),
                    age_years=files.age(row.get("Age", "")) or None, sex=files.sex(row.get("Sex", "")), patient=match[1])


def mimic_cxr_jpg(folder: Path) -> Iterator[Found]:
    """Chest radiographs of an emergency department and intensive care; findings are of the study's report."""
    labels = files.tables(folder, "mimic-cxr-*-chexpert.csv*")
    headers = files.tables(folder, "mimic-cxr-*-metadata.csv*")
    named = [(path, re.fullmatch(r"p(\d{8})/s(\d{8})/([0-9a-f-]+)", files.key(path, 3))) for path in files.rasters(folder)]
    named = [(path, match) for path, match in named if match]
    files.expect(named if labels and headers else [], folder, MIMIC)
    studies = {row.get("study_id"): row for row in files.lines(labels)}
    views = {row.get("dicom_id"): row.get("ViewPosition", "") for row in files.lines(headers)}
    for path, match in named:
        yield shown("mimic_cxr_jpg", path, "chest_xray", anatomy="chest", view=VIEWS.get(views.get(match[3], "")),
                    findings=of_report(studies.get(match[2], {})), patient=match[1])


PADCHEST_LABELS = {
    "normal": "normal", "pneumonia": "pneumonia", "atypical pneumonia": "pneumonia", "cardiomegaly": "cardiomegaly",
    "pleural effusion": "pleural_effusion", "atelectasis": "atelectasis", "laminar atelectasis": "atelectasis",
    "consolidation": "consolidation", "pneumothorax": "pneumothorax", "infiltrates": "pulmonary_infiltration",
    "nodule": "lung_nodule", "pulmonary mass": "lung_mass",
    "pulmonary edema": "pulmonary_oedema", "emphysema": "emphysema", "pulmonary fibrosis": "pulmonary_fibrosis",
    "pleural thickening": "pleural_thickening", "hiatal hernia": "hernia", "bronchiectasis": "bronchiectasis",
    "scoliosis": "scoliosis", "COPD signs": "chronic_obstructive_pulmonary_disease", "tuberculosis": "tuberculosis",
    "rib fracture": "fracture", "clavicle fracture": "fracture", "adenopathy": "lymphadenopathy",
    "pacemaker": "pacemaker", "endotracheal tube": "endotracheal_tube"}


def padchest(folder: Path) -> Iterator[Found]:
    """Findings named in a report; those not named are unknown. Views of the ribs and excluded films are unfit."""
    tables = files.tables(folder, "PADCHEST_chest_x_ray_images_labels*.csv*")
    paths = files.rasters(folder)
    facts = {files.stem(row.get("ImageID", "")): row for row in files.lines(tables)}
    paths = [path for path in paths if files.stem(path) in facts]
    files.expect(paths, folder, PADCHEST)
    for path in paths:
        row = facts[files.stem(path)]
        labels = [word.strip() for word in re.findall(r"'([^']*)'", row.get("Labels", ""))]
        projection = row.get("Projection", "")
        if projection in ("COSTAL", "EXCLUDE") or "exclude" in labels:
            yield Unfit(str(path), "its table excludes it, or calls it a view of the ribs")
            continue
        findings = files.mentioned(labels, PADCHEST_LABELS)
        if "normal" in labels and set(labels) - {"normal"}:
            del findings["normal"]
        elif any(findings.get(name) for name in findings if name not in ("normal", "pacemaker", "endotracheal_tube")):
            findings["normal"] = False
        born, taken = files.number(row.get("PatientBirth", "")), files.number(row.get("StudyDate_DICOM", "")[:4])
        yield shown("padchest", path, "chest_xray", anatomy="chest", view=VIEWS.get(projection), findings=findings,
                    age_years=files.age(str(taken - born)) if born and taken else None,
                    sex=files.sex(row.get("PatientSex_DICOM", "")), patient=row.get("PatientID") or None)


VINDR_LABELS = {
    "Aortic enlargement": "aortic_enlargement", "Atelectasis": "atelectasis", "Cardiomegaly": "cardiomegaly",
    "Clavicle fracture": "fracture", "Rib fracture": "fracture", "Consolidation": "consolidation",
    "Edema": "pulmonary_oedema", "Emphysema": "emphysema", "ILD": "interstitial_lung_disease",
    "Infiltration": "pulmonary_infiltration", "Lung Opacity": "lung_opacity", "Mediastinal shift": "mediastinal_shift",
    "Pleural effusion": "pleural_effusion", "Pleural thickening": "pleural_thickening", "Pneumothorax": "pneumothorax",
    "Pulmonary fibrosis": "pulmonary_fibrosis", "COPD": "chronic_obstructive_pulmonary_disease",
    "Lung tumor": "lung_tumour", "Pneumonia": "pneumonia", "Tuberculosis": "tuberculosis", "No finding": "normal"}


def vindr_cxr(folder: Path) -> Iterator[Found]:
    """Findings by radiologists, three an image: present by most of them, absent by all, else unknown."""
    tables = files.tables(folder, "image_labels_train.csv", "image_labels_test.csv")
    paths = files.ending(folder, ".dicom", ".dcm")
    files.expect(paths if tables else [], folder, VINDR)
    said: dict[str, list[dict[str, bool]]] = {}
    for row in files.lines(tables):
        said.setdefault(row.get("image_id", ""), []).append(files.stated(row, VINDR_LABELS))
    for path in paths:
        readers = said.get(path.stem, [])
        findings = {}
        for name in dict.fromkeys(VINDR_LABELS.values()):
            votes = [reader[name] for reader in readers if name in reader]
            if votes and (not any(votes) or 2 * sum(votes) > len(votes)):
                findings[name] = any(votes)
        yield shown("vindr_cxr", path, "chest_xray", anatomy="chest", view="posteroanterior", findings=findings)


SOURCES = tuple(Source(*row[:2], ("chest_xray",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("nih_chestxray14", "NIH ChestX-ray14", "free use with acknowledgement of the NIH Clinical Center", UNCONFIRMED,
     "Wang et al., ChestX-ray8, CVPR 2017", "https://nihcc.app.box.com/v/ChestXray-NIHCC", "patient", NIH, True,
     nih_chestxray14, "112,120 images, 42 GB", "The twelve images_0*.tar.gz and Data_Entry_2017.csv; no registration."),
    ("chexpert", "CheXpert, Stanford", "Stanford University Dataset Research Use Agreement (non-commercial)", UNCONFIRMED,
     "Irvin et al., CheXpert, AAAI 2019", "https://stanfordmlgroup.github.io/competitions/chexpert/", "patient", CHEXPERT,
     False, chexpert, "224,316 images, 11 GB (small) or 439 GB", "CheXpert-v1.0-small.zip or the full set; registration needed."),
    ("padchest", "PadChest, Alicante", "PADCHEST Dataset Research Use Agreement (non-commercial)", UNCONFIRMED,
     "Bustos et al., PadChest, Medical Image Analysis 2020", "https://bimcv.cipf.es/bimcv-projects/padchest/", "patient",
     PADCHEST, False, padchest, "160,868 images, 1 TB", "The numbered zip files and the table of labels; registration needed."),
    ("vindr_cxr", "VinDr-CXR, Vietnam", "PhysioNet Credentialed Health Data License 1.5.0", STATED,
     "Nguyen et al., VinDr-CXR, Scientific Data 2022", "https://physionet.org/content/vindr-cxr/", "near_duplicates", VINDR,
     False, vindr_cxr, "18,000 images", "The whole project at PhysioNet; credentialed access needed."),
    ("mimic_cxr_jpg", "MIMIC-CXR-JPG, Boston", "PhysioNet Credentialed Health Data License 1.5.0", STATED,
     "Johnson et al., MIMIC-CXR-JPG, 2019", "https://physionet.org/content/mimic-cxr-jpg/", "patient", MIMIC, False,
     mimic_cxr_jpg, "377,110 images, 570 GB", "files/ and the packed tables at PhysioNet; credentialed access needed."),
))
