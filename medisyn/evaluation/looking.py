"""Looking: which images show what a training image shows; copies planted on purpose prove that they would be found.

Synthetic, unseen and planted images go through the same search (`copies`). What counts as a copy is a limit that unseen real
images set, an image type at a time; each unseen patient is judged by a limit that was set on the others.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medisyn.evaluation import copies
from medisyn.evaluation.copies import Limit, Shown
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.sets import Images, Sets, kinds_of_sets, patients

READ = 128            # pixels a side that images are read at to be compared
WHOLE = 256           # pixels a side at which copies are planted
PLANTED = 20          # training images of each type that are planted, in each change
FOLDS = 5             # of unseen patients: each is judged by a limit that was set on the others
SURE = 0.9            # correlation from which an image of another type may be the original all the same
FEWEST = 5            # unseen images of a type without which it has no limit of its own
Progress = Callable[[int, int], None]


# ---- copies planted on purpose ---------------------------------------------------------------------------------------

def recompressed(pixels: np.ndarray, rng: np.random.Generator, quality: int = 50) -> np.ndarray:
    """Through JPEG: uint8 (n, side, side, 3) -> the same."""
    out = np.empty_like(pixels)
    for k, square in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(square).save(file, "JPEG", quality=quality)
        with Image.open(file) as opened:
            out[k] = np.asarray(opened.convert("RGB"))
    return out


def cropped(pixels: np.ndarray, rng: np.random.Generator, share: float = 0.9) -> np.ndarray:
    """Each image's part of `share` of its side, anywhere, at the old size."""
    out, side = np.empty_like(pixels), pixels.shape[1]
    keep = round(side * share)
    for k, square in enumerate(pixels):
        top, left = rng.integers(0, side - keep + 1, 2)
        cut = Image.fromarray(square[top:top + keep, left:left + keep])
        out[k] = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
    return out


def contrasted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker middle tones, three quarters of the contrast, a lifted black."""
    return np.rint(255 * (0.1 + 0.75 * (pixels / 255.0) ** 1.4)).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "plain": lambda pixels, rng: pixels,
    "flipped": lambda pixels, rng: np.ascontiguousarray(pixels[:, :, ::-1]),
    "cropped": cropped,
    "recompressed": recompressed,
    "contrasted": contrasted,
}


# ---- looking for copies ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Looked:
    """What the search for copies found: the score and the likeliest training row of each image, and the limits."""

    score: dict[str, np.ndarray]           # by "synthetic", "unseen": float32 (n,)
    row: dict[str, np.ndarray]             # int64 (n,), a row of train
    limits: dict[str, Limit]               # by image type; those without unseen images have the strictest of the others
    called: dict[str, np.ndarray]          # bool (n,): called a copy; an unseen image by the limit of other patients
    planted: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by change: (rows of train, score, called)


def searched(images: Shown, kind: np.ndarray, against: copies.Library, kinds: np.ndarray,
             progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`copies.search`, and once more within their own image type for images that were likened to another one below SURE.

    A lone cell looks like a mole, and limits are an image type's own; a copy under a wrong label scores above SURE.
    kind: (n,) of the images; kinds: (N,) of the training images.
    """
    score, row = copies.search(images, against, progress=progress)
    strange = (row >= 0) & np.isin(kind, kinds) & (kinds[row] != kind) & (score < SURE)
    again = np.flatnonzero(strange)
    if len(again):
        score[again], row[again] = copies.search(images.take(again), against,
                                                 lambda rows: kinds[None] != kind[again[rows]][:, None])
    return score, row


def look(sets: Sets, features: dict[str, np.ndarray], extractor: Extractor, *, seed: int = 0,
         false_alarms: float = copies.FALSE_ALARMS, progress: Progress | None = None) -> Looked:
    """Search the synthetic, the unseen and the planted images for what train shows. About 20 ms an image."""
    kinds = kinds_of_sets(sets)
    planted_rows = plan_planted(kinds["train"], seed)
    total = len(sets.train) + len(sets.synthetic) + len(sets.unseen) + len(CHANGES) * len(planted_rows)
    done = [0]

    def step(n: int) -> Progress:
        start = done[0]
        done[0] += n
        return lambda k, _: progress(start + k, total) if progress else None

    def read(name: str, images: Images, tell: Progress | None = None) -> Shown:
        return copies.shown(lambda rows: images.pixels(rows, READ), len(images), features[name], tell)

    against = copies.library(read("train", sets.train, step(len(sets.train))))
    score, row = {}, {}
    for name, images in (("synthetic", sets.synthetic), ("unseen", sets.unseen)):
        score[name], row[name] = searched(read(name, images), kinds[name], against, kinds["train"], step(len(images)))
    limits = limits_of(score["unseen"], kinds["unseen"], np.unique(kinds["train"]), false_alarms)

    def called(score: np.ndarray, row: np.ndarray, kind: np.ndarray, limits: dict[str, Limit]) -> np.ndarray:
        """By the limit of an image's type, or of its likeliest training image's where train has no such type."""
        where = [k if k in limits else kinds["train"][r] for k, r in zip(kind, row, strict=True)]
        return score >= np.array([limits[w].score for w in where])

    flagged = {"synthetic": called(score["synthetic"], row["synthetic"], kinds["synthetic"], limits),
               "unseen": np.zeros(len(sets.unseen), bool)}
    keys = patients(sets.unseen)
    fold = np.random.default_rng([seed, 2]).permutation(len(np.unique(keys)))[np.unique(keys, return_inverse=True)[1]] % FOLDS
    for k in range(FOLDS):
        mine = fold == k
        if mine.any() and (~mine).sum() >= FEWEST:
            others = limits_of(score["unseen"][~mine], kinds["unseen"][~mine], np.unique(kinds["train"]), false_alarms)
            flagged["unseen"][mine] = called(score["unseen"][mine], row["unseen"][mine], kinds["unseen"][mine], others)
    planted = {}
    rng = np.random.default_rng([seed, 3])
    for name, change in CHANGES.items():
        pixels = lambda rows, change=change: change(sets.train.pixels(planted_rows[rows], WHOLE), rng)  # noqa: E731
        held = np.concatenate([pixels(np.arange(i, min(i + 64, len(planted_rows)))) for i in range(0, len(planted_rows), 64)])
        seen = None if features.get("train") is None else extractor.apply(at_side(held, extractor.side))
        found, at = searched(copies.shown(lambda rows, held=held: held[rows], len(held), seen), kinds["train"][planted_rows],
                             against, kinds["train"], step(len(held)))
        planted[name] = (planted_rows, found, called(found, at, kinds["train"][planted_rows], limits))
    return Looked(score, row, limits, flagged, planted)


def plan_planted(kinds: np.ndarray, seed: int) -> np.ndarray:
    """Some training rows of each image type."""
    rng = np.random.default_rng([seed, 1])
    chosen = [rng.permutation(np.flatnonzero(kinds == kind))[:PLANTED] for kind in np.unique(kinds)]
    return np.sort(np.concatenate(chosen))


def at_side(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (n, s, s, 3) at another side, antialiased."""
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS)) for p in pixels])


def limits_of(score: np.ndarray, kind: np.ndarray, wanted: np.ndarray, false_alarms: float) -> dict[str, Limit]:
    """A limit for each wanted image type; those with too few unseen images take the strictest of the others."""
    found = {name: copies.limit(score[kind == name], false_alarms) for name in np.unique(kind) if (kind == name).sum() >= FEWEST}
    strictest = max((known.score for known in found.values()), default=None)
    for name in wanted:
        if name not in found:
            had = int((kind == name).sum())
            note = f"{had} unseen images of this type: " + ("the strictest limit of the other types stands in" if strictest else
                                                           "no limit could be set, 0.95 stands in")
            found[str(name)] = Limit(strictest or 0.95, float("nan"), had, 0, note)
    return {str(name): known for name, known in found.items()}
