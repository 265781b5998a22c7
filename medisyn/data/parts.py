"""Parts: one image inside a file, found by its address and read by the format that the file has.

    a/b.png                      the file itself
    a/b.dcm#3                    frame 3, counted from 0
    a/b.nii.gz#axial:57          slice 57 along an axis; "axial:57:2" of volume 2
    a/b.svs#1024,2048,256,0.5    a tile: left, top (pixels of level 0), side in pixels, micrometres a pixel
    a/b.mp4#120                  a frame of a video
    a/b.npz#train_images:17      row 17 of an array
    a/b.parquet#5                row 5
    a/b.zip!inner/x.png          a member of an archive, read in place; "a/b.zip!inner/s.dcm#0" its frame

A file whose own name holds "#" or "!" is found first. A format is a module with two functions, `parts` and `picture`:
told by the suffix, and by the first bytes where a name has none that is known (DICOM files seldom have one).
"""

import importlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from PIL import Image

from medisyn.data import archives, images

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
SLIDES = (".svs", ".ndpi", ".scn", ".bif", ".mrxs", ".vms", ".vmu", ".svslide")
FORMATS = {  # suffix: the module of medisyn.data that reads it; rasters are read here
    ".dcm": "dicom", ".dicom": "dicom", ".dic": "dicom", ".ima": "dicom",
    ".nii": "nifti", ".nii.gz": "nifti",
    ".npz": "tables", ".parquet": "tables",
    **dict.fromkeys(VIDEOS, "video"), **dict.fromkeys(SLIDES, "slides"),
}
TILE = re.compile(r"\d+,\d+,\d+,\d+(\.\d+)?")  # the part of a slide, whatever its suffix
HEAD = 1024  # bytes that tell a format


@dataclass(frozen=True)
class Reading:
    """How files are read whose pixels have more than 8 bits."""

    window: str = "auto"           # "auto": the header's, else percentiles; "percentile"; or "CENTRE/WIDTH" in its own units
    short_side: int | None = None  # pixels that will be kept of the short side: large JPEGs may come reduced; None: all


def expect_window(window: str) -> None:
    """ValueError where a window is none of those that `Reading` knows."""
    number = r"[+-]?\d+(\.\d+)?"
    match = re.fullmatch(f"{number}/({number})", window)
    if window not in ("auto", "percentile") and not (match and float(match[2]) > 0):
        raise ValueError(f'window should be auto, percentile, or CENTRE/WIDTH as in 40/400; found {window!r}')


@dataclass(frozen=True)
class Read:
    """One image, as it was read."""

    picture: Image.Image  # "L" or "RGB", 8 bits
    how: str | None       # how deeper pixels became 8 bits; None where they were 8 bits already


@dataclass(frozen=True)
class Place:
    """Where a part lies."""

    path: Path                 # the file on disk
    member: str | None = None  # its name inside the archive; None: the file is no archive
    part: str = ""             # which image of the file; "": it is one image

    @property
    def name(self) -> str:
        return self.member or self.path.name


def locate(folder: Path, address: str) -> Place:
    """The place that an address names; ValueError where no such file lies in the folder."""
    folder = Path(os.path.normpath(folder))
    if "\0" in address or not Path(os.path.normpath(folder / address)).is_relative_to(folder):
        raise ValueError("its address leads out of the folder")
    if (folder / address).is_file():
        return Place(folder / address)
    for match in re.finditer("[!#]", address):
        path, rest = folder / address[:match.start()], address[match.end():]
        if rest and path.is_file():
            if match[0] == "#":
                return Place(path, None, rest)
            names = archives.names(path)
            member, _, part = (rest, "", "") if rest in names else rest.rpartition("#")
            if member not in names:
                raise ValueError("the archive holds no such file")
            return Place(path, member, part)
    raise ValueError("no such file lies in the folder")


def opened(place: Place) -> Path | BinaryIO:
    """What a format reads: the file's path, or the bytes of a member, in memory."""
    return place.path if place.member is None else io.BytesIO(archives.read(place.path, place.member))


def open_part(folder: Path, address: str, reading: Reading = Reading()) -> Read:  # noqa: B008 (frozen)
    """Read one image by its address; ValueError says in one sentence, which names no file, why it cannot be read."""
    place = locate(folder, address)
    return read(place, opened(place), reading)


def read(place: Place, file: Path | BinaryIO, reading: Reading) -> Read:
    """Read the part of an open file; ValueError as of `open_part`."""
    module = format_of(place.name, file, place.part)
    if module is not None:
        return Read(*module.picture(file, place.part, reading))
    if place.part:
        raise ValueError("it is one image and has no parts")
    try:
        picture = images.upright(file, reading.short_side)
    except Exception as error:
        raise ValueError(f"not a readable image ({type(error).__name__})") from None
    deep = picture.mode in ("I", "F", "I;16", "I;16B", "I;16L")
    return Read(images.eight_bit(picture), "minimum to maximum" if deep else None)


def format_of(name: str, file: Path | BinaryIO, part: str = "") -> ModuleType | None:
    """The module that reads a file; None: a raster, which is read here."""
    if TILE.fullmatch(part):
        return module("slides")
    known = suffix(name)
    if known in FORMATS:
        return module(FORMATS[known])
    return module(told) if known not in images.RASTERS and (told := sniffed(head(file))) else None


def suffix(name: str) -> str:
    """The suffix that tells a format, in small letters: ".nii.gz" is one."""
    name = Path(name).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def module(name: str) -> ModuleType:
    return importlib.import_module(f"medisyn.data.{name}")


def head(file: Path | BinaryIO) -> bytes:
    """The first bytes of a file."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened_file:
                return opened_file.read(HEAD)
        found = file.read(HEAD)
        file.seek(0)
    except OSError as error:
        raise ValueError(f"not a readable file ({error.strerror})") from None
    return found


def sniffed(data: bytes) -> str | None:
    """The format that the first bytes of a file tell; None: a raster, if anything."""
    if data[:4] == b"PAR1":
        return "tables"
    return next((name for name in ("dicom", "nifti", "video") if module(name).looks(data)), None)
