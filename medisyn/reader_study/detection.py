"""Detection: accuracy, sensitivity, specificity, d', criterion and AUC of each reader, and what each case adds to them.

The signal is `synthetic`: sensitivity is the share of synthetic images called synthetic, specificity that of real ones called
real. Every statistic is (answers (r, n), truth (n,) of 1 synthetic and 0 real) -> (a value a reader (r,), strata), the strata
being what `mrmc.covariance` takes.
"""

import math

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm, rankdata

from medisyn.estimates import Estimate, Z, absent, exact
from medisyn.reader_study.mrmc import Strata, covariance

CORRECTED = "log-linear correction (Hautus 1995)"


def mean(answers: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """The mean answer, whatever the truth: a share of right answers where 1 is right and 0 wrong."""
    return answers.mean(1), (answers,)


def accuracy(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """The share of right calls; called: 1 synthetic, 0 real. The strata are weighted as the cases are."""
    right = np.where(truth == 1, called, 1 - called)
    n = right.shape[1]
    parts = [right[:, truth == side] * (np.sum(truth == side) / n) for side in (1, 0) if (truth == side).any()]
    return right.mean(1), parts


def sensitivity(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """Synthetic images called synthetic."""
    part = called[:, truth == 1]
    return part.mean(1), (part,)


def specificity(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """Real images called real."""
    part = 1 - called[:, truth == 0]
    return part.mean(1), (part,)


def difference(answers: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """The mean answer where truth is 1 less that where it is 0."""
    ones, zeros = answers[:, truth == 1], -answers[:, truth == 0]
    return ones.mean(1) + zeros.mean(1), (ones, zeros)


def rates(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hit and false-alarm rates, (k + 1/2) / (n + 1) each: never 0 or 1. Hautus 1995 (Behav. Res. Methods 27:46)."""
    hits, false = called[:, truth == 1], called[:, truth == 0]
    return (hits.sum(1) + 0.5) / (hits.shape[1] + 1), (false.sum(1) + 0.5) / (false.shape[1] + 1)


def dprime(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """d' = z(hits) - z(false alarms), 0 where readers cannot tell. Green and Swets 1966; what a case adds: delta method."""
    h, f = rates(called, truth)
    return ndtri(h) - ndtri(f), (called[:, truth == 1] / norm.pdf(ndtri(h))[:, None],
                                 -called[:, truth == 0] / norm.pdf(ndtri(f))[:, None])


def criterion(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """c = -(z(hits) + z(false alarms)) / 2: above 0, a reader rather says "real"."""
    h, f = rates(called, truth)
    return -(ndtri(h) + ndtri(f)) / 2, (-called[:, truth == 1] / (2 * norm.pdf(ndtri(h))[:, None]),
                                        -called[:, truth == 0] / (2 * norm.pdf(ndtri(f))[:, None]))


def auc(ratings: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """Area under the empirical ROC curve, ties counting half; what a case adds: DeLong et al. 1988, eqs. 4 and 5."""
    ones, zeros = ratings[:, truth == 1], ratings[:, truth == 0]
    n1, n0 = ones.shape[1], zeros.shape[1]
    both = rankdata(np.concatenate([ones, zeros], 1), axis=1)
    v1 = (both[:, :n1] - rankdata(ones, axis=1)) / n0
    v0 = 1 - (both[:, n1:] - rankdata(zeros, axis=1)) / n1
    area = v1.mean(1)
    return area, (v1, v0 - area[:, None])


def forced(right: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Strata]:
    """d' of two alternatives, sqrt(2) z(share right), with the log-linear correction. Macmillan and Creelman 2005, eq. 7.2."""
    p = (right.sum(1) + 0.5) / (right.shape[1] + 1)
    return math.sqrt(2) * ndtri(p), (math.sqrt(2) * right / norm.pdf(ndtri(p))[:, None],)


def of_reader(statistic, answers: np.ndarray, truth: np.ndarray, *, name: str, group: str, note: str | None = None,
              share: bool = False) -> Estimate:
    """A statistic of one reader, answers (n,), with the interval that cases alone give it.

    d' and criterion: the delta method, which is Gourevitch and Galanter's variance (1967, Psychometrika 32:25). An AUC
    (`share`): DeLong's variance on the logit scale; where it is 0 or 1, Clopper and Pearson's for the smaller arm.
    """
    truth = np.asarray(truth)
    arms = [int((truth == side).sum()) for side in (1, 0)]
    needed = (1, 0) if statistic is forced else (1, 1)
    if any(n < 2 for n, need in zip(arms, needed, strict=True) if need):
        return absent(name, "fewer than two cases of an arm were read", group, n=len(truth))
    values, strata = statistic(np.asarray(answers, float)[None], truth)
    value, se = float(values[0]), math.sqrt(max(float(covariance(strata)[0, 0]), 0.0))
    if not share and se == 0:  # all answers alike: the rates are corrected, and so is what they vary
        se = math.sqrt(sum(corrected_variance(n) for n in arms if n))
    if share and (se == 0 or not 0 < value < 1):
        low, high = exact(round(value * min(arms)), min(arms))
    elif share:
        half = Z * se / (value * (1 - value))
        low, high = (1 / (1 + math.exp(-(math.log(value / (1 - value)) + side * min(half, 500)))) for side in (-1, 1))
    else:
        low, high = value - Z * se, value + Z * se
    return Estimate(name, value, low, high, len(truth), group, note=note)


def corrected_variance(n: int) -> float:
    """The variance of z(1 / (2 (n + 1))), a rate of which no case was seen."""
    p = 0.5 / (n + 1)
    return p * (1 - p) / (n * float(norm.pdf(ndtri(p))) ** 2)
