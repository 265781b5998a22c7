"""Tones: the stored values of a DICOM frame as what is seen: modality LUT, window, palette, padding, inversion.

All of it is done to the different values of a frame (`windows.levels_of`), then spread over its pixels.
"""

import math

import numpy as np
from PIL import Image

from medisyn.data import headers, windows
from medisyn.data.windows import Refused, Window


def picture(pixels: np.ndarray, photometric: str, header: object, frame: int, asked: str) -> tuple[Image.Image, str | None]:
    """A decoded frame, (H, W) or (H, W, 3), as an 8-bit picture, and how its values became 8 bits; None where they were."""
    if photometric == "PALETTE COLOR":
        levels, _, place = windows.levels_of(pixels)
        shown, how = palette(levels, header)[place], None
    elif pixels.ndim == 3:
        shown, how = colours(pixels, int(header.BitsStored))
    else:
        shown, how = gray(pixels, photometric, header, frame, asked)
    return windows.square_pixels(windows.as_picture(shown), aspect(header, frame)), how


def gray(pixels: np.ndarray, photometric: str, header: object, frame: int, asked: str) -> tuple[np.ndarray, str | None]:
    """uint8 (H, W) by window, VOI LUT or percentiles; padding is black whatever the image shows."""
    levels, counts, place = windows.levels_of(pixels)
    padding = padded(levels, header)
    values = modality(levels, header, frame)
    shares, how, seen = None, "", (counts > 0) & ~padding
    if seen.sum() < 2:
        raise Refused("all its pixels are alike")
    if asked == "auto":
        shares, how = by_header(values, header, frame, levels.dtype.kind == "f")
        if shares is not None and np.ptp(shares[seen]) == 0:
            raise Refused("the window that its header gives shows nothing of it; name another, such as percentile")
        if shares is None and plain(levels, header, frame):
            shares, how = levels / (2 ** int(header.BitsStored) - 1), None
    elif asked != "percentile":
        window = windows.parse(asked)
        shares, how = windows.windowed(values, window), str(window)
    if shares is None:
        low, high = windows.percentiles(values, np.where(padding, 0, counts))
        shares, how = windows.stretched(values, low, high), f"percentiles {windows.LOW} to {windows.HIGH}{how}"
    if photometric == "MONOCHROME1":
        shares = 1 - shares
    return windows.eight_bit(np.where(padding, 0, shares))[place], how


def plain(levels: np.ndarray, header: object, frame: int) -> bool:
    """Whether values of 8 bits or less are meant to be seen as they are."""
    return levels.dtype.kind in "iu" and int(header.BitsStored) <= 8 and levels[0] >= 0 \
        and not header.get("ModalityLUTSequence") and rescale(header, frame) == (1.0, 0.0)


def colours(pixels: np.ndarray, bits: int) -> tuple[np.ndarray, str | None]:
    """uint8 (H, W, 3); more than 8 bits are scaled over all that the bits can say."""
    if bits <= 8 and pixels.dtype.itemsize == 1:
        return pixels.view(np.uint8), None
    return windows.eight_bit(np.clip(pixels / (2.0 ** bits - 1), 0, 1)), f"{bits} bits a colour scaled to 8"


# Values

def modality(levels: np.ndarray, header: object, frame: int) -> np.ndarray:
    """Stored values in the unit of the image: through the modality LUT, or slope and intercept (PS3.3 C.11.1)."""
    for item in headers.items(header, "ModalityLUTSequence")[:1]:
        table, first, _ = lut(item, header, levels[0] < 0)
        return table[np.clip(levels - first, 0, len(table) - 1).astype(np.int64)].astype(np.float64)
    slope, intercept = rescale(header, frame)
    return levels.astype(np.float64) * slope + intercept


def rescale(header: object, frame: int) -> tuple[float, float]:
    """(slope, intercept) of a frame; (1, 0) where there are none, or none that can be meant."""
    group = headers.functional(header, "PixelValueTransformationSequence", frame)
    said = header if group is None else group
    slope, intercept = number(said, "RescaleSlope"), number(said, "RescaleIntercept")
    return (slope, intercept) if slope and intercept is not None else (1.0, 0.0)


def padded(levels: np.ndarray, header: object) -> np.ndarray:
    """bool, which levels stand for no image at all (PS3.3 C.7.5.1.1.2)."""
    ends = [wrapped(number(header, name), levels) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(levels.shape, bool)
    low, high = sorted((ends[0], ends[0] if ends[1] is None else ends[1]))
    return (levels >= low) & (levels <= high)


def wrapped(value: float | None, levels: np.ndarray) -> float | None:
    """A 16-bit value that was written without its sign, as the signed one that pixels hold."""
    return value - 65536 if value is not None and value > 32767 and levels.dtype.kind == "i" and levels[0] < 0 else value


def by_header(values: np.ndarray, header: object, frame: int, fractional: bool) -> tuple[np.ndarray | None, str]:
    """[0, 1] through the first VOI LUT, else the first window that a header gives; (None, "") where it gives none."""
    group = headers.functional(header, "FrameVOILUTSequence", frame)
    said = header if group is None else group
    for item in headers.items(header, "VOILUTSequence")[:1]:
        if item.get("LUTDescriptor") is not None and item.get("LUTData") is not None:
            return windows.looked_up(values, *lut(item, header, values.min() < 0)), "VOI LUT from the header"
    centre, width = number(said, "WindowCenter"), number(said, "WindowWidth")
    if centre is None or width is None:
        return None, ""
    try:
        shape = str(said.get("VOILUTFunction") or "LINEAR").upper()
        # LINEAR counts in whole steps (PS3.3 C.11.2.1.2.1); values between 0 and 1 have none
        window = Window(centre, width, "LINEAR_EXACT" if shape == "LINEAR" and fractional else shape)
    except ValueError:  # a window that no display could show
        return None, "; the header's window cannot be meant"
    return windows.windowed(values, window), f"{window} from the header"


def number(header: object, keyword: str) -> float | None:
    """The first value of a field as a finite number, else None."""
    try:
        value = header.get(keyword)
        value = value[0] if hasattr(value, "__getitem__") and not isinstance(value, (str, bytes)) else value
        value = float(value)
    except Exception:  # whatever a broken value does to its reader, it is no number
        return None
    return value if math.isfinite(value) else None


# Tables

def lut(item: object, header: object, signed: bool) -> tuple[np.ndarray, int, int]:
    """(entries, value of the first, bits an entry) of a LUT sequence's item."""
    entries, first, depth = (int(value) for value in item.LUTDescriptor)
    return table_of(item.LUTData, header, entries or 65536), first - 65536 if signed and first > 32767 else first, depth


def table_of(data: object, header: object, entries: int) -> np.ndarray:
    """The entries of a table, however the file stores them: as numbers, or as bytes of 8 or 16 bits."""
    if not isinstance(data, (bytes, bytearray)):
        return np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    little = header.original_encoding[1]
    wide = len(data) >= 2 * entries
    return np.frombuffer(data, ("<u2" if little else ">u2") if wide else np.uint8, count=min(entries, len(data) // (1 + wide)))


def palette(levels: np.ndarray, header: object) -> np.ndarray:
    """uint8 (n, 3), the colours of levels (PS3.3 C.7.9.2); segmented tables are unrolled by pydicom."""
    entries, first, depth = (int(value) for value in header.RedPaletteColorLookupTableDescriptor)
    entries, first = entries or 65536, first - 65536 if first > 32767 and levels[0] < 0 else first
    if header.get("RedPaletteColorLookupTableData") is None:
        from pydicom.pixels import apply_color_lut

        found = apply_color_lut(np.clip(levels, first, first + entries - 1).astype(np.int32), header)[..., :3]
        return found if found.dtype == np.uint8 else (found >> 8).astype(np.uint8)
    place = np.clip(levels - first, 0, entries - 1).astype(np.int64)
    tables = [table_of(header.get(f"{colour}PaletteColorLookupTableData"), header, entries) for colour in ("Red", "Green", "Blue")]
    most = max(int(table.max()) for table in tables)
    # 16-bit entries of which the low byte alone is used do occur
    tables = [table if most <= 255 else table >> 8 for table in tables]
    return np.stack([table[np.clip(place, 0, len(table) - 1)] for table in tables], -1).astype(np.uint8)


# Geometry

def aspect(header: object, frame: int) -> float:
    """Height over width of a pixel, by its spacing in mm, else by its aspect ratio; 1 where neither is told."""
    group = headers.functional(header, "PixelMeasuresSequence", frame)
    for said in (None if group is None else group.get("PixelSpacing"), header.get("PixelSpacing"),
                 header.get("PixelAspectRatio")):
        try:
            height, width = (float(value) for value in said)
        except (TypeError, ValueError):
            continue
        if height > 0 and width > 0:
            return height / width
    return 1.0
