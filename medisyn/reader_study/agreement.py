"""Agreement: of readers with each other (Fleiss, Krippendorff) and of a reader with an earlier self (Cohen)."""

from collections.abc import Sequence

import numpy as np


def tally(answers: np.ndarray, values: Sequence) -> np.ndarray:
    """How many readers gave each answer: answers (readers, cases), None unread -> int64 (cases, values)."""
    return np.array([[sum(a == value for a in column) for value in values] for column in np.asarray(answers, object).T], np.int64)


def fleiss(counts: np.ndarray) -> float:
    """Kappa of many readers, counts (cases, values), as many readers each. Fleiss 1971 (Psychol. Bull. 76:378, eqs. 3 to 7).

    1 full agreement, 0 as by chance; nan where all answers were alike.
    """
    counts = np.asarray(counts, float)
    readers = counts.sum(1)
    if readers.min() != readers.max() or readers[0] < 2:
        raise ValueError(f"Fleiss's kappa needs 2 or more readers, the same number for each case; found {int(readers.min())} "
                         f"to {int(readers.max())}")
    m = readers[0]
    observed = ((np.square(counts).sum(1) - m) / (m * (m - 1))).mean()
    chance = np.square(counts.sum(0) / counts.sum()).sum()
    return float((observed - chance) / (1 - chance)) if chance < 1 else float("nan")


def krippendorff(counts: np.ndarray, scale: str = "nominal") -> float:
    """Alpha, counts (cases, values); a case may lack readers. Krippendorff 2011, "Computing Krippendorff's alpha-reliability".

    scale: nominal, ordinal (values in their order) or interval (values equally far apart). nan where all answers were alike.
    """
    counts = np.asarray(counts, float)
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return float("nan")
    per = counts.sum(1) - 1
    together = np.einsum("uc,uk->ck", counts / per[:, None], counts) - np.diag((counts / per[:, None]).sum(0))
    totals = together.sum(1)
    n = totals.sum()
    distance = difference(totals, scale)
    expected = (np.outer(totals, totals) * distance).sum()
    return float(1 - (n - 1) * (together * distance).sum() / expected) if expected > 0 else float("nan")


def difference(totals: np.ndarray, scale: str) -> np.ndarray:
    """Squared difference of two values, (values, values); totals: how often each was given. Krippendorff 2011, section D."""
    k = len(totals)
    if scale == "nominal":
        return 1.0 - np.eye(k)
    if scale == "interval":
        return np.square(np.subtract.outer(np.arange(k), np.arange(k))).astype(float)
    if scale == "ordinal":
        upto = np.cumsum(totals) - totals / 2  # the middle rank of each value
        return np.square(np.subtract.outer(upto, upto))
    raise ValueError(f"expected nominal, ordinal or interval, found {scale!r}")


def cohen(first: Sequence, second: Sequence) -> float:
    """Kappa of two readings of the same cases. Cohen 1960 (Educ. Psychol. Meas. 20:37, eq. 1); nan where all were alike."""
    a, b = np.asarray(first, object), np.asarray(second, object)
    observed = np.mean(a == b)
    chance = sum(np.mean(a == v) * np.mean(b == v) for v in set(a) | set(b))
    return float((observed - chance) / (1 - chance)) if chance < 1 else float("nan")
