"""Nearness: do images made during training lie nearer to the training images than unseen real ones do?

An image's nearest-neighbour ratio is its distance to the nearest training image of its type over that to the nearest unseen one,
among the features of `eye`, through which no training looks. The geometric mean over images made, divided by that of unseen
images (each compared with the unseen ones of other patients), is 1 where what is made lies to the training images as unseen
patients do, and falls as training images are given back. It means something only where images made lie as near to the training
images as unseen ones do: noise, or a network that has not learnt yet, is far from both. So that distance, as a multiple of the
unseen images' own, is told beside it. Compare DCR and NNDR, Zhao et al. 2021, arXiv:2102.08369.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medisyn.evaluation import features, guard
from medisyn.evaluation.copies import unit
from medisyn.evaluation.features import Extractor

EACH = 500          # training images of a type that are looked at
FEWEST = 8          # unseen images of a type, of at least two patients, without which the type has no ratio
SMALLEST = 1e-3     # distance: a copy is not infinitely near
BATCH = 64

Squares = Callable[[np.ndarray], np.ndarray]  # rows (m,) -> uint8 (m, side, side, 3)


@dataclass(frozen=True)
class Known:
    """What an image of one type is compared with."""

    train: np.ndarray   # float32 (n, D), unit length
    unseen: np.ndarray  # float32 (m, D)
    level: float        # mean log ratio of the unseen images themselves
    far: float          # mean log distance of the unseen images to the training ones


@dataclass(frozen=True)
class Near:
    """What images made show."""

    ratio: float        # nearest-neighbour ratio: 1 as unseen images, less: nearer to training than to unseen ones
    distance: float     # to the nearest training image, as a multiple of that of unseen images


@dataclass(frozen=True)
class Nearness:
    """The real images, as `eye` sees them."""

    known: dict[str, Known]             # by image type
    extractor: Extractor

    def look(self, made: np.ndarray, kinds: Sequence[str]) -> Near | None:
        """Geometric means over images uint8 (n, s, s, 3) of the image types named; None where none of those can be compared."""
        rows = [i for i, kind in enumerate(kinds) if kind in self.known]
        if not rows:
            return None
        found = seen(made[rows], self.extractor)
        logs = []
        for at, row in enumerate(rows):
            known = self.known[kinds[row]]
            train, unseen = (float(np.log(nearest(found[at:at + 1], others))[0]) for others in (known.train, known.unseen))
            logs.append((train - unseen - known.level, train - known.far))
        return Near(*np.exp(np.mean(logs, axis=0)).tolist())


def seen(squares: np.ndarray, extractor: Extractor) -> np.ndarray:
    """Features of unit length: uint8 (n, s, s, 3) -> float32 (n, D)."""
    return unit(extractor.apply(guard.fitted(squares, extractor.side)))


def nearest(mine: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance (n,) from unit vectors (n, D) to the nearest of others (m, D), at least SMALLEST."""
    return np.maximum(np.sqrt(np.maximum(2 - 2 * (mine @ others.T), 0)), SMALLEST).min(1)


def level(train: np.ndarray, unseen: np.ndarray, patients: Sequence[str]) -> float:
    """Mean log ratio of unseen images, each compared with the unseen ones of other patients."""
    own = np.asarray(patients)
    logs = [np.log(nearest(unseen[i:i + 1], train) / nearest(unseen[i:i + 1], unseen[own != own[i]])) for i in range(len(unseen))]
    return float(np.mean(logs))


def of(squares: Squares, kinds: Sequence[str], patients: Sequence[str], is_train: Sequence[bool], seed: int = 0,
       cache: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Nearness | None:
    """Look at real images, EACH training and EACH unseen ones of a type at most; None where no type can be compared.

    cache: a file that keeps the features, so that a training that goes on does not look again.
    """
    kinds, train = np.asarray(kinds), np.asarray(is_train, bool)
    rng, chosen = np.random.default_rng(seed), {}
    for kind in sorted(set(kinds)):
        sides = [np.flatnonzero((kinds == kind) & (train == side)) for side in (True, False)]
        sides = [np.sort(rng.permutation(rows)[:EACH]) for rows in sides]
        if len(sides[0]) and len(sides[1]) >= FEWEST and len({patients[r] for r in sides[1]}) > 1:
            chosen[str(kind)] = sides
    if not chosen:
        return None
    extractor = features.load("eye")
    rows = np.concatenate([rows for sides in chosen.values() for rows in sides])
    found = kept(cache, squares, rows, patients, extractor, progress)
    at, known = 0, {}
    for kind, (mine, others) in chosen.items():
        a, b = found[at:at + len(mine)], found[at + len(mine):at + len(mine) + len(others)]
        known[kind] = Known(a, b, level(a, b, [patients[r] for r in others]), float(np.log(nearest(b, a)).mean()))
        at += len(mine) + len(others)
    return Nearness(known, extractor)


def kept(cache: Path | None, squares: Squares, rows: np.ndarray, patients: Sequence[str], extractor: Extractor,
         progress: Callable[[int, int], None] | None) -> np.ndarray:
    """Features of the rows (n, D), from the cache where it is of these rows and this extractor."""
    told = hashlib.sha256(repr([extractor.weights, rows.tolist(), [patients[r] for r in rows]]).encode()).hexdigest()
    if cache is not None and cache.is_file():
        with np.load(cache) as before:
            if str(before["told"]) == told:
                return before["features"]
    parts = []
    for start in range(0, len(rows), BATCH):
        parts.append(seen(squares(rows[start:start + BATCH]), extractor))
        if progress:
            progress(min(start + BATCH, len(rows)), len(rows))
    found = np.concatenate(parts)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        draft = cache.with_suffix(f".{os.getpid()}.part.npz")
        np.savez(draft, told=told, features=found)
        draft.replace(cache)
    return found
