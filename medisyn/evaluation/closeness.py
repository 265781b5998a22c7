"""Closeness: do images lie nearer to train than unseen images do? Arrays in, numbers out.

Rows are features of length 1, of one image type: else a set of the right types in other shares would look new, or copied.
A soft image lies nearer to everything, hence sharpness, and the blur that makes unseen images as soft as synthetic ones.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

SUBSETS = 20          # equal-size subsets that a share is averaged over


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean, of rows (n, D) and (m, D): float32 (n, m)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def closer_to_train(to_train: np.ndarray, to_unseen: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each image's nearest real one is of train, among equally many of both: float64 (n,) in [0, 1].

    to_train, to_unseen: distances (n, N) and (n, M); inf hides an image, such as one's own patient's: as many of the other
    side are then left out. Averaged over 20 subsets, ties half; 0.5 where nothing was copied. nan where nothing is left.
    """
    rng = np.random.default_rng(seed)
    size = min(to_train.shape[1], to_unseen.shape[1])
    votes, counted = np.zeros(len(to_train)), np.zeros(len(to_train))
    for _ in range(SUBSETS):
        a = to_train[:, rng.permutation(to_train.shape[1])[:size]]
        b = to_unseen[:, rng.permutation(to_unseen.shape[1])[:size]]
        left = np.minimum(np.isfinite(a).sum(1), np.isfinite(b).sum(1))
        ok = left > 0
        near = [nearest_of_first(x[ok], left[ok]) for x in (a, b)]
        votes[ok] += (near[0] < near[1]) + 0.5 * (near[0] == near[1])
        counted += ok
    return np.divide(votes, counted, out=np.full(len(votes), np.nan), where=counted > 0)


def nearest_of_first(gaps: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The least of the first n[i] finite values of each row: the columns come in random order."""
    order = np.argsort(~np.isfinite(gaps), axis=1, kind="stable")
    least = np.minimum.accumulate(np.take_along_axis(gaps, order, 1), axis=1)
    return least[np.arange(len(gaps)), n - 1]


def two_nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances of each row (n, D) to its two nearest among (m, D), m at least 2: float32 (n, 2), ascending."""
    parts = [np.sort(np.partition(distances(images[i:i + 512], others), 1, axis=1)[:, :2], axis=1)
             for i in range(0, len(images), 512)]
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.float32)


def tail_ratio(made: np.ndarray, unseen: np.ndarray, share: float = 0.05) -> float:
    """The 5th percentile of one set of values over that of the other; nan where the other's is 0."""
    below = float(np.quantile(unseen, share))
    return float(np.quantile(made, share)) / below if below > 0 else float("nan")


def adversarial_accuracy(a: np.ndarray, b: np.ndarray) -> float:
    """Nearest-neighbour adversarial accuracy of two sets (n, D), n the same (Yale et al. 2020, eq. 1).

    0.5: they cannot be told apart; 1: they lie apart; near 0: each image of one has a twin in the other.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"adversarial accuracy expects two sets of one size of at least 2, found {len(a)} and {len(b)}")
    across, within_a, within_b = distances(a, b), distances(a, a), distances(b, b)
    np.fill_diagonal(within_a, np.inf)
    np.fill_diagonal(within_b, np.inf)
    def beyond(x: np.ndarray, y: np.ndarray) -> float:
        return float(((x > y) + 0.5 * (x == y)).mean())
    return (beyond(across.min(1), within_a.min(1)) + beyond(across.min(0), within_b.min(1))) / 2


def authentic(made: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Which synthetic images (n, D) are authentic: bool (n,) (Alaa et al. 2022, arXiv 2102.08921, section 3.3).

    An image is not, where it lies nearer to its nearest training image than that one's nearest training image does.
    """
    gaps = distances(made, train)
    nearest = gaps.argmin(1)
    used, place = np.unique(nearest, return_inverse=True)
    own = distances(train[used], train)
    own[np.arange(len(used)), used] = np.inf
    return gaps.min(1) >= own.min(1)[place]


def mann_whitney_z(made: np.ndarray, unseen: np.ndarray) -> float:
    """C_T of one cell: the z-score of U of distances to train (Meehan et al. 2020, arXiv 2004.05675, section 3).

    Below 0 synthetic images lie nearer to train than unseen ones; below -3 that is no chance.
    """
    ranked = np.sort(unseen)
    u = (np.searchsorted(ranked, made, "left") + np.searchsorted(ranked, made, "right")).sum() / 2
    n, m = len(made), len(unseen)
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def sharpness(pixels: np.ndarray) -> np.ndarray:
    """The share of an image's contrast that lies in its finest detail: float64 (n,) in [0, 1] of uint8 (n, side, side, 3)."""
    light = (pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)
    fine = light - gaussian_filter(light, (0, 1, 1))
    return fine.var((1, 2), dtype=np.float64) / np.maximum(light.var((1, 2), dtype=np.float64), 1e-6)


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Through a Gaussian of sigma pixels: uint8 (n, side, side, 3) -> the same."""
    return np.rint(gaussian_filter(pixels.astype(np.float32), (0, sigma, sigma, 0))).astype(np.uint8) if sigma > 0 else pixels


def sigma_like(pixels: np.ndarray, wanted: float) -> float:
    """The blur that brings the median sharpness of images down to `wanted`; 0 where they are no sharper."""
    if np.median(sharpness(pixels)) <= wanted:
        return 0.0
    low, high = 0.0, 6.0
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if np.median(sharpness(blurred(pixels, middle))) > wanted else (low, middle)
    return (low + high) / 2
