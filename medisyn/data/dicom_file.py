"""A DICOM file, opened: its header, where its pixels begin, and how they are written.

Nothing is read but what is asked for, deflated files are inflated up to a limit, and nothing that pydicom says gets out:
its messages quote the file.
"""

import contextlib
import io
import logging
import mmap
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from medisyn.data.windows import Refused

MOST_BYTES = 2 << 30                            # of a file, and of an inflated one
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"        # SOP class of a DICOMDIR
NATIVE = {(True, True): "1.2.840.10008.1.2", (False, True): "1.2.840.10008.1.2.1", (False, False): "1.2.840.10008.1.2.2"}
DEFLATED = b"1.2.840.10008.1.2.1.99"
PIXELS = {(0x7FE0, 0x0010): "PixelData", (0x7FE0, 0x0008): "FloatPixelData", (0x7FE0, 0x0009): "DoubleFloatPixelData"}
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"OV", b"SV", b"UV")  # PS3.5 7.1.2


@dataclass(frozen=True)
class Source:
    """An opened file."""

    header: object      # pydicom Dataset of everything before the pixels
    stream: BinaryIO    # mapped, not read
    at: int             # where the element that holds the pixels begins
    size: int           # bytes of the stream
    syntax: str         # UID of the transfer syntax, as pydicom knows it


def looks(head: bytes) -> bool:
    """Whether a file that begins with these bytes (132 or more) is DICOM: a preamble, or a first element of group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", head[:8])
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        if group in (2, 8) and element <= 0x70 and (explicit or (order == "<" and length <= 64)):
            return True
    return False


def library() -> object:
    try:
        import pydicom
    except ImportError:
        raise ModuleNotFoundError("reading DICOM needs pydicom; install it with pip install 'medisyn[dicom]'") from None
    return pydicom


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pydicom's warnings and log lines quote what stands in headers: none of them gets out."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "PIL")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def opened(file: Path | BinaryIO) -> Iterator[Source]:
    """An open file with its header; ValueError where it is no DICOM image file."""
    library()
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet())
        try:
            if hasattr(file, "read"):
                stream = file
                header, at, inflated = read_header(expect_dicom(stream))
            else:
                status = Path(file).stat()
                header, at, inflated = remembered(str(file), status.st_size, status.st_mtime_ns)
                stream = stack.enter_context(mapped(file))
            stream = inflated or stream
            syntax = library().uid.UID(str(header.file_meta.get("TransferSyntaxUID") or NATIVE[header.original_encoding]))
            if header.get("SOPClassUID", header.file_meta.get("MediaStorageSOPClassUID")) == MEDIA_DIRECTORY:
                raise Refused("it is a DICOMDIR, a table of contents")
        except Exception as error:  # whatever a broken file does to its reader
            if isinstance(error, Refused) or getattr(error, "errno", None):  # a file that cannot be opened is another matter
                raise
            raise ValueError(f"its header is not readable DICOM ({type(error).__name__})") from None
        stream.seek(0, io.SEEK_END)
        yield Source(header, stream, at, stream.tell(), syntax)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file in memory as the system pages it in: lengths that a header makes up cannot be allocated."""
    with open(path, "rb") as raw:
        if not raw.seek(0, io.SEEK_END):
            raise Refused("it is empty")
        with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            yield stream


@lru_cache(maxsize=1)
def remembered(path: str, size: int, mtime_ns: int) -> tuple[object, int, io.BytesIO | None]:
    """`read_header` of a file, kept until the next: the frames of one file come one after the other."""
    with mapped(Path(path)) as stream:
        return read_header(expect_dicom(stream))


def expect_dicom(stream: BinaryIO) -> BinaryIO:
    stream.seek(0, io.SEEK_END)
    size = stream.tell()
    if not size:
        raise Refused("it is empty")
    if size > MOST_BYTES:
        raise Refused(f"it is larger than {MOST_BYTES >> 30} GiB")
    stream.seek(0)
    if not looks(stream.read(256)):
        raise Refused("it is not a DICOM file")
    return stream


def read_header(stream: BinaryIO) -> tuple[object, int, io.BytesIO | None]:
    """(everything before the pixels, where their element begins, the inflated file where it was deflated)."""
    inflated = inflate(stream)
    source = inflated or stream
    source.seek(0)
    header = library().dcmread(source, stop_before_pixels=True, force=True)
    return header, source.tell(), inflated


def inflate(stream: BinaryIO) -> io.BytesIO | None:
    """A deflated file as an inflated one; None where it is not deflated. A bomb is refused when it reaches MOST_BYTES."""
    stream.seek(0)
    head = stream.read(1 << 16)
    at = 132 if head[128:132] == b"DICM" else 0
    deflated = False
    while head[at:at + 2] == b"\2\0" and at + 12 <= len(head):  # file meta information: always explicit, little endian
        long = head[at + 4:at + 6] in LONG_VRS
        length, value = (struct.unpack("<I", head[at + 8:at + 12])[0], at + 12) if long \
            else (struct.unpack("<H", head[at + 6:at + 8])[0], at + 8)
        deflated |= head[at:at + 4] == b"\2\0\x10\0" and head[value:value + length].rstrip(b"\0 ") == DEFLATED
        at = value + length
    if not deflated:
        return None
    syntax = NATIVE[False, True].encode() + b"\0"
    out = io.BytesIO()
    out.write(bytes(128) + b"DICM\2\0\0\0UL\4\0" + struct.pack("<I", 8 + len(syntax))
              + b"\2\0\x10\0UI" + struct.pack("<H", len(syntax)) + syntax)
    stream.seek(at)
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    while (block := unpack.unconsumed_tail or stream.read(1 << 20)) and not unpack.eof:
        out.write(unpack.decompress(block, 1 << 24))
        if out.tell() > MOST_BYTES:
            raise Refused(f"it inflates to more than {MOST_BYTES >> 30} GiB")
    return out


def encapsulated(source: Source) -> bool:
    return source.syntax not in NATIVE.values()


def keyword_at(source: Source) -> tuple[str, str | None] | None:
    """(keyword, VR) of the element where the stream stands, which then stands before its value; None where there is no pixel."""
    order = "<>"[source.syntax == NATIVE[False, False]]
    head = source.stream.read(8)
    if len(head) < 8 or (keyword := PIXELS.get(struct.unpack(f"{order}HH", head[:4]))) is None:
        return None
    if head[4:6] not in LONG_VRS:  # implicit, whatever the transfer syntax says
        return keyword, None
    source.stream.read(4)  # the length, of 32 bits in these VRs
    return keyword, head[4:6].decode("latin-1")


def whole(header: object, keyword: str, default: int) -> int:
    """A whole number of a header; -1 where it is none."""
    try:
        value = header.get(keyword)
        return default if value in (None, "") else int(value)
    except Exception:
        return -1
