"""Near-duplicates: pictures that show the same thing, found by perceptual hash and confirmed by thumbnail.

The limits were set by looking at pairs of real images: within LIKELY lie copies with another contrast
or sharpness and neighbouring slices of one scan, hardly ever two patients; at a correlation of 0.96
other patients begin. CERTAIN holds copies alone. Copies that were mirrored, or turned by right angles, are
found by the same limits; public collections hold many. Those turned by other angles are not found.
"""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

THUMBNAIL = 16  # pixels a side
BLOCK = 2048    # rows compared at a time: 30,000 pictures need 100 MB, not 7 GB


@dataclass(frozen=True)
class Limits:
    """How far apart two pictures may be and still count as one."""

    distance: int       # bits of the 64 of the hash that may differ
    correlation: float  # of the thumbnails, at least


LIKELY = Limits(8, 0.97)    # the same picture or its neighbour: stays in one split
CERTAIN = Limits(4, 0.998)  # the same picture, whatever the tables say of its patient

_N, _KEPT = 32, 9
ORIENTATIONS = 8
_ODD = (-1.0) ** np.arange(1, _KEPT)  # a mirrored axis turns the sign of its odd frequencies
_BASIS = np.cos(np.pi * np.arange(_KEPT)[:, None] * (2 * np.arange(_N)[None] + 1) / (2 * _N)).astype(np.float32)


def hashes_of(picture: Image.Image) -> tuple[int, ...]:
    """The perceptual hash of a picture in each of its eight orientations, as it lies first.

    64 low frequencies of its cosine transform, each above their median or not. To mirror a picture is to change the
    sign of every other frequency, to transpose it is to transpose them.
    """
    gray = np.asarray(picture.convert("L").resize((_N, _N), Image.Resampling.BOX), np.float32)
    low = (_BASIS @ gray @ _BASIS.T)[1:, 1:]  # without those that do not vary along both axes
    return tuple(code(turned(low, how, _ODD)) for how in range(ORIENTATIONS))


def code(low: np.ndarray) -> int:
    flat = low.ravel()
    return int("".join("1" if bit else "0" for bit in flat > np.median(flat)), 2)


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


def pairs(hashes: Sequence[tuple[int, ...]], thumbnails: np.ndarray, limits: Limits = LIKELY) -> list[tuple[int, int]]:
    """Index pairs (i < j) of near-duplicates, in any orientation, sorted.

    hashes: `hashes_of` each picture; thumbnails: uint8 (N, 16, 16) or (N, 256).
    """
    codes = np.array(hashes, np.uint64).reshape(-1, ORIENTATIONS)
    squares = np.asarray(thumbnails, np.float32).reshape(len(codes), THUMBNAIL, THUMBNAIL)
    squares = squares - squares.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(squares, axis=(1, 2))
    squares /= np.maximum(length, 1e-6)[:, None, None]
    seen = length >= 16  # else nothing is to be seen (a gray value a pixel): correlation says nothing
    found: set[tuple[int, int]] = set()
    for how in range(ORIENTATIONS):
        others = turned(squares, how)
        for first in range(0, len(codes), BLOCK):
            for second in range(first, len(codes), BLOCK):
                apart = np.bitwise_count(codes[first:first + BLOCK, None, 0] ^ codes[None, second:second + BLOCK, how])
                i, j = np.nonzero(apart <= limits.distance)
                i, j = i + first, j + second
                apt = (i < j) & seen[i] & seen[j]
                i, j = i[apt], j[apt]
                for start in range(0, len(i), 65536):
                    a, b = i[start:start + 65536], j[start:start + 65536]
                    alike = np.einsum("nhw,nhw->n", squares[a], others[b]) >= limits.correlation
                    found |= set(zip(a[alike].tolist(), b[alike].tolist(), strict=True))
    return sorted(found)


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


def groups(contents: list[str], hashes: Sequence[tuple[int, ...]], thumbnails: np.ndarray, limits: Limits = LIKELY) -> list[str]:
    """The group of each picture, in order, named by the smallest content digest among all that are linked to it.

    contents: a digest of each file's bytes, so that the order and the names of files do not count.
    """
    union = Union()
    for content in contents:
        union.root(content)
    for i, j in pairs(hashes, thumbnails, limits):
        union.join(contents[i], contents[j])
    smallest: dict[Hashable, str] = {}
    for content in contents:
        root = union.root(content)
        smallest[root] = min(smallest.get(root, content), content)
    return [smallest[union.root(content)] for content in contents]
