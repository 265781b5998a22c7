"""Distances between two clouds of features: arrays in, numbers out, in memory that does not grow with n squared.

Every function takes float (n, D) and (m, D) and knows nothing of images, networks or files. Lower is closer.
`counts` say how often each row counts (a bootstrap sample); left out, once.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg

BLOCK = 1024          # rows of a kernel matrix that exist at a time
ROWS = 256            # of features in float64 at a time
EXACT = 4000          # images up to which a kernel distance compares all pairs
SCALE = 1000.0        # of CMMD, as its authors print it
SIGMA = 10.0          # of CMMD's kernel, as its authors chose it

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n, D), (m, D) -> (n, m)


def moments(x: np.ndarray, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D), float64, of features float (n, D); n - 1 below, as numpy.cov has it."""
    w = np.ones(len(x)) if counts is None else np.asarray(counts, np.float64)
    total, shift = w.sum(), np.asarray(x[0], np.float64)        # moved near the mean: differences of squares lose digits
    mean, square = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), ROWS):
        part = np.asarray(x[start:start + ROWS], np.float64) - shift
        weighted = part if counts is None else part * w[start:start + ROWS, None]
        mean += weighted.sum(0)
        square += weighted.T @ part
    mean /= total
    square -= np.outer(total * mean, mean)
    square /= total - 1
    return mean + shift, square


def frechet(real: tuple[np.ndarray, np.ndarray], synthetic: tuple[np.ndarray, np.ndarray], spend: bool = False) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two (mean, covariance). Dowson and Landau 1982, eq. 16.

    (C1 C2)^(1/2) has the trace of (L' C2 L)^(1/2) where C1 = L L': symmetric, so its eigenvalues are real and
    cheap, and no matrix root is taken. spend: the second covariance may be overwritten, which saves memory.
    """
    (m1, c1), (m2, c2) = real, synthetic
    traces = np.trace(c1) + np.trace(c2)
    try:
        root = scipy.linalg.cholesky(c1, lower=True, check_finite=False)
        inner = scipy.linalg.blas.dtrmm(1.0, root, c2.T, lower=1, trans_a=1, overwrite_b=spend)      # c2 is its own transpose
        inner = scipy.linalg.blas.dtrmm(1.0, root, inner, side=1, lower=1, overwrite_b=True)
    except scipy.linalg.LinAlgError:                            # fewer images than features
        values, vectors = scipy.linalg.eigh(c1, check_finite=False)
        root = vectors * np.sqrt(values.clip(0))
        inner = root.T @ c2 @ root
    values = scipy.linalg.eigvalsh(inner, check_finite=False, overwrite_a=True)
    return float(max(0.0, np.square(m1 - m2).sum() + traces - 2 * np.sqrt(values.clip(0)).sum()))


def frechet_of_few(x: np.ndarray, y: np.ndarray, x_counts: np.ndarray | None, y_counts: np.ndarray | None) -> float:
    """The same distance from n rows fewer than features: tr (C1 C2)^(1/2) is the sum of the singular values of A B'.

    C1 = A'A and C2 = B'B, A and B the centred rows over sqrt(n - 1): nothing of size (D, D) is made.
    """
    means, sides = [], []
    for rows, counts in ((x, x_counts), (y, y_counts)):
        w = np.ones(len(rows)) if counts is None else np.asarray(counts, np.float64)
        means.append(w @ rows / w.sum())
        sides.append(np.sqrt(w / (w.sum() - 1))[:, None] * (rows - means[-1]))
    a, b = sorted(sides, key=len)
    product = a @ b.T
    root = np.sqrt(scipy.linalg.eigvalsh(product @ product.T, check_finite=False).clip(0)).sum()
    return float(max(0.0, np.square(means[0] - means[1]).sum() + np.square(a).sum() + np.square(b).sum() - 2 * root))


def frechet_distance(real: np.ndarray, synthetic: np.ndarray, real_counts: np.ndarray | None = None,
                     synthetic_counts: np.ndarray | None = None) -> float:
    """Frechet distance between Gaussians fitted to the two clouds. Heusel et al. 2017, arXiv:1706.08500, eq. 6.

    Biased upwards for small n: compare equal n only, and print the real-vs-real floor of the same n beside it.
    """
    if min(len(real), len(synthetic)) < 2:
        raise ValueError(f"a Frechet distance needs 2 images a side, found {len(real)} and {len(synthetic)}")
    if min(len(real), len(synthetic)) <= real.shape[1]:
        return frechet_of_few(real, synthetic, real_counts, synthetic_counts)
    return frechet(moments(real, real_counts), moments(synthetic, synthetic_counts), spend=True)


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3. Binkowski et al. 2018, arXiv:1801.01401, eq. 3."""
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return product * product * product


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """exp(-|x - y|^2 / 2 sigma^2), sigma 10, of features of unit length. Jayasumana et al. 2024, arXiv:2401.09603, eq. 3."""
    square = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * (x @ y.T)
    return np.exp(square.clip(0) / (-2 * SIGMA**2))


def mmd(x: np.ndarray, y: np.ndarray, kernel: Kernel, x_counts: np.ndarray | None = None,
        y_counts: np.ndarray | None = None) -> np.ndarray:
    """Unbiased squared maximum mean discrepancy. Gretton et al. 2012, JMLR 13, eq. 3. Float64 (draws,).

    x_counts (draws, n), y_counts (draws, m): bootstrap samples, all in one pass. A row is never compared with
    itself, in a sample that holds it twice neither, so doubles do not make two sets look farther apart.
    """
    wx = np.ones((1, len(x))) if x_counts is None else np.asarray(x_counts, np.float64)
    wy = np.ones((1, len(y))) if y_counts is None else np.asarray(y_counts, np.float64)
    within_x, within_y = pairs_within(x, wx, kernel), pairs_within(y, wy, kernel)
    between = sum(np.einsum("di,id->d", wx[:, i:i + BLOCK], kernel(x[i:i + BLOCK], y).astype(np.float64) @ wy.T)
                  for i in range(0, len(x), BLOCK))
    return within_x + within_y - 2 * between / (wx.sum(1) * wy.sum(1))


def pairs_within(x: np.ndarray, w: np.ndarray, kernel: Kernel) -> np.ndarray:
    """The mean of the kernel over pairs of different rows: (draws,)."""
    total = np.zeros(len(w))
    for i in range(0, len(x), BLOCK):
        part = kernel(x[i:i + BLOCK], x[i:]).astype(np.float64)      # what lies left of i was met from the other side
        rows = np.arange(len(part))
        part[rows, rows] = 0
        part[:, len(part):] *= 2
        total += np.einsum("di,id->d", w[:, i:i + BLOCK], part @ w[:, i:].T)
    return total / (np.square(w.sum(1)) - np.square(w).sum(1))


def mmd_blocks(x: np.ndarray, y: np.ndarray, kernel: Kernel, size: int = 1000, seed: int = 0) -> np.ndarray:
    """`mmd` of disjoint blocks of x and y, whose mean estimates it without bias at a cost linear in n: (blocks,).

    Zaremba et al. 2013, arXiv:1307.1954, eq. 5. Every image is used once.
    """
    number = max(1, min(len(x), len(y)) // size)
    mine, theirs = (np.array_split(np.random.default_rng(seed + i).permutation(len(z)), number) for i, z in enumerate((x, y)))
    return np.array([mmd(x[a], y[b], kernel)[0] for a, b in zip(mine, theirs, strict=True)])


def kernel_distance(real: np.ndarray, synthetic: np.ndarray, seed: int = 0) -> float:
    """KD (KID where the features are Inception's): unbiased MMD^2 with the cubic kernel; around 0 for equal sets.

    All pairs up to 4,000 images a side, disjoint blocks of 1,000 beyond.
    """
    return averaged(real, synthetic, cubic, seed)


def cmmd(real: np.ndarray, synthetic: np.ndarray, seed: int = 0) -> float:
    """CMMD: 1,000 times the unbiased MMD^2 with a Gaussian kernel on features of unit length."""
    return SCALE * averaged(unit(real), unit(synthetic), gaussian, seed)


def averaged(x: np.ndarray, y: np.ndarray, kernel: Kernel, seed: int) -> float:
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a kernel distance needs 2 images a side, found {len(x)} and {len(y)}")
    return float(mmd(x, y, kernel)[0] if max(len(x), len(y)) <= EXACT else mmd_blocks(x, y, kernel, seed=seed).mean())


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
