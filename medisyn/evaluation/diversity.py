"""Diversity: how many different images there are, in features and in pixels."""

import numpy as np
import scipy.linalg
from scipy.ndimage import correlate1d

SCALES = np.array([0.0448, 0.2856, 0.3001, 0.2363])  # of the first four of Wang et al.'s five scales
SCALES = SCALES / SCALES.sum()
WINDOW = 11              # pixels of the Gaussian window
BLUR = 1.5               # its standard deviation in pixels
DARK, FLAT = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # C1 and C2 for levels 0 to 255


def vendi_score(features: np.ndarray, counts: np.ndarray | None = None) -> float:
    """How many images there are that have nothing in common, 1 to n. Friedman and Dieng 2023, arXiv:2210.02410, eq. 4.

    exp of the entropy of the eigenvalues of K / n, K the cosines between features float (n, D). They are those
    of the (D, D) matrix of second moments, so memory does not grow with n. Grows with n: compare equal n only.
    """
    x = np.asarray(features, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    w = np.ones(len(x)) if counts is None else np.asarray(counts, np.float64)
    x = x * np.sqrt(w / w.sum())[:, None]
    p = scipy.linalg.eigvalsh(x @ x.T if len(x) < x.shape[1] else x.T @ x, check_finite=False)
    p = p[p > 1e-12] / p[p > 1e-12].sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity of two gray images, float (H, W) in [0, 255], in 0 to 1; 1 is the same image.

    Wang, Simoncelli and Bovik 2003, eq. 7, over four scales (weights made to sum to 1), for at 128 pixels the
    fifth would be smaller than its window. H and W at least 88.
    """
    if min(a.shape) < WINDOW * 8 or a.shape != b.shape:
        raise ValueError(f"ms_ssim needs two images of one shape, at least {WINDOW * 8} pixels a side; "
                         f"found {a.shape} and {b.shape}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    value = 1.0
    for i, weight in enumerate(SCALES):
        alike, structure = similarity(a, b)
        value *= max(0.0, alike if i == len(SCALES) - 1 else structure) ** weight
        a, b = halved(a), halved(b)
    return float(value)


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """SSIM, and its part for contrast and structure, averaged over the places where the window fits."""
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    shared = blurred(a * b) - mean_a * mean_b
    structure = (2 * shared + FLAT) / (var_a + var_b + FLAT)
    light = (2 * mean_a * mean_b + DARK) / (mean_a**2 + mean_b**2 + DARK)
    return float((light * structure).mean()), float(structure.mean())


def blurred(image: np.ndarray) -> np.ndarray:
    """The image under a Gaussian window, where it fits: (H, W) -> (H - 10, W - 10)."""
    offset = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-offset**2 / (2 * BLUR**2))
    kernel /= kernel.sum()
    edge = WINDOW // 2
    return correlate1d(correlate1d(image, kernel, 0), kernel, 1)[edge:-edge, edge:-edge]


def halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    h, w = (n // 2 * 2 for n in image.shape)
    return image[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3))
