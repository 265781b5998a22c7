"""Windows: how the many values of a medical image become the 256 of a picture.

A window is DICOM's: a centre and a width in the image's own unit (Hounsfield units, counts, ...). Whoever gives none
gets percentiles of the values. The choice is told in words, which a record keeps as `reading`.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

LOW, HIGH = 0.5, 99.5  # percentiles that become black and white: a few metal or air voxels decide nothing
WIDEST = 8.0           # times that a pixel may be higher than wide, or wider than high; beyond, its file is not believed


class Refused(ValueError):
    """A file that is no picture to learn from, in our own words: a reader's own errors may quote the file, and are dropped."""


@dataclass(frozen=True)
class Window:
    """A grayscale window (PS3.3 C.11.2.1.2); checked when made."""

    centre: float         # the value that becomes mid-gray
    width: float          # from black to white, in the same unit
    shape: str = "LINEAR"  # "LINEAR", "LINEAR_EXACT" or "SIGMOID", as DICOM names them

    def __post_init__(self):
        if self.shape not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            raise ValueError("a window's shape should be LINEAR, LINEAR_EXACT or SIGMOID")
        least = 1 if self.shape == "LINEAR" else 0
        if not math.isfinite(self.centre) or not math.isfinite(self.width) or self.width < least or not self.width:
            raise ValueError(f"a {self.shape} window needs a finite centre and a width "
                             + ("of 1 or more" if least else "above 0"))

    def __str__(self) -> str:
        return f"window {self.centre:g}/{self.width:g}" + ("" if self.shape == "LINEAR" else f" ({self.shape.lower()})")


def parse(words: str) -> Window | None:
    """What a user asked for: a Window for "40/400", None for "auto" and for "percentile"."""
    if words in ("auto", "percentile"):
        return None
    try:
        centre, width = (float(word) for word in words.split("/"))
        return Window(centre, width)
    except ValueError:
        raise ValueError(f'window should be "auto", "percentile" or CENTRE/WIDTH such as "40/400"; found {words!r}') from None


def windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """Values through a window: float64 in [0, 1] (PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2)."""
    values = np.asarray(values, np.float64)
    if window.shape == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - window.centre) / window.width, -700, 700)))
    centre, width = (window.centre - 0.5, window.width - 1) if window.shape == "LINEAR" else (window.centre, window.width)
    if width == 0:  # LINEAR of width 1: a threshold
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def looked_up(values: np.ndarray, table: np.ndarray, first: int, depth: int) -> np.ndarray:
    """Values through a table of `depth` bits an entry whose first entry is for `first`: float64 in [0, 1] (PS3.3 C.11.2.1.1)."""
    place = np.clip(np.rint(np.asarray(values, np.float64)) - first, 0, len(table) - 1).astype(np.int64)
    return np.clip(np.asarray(table, np.float64)[place] / (2 ** depth - 1), 0, 1)


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from low to high as float64 in [0, 1]; 0 where all are the same."""
    values = np.asarray(values, np.float64)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def percentiles(levels: np.ndarray, counts: np.ndarray, low: float = LOW, high: float = HIGH) -> tuple[float, float]:
    """The levels, each held by so many pixels, at which two percentages are reached; all of the range where they coincide.

    The same as `np.percentile(..., method="inverted_cdf")`, without sorting the pixels.
    """
    order = np.argsort(levels, kind="stable")
    order = order[(counts[order] > 0) & np.isfinite(levels[order])]
    if not len(order):
        return 0.0, 0.0
    levels, reached = levels[order], np.cumsum(counts[order])
    ends = [levels[min(np.searchsorted(reached, share / 100 * reached[-1]), len(levels) - 1)] for share in (low, high)]
    return (float(ends[0]), float(ends[1])) if ends[0] < ends[1] else (float(levels[0]), float(levels[-1]))


def levels_of(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(levels, counts, place): each different value, how many pixels hold it, and where each pixel's value stands.

    `levels[place]` is the image again. What is done to the levels is done to every pixel, at the price of 65536.
    """
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2:
        least, most = int(pixels.min()), int(pixels.max())
        place = pixels.astype(np.int32) - least
        return np.arange(least, most + 1), np.bincount(place.ravel(), minlength=most - least + 1), place
    levels, place, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    return levels, counts, place.reshape(pixels.shape)


def eight_bit(shares: np.ndarray) -> np.ndarray:
    """[0, 1] as uint8; NaN is black."""
    return np.rint(np.nan_to_num(shares, nan=0.0) * 255).astype(np.uint8)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W) or (H, W, 3) as "L" or "RGB"; colours that are all gray come back as "L"."""
    if pixels.ndim == 3 and np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2]):
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels), "L" if pixels.ndim == 2 else "RGB")


def square_pixels(shown: Image.Image, ratio: float) -> Image.Image:
    """A picture whose pixels are `ratio` times as high as wide, with square ones: the coarser direction is enlarged."""
    if abs(ratio - 1) < 0.01 or not 1 / WIDEST <= ratio <= WIDEST:
        return shown
    width, height = shown.size
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    return shown if size[0] * size[1] > Image.MAX_IMAGE_PIXELS else shown.resize(size, Image.Resampling.BICUBIC)
