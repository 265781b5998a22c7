"""CT: heads with haemorrhage, chests with COVID-19, nodules and reports, lesions of the whole body."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medisyn.data.sources import files
from medisyn.data.sources.mri import slices
from medisyn.data.sources.source import STATED, UNCONFIRMED, Found, Source, Unfit, part, shown

RSNA_ICH = "stage_2_train.csv (ID, Label; ID_12cadc6af_epidural) beside stage_2_train/ with DICOM files"
CT_RATE = "train_predicted_labels.csv or valid_predicted_labels.csv beside train_1/train_1_a/train_1_a_1.nii.gz and on"
LIDC = "metadata.csv of the download (Modality, File Location) beside LIDC-IDRI/LIDC-IDRI-0001/ and on with DICOM files"
DEEP_LESION = "DL_info.csv (File_name, Coarse_lesion_type, ...) beside Images_png/000001_01_01/109.png and on"
COVID_CT = "folders CT_COVID and CT_NonCOVID of images"
SARS_COV_2 = "folders COVID and non-COVID of images named like Covid (1) and Non-Covid (1)"
EACH = 10  # every tenth slice of a chest: neighbours are nearly alike

BLEEDS = {"epidural": "epidural_haemorrhage", "subdural": "subdural_haemorrhage", "any": "intracranial_haemorrhage",
          "subarachnoid": "subarachnoid_haemorrhage", "intraparenchymal": "intraparenchymal_haemorrhage",
          "intraventricular": "intraventricular_haemorrhage"}


def rsna_ich(folder: Path) -> Iterator[Found]:
    """Head CT slices with five kinds of haemorrhage, each present or absent; the patient stands in the DICOM header."""
    said: dict[str, dict[str, bool]] = {}
    for row in files.lines(files.tables(folder, "stage_2_train.csv", "stage_1_train.csv")):
        image, _, kind = row.get("ID", "").rpartition("_")
        if kind in BLEEDS and files.yes_no(row.get("Label", "")) is not None:
            said.setdefault(image, {})[BLEEDS[kind]] = bool(files.yes_no(row["Label"]))
    paths = files.ending(folder, ".dcm")
    files.expect(paths if said else [], folder, RSNA_ICH)
    for path in paths:
        findings = said.get(path.stem, {})
        if any(findings.values()):
            findings = findings | {"normal": False}
        header = {name: value for name, value in files.header(folder, path).items() if name in ("sex", "age_years", "patient")}
        yield shown("rsna_ich", path, "ct", anatomy="head", view="axial", technique="non_contrast", findings=findings, **header)


CT_RATE_LABELS = {"Emphysema": "emphysema", "Lung nodule": "lung_nodule", "Lung opacity": "lung_opacity",
                  "Pulmonary fibrotic sequela": "pulmonary_fibrosis", "Hiatal hernia": "hernia",
                  "Lymphadenopathy": "lymphadenopathy", "Bronchiectasis": "bronchiectasis"}


def ct_rate(folder: Path) -> Iterator[Found]:
    """Non-contrast chest CT. Labels are of the volume: what it lacks every slice lacks, what it has a slice may not show."""
    labels = {row.get("VolumeName", "").removesuffix(".nii.gz"): row
              for row in files.lines(files.tables(folder, "*_predicted_labels.csv"))}
    people = {row.get("VolumeName", "").removesuffix(".nii.gz"): row
              for row in files.lines(files.tables(folder, "*_metadata.csv"))}
    named = [(path, re.fullmatch(r"((?:train|valid)_\d+)_[a-z]+_\d+", path.name.removesuffix(".nii.gz")))
             for path in files.ending(folder, ".nii.gz")]
    named = [(path, match) for path, match in named if match]
    files.expect(named if labels else [], folder, CT_RATE)
    for path, match in named:
        said = files.stated(labels.get(match[0], {}), CT_RATE_LABELS)
        absent = {name: False for name, present in said.items() if not present}
        row = people.get(match[0], {})
        for found in slices(folder, path, EACH):
            if isinstance(found, Unfit):
                yield found
                continue
            yield part("ct_rate", path, found[0], "ct", anatomy="chest", technique="non_contrast", findings=dict(absent),
                       age_years=files.years(row.get("PatientAge", "")), sex=files.sex(row.get("PatientSex", "")),
                       patient=match[1], **found[1])


def lidc_idri(folder: Path) -> Iterator[Found]:
    """Chest CT slices by patient; nodules are marked in XML by slice identifiers that no table repeats: unknown here."""
    places = {PurePosixPath(row.get("File Location", "").replace("\\", "/")).name: row.get("Subject ID", "")
              for row in files.lines(files.tables(folder, "metadata.csv")) if row.get("Modality") == "CT"}
    paths = [path for path in files.ending(folder, ".dcm") if path.parent.name in places]
    files.expect(paths, folder, LIDC)
    for path in paths[::EACH]:
        patient = places[path.parent.name] or next((name for name in path.parts if name.startswith("LIDC-IDRI-")), None)
        yield shown("lidc_idri", path, "ct", anatomy="chest", view="axial", patient=patient)


LESION_SITES = {"2": "abdomen", "3": "chest", "4": "liver", "5": "lung", "6": "kidney", "8": "pelvis"}


def deep_lesion(folder: Path) -> Iterator[Found]:
    """Key slices with a measured lesion; neighbours are left out, and noisy ones are unfit. The site is known for some."""
    facts = {row["File_name"]: row for row in files.lines(files.tables(folder, "DL_info.csv")) if row.get("File_name")}
    found = [(path, f"{path.parent.name}_{path.name}") for path in files.rasters(folder)]
    found = [(path, name) for path, name in found if name in facts]
    files.expect(found, folder, DEEP_LESION)
    for path, name in found:
        row = facts[name]
        if files.yes_no(row.get("Possibly_noisy", "")):
            yield Unfit(str(path), "its table calls it possibly noisy")
            continue
        yield shown("deep_lesion", path, "ct", anatomy=LESION_SITES.get(row.get("Coarse_lesion_type", "")), view="axial",
                    findings={"normal": False}, age_years=files.age(row.get("Patient_age", "")),
                    sex=files.sex(row.get("Patient_gender", "")), patient=name.partition("_")[0])


def covid_ct(folder: Path) -> Iterator[Found]:
    """Chest CT cut out of papers: with changes of COVID-19, or of other people, who may be ill otherwise."""
    kinds = {"CT_COVID": True, "CT_NonCOVID": False}
    paths = [path for path in files.rasters(folder) if path.parent.name in kinds]
    files.expect(paths, folder, COVID_CT)
    for path in paths:
        ill = kinds[path.parent.name]
        yield shown("covid_ct", path, "ct", anatomy="chest", view="axial",
                    findings={"covid_19_lung_changes": ill} | ({"normal": False} if ill else {}))


def sars_cov_2_ct(folder: Path) -> Iterator[Found]:
    """Chest CT of people with COVID-19 (whether a slice shows it is not told) and of others without."""
    kinds = {"COVID": {}, "non-COVID": {"covid_19_lung_changes": False}}
    paths = [path for path in files.rasters(folder) if path.parent.name in kinds
             and re.fullmatch(r"(Non-)?Covid \(\d+\)", files.stem(path))]
    files.expect(paths, folder, SARS_COV_2)
    for path in paths:
        yield shown("sars_cov_2_ct", path, "ct", anatomy="chest", view="axial", findings=dict(kinds[path.parent.name]))


SOURCES = tuple(Source(*row[:2], ("ct",), ("radiology",), *row[2:]) for row in (
    # name, title; licence, evidence; citation; address; group, layout, open, read; size, download
    ("rsna_ich", "RSNA intracranial haemorrhage", "competition rules of RSNA (non-commercial)", UNCONFIRMED,
     "Flanders et al., Radiology: Artificial Intelligence 2020",
     "https://www.kaggle.com/competitions/rsna-intracranial-hemorrhage-detection", "patient", RSNA_ICH, False, rsna_ich,
     "752,803 labelled slices", "The competition's data; registration at Kaggle needed."),
    ("ct_rate", "CT-RATE chest CT", "CC-BY-NC-SA-4.0", STATED, "Hamamci et al., CT-RATE, arXiv 2403.17834",
     "https://huggingface.co/datasets/ibrahimhamamci/CT-RATE", "patient", CT_RATE, False, ct_rate,
     "50,188 volumes of 21,304 people", "The volumes, metadata and multi_abnormality_labels; registration needed."),
    ("lidc_idri", "LIDC-IDRI chest CT", "CC-BY-3.0", STATED, "Armato et al., Medical Physics 2011",
     "https://www.cancerimagingarchive.net/collection/lidc-idri/", "patient", LIDC, True, lidc_idri,
     "1,010 people, 125 GB", "The images by the NBIA Data Retriever, which writes metadata.csv; no registration."),
    ("deep_lesion", "DeepLesion", "free use with acknowledgement of the NIH Clinical Center", UNCONFIRMED,
     "Yan et al., Journal of Medical Imaging 2018", "https://nihcc.app.box.com/v/DeepLesion", "patient", DEEP_LESION, False,
     deep_lesion, "32,120 key slices of 4,427 people, 221 GB", "Images_png_*.zip and DL_info.csv; no registration."),
    ("covid_ct", "COVID-CT from papers", None, UNCONFIRMED, "Yang et al., COVID-CT-Dataset, arXiv 2003.13865",
     "https://github.com/UCSD-AI4H/COVID-CT", "near_duplicates", COVID_CT, False, covid_ct, "746 images",
     "Images-processed of the repository, unpacked; no registration."),
    ("sars_cov_2_ct", "SARS-CoV-2 CT scans, Sao Paulo", "CC-BY-NC-SA-4.0", UNCONFIRMED,
     "Soares et al., medRxiv 2020.04.24.20078584",
     "https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset", "near_duplicates", SARS_COV_2, False,
     sars_cov_2_ct, "2,482 images, 0.2 GB", "The whole set; registration at Kaggle needed."),
))
