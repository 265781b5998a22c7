"""Burned-in text: lines of writing found in the pixels of a picture, before it is reduced.

Text that a machine wrote over an image differs from anatomy in few but plain ways: marks of one height stand in a row,
their strokes are thin, of one brightness and sharp at both sides. So: strokes are what is brighter (or darker) than its
surroundings, marks are connected strokes, a line is a row of marks of similar height and brightness, and a logistic
score over the line's features, fitted on planted text and on medical images (benchmarks/burned_in.py), says how much it
looks like writing. Needs no model and no library beyond numpy, scipy and Pillow.

It finds writing, not names: a scale or a device's name is found too, one or two letters (the "R" of an X-ray) are not.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

SURROUNDINGS = 8      # pixels to each side that a stroke is compared with
COARSE = 4            # ... measured in cells of so many pixels
LEAST_CONTRAST = 28   # gray levels between a stroke and the mean of its surroundings
OVER_TEXTURE = 0.75   # ... and this times the mean deviation there, so that texture has to be surpassed
HEIGHTS = (4, 34)     # of a mark, in pixels; larger ones are found in the picture at half and quarter size
APART = 64            # rows between two layers, more than the gap of two letters
NEIGHBOURS = 9        # marks that are looked at as the next letter of a line
LEAST_LETTERS = 3     # of a line; fewer are a side marker
STRAIGHT = 3          # most height of a line, in heights of its marks; what wanders further is texture
FEATURES = ("log marks", "log letters", "log height", "log contrast", "surroundings uneven", "stroke uneven", "peaks differ",
            "grounds differ", "tops differ", "bottoms differ", "width", "widths differ", "fill", "strokes a row", "sharpness")
WEIGHTS = {  # of upright lines, and of lines turned by 90 degrees
    True: np.array((6.86, -1.44, -1.75, 3.51, 5.36, -1.11, -4.6, 0.4, -8.44, -8.66, -0.747, 0.347, 5.07, 5.89, 9.89)),
    False: np.array((7.59, -2.75, -1.68, 3.5, 4.51, 1.09, -5.18, 0.646, -10.5, -9.59, 1.07, 0.63, 8.42, 5.16, 7.43)),
}
BIAS = {True: -34.6, False: -33.2}
THRESHOLD = 2.0       # of the score: above it a line is writing


@dataclass(frozen=True)
class Box:
    """A line of writing, in pixels of the picture; right and bottom are past its last ones."""

    left: int
    top: int
    right: int
    bottom: int
    score: float


def text_boxes(picture: Image.Image, threshold: float = THRESHOLD) -> list[Box]:
    """The lines of writing in a picture ("L" or "RGB", 8 bit, full size), the surest first; [] where none is found."""
    return merged([Box(*map(int, box), round(float(score), 2)) for upright, boxes, features in lines_of(picture)
                   for box, score in zip(boxes, scores(features, upright), strict=True) if score > threshold])


def doubt(picture: Image.Image) -> str | None:
    """Why a picture should wait until somebody has looked at it; None where no writing is found."""
    found = text_boxes(picture)
    return f"its pixels seem to hold {len(found)} line{'s' * (len(found) > 1)} of text" if found else None


def scores(features: np.ndarray, upright: bool) -> np.ndarray:
    """How much each line looks like writing: the logarithm of its odds in the data that the weights were fitted on."""
    return features @ WEIGHTS[upright] + BIAS[upright]


def lines_of(picture: Image.Image) -> list[tuple[bool, np.ndarray, np.ndarray]]:
    """Every row of marks, upright ones and turned ones: (upright, boxes int (n, 4), features float (n, len(FEATURES)))."""
    gray, scale, layers, starts, scales = picture.convert("L"), 1, [], [0], []
    while True:  # bright and dark strokes at each size are layers, laid one below the other, that are searched at once
        pixels = np.asarray(gray)
        for strokes, values in zip(strokes_of(gray), (pixels, 255 - pixels), strict=True):
            runs = runs_of(strokes, values)
            runs["y"] += starts[-1]
            layers.append(runs)
            starts.append(starts[-1] + gray.height + APART)
            scales.append(scale)
        if min(gray.size) < (192 if scale == 1 else 400) or scale == 4:
            break
        gray, scale = gray.reduce(2), scale * 2
    marks = marks_of({name: np.concatenate([runs[name] for runs in layers]) for name in layers[0]})
    return [(upright, placed(boxes, np.array(starts), np.array(scales)), features)
            for upright in (True, False) for boxes, features in [rows_of(marks, upright)]]


def placed(boxes: np.ndarray, starts: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Boxes in the pixels of the picture, from boxes in the stack of layers."""
    layer = np.searchsorted(starts, boxes[:, 1], "right") - 1
    return (boxes - starts[layer][:, None] * np.array((0, 1, 0, 1))) * scales[layer][:, None]


# Strokes: pixels unlike their surroundings

def strokes_of(gray: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Where bright strokes lie, and where dark ones: flat pixel numbers, ascending.

    Surroundings are smooth, so their mean and unevenness are taken on a picture of a quarter of the size.
    """
    around, width = ImageFilter.BoxBlur(SURROUNDINGS // COARSE), gray.width
    mean = gray.reduce(COARSE).filter(around).resize(gray.size, Image.Resampling.BILINEAR)
    unlike = ImageChops.difference(gray, mean)
    uneven = np.asarray(unlike.reduce(COARSE).filter(around))
    unlike = np.asarray(unlike).ravel()
    at = np.flatnonzero(unlike > LEAST_CONTRAST)
    at = at[unlike[at] > OVER_TEXTURE * uneven[at // width // COARSE, at % width // COARSE]]
    bright = np.asarray(gray).ravel()[at] > np.asarray(mean).ravel()[at]
    return at[bright], at[~bright]


# Marks: connected strokes

def runs_of(at: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """Runs, the stretches of strokes in a pixel row, and what is known of each: so time goes with what is there to be seen.

    at: flat numbers of the pixels in strokes; values: uint8 (H, W), bright on dark.
    """
    width = values.shape[1]
    row = at // width
    first = np.flatnonzero((np.diff(at, prepend=-2) != 1) | (np.diff(row, prepend=-1) != 0))
    last = np.append(first[1:], len(at))[:len(first)] - 1
    y = row[first]
    x0, x1 = at[first] - y * width, at[last] - y * width
    inside = values.ravel()[at].astype(float)
    left, right = (values[y, np.clip(x, 0, width - 1)].astype(float) for x in (x0 - 2, x1 + 2))  # two pixels beside the run
    none = np.zeros(0)
    return {"x0": x0, "x1": x1, "y": y, "left": left, "right": right,
            "total": np.add.reduceat(inside, first) if len(at) else none,
            "peak": np.maximum.reduceat(inside, first) if len(at) else none}


def marks_of(runs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Marks, the runs that touch at sides or corners, and what is known of each: arrays of one length."""
    x0, x1, y, left, right, peak = (runs[name] for name in ("x0", "x1", "y", "left", "right", "peak"))
    if not len(y):
        return {}
    mark = connected(len(y), *touching(x0, x1, y))
    order = np.argsort(mark, kind="stable")
    begin = np.flatnonzero(np.diff(mark[order], prepend=-1))

    def total(of: np.ndarray) -> np.ndarray:
        return np.add.reduceat(of[order].astype(float), begin)

    count, area = np.diff(begin, append=len(order)).astype(float), total(x1 - x0 + 1)
    ground, peaks = total(left + right) / 2 / count, total(peak) / count
    return {"x0": np.minimum.reduceat(x0[order], begin), "x1": np.maximum.reduceat(x1[order], begin),
            "y0": np.minimum.reduceat(y[order], begin), "y1": np.maximum.reduceat(y[order], begin),
            "runs": count, "area": area, "value": total(runs["total"]) / area,
            "peak": peaks, "ground": ground, "top": np.maximum.reduceat(peak[order], begin),
            "peak_sd": np.sqrt(np.maximum(total(peak**2) / count - peaks**2, 0)),
            "ground_sd": np.sqrt(np.maximum(total(left**2 + right**2) / 2 / count - ground**2, 0))}


def touching(x0: np.ndarray, x1: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs that touch across two pixel rows, as two arrays of run numbers."""
    stride = int(x1.max()) + 4
    low = np.searchsorted(y * stride + x1, (y + 1) * stride + x0 - 1, "left")
    high = np.searchsorted(y * stride + x0, (y + 1) * stride + x1 + 1, "right")
    count = np.maximum(high - low, 0)
    start = np.cumsum(count) - count
    return np.repeat(np.arange(len(y)), count), np.repeat(low - start, count) + np.arange(count.sum())


def connected(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The group of each of n things, where the pairs (a, b) belong together."""
    return connected_components(coo_matrix((np.ones(len(a), bool), (a, b)), shape=(n, n)), directed=False)[1]


# Lines: rows of marks

def rows_of(marks: dict[str, np.ndarray], upright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows of marks as `lines_of` gives them; upright False: they stand one above the other, text turned by 90 degrees."""
    none = np.zeros((0, 4), int), np.zeros((0, len(FEATURES)))
    if not marks:
        return none
    along, across = (("x0", "x1"), ("y0", "y1")) if upright else (("y0", "y1"), ("x0", "x1"))
    width, height = (marks[end] - marks[start] + 1 for start, end in (along, across))
    stroke, contrast = marks["area"] / marks["runs"], marks["value"] - marks["ground"]
    fit = ((height >= HEIGHTS[0]) & (height <= HEIGHTS[1]) & (width <= 6 * height) & (marks["area"] >= 0.12 * width * height)
           & (contrast > 20) & (stroke <= np.maximum(0.45 * height, 2.5) + (width > 1.5 * height) * 0.2 * height))
    if fit.sum() < 2:
        return none
    kept = {name: of[fit] for name, of in marks.items()}
    width, height, stroke, contrast = width[fit], height[fit], stroke[fit], contrast[fit]
    line = connected(len(width), *beside(kept, along, across, height, contrast))
    order = np.argsort(line, kind="stable")
    begin = np.flatnonzero(np.diff(line[order], prepend=-1))
    n = np.diff(begin, append=len(order))

    def mean(of: np.ndarray) -> np.ndarray:
        return np.add.reduceat(of[order].astype(float), begin) / n

    def spread(of: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(mean(np.square(of, dtype=float)) - mean(of) ** 2, 0))

    tall, strong = mean(height), mean(contrast)
    letters = mean(np.maximum(1, np.round(width / (0.75 * height)))) * n
    measured = np.stack([
        np.log(n), np.log(letters), np.log(tall), np.log(strong), mean(kept["ground_sd"]) / strong,
        mean(kept["peak_sd"]) / strong, spread(kept["peak"]) / strong, spread(kept["ground"]) / strong,
        spread(kept[across[0]]) / tall, spread(kept[across[1]]) / tall, mean(width / height), spread(width) / tall,
        mean(kept["area"] / (width * height)), mean(kept["runs"] / (height if upright else width)),
        mean(contrast / np.maximum(1, kept["top"] - kept["ground"]))], axis=1)
    boxes = np.stack([np.minimum.reduceat(kept["x0"][order], begin), np.minimum.reduceat(kept["y0"][order], begin),
                      np.maximum.reduceat(kept["x1"][order], begin) + 1, np.maximum.reduceat(kept["y1"][order], begin) + 1], axis=1)
    start, end = (1, 3) if upright else (0, 2)
    enough = (n >= 2) & (letters >= LEAST_LETTERS) & (boxes[:, end] - boxes[:, start] <= STRAIGHT * tall)
    return boxes[enough], measured[enough]


def beside(marks: dict[str, np.ndarray], along: tuple[str, str], across: tuple[str, str], height: np.ndarray,
           contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of marks that may be neighbours in a line: of similar height and brightness, level, a letter's gap apart."""
    (a0, a1), (b0, b1) = ((marks[start], marks[end]) for start, end in (along, across))
    near = min(NEIGHBOURS, len(height))
    _, other = cKDTree(np.stack([a0 + a1, b0 + b1], 1) / 2).query(np.stack([a0 + a1, b0 + b1], 1) / 2, k=near)
    i, j = np.repeat(np.arange(len(height)), near), other.ravel()
    i, j = i[i < j], j[i < j]
    low, high = np.minimum(height[i], height[j]), np.maximum(height[i], height[j])
    gap = np.maximum(a0[i], a0[j]) - np.minimum(a1[i], a1[j]) - 1
    level = np.minimum(b1[i], b1[j]) - np.maximum(b0[i], b0[j]) + 1
    fits = ((high <= 1.7 * low + 1) & (gap <= high + 1) & (gap >= -0.25 * high) & (level >= 0.65 * low)
            & (np.abs(marks["peak"][i] - marks["peak"][j]) < 0.3 * np.maximum(contrast[i], contrast[j])))
    return i[fits], j[fits]


def merged(boxes: list[Box]) -> list[Box]:
    """Boxes that overlap become one, which holds them all; the surest first."""
    done: list[Box] = []
    for box in sorted(boxes, key=lambda one: -one.score):
        for other in [one for one in done if box.left < one.right and one.left < box.right
                      and box.top < one.bottom and one.top < box.bottom]:
            done.remove(other)
            box = Box(min(box.left, other.left), min(box.top, other.top), max(box.right, other.right),
                      max(box.bottom, other.bottom), max(box.score, other.score))
        done.append(box)
    return sorted(done, key=lambda one: -one.score)
