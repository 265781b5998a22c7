"""De-identification: which header fields may be read at all, and how what they say is made coarser before it is kept.

In the spirit of DICOM PS3.15 Annex E, turned round: nothing is removed from a header, because nothing is taken from it
but the fields listed here, and of these only words of the vocabulary, numbers and keyed hashes are ever written. It
reduces the risk that a patient is recognised. It does not end it: somebody has to look (docs/deidentification.md).
"""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medisyn.data.records import PUBLIC_KEY, Record, pseudonym

KEY_BYTES = 32   # of a new key
LEAST_KEY = 16   # a shorter one is no secret: a file cut short, or a typed word


@dataclass(frozen=True)
class Field:
    """One header field that may be read."""

    keyword: str
    tag: int         # (group << 16) | element
    why: str
    kind: type = str  # str: one word; float: one number; tuple: all values; bool: only whether it is there


ALLOWED: tuple[Field, ...] = (
    # What the object is
    Field("SOPClassUID", 0x00080016, "what kind of object it is: a class of the standard, never an instance"),
    Field("Modality", 0x00080060, "image type"),
    Field("ImageType", 0x00080008, "original or derived, localizers, screen saves", tuple),
    Field("ConversionType", 0x00080064, "how a secondary capture was made: scanned film, video, synthetic"),
    Field("PresentationIntentType", 0x00080068, "for presentation or for processing: a raw detector image looks different"),
    Field("SyntheticData", 0x0008001C, "a synthetic image is never taken for a real one"),
    # What is pictured, and from where
    Field("BodyPartExamined", 0x00180015, "anatomy"),
    Field("ViewPosition", 0x00185101, "view"),
    Field("Laterality", 0x00200060, "side of a paired structure"),
    Field("ImageLaterality", 0x00200062, "side, where the image says it itself"),
    Field("PatientOrientation", 0x00200020, "which way the rows and columns run", tuple),
    Field("ImageOrientationPatient", 0x00200037, "axial, coronal or sagittal", tuple),
    Field("InstanceNumber", 0x00200013, "the order of the slices of a series", float),
    # MR technique, told by physics because its descriptions are free text
    Field("ScanningSequence", 0x00180020, "spin echo, inversion recovery, gradient echo", tuple),
    Field("SequenceVariant", 0x00180021, "spoiled, segmented, ...", tuple),
    Field("AcquisitionContrast", 0x00089209, "T1, T2, FLAIR, ... of enhanced MR"),
    Field("RepetitionTime", 0x00180080, "ms: T1 from T2", float),
    Field("EchoTime", 0x00180081, "ms: T1 from T2", float),
    Field("InversionTime", 0x00180082, "ms: FLAIR", float),
    Field("ContrastBolusAgent", 0x00180010, "whether contrast was given; the words, free text, are not read", bool),
    # Who, coarsely
    Field("PatientAge", 0x00101010, "age, banded before it is written"),
    Field("PatientSex", 0x00100040, "sex"),
    # Keys: which images belong together; never written, only hashed under a local key
    Field("PatientID", 0x00100020, "images of one patient share a split"),
    Field("StudyInstanceUID", 0x0020000D, "images of one study share a split where no patient is named"),
    Field("SeriesInstanceUID", 0x0020000E, "slices of one series belong together"),
    # What the header says of identification itself
    Field("BurnedInAnnotation", 0x00280301, "text in the pixels"),
    Field("RecognizableVisualFeatures", 0x00280302, "a face that can be recognised"),
)
CODED = (  # sequences of which codes and sides are read, never their meanings, and what stands in them
    "AnatomicRegionSequence", "ViewCodeSequence", "CodeValue", "CodingSchemeDesignator",
    "SpecimenDescriptionSequence", "SpecimenPreparationSequence", "SpecimenPreparationStepContentItemSequence",
    "ConceptCodeSequence",
    "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "PlaneOrientationSequence", "MRImageFrameTypeSequence",
    "FrameAnatomySequence", "FrameLaterality",
)
KEYS = {"PatientID": "patient", "StudyInstanceUID": "study", "SeriesInstanceUID": "series"}


@dataclass(frozen=True)
class Policy:
    """How much of what a source says is kept."""

    age_bands: bool = True   # ages fall into the bands of `age`; False: kept as stated
    free_text: bool = False  # keep a table's own `text` and licence; False: drop them, the prompt is then written from the facts
    headers: bool = True     # images whose header gives reason for doubt wait in the quarantine
    classes: bool = True     # so do those of the image types AT_RISK_TYPES that no header clears
    text_boxes: bool = True  # and those in whose pixels text is found


LOCAL = Policy()  # a hospital's own images
PUBLIC = Policy(age_bands=False, free_text=True, headers=False, classes=False, text_boxes=False)  # published as they are


def policy_of(key: bytes) -> Policy:
    """The policy that goes with a key: data read under the public key is public already."""
    return PUBLIC if key == PUBLIC_KEY else LOCAL


# Headers

def facts_header(dataset: object) -> dict[str, object]:
    """The fields of a pydicom Dataset that may be read, by keyword; empty and unreadable ones are left out.

    Nothing else is touched: no other element, no private tag, no sequence. The three keys come raw and
    are for `keys` and grouping alone.
    """
    found = {}
    for field in ALLOWED:
        if field.tag not in dataset:
            continue
        if field.kind is bool:
            found[field.keyword] = True
            continue
        try:
            value = plain(dataset[field.tag].value, field.kind)
        except Exception:  # whatever a broken value does to its reader, it is unknown, and not repeated in an error
            continue
        if value not in (None, "", ()):
            found[field.keyword] = value
    return found


def plain(value: object, kind: type) -> object:
    """A header's value as a word, a number or a tuple of words; None where it has none."""
    values = [] if value is None else [value] if isinstance(value, (str, int, float)) or not hasattr(value, "__iter__") \
        else list(value)
    if kind is tuple:
        return tuple(str(one).strip() for one in values)
    if not values:
        return None
    return float(values[0]) if kind is float else str(values[0]).strip()


def person(header: Mapping[str, object]) -> str | None:
    """What groups the images of one patient: the patient's number, else the study, else the series; raw, never written."""
    for keyword, noun in KEYS.items():
        if header.get(keyword):
            return f"{noun}/{header[keyword]}"
    return None


def keys(header: Mapping[str, object], source: str, key: bytes) -> dict[str, str]:
    """{"patient", "study", "series"} of a header as HMACs under a local key, 16 hex digits each."""
    return {noun: pseudonym(source, f"{noun}/{header[keyword]}", key) for keyword, noun in KEYS.items() if header.get(keyword)}


# Facts

def age(years: float | None) -> float | None:
    """The middle of an age's band, in whole years: under 1, 1-4, then five years each, 90 and over.

    The bands are those of population statistics (census, WHO): wide enough that age, sex and a common finding
    seldom single anybody out, narrow enough that an infant, a child and an old patient still look it. That is
    coarser than HIPAA's Safe Harbor asks (45 CFR 164.514(b)(2)(i)(C): exact years, but one group for 90 and over).
    """
    if years is None or not 0 <= years:  # NaN fails the comparison too
        return None
    if years < 1:
        return 0.0
    if years < 5:
        return 3.0
    return 90.0 if years >= 90 else years // 5 * 5 + 2.0


def age_years(stated: str | None) -> float | None:
    """A DICOM age string ("045Y", "018M", "003W", "010D") in years; None where it is none (PS3.5 6.2, AS)."""
    stated = str(stated or "").strip().upper()
    if len(stated) < 2 or not stated[:-1].isascii() or not stated[:-1].isdigit() or stated[-1] not in "YMWD":
        return None
    years = int(stated[:-1]) / {"Y": 1, "M": 12, "W": 52.1775, "D": 365.2425}[stated[-1]]
    return years if years <= 120 else None


def deidentified(record: Record, policy: Policy) -> Record:
    """A raw record as a policy lets it be kept; its patient is still the raw key."""
    if record.synthetic:  # nobody's
        return record
    return replace(record, age_years=age(record.age_years) if policy.age_bands else record.age_years,
                   text=record.text if policy.free_text else None,
                   licence=record.licence if policy.free_text or known_licence(record.licence) else None)


LICENCE = re.compile(r"CC-BY(-NC)?(-SA|-ND)?-[1-4]\.0|CC0-1\.0|MIT|Apache-2\.0|BSD-[23]-Clause|O(DbL|DC-By)-1\.0|PDDL-1\.0"
                     r"|CDLA-(Permissive|Sharing)-[12]\.0")  # SPDX identifiers that data come under


def known_licence(said: str | None) -> bool:
    """Whether a table's licence is made of SPDX identifiers; whatever else stands in that column is free text."""
    return said is not None and all(LICENCE.fullmatch(one) for one in re.split(" AND | OR ", said))


# Doubt: images that wait in the quarantine until somebody has looked.

AT_RISK = {  # DICOM modality: why its pixels often name the patient
    "US": "ultrasound machines write name and date into the picture",
    "IVUS": "ultrasound machines write name and date into the picture",
    "XA": "angiography stations write name and date into the picture",
    "RF": "fluoroscopy stations write name and date into the picture",
    "ES": "endoscopy processors write name and date into the picture",
    "XC": "a camera may show a face, a wristband or a label",
    "GM": "a specimen's label may stand in the picture",
    "OT": "its origin is not told; it may be a capture of a screen",
    "SC": "a secondary capture may show what stood on a screen or a film",
    "DOC": "it is a document",
}
AT_RISK_TYPES = {  # image type of the vocabulary: the same, where no header speaks
    "ultrasound": AT_RISK["US"],
    "gi_endoscopy": AT_RISK["ES"],
    "laryngoscopy": AT_RISK["ES"],
    "laparoscopy": AT_RISK["ES"],
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame children .1 to .4
CAPTURES = {"SCREEN SAVE", "SCREENSAVE", "CAPTURE", "SCREEN", "REPORT", "DOSE", "DOSE_INFO", "SCANNED"}  # in ImageType


def doubt(header: Mapping[str, object]) -> str | None:
    """Why an image should wait until somebody has looked at it, by its header alone; None where the header gives no reason.

    BurnedInAnnotation NO clears an image of a class at risk (the pixels are still searched for text). The reasons
    never quote the header.
    """
    if word(header, "BurnedInAnnotation") == "YES":
        return "its header says that text is burned into the pixels"
    if word(header, "RecognizableVisualFeatures") == "YES":
        return "its header says that the person can be recognised in the picture"
    if word(header, "BurnedInAnnotation") == "NO":
        return None
    if word(header, "Modality") in AT_RISK:
        return f"its modality is at risk of burned-in text: {AT_RISK[word(header, 'Modality')]}"
    if word(header, "SOPClassUID").startswith(SECONDARY_CAPTURE) or word(header, "ConversionType"):
        return f"its class is at risk of burned-in text: {AT_RISK['SC']}"
    if CAPTURES & {str(value).upper() for value in header.get("ImageType", ())}:
        return "its class is at risk of burned-in text: it is a capture of a screen or a report"
    return None


def word(header: Mapping[str, object], keyword: str) -> str:
    return str(header.get(keyword) or "").strip().upper()


def doubt_of_type(image_type: str) -> str | None:
    """The same for an image without a header, by its image type."""
    why = AT_RISK_TYPES.get(image_type)
    return f"its image type is at risk of burned-in text: {why}" if why else None


# The local key, and the private folder around it

def home(config: str | None = None) -> Path:
    """Where the key and what may name a patient is kept, outside every collection; config: $XDG_CONFIG_HOME, where set."""
    return (Path(config) if config else Path.home() / ".config") / "medisyn"


def key(path: Path, collection: Path | None = None) -> bytes:
    """The secret in a file, made once and readable to its owner alone; ValueError where it would be no secret.

    collection: where images are being written; a key never lies inside it, because a collection is given away.
    """
    path = Path(path)
    if collection is not None and path.resolve().is_relative_to(Path(collection).resolve()):
        raise ValueError(f"the key should lie outside the collection, which is given away; found {path}; name another path")
    if not path.exists():
        make_key(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: the key should be readable to its owner alone; run `chmod 600 {path}`, and think of who read it")
    secret = path.read_bytes().strip()
    if len(secret) < LEAST_KEY:
        raise ValueError(f"{path}: expected a key of {LEAST_KEY} bytes or more, found {len(secret)}; restore it from a copy, or "
                         "delete it for a new one, under which every patient and every split changes")
    return secret


def make_key(path: Path) -> None:
    """Write a new key, whole or not at all; of two who make it at the same time, both find the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with open(draft, "xb", opener=owner_only) as out:
        out.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
    try:
        os.link(draft, path)  # fails where a file is there, unlike a rename
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def owner_only(path: str, flags: int) -> int:
    """An opener for `open`: the file is made readable to its owner alone."""
    return os.open(path, flags, 0o600)


def private(home: Path, collection: Path) -> Path:
    """The folder, for its owner alone, of what a collection must not hold: the names and thumbnails of the quarantined."""
    folder = Path(home) / "quarantine" / pseudonym("collection", str(Path(collection).resolve()))
    for one in (Path(home), folder.parent, folder):
        one.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
