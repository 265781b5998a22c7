"""Copies: does an image show again what a training image shows? Candidates first, then aligned pixels.

The first stage looks for candidates among all training images: nearest in the features of an extractor, and nearest in
a coarse sketch (low frequencies of the locally normalised picture) in all eight orientations and three crops. The second
stage slides the candidate over the image in several sizes and takes the best correlation. A score is that correlation,
in [-1, 1]; what is a copy is decided by a limit that is set for each image type on unseen real images, which copied
nothing (Somepalli et al. 2023, arXiv 2212.03860, Dar et al. 2024, arXiv 2402.01054, who set one for all).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from medisyn.data.duplicates import ORIENTATIONS, turned

SIDE = 64                      # pixels a side that are compared: what a patient is known by is coarser than texture
LOW = 12                       # frequencies an axis of a sketch
CROPS = ((1.0, 0, 0), *((0.9, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)), (0.8, 0, 0))
# (share of the side, place -1 to 1 down and right): squares of a training image that are sketched
CORE = 0.9                     # central part of an image that is looked for in a training image
SIZES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1)  # of what is looked for, beside its size in the image
BY_FEATURES, BY_SKETCH, TURNS = 3, 8, 2         # candidates of either kind; orientations of each that are tried
FALSE_ALARMS = 0.01            # of unseen real images, how many may be called copies
FAR_OUT = 3.0                  # interquartile ranges beyond the upper quartile (Tukey 1977) from where an image is no ordinary one
LEAST = 0.5                    # no lower correlation is called a copy, however little unseen images correlate
BLOCK = 256                    # images at a time
Progress = Callable[[int, int], None]


def grays(pixels: np.ndarray) -> np.ndarray:
    """uint8 (n, side, side, 3) to uint8 (n, 64, 64): luminance, averaged over areas."""
    light = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(resized(light, SIDE)).astype(np.uint8)


@cache
def areas(side: int, into: int = SIDE) -> np.ndarray:
    """float32 (into, side): how much of each of `side` cells falls into each of `into` equal ones."""
    edges = np.arange(into + 1) * side / into
    cells = np.arange(side)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (np.clip(overlap, 0, None) * into / side).astype(np.float32)


def reliefs(gray: np.ndarray) -> np.ndarray:
    """(n, 64, 64) gray to float32 (n, 64, 64): each pixel against its neighbourhood, in units of the contrast there.

    Brightness, contrast and slow shading drop out, and with them what all images of a type share: a bright skull around
    a dark brain, a lit centre. Noise of less than a gray level or two is not drawn out of flat backgrounds.
    """
    light = gray.astype(np.float32)
    fine = gaussian_filter(light, (0, 0.7, 0.7))
    rest = fine - gaussian_filter(light, (0, 3, 3))
    local = np.sqrt(gaussian_filter(rest * rest, (0, 3, 3)))
    whole = np.sqrt((rest * rest).mean((1, 2), keepdims=True))
    return rest / (local + 0.1 * whole + 1)


def resized(squares: np.ndarray, side: int) -> np.ndarray:
    """float32 (n, s, s) to (n, side, side), by areas where smaller, linearly where larger."""
    old = squares.shape[-1]
    if side == old:
        return squares
    shares = areas(old, side) if side < old else _linear(old, side)
    return shares @ squares @ shares.T


@cache
def _linear(old: int, new: int) -> np.ndarray:
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old))).astype(np.float32)


def part(squares: np.ndarray, share: float, down: float = 0, right: float = 0) -> np.ndarray:
    """A square part of (n, s, s): `share` of its side, at a place from -1 (top, left) over 0 (centre) to 1."""
    side = squares.shape[-1]
    keep = round(side * share)
    top, left = (round((side - keep) / 2 * (1 + place)) for place in (down, right))
    return squares[:, top:top + keep, left:left + keep]


def frequencies(relief: np.ndarray) -> np.ndarray:
    """The low cosine frequencies of reliefs: float32 (n, 12, 12), the constant 0, length 1."""
    low = scipy.fft.dctn(relief, axes=(1, 2), norm="ortho")[:, :LOW, :LOW].astype(np.float32)
    low[:, 0, 0] = 0
    return low / np.maximum(np.linalg.norm(low, axis=(1, 2), keepdims=True), 1e-6)


_ODD = (-1.0) ** np.arange(LOW, dtype=np.float32)  # a mirrored axis turns the sign of its odd frequencies


@dataclass(frozen=True)
class Shown:
    """What is kept of a set of images to compare them: 4 KB an image and the sketches."""

    gray: np.ndarray      # uint8 (n, 64, 64)
    sketch: np.ndarray    # float32 (n, 144)
    features: np.ndarray | None = None  # float32 (n, D) of length 1, of the images as they lie

    def __len__(self) -> int:
        return len(self.gray)

    def take(self, rows: np.ndarray) -> "Shown":
        """Some of the images, in the order of `rows`."""
        return Shown(self.gray[rows], self.sketch[rows], None if self.features is None else self.features[rows])


def shown(pixels: Callable[[np.ndarray], np.ndarray], n: int, features: np.ndarray | None = None,
          progress: Progress | None = None) -> Shown:
    """Read n images by `pixels(rows) -> uint8 (m, side, side, 3)`, a block at a time; features: float32 (n, D) or None."""
    gray, sketch = np.zeros((n, SIDE, SIDE), np.uint8), np.zeros((n, LOW * LOW), np.float32)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        gray[rows] = grays(pixels(rows))
        sketch[rows] = frequencies(reliefs(gray[rows])).reshape(len(rows), -1)
        if progress:
            progress(int(rows[-1]) + 1, n)
    return Shown(gray, sketch, None if features is None else unit(features))


def unit(features: np.ndarray) -> np.ndarray:
    """Each row at length 1, as float32."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Library:
    """Training images, ready to be searched."""

    shown: Shown
    crops: np.ndarray     # float32 (len(CROPS), N, 144): sketches of their parts


def library(train: Shown) -> Library:
    """Prepare a set to be searched."""
    crops = np.zeros((len(CROPS), len(train), LOW * LOW), np.float32)
    for start in range(0, len(train), BLOCK):
        rows = slice(start, start + BLOCK)
        relief = reliefs(train.gray[rows])
        for k, crop in enumerate(CROPS):
            crops[k, rows] = frequencies(resized(part(relief, *crop), SIDE)).reshape(len(relief), -1)
    return Library(train, crops)


def likeness(sketch: np.ndarray, against: Library) -> np.ndarray:
    """How alike sketches (n, 144) are to training images: float32 (8 orientations, n, N), the best crop of each."""
    low = sketch.reshape(-1, LOW, LOW)
    found = np.empty((ORIENTATIONS, len(low), len(against.shown)), np.float32)
    for how in range(ORIENTATIONS):
        mine = np.ascontiguousarray(turned(low, how, _ODD)).reshape(len(low), -1)
        found[how] = mine @ against.crops[0].T
        for crop in against.crops[1:]:
            np.maximum(found[how], mine @ crop.T, out=found[how])
    return found


def top(values: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k largest values of each row (n, N), in any order: int64 (n, min(k, N))."""
    k = min(k, values.shape[1])
    return np.argpartition(values, values.shape[1] - k, axis=1)[:, values.shape[1] - k:]


def search(images: Shown, against: Library, apart: Callable[[np.ndarray], np.ndarray] | None = None,
           progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The score of each image against its likeliest training image: (float32 (n,), int64 row (n,)); -1 and -1 where none.

    apart: rows (m,) -> bool (m, N), the training images that an image is not compared with (its own patient's).
    """
    n, kept = len(images), len(against.shown)
    score, row = np.full(n, -1, np.float32), np.full(n, -1, np.int64)
    if not kept:
        return score, row
    step = max(1, min(64, 2**24 // kept))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        alike = likeness(images.sketch[rows], against)
        hidden = apart(rows) if apart else np.zeros((len(rows), kept), bool)
        alike[:, hidden] = -2
        chosen = top(alike.max(0), BY_SKETCH)
        if images.features is not None and against.shown.features is not None:
            near = images.features[rows] @ against.shown.features.T
            near[hidden] = -2
            chosen = np.concatenate([chosen, top(near, BY_FEATURES)], 1)
        for k, i in enumerate(rows):
            mine = np.unique(chosen[k])
            mine = mine[~hidden[k, mine]]
            if len(mine):
                turns = np.argsort(-alike[:, k, mine], axis=0)[:TURNS]
                found = aligned(images.gray[i], against.shown.gray[mine], turns)
                best = int(found.argmax())
                score[i], row[i] = found[best], mine[best]
        if progress:
            progress(int(rows[-1]) + 1, n)
    return score, row


def aligned(image: np.ndarray, others: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The best correlation of an image (64, 64) with each of others (m, 64, 64): float32 (m,) in [-1, 1].

    turns: int (k, m), the orientations of the image that are tried against each. The core of the image is slid over the
    other in several sizes; the correlation is that of reliefs over the pixels that both show.
    """
    relief = reliefs(others)
    spectrum = np.conj(scipy.fft.rfft2(relief))
    mine, sums, squares = reliefs(image[None]), summed(relief), summed(relief * relief)
    used = np.unique(turns)
    best = np.full(len(others), -1, np.float32)
    for size in SIZES:
        side = min(SIDE, round(SIDE * CORE * size))
        core = resized(part(mine, CORE), side)[0]
        core = core - core.mean()
        core /= max(float(np.linalg.norm(core)), 1e-6)
        padded = np.zeros((len(used), SIDE, SIDE), np.float32)
        for k, how in enumerate(used):
            padded[k, :side, :side] = turned(core, int(how))
        cores = scipy.fft.rfft2(padded)
        spread = np.sqrt(np.maximum(windows(squares, side) - windows(sums, side) ** 2 / side**2, 1e-6))
        room = SIDE - side + 1
        for tried in turns:
            product = cores[np.searchsorted(used, tried)] * spectrum
            slid = scipy.fft.irfft2(np.conj(product), s=(SIDE, SIDE))[:, :room, :room]
            np.maximum(best, (slid / spread).max((1, 2)), out=best)
    return np.clip(best, -1, 1)


def summed(squares: np.ndarray) -> np.ndarray:
    """Sums over all that lies above and left: (n, s, s) to float64 (n, s + 1, s + 1)."""
    return np.pad(squares.astype(np.float64).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))


def windows(total: np.ndarray, side: int) -> np.ndarray:
    """The sum over each window of side x side pixels, from `summed`: float64 (n, s - side + 1, s - side + 1)."""
    return total[:, side:, side:] - total[:, :-side, side:] - total[:, side:, :-side] + total[:, :-side, :-side]


@dataclass(frozen=True)
class Limit:
    """From which score on an image is called a copy, and what that costs."""

    score: float           # at or above it: a copy
    false_alarms: float    # the rate it is set for: the one asked for, or the lowest that so few unseen images allow
    n: int                 # unseen images it was set on
    far_out: int           # of these, how many show what a training image shows, by all the others: left out of the setting
    note: str              # how it was set, for people


def limit(unseen: Sequence[float] | np.ndarray, false_alarms: float = FALSE_ALARMS, least: float = LEAST,
          even: Callable[[np.ndarray], np.ndarray] = lambda r: np.arctanh(np.clip(r, -0.99999, 0.99999))) -> Limit:
    """The limit of an image type, from the scores of its unseen real images against the training images.

    Collections hold images twice under two names: unseen images that truly show a training image again would raise the
    limit until nothing is a copy. So scores far out of the bulk are left out and counted: those beyond the upper
    quartile by 3 interquartile ranges on the scale `even`: Fisher's arctanh, on which correlations spread evenly. Among n others
    the limit is their conformal (1 - rate) quantile; no rate below 1/(n + 1) can be had of n images, and the note says so.
    """
    unseen = np.sort(np.asarray(unseen, float))
    if len(unseen) < 4:
        raise ValueError(f"a limit expects at least 4 unseen images, found {len(unseen)}")
    z = even(unseen)
    lower, upper = np.quantile(z, [0.25, 0.75])
    usual = unseen[z <= upper + FAR_OUT * max(upper - lower, 0.02)]
    far_out, n = len(unseen) - len(usual), len(usual)
    allowed = max(0, int(false_alarms * (n + 1) + 1e-9) - 1)   # conformal: so many of n above it make (allowed + 1) / (n + 1)
    rate = (allowed + 1) / (n + 1)
    score = max(float(np.nextafter(usual[n - 1 - allowed], 2)), least)
    note = f"set on {n} unseen images for {rate:.1%} false alarms"
    if rate > false_alarms:
        note += f" (so few allow no {false_alarms:.1%}; {int(np.ceil(1 / false_alarms)) - 1} would)"
    if far_out:
        note += f"; {far_out} more show what a training image shows and were left out"
    return Limit(score, float(rate), len(unseen), far_out, note)
