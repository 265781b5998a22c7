"""Near-duplicates: pictures that show the same thing, found by perceptual hash and confirmed by thumbnail.

The limits were set by looking at pairs of real images: within LIKELY lie copies with another contrast
or sharpness and neighbouring slices of one scan, hardly ever two patients; at a correlation of 0.96
other patients begin. CERTAIN holds copies alone. Copies that were mirrored, or turned by right angles, are
found by the same limits; public collections hold many. Those turned by other angles are not found.
"""

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medisyn.data.neighbours import near

THUMBNAIL = 16  # pixels a side
PIXELS = THUMBNAIL**2
SEEN = (PIXELS * 1) ** 2  # of `moments`, a gray value a pixel: below it nothing is to be seen, and a correlation says nothing
BLOCK = 1 << 15  # thumbnails compared at a time: 100 MB


@dataclass(frozen=True)
class Limits:
    """How far apart two pictures may be and still count as one."""

    distance: int       # bits of the 64 of the hash that may differ
    correlation: float  # of the thumbnails, at least


LIKELY = Limits(8, 0.97)    # the same picture or its neighbour: stays in one split
CERTAIN = Limits(4, 0.998)  # the same picture, whatever the tables say of its patient

_N, _KEPT = 32, 9
ORIENTATIONS = 8
ODD = (-1.0) ** np.arange(1, _KEPT)  # a mirrored axis turns the sign of its odd frequencies
_BASIS = np.cos(np.pi * np.arange(_KEPT)[:, None] * (2 * np.arange(_N)[None] + 1) / (2 * _N)).astype(np.float32)


def hashes_of(picture: Image.Image) -> tuple[int, ...]:
    """The perceptual hash of a picture in each of its eight orientations, as it lies first.

    64 low frequencies of its cosine transform, each above their median or not. To mirror a picture is to change the
    sign of every other frequency, to transpose it is to transpose them.
    """
    gray = np.asarray(picture.convert("L").resize((_N, _N), Image.Resampling.BOX), np.float32)
    low = (_BASIS @ gray @ _BASIS.T)[1:, 1:]  # without those that do not vary along both axes
    return codes(np.stack([turned(low, how, ODD) for how in range(ORIENTATIONS)]))


def codes(low: np.ndarray) -> tuple[int, ...]:
    """Which of 64 frequencies lie above their median, as one number a row; low: float32 (N, 8, 8)."""
    flat = low.reshape(len(low), -1)
    middle = np.sort(flat, axis=1)[:, 31:33].sum(axis=1, keepdims=True) / 2
    return tuple(np.packbits(flat > middle, axis=1).view(">u8")[:, 0].tolist())


def turned(squares: np.ndarray, how: int, mirror: np.ndarray | None = None) -> np.ndarray:
    """Squares (..., side, side) in orientation 0 to 7: bit 2 transposes, then bit 0 mirrors left-right, bit 1 upside down.

    mirror: what a mirrored axis is multiplied by; None reverses it.
    """
    if how & 4:
        squares = squares.swapaxes(-1, -2)
    if how & 1:
        squares = squares[..., ::-1] if mirror is None else squares * mirror
    if how & 2:
        squares = squares[..., ::-1, :] if mirror is None else squares * mirror[:, None]
    return squares


def thumbnail_of(picture: Image.Image) -> np.ndarray:
    """A picture as uint8 (16, 16), gray."""
    return np.asarray(picture.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.uint8)


def digest(data: bytes) -> str:
    """The name of a file's content: 32 hex digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def pairs(hashes: Sequence[tuple[int, ...]] | np.ndarray, thumbnails: np.ndarray, limits: Limits = LIKELY) -> list[tuple[int, int]]:
    """Index pairs (i < j) of near-duplicates, in any orientation, sorted.

    hashes: `hashes_of` each picture; thumbnails: uint8 (N, 16, 16) or (N, 256).
    """
    return sorted({pair for i, j in links(hashes, thumbnails, limits) for pair in zip(i.tolist(), j.tolist(), strict=True)})


def links(hashes: Sequence[tuple[int, ...]] | np.ndarray, thumbnails: np.ndarray, limits: Limits,
          union: "Numbers | None" = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs of `pairs` as arrays of i and of j, alike in several orientations several times.

    union: those that it joined already are left out.
    """
    codes = np.asarray(hashes, np.uint64).reshape(-1, ORIENTATIONS)
    squares = np.asarray(thumbnails, np.uint8).reshape(len(codes), THUMBNAIL, THUMBNAIL)
    total, spread = moments(squares)
    seen = np.flatnonzero(spread >= SEEN)
    chosen = np.ascontiguousarray(codes[seen].T)
    for how, i, j in near(chosen[0], chosen, limits.distance, union and (lambda at: union.roots(seen[at]))):
        i, j = seen[i], seen[j]
        first = np.isin(np.arange(len(j)), np.unique(j, return_index=True)[1])  # one of each j joins most; few others are left
        for some in (first, ~first) if union else (slice(None),):
            a, b = i[some], j[some]
            if union:
                apart = union.roots(a) != union.roots(b)
                a, b = a[apart], b[apart]
            shared = PIXELS * products(squares, a, b, how) - total[a] * total[b]
            alike = shared >= limits.correlation * np.sqrt(spread[a] * spread[b])
            if alike.any():
                yield a[alike], b[alike]


def products(squares: np.ndarray, i: np.ndarray, j: np.ndarray, how: int) -> np.ndarray:
    """The sums over the pixels of squares[i] times squares[j] turned: exact, as they stay below 2^24."""
    left, row = np.unique(i, return_inverse=True)
    right, column = np.unique(j, return_inverse=True)
    found, rows = np.empty(len(i)), max(1, (BLOCK << 5) // max(1, len(right)))
    if len(left) * len(right) <= 4 * len(i):  # nearly each with each: as matrices that is many times faster
        other = turned(squares[right], how).reshape(-1, PIXELS).astype(np.float32).T
        for start in range(0, len(left), rows):
            here = np.flatnonzero((row >= start) & (row < start + rows)) if rows < len(left) else slice(None)
            some = squares[left[start:start + rows]].reshape(-1, PIXELS).astype(np.float32) @ other
            found[here] = some[row[here] - start, column[here]]
        return found
    for start in range(0, len(i), BLOCK):
        a, b = squares[i[start:start + BLOCK]], turned(squares[j[start:start + BLOCK]], how)
        found[start:start + BLOCK] = np.einsum("nhw,nhw->n", a.astype(np.float32), b.astype(np.float32))
    return found


def moments(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each thumbnail the sum of its pixels, and n times the sum of their squares less the square of it: exact whole numbers."""
    total, spread = np.empty(len(squares)), np.empty(len(squares))
    for start in range(0, len(squares), BLOCK):
        some = squares[start:start + BLOCK].reshape(-1, PIXELS).astype(np.float64)
        total[start:start + BLOCK] = some.sum(axis=1)
        spread[start:start + BLOCK] = PIXELS * np.einsum("np,np->n", some, some) - total[start:start + BLOCK] ** 2
    return total, spread


class Union:
    """Things that belong together, joined two at a time."""

    def __init__(self) -> None:
        self.parent: dict[Hashable, Hashable] = {}

    def root(self, one: Hashable) -> Hashable:
        self.parent.setdefault(one, one)
        while self.parent[one] != one:
            self.parent[one] = self.parent[self.parent[one]]
            one = self.parent[one]
        return one

    def join(self, one: Hashable, other: Hashable) -> None:
        self.parent[self.root(other)] = self.root(one)


class Numbers:
    """The numbers 0 to n - 1, joined two at a time and looked up many at a time."""

    def __init__(self, n: int) -> None:
        self.parent = np.arange(n)

    def roots(self, at: np.ndarray) -> np.ndarray:
        """The smallest number that each of `at` is joined to."""
        while True:
            found = self.parent[at]
            further = self.parent[found]
            if np.array_equal(found, further):
                return found
            self.parent[at] = further  # half the way, for all at once

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Join a[k] and b[k], for each k."""
        while len(a):
            a, b = self.roots(a), self.roots(b)
            a, b = np.minimum(a, b)[a != b], np.maximum(a, b)[a != b]
            self.parent[b] = a  # where a number stands twice the last counts; the others come again


def groups(contents: list[str], hashes: Sequence[tuple[int, ...]] | np.ndarray, thumbnails: np.ndarray,
           limits: Limits = LIKELY) -> list[str]:
    """The group of each picture, in order, named by the smallest content digest among all that are linked to it.

    contents: a digest of each file's bytes, so that the order and the names of files do not count.
    """
    union, first = Numbers(len(contents)), {}
    same = np.array([first.setdefault(content, i) for i, content in enumerate(contents)], np.intp)
    union.join(same, np.arange(len(contents)))
    for i, j in links(hashes, thumbnails, limits, union):
        union.join(i, j)
    roots = union.roots(np.arange(len(contents))).tolist()
    smallest: dict[int, str] = {}
    for root, content in zip(roots, contents, strict=True):
        smallest[root] = min(smallest.get(root, content), content)
    return [smallest[root] for root in roots]
