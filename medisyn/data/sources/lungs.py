"""Chest radiographs and their one disease: pneumonia, pneumothorax, tuberculosis, COVID-19."""

import re
from collections.abc import Iterator
from pathlib import Path

from medisyn.data.sources import files
from medisyn.data.sources.source import UNCONFIRMED, Found, Source, shown

RSNA = "stage_2_detailed_class_info.csv (patientId, class) beside stage_2_train_images/ with DICOM files"
SIIM = "train-rle.csv (ImageId, EncodedPixels) beside dicom-images-train/ with DICOM files named by ImageId"
SHENZHEN = "CXR_png/ with images CHNCXR_0001_0 and on, beside ClinicalReadings/"
MONTGOMERY = "CXR_png/ with images MCUCXR_0001_0 and on, beside ClinicalReadings/"
RADIOGRAPHY = "folders COVID, Lung_Opacity, Normal and Viral Pneumonia, each with images/"


def rsna_pneumonia(folder: Path) -> Iterator[Found]:
    """Normal, lung opacity, or abnormal without one; an opacity makes pneumonia likely, which is not to show it."""
    tables = files.tables(folder, "stage_2_detailed_class_info.csv")
    paths = files.ending(folder, ".dcm")
    files.expect(paths if tables else [], folder, RSNA)
    kinds = {"Normal": {"normal": True, "lung_opacity": False}, "Lung Opacity": {"normal": False, "lung_opacity": True},
             "No Lung Opacity / Not Normal": {"normal": False, "lung_opacity": False}}
    facts = {row.get("patientId"): row.get("class", "") for row in files.lines(tables)}
    for path in paths:
        header = files.header(folder, path) | {"patient": path.stem}
        yield shown("rsna_pneumonia", path, "chest_xray", anatomy="chest", findings=dict(kinds.get(facts.get(path.stem), {})),
                    **header)


def siim_acr_pneumothorax(folder: Path) -> Iterator[Found]:
    """Pneumothorax drawn by radiologists, or none; an image without a row is unknown."""
    tables = files.tables(folder, "*train-rle.csv")
    paths = files.ending(folder, ".dcm")
    files.expect(paths if tables else [], folder, SIIM)
    drawn: dict[str, bool] = {}
    for row in files.lines(tables):
        shape = row.get("EncodedPixels", "")
        if shape:
            drawn[row.get("ImageId", "")] = drawn.get(row.get("ImageId", ""), False) or shape != "-1"
    for path in paths:
        present = drawn.get(path.stem)
        findings = files.known(pneumothorax=present, normal=False if present else None)
        yield shown("siim_acr_pneumothorax", path, "chest_xray", anatomy="chest", findings=findings,
                    **files.header(folder, path))


def tuberculosis(name: str, prefix: str, layout: str, folder: Path) -> Iterator[Found]:
    """Frontal radiographs, normal (0) or with tuberculosis (1) by their name; sex and age from the reading beside them."""
    named = [(path, re.fullmatch(rf"{prefix}_(\d{{4}})_([01])", files.stem(path))) for path in files.rasters(folder)
             if "mask" not in str(path).lower()]
    named = [(path, match) for path, match in named if match]
    files.expect(named, folder, layout)
    readings = {path.stem: path for path in files.tables(folder, f"{prefix}_*.txt")}
    for path, match in named:
        told = readings.get(match[0])
        text = told.read_text(encoding="utf-8", errors="replace").lower() if told else ""
        sex, age = re.search(r"\b(female|male|f|m)\b", text), re.search(r"(\d{1,3})\s*(yr?s?|months?|days?)\b", text)
        ill = match[2] == "1"
        yield shown(name, path, "chest_xray", anatomy="chest", findings={"tuberculosis": ill, "normal": not ill},
                    age_years=files.years(f"{age[1]}{age[2]}") if age else None, sex=files.sex(sex[1]) if sex else None,
                    patient=match[1])


def shenzhen_tb(folder: Path) -> Iterator[Found]:
    """Chest radiographs of Shenzhen No. 3 Hospital."""
    yield from tuberculosis("shenzhen_tb", "CHNCXR", SHENZHEN, folder)


def montgomery_tb(folder: Path) -> Iterator[Found]:
    """Chest radiographs of Montgomery County's screening."""
    yield from tuberculosis("montgomery_tb", "MCUCXR", MONTGOMERY, folder)


KINDS = {"COVID": {"covid_19": True}, "Lung_Opacity": {"lung_opacity": True, "normal": False},
         "Normal": {"normal": True}, "Viral Pneumonia": {"viral_pneumonia": True, "pneumonia": True, "normal": False}}


def covid_radiography(folder: Path) -> Iterator[Found]:
    """COVID-19, other lung opacity, viral pneumonia, normal; gathered from other public sets, so copies of theirs are in it."""
    paths = [path for path in files.rasters(folder) if path.parent.name == "images" and path.parent.parent.name in KINDS]
    files.expect(paths, folder, RADIOGRAPHY)
    for path in paths:
        yield shown("covid_radiography", path, "chest_xray", anatomy="chest", findings=dict(KINDS[path.parent.parent.name]))


SOURCES = tuple(Source(*row[:2], ("chest_xray",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("rsna_pneumonia", "RSNA pneumonia detection challenge", "competition rules of RSNA (non-commercial)", UNCONFIRMED,
     "Shih et al., Radiology: Artificial Intelligence 2019",
     "https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge", "patient", RSNA, False, rsna_pneumonia,
     "30,227 images, 4 GB", "The competition's data; registration at Kaggle needed."),
    ("siim_acr_pneumothorax", "SIIM-ACR pneumothorax segmentation", "competition rules of SIIM-ACR (non-commercial)",
     UNCONFIRMED, "SIIM-ACR Pneumothorax Segmentation 2019",
     "https://www.kaggle.com/competitions/siim-acr-pneumothorax-segmentation", "patient", SIIM, False,
     siim_acr_pneumothorax, "12,047 images", "dicom-images-train and train-rle.csv; registration needed."),
    ("shenzhen_tb", "Tuberculosis chest radiographs, Shenzhen", "free for research, by the National Library of Medicine",
     UNCONFIRMED, "Jaeger et al., Quantitative Imaging in Medicine and Surgery 2014",
     "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Shenzhen-Hospital-CXR-Set/index.html",
     "patient", SHENZHEN, False, shenzhen_tb, "662 images", "ChinaSet_AllFiles.zip; no registration."),
    ("montgomery_tb", "Tuberculosis chest radiographs, Montgomery County",
     "free for research, by the National Library of Medicine", UNCONFIRMED,
     "Jaeger et al., Quantitative Imaging in Medicine and Surgery 2014",
     "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set/index.html",
     "patient", MONTGOMERY, False, montgomery_tb, "138 images",
     "MontgomerySet.zip; no registration."),
    ("covid_radiography", "COVID-19 radiography database", None, UNCONFIRMED,
     "Chowdhury et al., IEEE Access 2020; Rahman et al., Computers in Biology and Medicine 2021",
     "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database", "near_duplicates", RADIOGRAPHY, False,
     covid_radiography, "21,165 images, 0.8 GB", "COVID-19_Radiography_Dataset; registration at Kaggle needed."),
))
