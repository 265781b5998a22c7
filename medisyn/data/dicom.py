"""DICOM: files with and without preamble, compressed or not, one frame or many, as 8-bit pictures and facts.

Headers are read without their pixels, one frame is decoded at a time, and sizes are checked before anything is
allocated. A reason for refusal never quotes the file: pydicom's own messages do, so they are dropped.
"""

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from medisyn.data import codestreams, deidentify, headers, tones, windows
from medisyn.data.dicom_file import MOST_BYTES, Source, encapsulated, keyword_at, library, looks, opened, quiet, whole
from medisyn.data.windows import Refused

__all__ = ["SUFFIXES", "directory", "looks", "may_be", "parts", "picture"]

SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")                    # most DICOM files have none
MOST_FRAMES = 100_000                                            # of one file
RLE = "1.2.840.10008.1.2.5"
LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")  # JPEG lossless: by libjpeg alone
EXTENDED = "1.2.840.10008.1.2.4.51"                              # JPEG extended: 8 bits by Pillow too, 12 by libjpeg alone


def parts(file: Path | BinaryIO, each: int = 1) -> Iterator[tuple[str, dict[str, object]]]:
    """Every `each`-th frame's part ("" of a single one, else "0", "1", ...) with what its header tells (`headers.facts`)."""
    with opened(file) as source:
        try:
            why = headers.refusal(source.header)
            if why:
                raise Refused(why)
            count = expect_pixels(source)
            header = deidentify.facts_header(source.header)
            found = [("" if count == 1 else str(frame), headers.facts(source.header, frame, header))
                     for frame in range(0, count, each)]
        except Refused as refused:
            raise ValueError(str(refused)) from None
        except Exception as error:  # whatever a broken file does to its reader
            raise ValueError(f"its header is not readable DICOM ({type(error).__name__})") from None
    yield from found


def may_be(file: Path | BinaryIO, image_type: str) -> bool:
    """Whether an image type that somebody states goes with what the file's header says (`headers.may_be`)."""
    with opened(file) as source:
        return headers.may_be(source.header, image_type)


def picture(file: Path | BinaryIO, part: str = "", reading: object = None) -> tuple[Image.Image, str | None]:
    """One frame as an 8-bit "L" or "RGB" picture, and how its values became 8 bits; None where they were 8 bits already.

    reading.window   "auto": the header's VOI LUT or window, else percentiles; "percentile"; or "CENTRE/WIDTH"
    """
    asked = getattr(reading, "window", "auto")
    windows.parse(asked)  # a wrong one is the user's mistake, not the file's
    if part and not (part.isascii() and part.isdigit() and len(part) < 10):
        raise ValueError("the part of a DICOM file should be the number of a frame, counted from 0")
    frame = int(part or 0)
    with opened(file) as source:
        try:
            count = expect_pixels(source)
            if frame >= count:
                raise Refused(f"frame {frame} was asked for, counted from 0; the file holds fewer")
            pixels, photometric = decoded(source, frame, count)
            return tones.picture(pixels, photometric, source.header, frame, asked)
        except ModuleNotFoundError:
            raise
        except Refused as refused:
            raise ValueError(str(refused)) from None
        except Exception as error:
            raise ValueError(f"its pixels are not readable DICOM ({type(error).__name__})") from None


# Pixels

def expect_pixels(source: Source) -> int:
    """How many frames a file holds; ValueError where it holds none, or says sizes that it cannot hold."""
    header = source.header
    source.stream.seek(source.at)
    if keyword_at(source) is None:
        name = library().uid.UID(str(header.get("SOPClassUID") or ""))
        raise Refused("it holds no image" + (f" but {name.name}" if name in library().uid.UID_dictionary else ""))
    rows, columns, samples, bits = (whole(header, name, default) for name, default in (
        ("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1), ("BitsAllocated", 0)))
    frames = whole(header, "NumberOfFrames", 1) or 1
    if min(rows, columns) < 1 or samples not in (1, 3) or bits not in (1, 8, 16, 32, 64) or frames < 1:
        raise Refused("its header does not describe an image (rows, columns, samples and bits of a pixel)")
    if rows * columns > Image.MAX_IMAGE_PIXELS or rows * columns * samples * bits > 8 * MOST_BYTES:
        raise Refused("its header says more pixels than can be read")
    if frames > MOST_FRAMES:
        raise Refused("its header says more frames than can be read")
    half = samples == 3 and "422" in str(header.get("PhotometricInterpretation"))  # every second column has colour
    least = 8 * frames if encapsulated(source) else rows * columns * (2 if half else samples) * frames * bits // 8
    if source.size - source.at < least:
        raise Refused("its pixels are cut short: its header says more than the file holds")
    return frames


def decoded(source: Source, frame: int, count: int) -> tuple[np.ndarray, str]:
    """Stored values of one frame, (H, W) or (H, W, 3), and what they mean (PhotometricInterpretation, YBR made RGB)."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    decoder = expect_decoder(source, get_decoder)
    source.stream.seek(source.at)
    keyword, vr = keyword_at(source)
    options = as_pixel_options(source.header, pixel_keyword=keyword, pixel_vr=vr, transfer_syntax_uid=source.syntax)
    at = source.stream.tell()
    if encapsulated(source):
        expect_whole(source, at)
        source.stream.seek(at)
        codestream = get_frame(source.stream, frame, extended_offsets=options.get("extended_offsets"), number_of_frames=count)
        said = codestreams.declared(codestream)
        if said and said != (options["rows"], options["columns"]):
            raise Refused("its compressed pixels are of another size than its header says")
        source.stream.seek(at)
    plugin = "pydicom" if source.syntax == RLE else ""  # pylibjpeg's panics where a frame is damaged, and Python cannot catch that
    pixels, properties = decoder.as_array(source.stream, index=frame, decoding_plugin=plugin, **options)
    photometric = str(properties["photometric_interpretation"])
    if photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB"):
        raise Refused("its colours are of a kind that is not read; export it as RGB")
    return pixels, photometric


def expect_whole(source: Source, at: int) -> None:
    """ValueError where a compressed fragment goes on behind the end of the file; some decoders would make up the rest."""
    while at + 8 <= source.size:
        source.stream.seek(at)
        tag, length = struct.unpack("<4sI", source.stream.read(8))
        if tag != b"\xfe\xff\x00\xe0":
            return
        at += 8 + length
    if at != source.size:
        raise Refused("its pixels are cut short")


def expect_decoder(source: Source, get_decoder: object) -> object:
    """pydicom's decoder for a transfer syntax; the error says which extra brings it."""
    names = library().uid.UID_dictionary
    name = names[source.syntax][0].split(",")[0] if source.syntax in names else "a scheme that is not known"
    try:
        decoder = get_decoder(source.syntax)
    except NotImplementedError:
        video = " (a video; export it as MP4)" if "MPEG" in name or "HEVC" in name else ""
        raise Refused(f"it is compressed by {name}, which is not read{video}") from None
    deep = source.syntax == EXTENDED and whole(source.header, "BitsStored", 8) > 8
    if source.syntax in LOSSLESS or deep:
        if not has_libjpeg():
            raise Refused(f"it is compressed by {name}, which only the GPL library pylibjpeg-libjpeg reads; "
                          "install it with pip install 'medisyn[dicom-gpl]'")
    elif not decoder.is_available:
        raise Refused(f"it is compressed by {name}; install its reader with pip install 'medisyn[dicom]'")
    return decoder


def has_libjpeg() -> bool:
    return importlib.util.find_spec("libjpeg") is not None or importlib.util.find_spec("gdcm") is not None


# Folders

def directory(file: Path) -> list[str]:
    """The files that a DICOMDIR names, relative to it, in its order; names that lead out of its folder are left out."""
    file = Path(file)
    try:
        with quiet():
            rows = library().dcmread(file).get("DirectoryRecordSequence") or []
            named = [row.get("ReferencedFileID") for row in rows]
    except Exception as error:
        raise ValueError(f"its table of contents is not readable DICOM ({type(error).__name__})") from None
    paths = ["/".join([name] if isinstance(name, str) else [str(part) for part in name]) for name in named if name]
    return [path for path in dict.fromkeys(paths) if not path.startswith("/") and ".." not in path.split("/")
            and "\\" not in path]
