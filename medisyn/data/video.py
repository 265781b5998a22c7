"""Video: frames of a film as pictures, found by their number in the order of showing.

A file is opened by the format that its first bytes tell and no other: formats that name further files or addresses, such
as playlists, are never tried. Nothing is read of its texts.
"""

import bisect
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from medisyn.data import windows
from medisyn.data.windows import Refused

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
MOST_FRAMES = 2_000_000  # of one file: 18 hours at 30 a second
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # that an MP4 or QuickTime file may begin with


@dataclass(frozen=True)
class Choice:
    """Which frames become images."""

    step_seconds: float = 2.0  # between two frames that are looked at
    still: float = 3.0         # mean difference from the last one taken, of 255: a frame that differs less is left out
    at_most: int = 200         # frames of one film, evenly spread


def looks(head: bytes) -> bool:
    """Whether a file that begins with these bytes (400 or more) is a video that is read."""
    return container_of(head) is not None


def container_of(head: bytes) -> str | None:
    """The container, by its first bytes, as FFmpeg names it."""
    if head[4:8] in BOXES and head[8:12] not in (b"avif", b"heic", b"mif1"):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"\0\0\1\xba":
        return "mpeg"
    if head[:4] == b"\0\0\1\xb3":
        return "mpegvideo"
    if head[:8] == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11":
        return "asf"
    return "mpegts" if len(head) > 376 and head[0] == head[188] == head[376] == 0x47 else None


def parts(file: Path | BinaryIO, each: int | None = None, choice: Choice = Choice()) -> Iterator[tuple[str, dict]]:  # noqa: B008
    """The frames of a film that become images: ("120", {}); every `each`-th, or, None, those of `choice`."""
    if each is not None:
        yield from ((str(number), {}) for number in range(0, len(times(file)), each))
        return
    kept = list(moving(file, choice))
    share = max(1.0, len(kept) / choice.at_most)
    yield from ((str(kept[int(n * share)]), {}) for n in range(int(len(kept) / share)))


def moving(file: Path | BinaryIO, choice: Choice) -> Iterator[int]:
    """The numbers of frames a step apart that differ from the one before."""
    shown = times(file)
    last, due = None, None
    with opened(file) as (container, stream):
        for frame in shielded(container.decode(stream)):
            if frame.pts is None or stream.time_base is None:
                continue
            at = float(frame.pts * stream.time_base)
            if due is not None and at < due - 1e-3:  # times are rounded to their stream's unit
                continue
            due = at + choice.step_seconds
            small = np.asarray(frame.reformat(32, 32, "gray").to_ndarray(), np.float32)
            if last is not None and np.abs(small - last).mean() < choice.still:
                continue
            last = small
            yield min(bisect.bisect_left(shown, frame.pts), len(shown) - 1)


def picture(file: Path | BinaryIO, part: str = "", reading: object = None) -> tuple[Image.Image, str | None]:
    """One frame as an 8-bit "L" or "RGB" picture, upright, of square pixels; part: its number, counted from 0; "": the first."""
    if part and not (part.isascii() and part.isdigit() and len(part) < 10):
        raise ValueError("the part of a video should be the number of a frame, counted from 0")
    number = int(part or 0)
    shown = times(file)
    if number >= len(shown):
        raise ValueError(f"frame {number} was asked for, counted from 0; the film has {len(shown)}")
    with opened(file) as (container, stream):
        for start in (shown[number], None):  # a film whose index is wrong is read from its start
            if start is not None:
                seek(container, stream, start)
            else:
                rewind(container)
            for frame in shielded(container.decode(stream)):
                if frame.pts is not None and frame.pts >= shown[number]:
                    if frame.pts == shown[number] or start is None:
                        return seen(frame, stream), None
                    break
    raise ValueError("its frame cannot be decoded")


def seen(frame: object, stream: object) -> Image.Image:
    if frame.width * frame.height > Image.MAX_IMAGE_PIXELS:
        raise Refused("its frames are larger than can be read")
    pixels = frame.to_ndarray(format="rgb24")
    ratio = stream.sample_aspect_ratio  # width over height of a pixel
    shown = windows.square_pixels(windows.as_picture(pixels), float(1 / ratio) if ratio else 1.0)
    turned = round(getattr(frame, "rotation", 0) or 0) % 360
    return shown.rotate(turned, expand=True) if turned in (90, 180, 270) else shown


# Files

def library() -> object:
    try:
        import av
    except ImportError:
        raise ModuleNotFoundError("reading videos needs PyAV; install it with pip install 'medisyn[video]'") from None
    return av


@contextlib.contextmanager
def opened(file: Path | BinaryIO) -> Iterator[tuple[object, object]]:
    """The container of a file and its first video stream; ValueError, which quotes nothing, where it is no video."""
    av = library()
    with contextlib.ExitStack() as stack:
        raw = file if hasattr(file, "read") else stack.enter_context(open(file, "rb"))
        raw.seek(0)
        head = raw.read(400)
        raw.seek(0)
        if not head:
            raise Refused("it is empty")
        if (name := container_of(head)) is None:
            raise Refused("it is not a video of a format that is read")
        try:
            container = stack.enter_context(av.open(raw, format=name))
            stream = next(iter(container.streams.video), None)
            size = (0, 0) if stream is None else (stream.codec_context.width, stream.codec_context.height)
        except Exception as error:
            raise ValueError(f"it is not a readable video ({type(error).__name__})") from None
        if stream is None:
            raise Refused("it holds no video")
        if size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
            raise Refused("its frames are larger than can be read")
        stream.codec_context.thread_count = 1
        yield container, stream


def shielded(frames: Iterator) -> Iterator:
    """What a decoder yields, up to where it fails."""
    try:
        yield from frames
    except Exception:  # FFmpeg's errors name the file; what was decoded before stands
        return


def seek(container: object, stream: object, to: int) -> None:
    try:
        container.seek(to, stream=stream, backward=True)
    except Exception:  # a film without an index is read from its start
        rewind(container)


def rewind(container: object) -> None:
    with contextlib.suppress(Exception):  # a damaged film may not even do that; then no frame comes
        container.seek(0)


def times(file: Path | BinaryIO) -> tuple[int, ...]:
    """When each frame is shown, in units of its stream, in order; read without decoding where the file tells it."""
    if hasattr(file, "read"):
        return counted(file)
    status = Path(file).stat()
    return remembered(str(file), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def remembered(path: str, size: int, mtime_ns: int) -> tuple[int, ...]:
    """`counted` of a file, kept until the next: the frames of one file come one after the other."""
    return counted(Path(path))


def counted(file: Path | BinaryIO) -> tuple[int, ...]:
    with opened(file) as (container, stream):
        found: list[int | None] = []
        for packet in shielded(container.demux(stream)):
            if packet.size and not packet.is_corrupt:
                found.append(packet.pts)
                if len(found) > MOST_FRAMES:
                    raise Refused(f"it has more than {MOST_FRAMES:,} frames")
    if None in found:  # some old formats do not say it
        with opened(file) as (container, stream):
            found = [frame.pts for frame in shielded(container.decode(stream)) if frame.pts is not None]
    if not found:
        raise ValueError("it holds no frame that can be decoded")
    return tuple(sorted(set(found)))
