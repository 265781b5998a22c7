"""NIfTI: volumes turned to the patient's axes (RAS), as 8-bit slices seen as a radiologist sees them.

A slice is shown with the patient's right on the left of the picture and anterior or superior at the top; a sagittal one
with anterior on the left. Nothing is read of a header but its numbers: its texts and extensions may name patients.
"""

import contextlib
import gzip
import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from medisyn.data import windows
from medisyn.data.windows import Refused

SUFFIXES = (".nii", ".nii.gz")
MOST_BYTES = 2 << 30   # of a decoded volume
MOST_HEADER = 1 << 26  # bytes before the voxels: header and extensions
PLANES = ("sagittal", "coronal", "axial")  # by the axis (R, A, S) that stands on the slice
LABEL = 1002           # intent code of a map of labels
SAMPLE = 200_000       # voxels that percentiles are told from
ANISOTROPIC = 1.25     # times as coarse as the finest: such an axis stands on the slices that were acquired
FOREGROUND = 0.1       # of the way from a volume's low to its high percentile: darker is background
FULL = 0.25            # of the foreground of the fullest slice: slices with less show too little
LABELS = 16            # different values at most, and all of them whole: a mask of labels, not an image


@dataclass(frozen=True, eq=False)
class Volume:
    """The voxels of a file, turned to RAS."""

    stored: np.ndarray              # (R, A, S, volumes), or (R, A, S, volumes, 3) of colours; as stored, before scaling
    slope: float
    intercept: float
    spacing_mm: tuple[float, float, float]
    oriented: bool                  # whether the file tells how it lies in the patient
    labels: bool                    # whether it says that it is a map of labels

    @property
    def volumes(self) -> int:
        return self.stored.shape[3]

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored voxels in the unit of the image, float64."""
        return stored.astype(np.float64) * self.slope + self.intercept


def looks(head: bytes) -> bool:
    """Whether a file that begins with these bytes (1024 or more) is NIfTI-1 or -2, compressed by gzip or not."""
    if head[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(31).decompress(head, 352)
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def parts(file: Path | BinaryIO, each: int = 1) -> Iterator[tuple[str, dict[str, object]]]:
    """Every `each`-th slice that shows enough, of each volume, in the plane it was acquired in: ("axial:57", facts).

    The second volume of a file and those after it are named too: "axial:57:1".
    """
    volume = read(file)
    if volume.labels or is_mask(volume):
        raise ValueError("it holds labels (a mask), not an image")
    axis = acquired(volume)
    facts = {"view": PLANES[axis]} if volume.oriented else {}
    for number in range(volume.volumes):
        for place in full_slices(volume, axis, number)[::each]:
            yield f"{PLANES[axis]}:{place}" + (f":{number}" if number else ""), facts


def picture(file: Path | BinaryIO, part: str = "", reading: object = None) -> tuple[Image.Image, str | None]:
    """A slice as an 8-bit "L" or "RGB" picture of square pixels, and how its values became 8 bits.

    part             "axial:57", "coronal:12:3" of volume 3; "": the middle slice of the first volume
    reading.window   "auto" and "percentile": percentiles of the whole volume; or "CENTRE/WIDTH"
    """
    window = windows.parse(asked := getattr(reading, "window", "auto"))
    volume = read(file)
    axis, place, number = located(volume, part)
    seen = np.take(volume.stored[..., number, :] if volume.stored.ndim == 5 else volume.stored[..., number], place, axis)
    # axes left: (R, A), (R, S) or (A, S); rows run down from anterior or superior, columns from right or anterior
    seen = seen[::-1, ::-1].swapaxes(0, 1)
    across, down = (volume.spacing_mm[one] for one in range(3) if one != axis)
    if volume.stored.ndim == 5:
        return windows.square_pixels(windows.as_picture(seen), down / across), None
    values = volume.values(seen)
    if window:
        shares, how = windows.windowed(values, window), str(window)
    else:
        low, high = ends(volume, number)
        shares, how = windows.stretched(values, low, high), f"percentiles {windows.LOW} to {windows.HIGH} of the volume"
    pixels = windows.eight_bit(shares)
    if asked == "auto" and pixels.min() == pixels.max():
        raise ValueError("all its pixels are alike")
    return windows.square_pixels(windows.as_picture(pixels), down / across), how


def located(volume: Volume, part: str) -> tuple[int, int, int]:
    """(axis, slice, volume) of a part."""
    if not part:
        axis = acquired(volume)
        return axis, volume.stored.shape[axis] // 2, 0
    plane, *numbers = part.split(":")
    if plane not in PLANES or len(numbers) not in (1, 2) or not all(one.isascii() and one.isdigit() for one in numbers):
        raise ValueError('the part of a NIfTI file should be PLANE:SLICE or PLANE:SLICE:VOLUME, such as "axial:57"')
    axis, place, number = PLANES.index(plane), int(numbers[0]), int((*numbers, "0")[1])
    if place >= volume.stored.shape[axis] or number >= volume.volumes:
        raise ValueError(f"slice {place} of volume {number} was asked for, counted from 0; the file holds "
                         f"{volume.stored.shape[axis]} {plane} slices in {volume.volumes} volumes")
    return axis, place, number


# Which slices

def acquired(volume: Volume) -> int:
    """The axis that stands on the slices: the coarsest; of equal ones the one with a single slice, else the patient's long axis."""
    size, spacing = volume.stored.shape[:3], volume.spacing_mm
    if 1 in size:
        return size.index(1)
    coarsest = max(range(3), key=lambda axis: spacing[axis])
    return coarsest if spacing[coarsest] > ANISOTROPIC * min(spacing) else 2


def full_slices(volume: Volume, axis: int, number: int) -> list[int]:
    """The slices of a volume with enough foreground, in order."""
    stored = np.moveaxis(volume.stored[:, :, :, number], axis, 0)
    if stored.ndim == 4:  # colours: their brightest channel
        stored = stored.max(-1)
    low, high = ends(volume, number)
    edge = low + FOREGROUND * (high - low)
    thin = [max(1, n // 128) for n in stored.shape[1:]]
    held = [np.count_nonzero(volume.values(one[::thin[0], ::thin[1]]) > edge) for one in stored]
    return [place for place, n in enumerate(held) if n and n >= FULL * max(held)]


@lru_cache(maxsize=1)
def sample(volume: Volume, number: int) -> np.ndarray:
    """Finite values of a volume, evenly spread over it, sorted."""
    stored = volume.stored[:, :, :, number]
    step = max(1, math.ceil((stored.size / SAMPLE) ** (1 / 3)))
    values = volume.values(stored[::min(step, stored.shape[0]), ::min(step, stored.shape[1]), ::min(step, stored.shape[2])])
    values = np.sort(values[np.isfinite(values)], axis=None)
    if not len(values):
        raise ValueError("none of its voxels is a number")
    return values


def ends(volume: Volume, number: int) -> tuple[float, float]:
    """The values of a volume that become black and white."""
    values = sample(volume, number)
    return windows.percentiles(values, np.ones(len(values), np.int64))


def is_mask(volume: Volume) -> bool:
    """Whether a few whole numbers are all that is in it."""
    found = np.unique(sample(volume, 0))
    return volume.stored.ndim == 4 and 1 < len(found) <= LABELS and bool(np.all(found == np.rint(found)))


# Files

def library() -> object:
    try:
        import nibabel
    except ImportError:
        raise ModuleNotFoundError("reading NIfTI needs nibabel; install it with pip install 'medisyn[nifti]'") from None
    return nibabel


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """nibabel's warnings and log lines quote headers: none of them gets out."""
    logger = logging.getLogger("nibabel.global")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(before)


def read(file: Path | BinaryIO) -> Volume:
    """The volume of a file; ValueError, which quotes nothing, where it holds none."""
    try:
        if not hasattr(file, "read"):
            status = Path(file).stat()
            return remembered(str(file), status.st_size, status.st_mtime_ns)
        file.seek(0)
        return decode(file)
    except (Refused, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever a broken file does to its reader
        raise ValueError(f"it is not readable NIfTI ({type(error).__name__})") from None


@lru_cache(maxsize=1)
def remembered(path: str, size: int, mtime_ns: int) -> Volume:
    """`decode` of a file, kept until the next: the slices of one file come one after the other."""
    with open(path, "rb") as stream:
        return decode(stream)


def decode(stream: BinaryIO) -> Volume:
    """The volume of an open file, its size checked before its voxels are read."""
    nibabel = library()
    head = stream.read(2)
    stream.seek(0)
    if not head:
        raise Refused("it is empty")
    if head == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=stream)
    head = stream.read(540)
    if not looks(head):
        raise Refused("it is not a NIfTI file (one .nii or .nii.gz)")
    kind = nibabel.Nifti2Header if head[4:8] == b"n+2\0" else nibabel.Nifti1Header
    with quiet():
        header = kind.from_fileobj(io.BytesIO(head))
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
        slope, intercept = header.get_slope_inter()
        affine = header.get_best_affine()
    colours = dtype.names is not None and dtype.names[:3] == ("R", "G", "B")
    shape = tuple(int(n) for n in shape) + (1,) * (4 - len(shape))
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 4 or min(shape) < 1:
        raise Refused("it is no volume: expected 2 to 4 dimensions")
    if not colours and (dtype.names or dtype.kind not in "iuf"):
        raise Refused("its voxels are neither whole, real nor RGB numbers")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > MOST_BYTES or not 0 <= offset <= MOST_HEADER:
        raise Refused("its header says more voxels than can be read")
    if not isinstance(stream, gzip.GzipFile) and stream.seek(0, io.SEEK_END) < offset + wanted:
        raise Refused("its voxels are cut short")
    stream.seek(int(offset))
    try:
        data = stream.read(wanted)
        stream.read(1)  # gzip compares its checksum where it ends
    except (EOFError, gzip.BadGzipFile):
        data = b""
    if len(data) < wanted:
        raise Refused("its voxels are cut short, or damaged")
    stored = np.frombuffer(data, dtype).reshape(shape, order="F")
    if colours:
        stored = np.stack([stored[name] for name in dtype.names[:3]], -1)
    with quiet():
        turn = nibabel.orientations.io_orientation(affine)
        if np.isnan(turn).any():
            raise Refused("its header does not tell which axis is which")
        stored = nibabel.orientations.apply_orientation(stored, turn)
        spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))[np.argsort(turn[:, 0])]
    spacing = tuple(float(one) if math.isfinite(one) and one > 0 else 1.0 for one in spacing)
    told = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    return Volume(stored, 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept), spacing,
                  told, int(header["intent_code"]) == LABEL)
