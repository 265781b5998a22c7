"""DICOM out: a synthetic image as a Secondary Capture that says in six places that it shows no patient.

An object of an acquisition class (CR, CT, MR ...) would claim a detector, a dose or a scanner; a Secondary Capture with
Synthetic Data = YES claims none (PS3.3 A.8.1 and C.12.1.1). Only records with a provenance are written: images of patients
never leave this way. The prompt, which may hold anybody's words, is not written but its hash; what the image shows stands
there in the words of the vocabulary.
"""

import csv
import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import headers, images, pictures, prompts, records, vocabulary
from medisyn.data.records import Record

NAMESPACE = uuid.UUID("6b0f3c52-61a4-5d0e-9a7e-3f6f1d3f9c11")  # of all UIDs made here (RFC 9562, version 5)
PATIENT, MARK, MAKER = "SYNTHETIC^MEDISYN", "SYNTHETIC", "MediSyn"
PURPOSE = ("109100", "DCM", "Synthesizing Equipment")           # CID 7005, named by PS3.3 C.12.1.1.13 for this use
BODY_PARTS = {anatomy: stated for stated, anatomy in reversed(headers.BODY_PARTS.items())} | {"appendix": "ABDOMEN"}
PAIRED = ("ankle", "arm", "breast", "ear", "elbow", "foot", "forearm", "hand", "hip", "kidney", "knee", "leg", "lung", "retina",
          "shoulder", "skin", "thigh", "wrist")  # of the body parts, those of which a side is expected (PS3.3 C.7.3.1)
LONG_STRING, SHORT_TEXT = 64, 1024                             # characters of the VRs LO and ST (PS3.5 6.2)
SIDES = {"left": "L", "right": "R"}
LEVELS = 65535                                                  # the highest of 16 bits
INDEX = "index.csv"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    out: Path
    written: int
    patients: int          # a patient is a prompt with its facts
    real: int              # records of patients, which were left out
    image_types: dict[str, int]


def library() -> object:
    try:
        import pydicom
    except ImportError:
        raise ModuleNotFoundError("writing DICOM needs pydicom; install it with pip install 'medisyn[dicom]'") from None
    return pydicom


def export(collection: Path, out: Path, limit: int | None = None, progress: Progress | None = None) -> Exported:
    """Write the synthetic images of a collection as DICOM: a folder a patient, and an index from file to record.

    limit: at most so many images, the first ones; None: all. ValueError where a collection holds no synthetic image.
    """
    collection, out = Path(collection), Path(out)
    if limit is not None and limit < 1:
        raise ValueError(f"limit should be 1 or more, or None for all images; found {limit}")
    library()
    made, real = sum(1 for record in records.read(collection) if record.synthetic), 0
    if not made:
        raise ValueError(f"{collection}: expected synthetic images, found none; images of patients are never written as DICOM")
    total, numbers, kinds = min(made, limit or made), Counter(), Counter()
    out.mkdir(parents=True, exist_ok=True)
    draft, now = out / f"{INDEX}.part", datetime.now(UTC)
    with draft.open("w", encoding="utf-8", newline="") as lines:
        index = csv.writer(lines)
        index.writerow(("file", "record", "image_type", "sop_instance_uid", "series_instance_uid", "study_instance_uid"))
        for record, file in pictures.files(collection):
            if not record.synthetic:
                real += 1
                continue
            if kinds.total() == total:
                continue
            numbers[series(record)] += 1
            dataset = dataset_of(record, opened(record, file), numbers[series(record)], now)
            path = out / dataset.PatientID / f"{dataset.SOPInstanceUID}.dcm"
            save(dataset, path)
            index.writerow((path.relative_to(out).as_posix(), record.id, record.image_type, dataset.SOPInstanceUID,
                            dataset.SeriesInstanceUID, dataset.StudyInstanceUID))
            kinds[record.image_type] += 1
            if progress:
                progress(kinds.total(), total)
    os.replace(draft, out / INDEX)
    return Exported(out, kinds.total(), len({study for study, _ in numbers}), real, dict(kinds))


def opened(record: Record, file: pictures.File) -> Image.Image:
    if isinstance(file, Path) and not file.is_file():
        raise ValueError(f"{record.id}: {file} is missing; `medisyn check` lists all that are")
    return pictures.opened(file)


def write(record: Record, image: np.ndarray | Image.Image, path: Path, number: int = 1, made: datetime | None = None) -> Path:
    """Write one synthetic image as a DICOM file, whole or not at all; ValueError for a record without a provenance.

    image    float32 (C, H, W) in [-1, 1], C 1 or 3; or a picture, "L" or "RGB"
    number   of the image in its series, from 1
    made     when the file was made; None: now
    """
    return save(dataset_of(record, image, number, made or datetime.now(UTC)), Path(path))


def save(dataset: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    dataset.save_as(draft, enforce_file_format=True)
    os.replace(draft, path)
    return path


# The object

def dataset_of(record: Record, image: np.ndarray | Image.Image, number: int, made: datetime) -> object:
    """The pydicom Dataset of a synthetic image. number: of the image in its series; made: when, with its time zone."""
    pydicom, how = library(), record.provenance
    if how is None:
        raise ValueError(f"{record.id}: expected a synthetic image; this record has no provenance, and images of patients "
                         "are never written as DICOM")
    pixels, scaled = stored(image)
    study, made_series = series(record)
    made = made.astimezone(UTC)
    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    one.file_meta.ImplementationClassUID, one.file_meta.ImplementationVersionName = uid("implementation"), "MEDISYN"

    # SOP Common, Patient, Patient Study, General Study, General Series
    one.SpecificCharacterSet = "ISO_IR 192"
    one.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    one.SOPInstanceUID = uid("image", record.id, how.model, str(how.seed), hashlib.sha256(pixels.tobytes()).hexdigest())
    one.InstanceCreationDate, one.InstanceCreationTime = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    one.TimezoneOffsetFromUTC = "+0000"
    one.SyntheticData = "YES"
    one.PatientName, one.PatientID, one.IssuerOfPatientID = PATIENT, f"SYN-{study}", "MEDISYN"
    one.PatientBirthDate, one.PatientSex = "", {"female": "F", "male": "M"}.get(record.sex, "")
    if record.age_years is not None:
        one.PatientAge = age(record.age_years)
    one.StudyInstanceUID, one.StudyID = uid("study", study), study
    one.StudyDate = one.StudyTime = one.AccessionNumber = one.ReferringPhysicianName = ""  # nobody was examined
    one.StudyDescription = f"{MARK} {MAKER}"
    one.Modality = "OT"                                 # no modality acquired it; CT or MR would route it as a scan
    one.SeriesInstanceUID, one.SeriesNumber = uid("series", study, made_series), 1
    one.SeriesDescription = f"{MARK} {shown(record)}"[:LONG_STRING].rstrip()
    if record.anatomy in BODY_PARTS:
        one.BodyPartExamined = BODY_PARTS[record.anatomy]
    if record.anatomy in PAIRED and record.laterality not in SIDES:
        one.Laterality = ""                             # expected, and unknown

    # General Equipment, SC Equipment, and who made it
    model, version = how.model_name[:LONG_STRING], how.version[:LONG_STRING]
    one.Manufacturer, one.ManufacturerModelName, one.SoftwareVersions = MAKER, model, version
    one.ConversionType = "SYN"
    one.SecondaryCaptureDeviceManufacturer, one.SecondaryCaptureDeviceManufacturerModelName = MAKER, model
    one.SecondaryCaptureDeviceSoftwareVersions = version
    one.ContributingEquipmentSequence = [synthesizing(how, pydicom.Dataset)]

    # General Image
    one.InstanceNumber = number
    one.PatientOrientation = ""
    one.ImageType = ["DERIVED", "SECONDARY"]
    one.DerivationDescription = derivation(how, scaled)
    one.ImageComments = f"{MARK}. {prompts.canonical(record)}"
    one.BurnedInAnnotation = "NO"                       # that names a patient or a date: there is neither
    if record.image_type != "skin_photograph":          # a made face is nobody's, and still a face
        one.RecognizableVisualFeatures = "NO"
    if record.laterality in SIDES:
        one.ImageLaterality = SIDES[record.laterality]
    position = vocabulary.TERMS[record.view].codes.get("DICOM", "") if record.view in vocabulary.TERMS else ""
    if position.isalpha():                              # the others are codes
        one.ViewPosition = position

    # Image Pixel, VOI LUT
    one.Rows, one.Columns = pixels.shape[:2]
    one.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    one.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        one.PlanarConfiguration = 0
    one.BitsAllocated = one.BitsStored = 8 * pixels.dtype.itemsize
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, 0
    if pixels.ndim == 2:
        one.WindowCenter, one.WindowWidth = (LEVELS + 1) / 2, LEVELS + 1  # all levels (PS3.3 C.11.2.1.2)
        one.WindowCenterWidthExplanation = "FULL RANGE"
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    one.PixelData = data + b"\0" * (len(data) % 2)
    one["PixelData"].VR = "OW"
    return one


def stored(image: np.ndarray | Image.Image) -> tuple[np.ndarray, str | None]:
    """Pixels as DICOM keeps them, uint16 (H, W) for gray or uint8 (H, W, 3) for colour, and what was done to 8-bit gray."""
    if isinstance(image, Image.Image):
        pixels = np.asarray(images.eight_bit(image))
        return (pixels.astype(np.uint16) * 257, "8-bit levels scaled to 16 bits") if pixels.ndim == 2 else (pixels, None)
    if image.ndim != 3 or len(image) not in (1, 3) or not image.size or not np.isfinite(image).all():
        raise ValueError(f"expected an image as finite numbers (1 or 3, H, W) in [-1, 1]; found {image.shape}, or no numbers")
    if len(image) == 3:
        return np.asarray(images.to_picture(image)), None
    unit = (np.clip(image[0].astype(np.float64), -1, 1) + 1) / 2
    return np.rint(unit * LEVELS).astype(np.uint16), None


def series(record: Record) -> tuple[str, str]:
    """(study, series) of a synthetic image, 16 hex digits each: a study is a prompt with its facts, a series one model's.

    The facts count as well, so that no patient ever has two ages.
    """
    how = record.provenance
    return digest(how.prompt, prompts.canonical(record)), digest(how.model)


def digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def uid(*words: str) -> str:
    """A UID that the same words always give (PS3.5 B.2: "2.25." and a UUID as a whole number)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(words)).int}"


def age(years: float) -> str:
    """An age as DICOM says it: in years, of infants in months."""
    return f"{int(years):03d}Y" if years >= 2 else f"{int(12 * years):03d}M"


def shown(record: Record) -> str:
    """Image type and present findings, in words."""
    present = [vocabulary.label(name) for name, there in record.findings.items() if there]
    return vocabulary.label(record.image_type) + (f": {', '.join(present)}" if present else "")


def derivation(how: records.Provenance, scaled: str | None) -> str:
    """How the image came to be, for people and programs, within 1024 characters."""
    prompt = hashlib.sha256(how.prompt.encode()).hexdigest()
    said = (f"{MARK}: made from a sentence by {how.model_name[:LONG_STRING]}", f"model {how.model}", f"seed {how.seed}",
            f"prompt sha256:{prompt}", f"{how.steps} steps of {how.sampler}, guidance {how.guidance:g}, style {how.style}",
            f"medisyn {how.version[:LONG_STRING]}", *([scaled] if scaled else []))
    return "; ".join(said)[:SHORT_TEXT]


def synthesizing(how: records.Provenance, dataset: Callable[[], object]) -> object:
    """The item of the Contributing Equipment Sequence: what synthesized the image."""
    purpose, item = dataset(), dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = PURPOSE
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName = MAKER, how.model_name[:LONG_STRING]
    item.SoftwareVersions = how.version[:LONG_STRING]
    item.ContributionDescription = "Synthesized the image from text; no patient was imaged."
    return item
