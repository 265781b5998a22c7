"""Manifolds: whether each image lies where images of the other side lie.

Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al. 2020,
arXiv:2002.09797), image by image, so that they can be averaged over any group. Distances are computed in
blocks: memory grows with n, not with n squared.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

K = 5                       # neighbours: the radius of a ball reaches to the 5th
BYTES = 32 * 2**20          # of distances that exist at a time
TOLERANCE = 1e-6            # of the largest squared length: what float32 cannot tell from equal


@dataclass(frozen=True)
class Manifolds:
    """What each image is worth: the mean of a field is the metric."""

    precision: np.ndarray   # (m,) whether a synthetic image lies in the ball of any real one
    recall: np.ndarray      # (n,) whether a real image lies in the ball of any synthetic one
    density: np.ndarray     # (m,) in how many real balls a synthetic image lies, over k; may exceed 1
    coverage: np.ndarray    # (n,) whether the ball of a real image holds any synthetic one


def manifolds(real: np.ndarray, synthetic: np.ndarray, k: int = K) -> Manifolds:
    """Both sides' images by whose balls they lie in. real: float (n, D), synthetic: float (m, D); n, m > k."""
    if min(len(real), len(synthetic)) <= k:
        raise ValueError(f"balls to the {k}th neighbour need more than {k} images a side, "
                         f"found {len(real)} and {len(synthetic)}")
    middle = real.mean(0, dtype=np.float64)
    x, y = (np.asarray(z - middle, np.float32) for z in (real, synthetic))
    slack = TOLERANCE * max(float(np.square(x).sum(1).max()), float(np.square(y).sum(1).max()))
    real_balls, synthetic_balls = radii(x, k) + slack, radii(y, k) + slack
    n, m = len(x), len(y)
    inside, recall, nearest = np.zeros(m), np.zeros(n, bool), np.empty(n, np.float32)
    for rows, square in distances(x, y):
        inside += (square <= real_balls[rows, None]).sum(0)
        recall[rows] = (square <= synthetic_balls[None]).any(1)
        nearest[rows] = square.min(1)
    return Manifolds((inside > 0).astype(float), recall.astype(float), inside / k, (nearest <= real_balls).astype(float))


def distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances, a block of rows of x at a time: float32 (b, m)."""
    lengths, step = np.square(y).sum(1), max(1, BYTES // (4 * len(y)))
    for start in range(0, len(x), step):
        part = x[start:start + step]
        square = part @ y.T
        square *= -2
        square += np.square(part).sum(1)[:, None]
        square += lengths[None]
        yield slice(start, start + len(part)), np.maximum(square, 0, out=square)


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each row to its k-th neighbour among the others: float32 (n,)."""
    out = np.empty(len(x), np.float32)
    for rows, square in distances(x, x):
        here = np.arange(rows.start, rows.stop)
        square[here - rows.start, here] = np.inf
        out[rows] = np.partition(square, k - 1, axis=1)[:, k - 1]
    return out
