"""DICOM slides: which files of a folder are the floors of one whole slide.

A slide in DICOM is a series of files: a floor of the pyramid each (VOLUME), and one with the label, one with the slide from
afar. The latter two show the patient's name: they are told by their headers and never opened for their pixels.
"""

from functools import lru_cache
from pathlib import Path

from medisyn.data import deidentify, headers
from medisyn.data.dicom_file import library, quiet, whole
from medisyn.data.windows import Refused

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"    # VL Whole Slide Microscopy Image Storage
APART = {"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"}
Floor = tuple[str, int]                           # its series, and its width in pixels


def is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def floor(path: Path) -> Floor | None:
    """The series and the width in pixels of a slide's floor; None where a file is none. ValueError for another kind of DICOM."""
    status = path.stat()
    return _floor(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _floor(path: str, size: int, mtime_ns: int) -> Floor | None:
    header = header_of(Path(path))
    said = deidentify.facts_header(header)
    if said.get("SOPClassUID") != WHOLE_SLIDE:
        raise Refused("it is no whole slide; `medisyn ingest dicom` reads other DICOM files")
    kinds = {str(kind).upper() for kind in said.get("ImageType", ())}
    if "VOLUME" not in kinds or kinds & APART:
        return None
    across, down, columns, rows, frames = (whole(header, name, 0) for name in (
        "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "Columns", "Rows", "NumberOfFrames"))
    if min(across, down, columns, rows, frames) < 1:
        raise Refused("its header does not describe a slide (pixels of the whole and of a tile, number of tiles)")
    if header.get("DimensionOrganizationType") == "TILED_FULL" and -(-across // columns) * -(-down // rows) > frames:
        raise Refused("its header says more pixels than its tiles hold")
    return str(said.get("SeriesInstanceUID", "")), across


def floors(path: Path) -> list[Path]:
    """The files of the slide that a floor belongs to, the finest first; [] where the file is no floor."""
    ours = floor(path)
    if ours is None:
        return []
    found = {path: ours}
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file() and is_dicom(other):
            try:
                if (theirs := floor(other)) and theirs[0] == ours[0] != "":
                    found[other] = theirs
            except ValueError:  # another kind of DICOM, or a broken one
                continue
    return sorted(found, key=lambda one: (-found[one][1], str(one)))


def facts(path: Path) -> dict[str, object]:
    """What the header of a floor tells, as `headers.facts`: stain, anatomy, age, sex, the raw patient key, and `doubt`.

    The technique is None where the header tells of a preparation and of no stain that is known: it is not the routine one then.
    """
    try:
        with quiet():
            header = header_of(path)
            prepared = any(headers.items(specimen, "SpecimenPreparationSequence")
                           for specimen in headers.items(header, "SpecimenDescriptionSequence"))
            return {**({"technique": None} if prepared else {}), **headers.facts(header)}
    except Exception as error:  # whatever a broken file does to its reader
        raise Refused(f"its header is not readable DICOM ({type(error).__name__})") from None


def header_of(path: Path) -> object:
    """A header without the pixels, whatever their size; ValueError where it is not readable."""
    try:
        with quiet():
            return library().dcmread(path, stop_before_pixels=True)
    except Exception as error:
        raise Refused(f"its header is not readable DICOM ({type(error).__name__})") from None
