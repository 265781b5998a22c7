"""Readers and cases as random effects: the analysis of variance of Obuchowski and Rockette, with Hillis's degrees of freedom.

A statistic of every reader (accuracy, AUC, d', a mean answer) varies because readers differ and because cases do; readers who
saw the same cases err together. Obuchowski and Rockette 1995 (Commun. Stat. Simul. 24:285), Hillis 2007 (Stat. Med. 26:596).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medisyn.estimates import Estimate, absent, exact, joined

Strata = Sequence[np.ndarray]  # each (readers, cases of the stratum): what a case adds to a reader's figure
Statistic = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Strata]]  # (readers, cases), truth (cases,) -> values, strata


@dataclass(frozen=True)
class Effect:
    """A figure of the populations that readers and cases were drawn from."""

    value: float
    se: float
    df: float              # infinite where one reader read: only cases are random then
    readers: int
    within: float = 0.0    # mean square of readers
    shared: float = 0.0    # Cov2, floored at 0: the covariance of two readers, who saw the same cases

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """value -/+ t se."""
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.se
        return self.value - half, self.value + half

    def p(self, null: float) -> float:
        """Two-sided, against `null`."""
        if self.se == 0:
            return 1.0 if self.value == null else 0.0
        return float(2 * stats.t.sf(abs(self.value - null) / self.se, self.df))


@dataclass(frozen=True)
class Comparison:
    """Several tests (arms, modalities) read by the same readers: do they differ?"""

    f: float
    df1: float
    df2: float
    p: float
    differences: tuple[tuple[int, int, Effect], ...]  # (test, other, test - other)
    error: float                                      # Var(error)
    cov1: float                                       # same reader, other test
    cov2: float                                       # other reader, same test
    cov3: float                                       # other reader, other test


def covariance(strata: Strata) -> np.ndarray:
    """Error covariance of the readers' figures: (r, r). DeLong et al. 1988 (Biometrics 44:837, eq. 6).

    The figure is a sum of means over independent strata of cases, each stratum (r, n >= 2).
    """
    return sum(np.atleast_2d(np.cov(s)) / s.shape[1] for s in strata)


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
    """Error covariance of statistic(rows) (k,), by leaving out one of n cases at a time: (k, k). Efron and Stein 1981."""
    rows = np.arange(n)
    left = np.array([statistic(rows[rows != k]) for k in rows])
    moved = left - left.mean(0)
    return (n - 1) / n * moved.T @ moved


def single(values: np.ndarray, cov: np.ndarray) -> Effect:
    """The mean of the readers' figures, values (r,), cov (r, r). Hillis 2007, section 3.5 (one test).

    Variance [MS(R) + r max(Cov2, 0)] / r, degrees of freedom [MS(R) + r max(Cov2, 0)]^2 / (MS(R)^2 / (r - 1)).
    """
    values, r = np.asarray(values, float), len(values)
    if r == 1:
        return Effect(float(values[0]), math.sqrt(max(float(cov[0, 0]), 0.0)), math.inf, 1, 0.0, float(cov[0, 0]))
    within = float(values.var(ddof=1))
    shared = max(float(cov.sum() - np.trace(cov)) / (r * (r - 1)), 0.0)
    term = within + r * shared
    df = term**2 / (within**2 / (r - 1)) if within > 0 else math.inf
    return Effect(float(values.mean()), math.sqrt(term / r), df, r, within, shared)


def compare(values: np.ndarray, cov: np.ndarray) -> Comparison:
    """Tests compared within readers: values (t, r), cov (t, r, t, r). Obuchowski and Rockette 1995; df: Hillis 2007, eq. 12.

    F = MS(T) / [MS(TR) + max(r (Cov2 - Cov3), 0)]. Where the tests saw different cases, Cov1 = Cov3 = 0.
    """
    values = np.asarray(values, float)
    t, r = values.shape
    if t < 2 or r < 2:
        raise ValueError(f"a comparison needs 2 tests and 2 readers, found {t} and {r}")
    rows, columns, mean = values.mean(1), values.mean(0), values.mean()
    between = r * np.square(rows - mean).sum() / (t - 1)
    mixed = np.square(values - rows[:, None] - columns[None] + mean).sum() / ((t - 1) * (r - 1))
    same_test, same_reader = np.eye(t, dtype=bool)[:, None, :, None], np.eye(r, dtype=bool)[None, :, None, :]
    error, cov1, cov2, cov3 = (float(cov[np.broadcast_to(where, cov.shape)].mean()) for where in (
        same_test & same_reader, ~same_test & same_reader, same_test & ~same_reader, ~same_test & ~same_reader))
    term = mixed + max(r * (cov2 - cov3), 0.0)
    df = term**2 / (mixed**2 / ((t - 1) * (r - 1))) if mixed > 0 else math.inf
    f = between / term if term > 0 else math.inf if between > 0 else 0.0
    se = math.sqrt(2 * term / r)
    pairs = tuple((i, k, Effect(float(rows[i] - rows[k]), se, df, r, mixed, max(cov2 - cov3, 0.0)))
                  for i in range(t) for k in range(i + 1, t))
    p = float(stats.f.sf(f, t - 1, df)) if math.isfinite(df) else float(stats.chi2.sf(f * (t - 1), t - 1))
    return Comparison(float(f), t - 1, df, p, pairs, error, cov1, cov2, cov3)


def nested(covs: Sequence[np.ndarray]) -> np.ndarray:
    """The covariance (t, r, t, r) of tests that saw different cases, from that of each (r, r)."""
    t, r = len(covs), len(covs[0])
    whole = np.zeros((t, r, t, r))
    for i, cov in enumerate(covs):
        whole[i, :, i, :] = cov
    return whole


def effect(statistic: Statistic, answers: np.ndarray, truth: np.ndarray) -> Effect | None:
    """`single` of a statistic of answers (r, n); None where an arm of the truth has fewer than two cases."""
    if len(truth) == 0 or np.unique(np.asarray(truth), return_counts=True)[1].min() < 2:
        return None
    values, strata = statistic(np.asarray(answers, float), np.asarray(truth))
    return single(values, covariance(strata))


def estimate(statistic: Statistic, answers: np.ndarray, truth: np.ndarray, *, name: str, group: str = "all",
             share: bool = True, better: str | None = None, note: str | None = None) -> Estimate:
    """A statistic of all readers with the interval that readers and cases as random effects give it.

    answers: (readers, cases), every reader having read every case. share: it lies in 0..1, and the interval is made on the
    logit scale; where nothing varied it is Clopper and Pearson's for so many cases (the smallest stratum).
    """
    answers = np.asarray(answers, float)
    n = answers.size
    if not n:
        return absent(name, "no case was read by every reader", group, better=better)
    found = effect(statistic, answers, truth)
    if found is None:
        return absent(name, "fewer than two cases of an arm were read by every reader", group, n=n, better=better)
    told = joined(note, {1: "one reader only: cases are random, the reader is not",
                         2: "two readers only: the interval is rather too short"}.get(found.readers))
    value, _, strata = found.value, found.se, statistic(answers, np.asarray(truth))[1]
    if share and (found.se == 0 or not 0 < value < 1):
        fewest = min(s.shape[1] for s in strata)
        low, high = exact(round(value * fewest), fewest)
        told = joined(told, "nothing varied to estimate from: the interval counts each case once")
    elif share:
        half = float(stats.t.ppf(0.975, found.df)) * found.se / (value * (1 - value))
        low, high = (1 / (1 + math.exp(-(math.log(value / (1 - value)) + side * min(half, 500)))) for side in (-1, 1))
    else:
        low, high = found.interval()
    return Estimate(name, value, low, high, n, group, None, better, None, None, told)
