"""Images: files <-> float32 (C, H, W) in [-1, 1]. The only file that knows bit depths and windows."""

import io
import json
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from medisyn.data.provenance import Provenance

try:
    from isal import isal_zlib
except ImportError:  # zlib does the same, more slowly
    isal_zlib = None

RASTERS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".pgm", ".ppm")
PROVENANCE_KEY = "medisyn:provenance"  # of the iTXt chunk
Image.MAX_IMAGE_PIXELS = 300_000_000   # whole slides have a reader of their own


def decode(path: Path) -> Image.Image:
    """A file as an 8-bit "L" or "RGB" picture, upright; ValueError says why a file cannot be read.

    16-bit and float rasters are stretched from their own minimum to their own maximum; an
    RGB file whose channels are equal comes back as "L".
    """
    try:
        return eight_bit(upright(path))
    except Exception as error:
        raise ValueError(f"{Path(path).name}: not a readable image ({type(error).__name__}: {error})") from None


def upright(file: Path | BinaryIO, short_side: int | None = None) -> Image.Image:
    """The pixels of a raster file as they were stored, turned upright; whatever its decoder raises comes through.

    short_side: pixels of the short side that will be kept; None keeps all. A JPEG of more than four times as many is
    decoded at a fraction of its size, by leaving out its high frequencies.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote file names
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as opened:
            if opened.size[0] * opened.size[1] > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError("too many pixels")
            if short_side is not None:
                opened.draft(None, (2 * short_side, 2 * short_side))
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    return picture


def eight_bit(picture: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit "L" or "RGB"; deep ones are stretched from their minimum to their maximum."""
    if picture.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
        deep = np.asarray(picture, np.float64)
        low, high = float(deep.min()), float(deep.max())
        if not np.isfinite(high - low):
            raise ValueError("some of its pixels are no numbers")
        scaled = (deep - low) / (high - low) if high > low else np.zeros_like(deep)
        return Image.fromarray(np.rint(scaled * 255).astype(np.uint8), "L")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    if picture.mode in ("LA", "La"):
        return picture.convert("LA").getchannel("L")
    picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2]):
        return picture.getchannel("R")
    return picture


def shrink(picture: Image.Image, short_side: int) -> Image.Image:
    """Reduce the short side to `short_side` pixels (antialiased), keep the aspect, never enlarge."""
    scale = short_side / min(picture.size)
    if scale >= 1:
        return picture
    return picture.resize([max(1, round(n * scale)) for n in picture.size], Image.Resampling.LANCZOS)


def square(picture: Image.Image, side: int) -> Image.Image:
    """The central square of a picture at side x side pixels, antialiased."""
    return ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)


def from_picture(picture: Image.Image) -> np.ndarray:
    """An 8-bit picture as float32 (C, H, W) in [-1, 1]; C is 1 or 3."""
    pixels = np.asarray(picture, np.float32) / 127.5 - 1
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def to_picture(image: np.ndarray) -> Image.Image:
    """float32 (C, H, W) in [-1, 1], C 1 or 3, as an 8-bit picture; values beyond are clipped."""
    pixels = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
    return Image.fromarray(pixels[0], "L") if len(pixels) == 1 else Image.fromarray(pixels.transpose(1, 2, 0), "RGB")


def read(path: Path) -> np.ndarray:
    """A raster file as float32 (C, H, W) in [-1, 1]; C is 1 (gray) or 3."""
    return from_picture(decode(path))


def read_fine(path: Path) -> np.ndarray:
    """A raster file as float32 (C, H, W) in [-1, 1], of all its bits: 16-bit and float ones are stretched from their minimum to
    their maximum as by `decode`, and not rounded."""
    try:
        picture = upright(path)
        if picture.mode not in ("I", "F", "I;16", "I;16B", "I;16L"):
            return from_picture(eight_bit(picture))
        deep = np.asarray(picture, np.float64)
        low, high = float(deep.min()), float(deep.max())
        if not np.isfinite(high - low):
            raise ValueError("some of its pixels are no numbers")
        return (2 * (deep - low) / max(high - low, 1e-30) - 1).astype(np.float32)[None]
    except Exception as error:
        raise ValueError(f"{Path(path).name}: not a readable image ({type(error).__name__}: {error})") from None


def png_bytes(picture: Image.Image, provenance: Provenance | None = None, compress_level: int = 6) -> bytes:
    """A picture as PNG; a synthetic one carries its provenance as JSON in an iTXt chunk."""
    notes = PngImagePlugin.PngInfo()
    if provenance is not None:
        notes.add_itxt("Description", provenance.prompt)
        notes.add_itxt("Software", f"MediSyn {provenance.version}")
        notes.add_itxt(PROVENANCE_KEY, json.dumps(provenance.as_dict(), ensure_ascii=False))
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=notes, compress_level=compress_level)
    return out.getvalue()


def deflate(data: np.ndarray) -> bytes:
    """Bytes as a zlib stream (RFC 1950): by Intel's ISA-L where it is installed, four times as fast as zlib's level 1."""
    return isal_zlib.compress(data, 2) if isal_zlib else zlib.compress(data, 1)


def quick_png(picture: Image.Image) -> bytes:
    """A picture ("L" or "RGB") as PNG without any text: half the time of Pillow's at the same size, a fifth where isal is there.

    Every row is filtered by the one above it (PNG 1.2, 6.4, filter 2) and deflated fast; Pillow tries all filters. The
    pixels are the same whoever deflates, the bytes are not.
    """
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", deflate(filtered)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)


def write_png(image: np.ndarray, path: Path, provenance: Provenance | None = None) -> Path:
    """float32 (C, H, W) in [-1, 1] to a PNG file, which appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_bytes(png_bytes(to_picture(image), provenance))
    os.replace(draft, path)
    return path


def read_provenance(path: Path) -> Provenance | None:
    """The provenance inside a PNG, or None where it carries none."""
    try:
        with Image.open(path) as picture:
            picture.load()
            note = getattr(picture, "text", {}).get(PROVENANCE_KEY)
    except Exception as error:
        raise ValueError(f"{path}: expected a PNG, found something else ({type(error).__name__}: {error})") from None
    return Provenance.from_dict(json.loads(note)) if note else None
