"""Clinical files: anybody's folders of DICOM, NIfTI volumes and videos, a record an image.

Headers tell what they tell; a mapping in TOML fills what they leave unknown, with constants or from the path:

    name = "st_marys_ct"                         # the source's name in the collection
    image_type = "ct"
    anatomy = "abdomen"
    patient = {name = "(PAT[0-9]+)"}             # where no header tells it; becomes a pseudonym
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medisyn.data import dicom as dicom_files
from medisyn.data import headers
from medisyn.data import nifti as nifti_files
from medisyn.data import video as video_files
from medisyn.data.records import Record
from medisyn.data.sources import files, own
from medisyn.data.sources.source import UNCONFIRMED, Found, Source, Unfit

DICOM = ("DICOM files in any folders and under any names, with or without a DICOMDIR; a mapping in TOML may say what headers "
         "leave unknown")
NIFTI = (".nii or .nii.gz volumes in any folders, and a mapping in TOML that says at least image_type (T1w, T2w and FLAIR in "
         "names are MRI)")
VIDEO = "videos (.mp4, .mov, .avi, .mkv, .webm, .mpg, .wmv) in any folders, and a mapping in TOML that says at least image_type"
UNKNOWN_TYPE = "its image type is unknown; say image_type in a mapping in TOML and pass it with --mapping"
CINE = {"ultrasound", "gi_endoscopy", "laryngoscopy", "laparoscopy", None}  # frames that follow in time, not in space
SEQUENCES = {  # words of file names, as BIDS and the BraTS challenges write them: technique
    "t1w": "t1", "t1": "t1", "t1n": "t1", "t2w": "t2", "t2": "t2", "flair": "flair", "t2f": "flair",
    "t1ce": "t1_post_contrast", "t1gd": "t1_post_contrast", "t1c": "t1_post_contrast",
}
MASKS = {"seg", "mask", "label", "labels", "dseg", "segmentation", "gt"}  # the same, of what is no image


@dataclass(frozen=True)
class Share:
    """How many images are taken of one file, evenly spread."""

    slices: int = 16  # of a NIfTI volume: neighbours look alike
    frames: int = 16  # of a DICOM loop


SHARE = Share()


def dicom(folder: Path, mapping: Path | None = None) -> Iterator[Found]:
    """Every image in a folder of DICOM files; a DICOMDIR tells only what is missing."""
    folder = Path(folder).parent if Path(folder).is_file() else Path(folder)
    yield from every(folder, mapping, DICOM, lambda path: True, of_dicom)


def nifti(folder: Path, mapping: Path | None = None) -> Iterator[Found]:
    """Slices of every NIfTI volume of a folder, in the plane it was acquired in."""
    yield from every(Path(folder), mapping, NIFTI, lambda path: path.name.lower().endswith(nifti_files.SUFFIXES), of_nifti)


def video(folder: Path, mapping: Path | None = None) -> Iterator[Found]:
    """Frames of every video of a folder, two seconds apart, still stretches once."""
    yield from every(Path(folder), mapping, VIDEO, lambda path: path.suffix.lower() in video_files.SUFFIXES, of_video)


def every(folder: Path, mapping: Path | None, layout: str, fits: Callable[[PurePosixPath], bool],
          read: Callable[[Path, PurePosixPath, dict], Iterator[Found]]) -> Iterator[Found]:
    """What a function finds in each fitting file of a folder; a file that it cannot read is Unfit, with the reason."""
    mapping = own.mapping_of(folder, mapping)
    rules = rules_of(mapping) if mapping else {}
    paths = [path for path in inside(folder) if fits(path) and path.name != own.MAPPING]
    files.expect(paths, folder, layout)
    for path in paths:
        try:
            yield from read(folder, path, rules)
        except ValueError as error:
            yield Unfit(str(path), str(error))
        except OSError as error:
            yield Unfit(str(path), f"not a readable file ({error.strerror})")


def rules_of(mapping: Path) -> dict:
    """A mapping that needs no table."""
    rules = own.read_mapping(mapping)
    findings = rules.get("findings", {})
    tabled = [name for name, rule in {**rules, **findings}.items() if isinstance(rule, dict) and "column" in rule]
    if tabled or "table" in rules:
        raise ValueError(f"{mapping}: {(tabled or ['table'])[0]} needs a table; DICOM, NIfTI and videos have none: say a value, "
                         "folder or name")
    return rules


def inside(folder: Path) -> list[PurePosixPath]:
    """Every file below a folder, relative to it, in a fixed order; hidden ones are left out."""
    found = (PurePosixPath(Path(place, name).relative_to(folder).as_posix())
             for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if not any(part.startswith((".", "__MACOSX")) for part in path.parts)
                  and (folder / path).is_file())


# One file

def of_dicom(folder: Path, path: PurePosixPath, rules: dict) -> Iterator[Found]:
    """The images of a DICOM file; of a loop, frames that are evenly spread."""
    if path.name.upper().startswith("DICOMDIR"):
        held = [path.parent / name for name in dicom_files.directory(folder / path)]
        yield from (Unfit(str(name), "the DICOMDIR names it, but no such file lies in the folder") for name in held
                    if not (folder / name).is_file())
        return
    found = list(dicom_files.parts(folder / path))
    stated = own.facts(rules, {}, path).get("image_type")
    if stated and "image_type" not in found[0][1] and not dicom_files.may_be(folder / path, stated):
        raise ValueError(f"the modality of its header is not one of {stated}, which the mapping says it is")
    if found[0][1].get("image_type") in CINE:
        found = spread(found, SHARE.frames)
    for part, said in found:
        yield record(path, part, said, rules)


def of_nifti(folder: Path, path: PurePosixPath, rules: dict) -> Iterator[Found]:
    """Slices of a NIfTI volume, evenly spread; what its name says of the sequence is taken only where it is such a word."""
    words = re.split(r"[^a-z0-9]+", path.name.lower().removesuffix(".gz").removesuffix(".nii"))
    if MASKS & set(words):
        raise ValueError("its name says that it is a mask, not an image")
    named = {SEQUENCES[word] for word in words if word in SEQUENCES}
    guess = {"patient": person(path), **({"image_type": "mri", "technique": min(named)} if len(named) == 1 else {})}
    volumes: dict[str, list] = {}
    for part, said in nifti_files.parts(folder / path):
        volumes.setdefault(":".join([*part.split(":")[2:]]), []).append((part, said))
    for found in volumes.values():
        for part, said in spread(found, SHARE.slices):
            yield record(path, part, said, rules, guess)


def of_video(folder: Path, path: PurePosixPath, rules: dict) -> Iterator[Found]:
    """Frames of a film; a film is one patient's unless a mapping says otherwise."""
    for part, said in video_files.parts(folder / path):
        yield record(path, part, said, rules, {"patient": str(path)})


def person(path: PurePosixPath) -> str:
    """Whose volume a path holds: a BIDS subject, else the folder it lies in, else itself."""
    subject = re.search(r"(?:^|[/_])(sub-[A-Za-z0-9]+)", str(path))
    return subject[1] if subject else str(path.parent) if path.parent.parts else files.stem(path).split(".")[0]


def spread(found: list, most: int) -> list:
    """At most so many, evenly spread, the middles of equal stretches."""
    return found if len(found) <= most else [found[int((n + 0.5) * len(found) / most)] for n in range(most)]


def record(path: PurePosixPath, part: str, said: dict, rules: dict, guess: dict | None = None) -> Found:
    """The record of a part: what its header says, else what a mapping says, else what is guessed from its path."""
    address = f"{path}#{part}" if part else str(path)
    said = {name: value for name, value in said.items() if value is not None}
    doubt = said.pop("doubt", None)
    mapped, guess = own.facts(rules, {}, path), guess or {}
    kind = said.get("image_type") or mapped.get("image_type") or guess.get("image_type")
    if not kind:
        return Unfit(address, UNKNOWN_TYPE)
    told = [headers.fitting({**one, "image_type": kind}) for one in (guess, said)]
    found = Record(id=address, file_name=address, **headers.completed({**told[0], **mapped, **told[1]}))
    return Unfit(address, doubt, found) if doubt else found


SOURCES = tuple(Source(name, title, (), (), None, UNCONFIRMED, "your own data", None, group, layout, False, read)
                for name, title, group, layout, read in (
    ("dicom", "Your own folder of DICOM files", "patient", DICOM, dicom),
    ("nifti", "Your own folder of NIfTI volumes", "patient", NIFTI, nifti),
    ("video", "Your own folder of videos", "patient", VIDEO, video),
))
