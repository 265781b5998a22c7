"""Power: how many readers and cases a question needs, found by playing studies that are never held.

Accuracy against chance and its equivalence to chance, readers and cases random (the test of `mrmc.single`), simulated by the
model of `simulation`; for one reader alone the exact binomial test. All studies of a size are simulated at once.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medisyn.reader_study.equivalence import ALPHA
from medisyn.reader_study.simulation import Skill, evidence

WANTED = 0.8      # power
SIZES = (20, 30, 40, 60, 80, 100, 120, 160, 200, 240, 300, 400, 500, 600, 800, 1000)  # cases, both arms together
EFFECT = 0.5      # d' that should not be missed: an accuracy of 0.60
CHOICES = ("real-or-synthetic", "two-alternatives")  # designs whose answers are right or wrong
NULL = Skill(0.0, reader_sd=0.2, case_sd=0.5)  # readers who cannot tell, yet differ a little


@dataclass(frozen=True)
class Power:
    """Of studies of one size, the shares in which a test comes out."""

    readers: int
    cases: int
    detected: float     # readers of d' EFFECT: accuracy (or the difference of the arms) is found to differ from chance (or 0)
    equivalent: float   # readers who cannot tell: accuracy is found within the margin; nan where that is not asked
    false: float        # readers who cannot tell: found to differ all the same


def of(kind: str, readers: int, cases: int, margin: float, draws: int = 400, seed: int = 0, effect: float = EFFECT) -> Power:
    """The power of one size of study. kind: a design; draws: studies simulated (its standard error is at most 0.025)."""
    there = played(kind, readers, cases, Skill(effect, 0, NULL.reader_sd, NULL.case_sd), draws, seed)
    nothing = played(kind, readers, cases, NULL, draws, seed + 1)
    chance = 0.5 if kind in CHOICES else 0.0
    equivalent = float((tost_many(*nothing, chance - margin, chance + margin) < ALPHA).mean()) if chance else math.nan
    return Power(readers, cases, float((p_many(*there, chance) < ALPHA).mean()), equivalent,
                 float((p_many(*nothing, chance) < ALPHA).mean()))


def played(kind: str, readers: int, cases: int, skill: Skill, draws: int, seed: int
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """value, se and df, each (draws,), of accuracy (or the difference of the arms) in simulated studies."""
    ones, zeros = split(kind, cases)
    signal = np.repeat([1.0, -1.0], [ones, zeros])
    judged = kind in CHOICES
    seen = evidence(signal, np.arange(ones + zeros), readers, skill, np.random.default_rng([seed, readers, cases]),
                    images=2 if kind == "two-alternatives" else 1, draws=draws)
    if judged:
        seen = (seen * signal > 0).astype(np.float32)
    weights = {1: ones / cases, -1: zeros / cases} if judged else {1: 1.0, -1: -1.0}
    parts = [seen[:, :, signal == side] * np.float32(weights[side]) for side in (1, -1) if (signal == side).any()]
    values = sum(part.mean(2, dtype=np.float64) for part in parts)
    if readers == 1:
        se = np.sqrt(sum(part.var(2, ddof=1) / part.shape[2] for part in parts))[:, 0]
        return values[:, 0], se, np.full(draws, np.inf)
    shared = np.zeros(draws)
    for part in parts:  # Cov2: the covariance of all pairs of readers, from that of their sum
        n, moved = part.shape[2], part - part.mean(2, keepdims=True)
        whole, own = np.square(moved.sum(1)).sum(1), np.square(moved).sum((1, 2))
        shared += (whole - own) / (n - 1) / n / (readers * (readers - 1))
    within = values.var(1, ddof=1)
    term = within + readers * np.maximum(shared, 0)
    df = np.where(within > 0, term**2 / np.maximum(within**2 / (readers - 1), 1e-300), 1e9)
    return values.mean(1), np.sqrt(term / readers), np.minimum(df, 1e9)


def split(kind: str, cases: int) -> tuple[int, int]:
    """How many of the cases show the signal, and how many do not; those with a wrong sentence are neither."""
    if kind == "two-alternatives":
        return cases, 0
    if kind == "alignment":  # real images with their sentence, and synthetic ones
        return round(0.2 * cases), round(0.6 * cases)
    return cases // 2, cases - cases // 2


def p_many(value: np.ndarray, se: np.ndarray, df: np.ndarray, null: float) -> np.ndarray:
    """`mrmc.Effect.p` of many studies."""
    return 2 * stats.t.sf(np.abs(value - null) / np.maximum(se, 1e-12), df)


def tost_many(value: np.ndarray, se: np.ndarray, df: np.ndarray, low: float, high: float) -> np.ndarray:
    """`equivalence.tost` of many studies."""
    se = np.maximum(se, 1e-12)
    return np.maximum(stats.t.sf((value - low) / se, df), stats.t.cdf((value - high) / se, df))


def needed(kind: str, readers: int, margin: float, draws: int = 200, seed: int = 0) -> tuple[int | None, int | None]:
    """The fewest cases of SIZES at which so many readers have power 0.8 to find d' EFFECT, and to show equivalence.

    None: not even with the most cases; more readers are needed.
    """
    def fewest(read) -> int | None:
        low, high = 0, len(SIZES)
        while low < high:  # power rises with cases
            middle = (low + high) // 2
            if read(of(kind, readers, SIZES[middle], margin, draws, seed)) >= WANTED:
                high = middle
            else:
                low = middle + 1
        return SIZES[low] if low < len(SIZES) else None
    return fewest(lambda p: p.detected), fewest(lambda p: p.equivalent) if kind in CHOICES else None


def binomial(n: int, accuracy: float) -> float:
    """The power of one reader's n cases against chance, two-sided exact binomial test at 5 %."""
    few = int(stats.binom.ppf(ALPHA / 2, n, 0.5)) - 1  # the largest k with P(X <= k) <= 2.5 %
    while stats.binom.cdf(few + 1, n, 0.5) <= ALPHA / 2:
        few += 1
    return float(stats.binom.cdf(few, n, accuracy) + stats.binom.sf(n - few - 1, n, accuracy)) if few >= 0 else 0.0


def alone(accuracy: float, wanted: float = WANTED) -> int:
    """The cases that one reader of this accuracy needs: from here on the power stays above `wanted`."""
    if not 0.5 < accuracy < 1:
        raise ValueError(f"expected an accuracy between 0.5 and 1, found {accuracy}")
    spread = math.sqrt(accuracy * (1 - accuracy))
    n = 20 + 2 * round(((0.98 + stats.norm.ppf(wanted) * spread) / (accuracy - 0.5)) ** 2)  # twice the normal formula
    while n > 5 and binomial(n - 1, accuracy) >= wanted:
        n -= 1
    return n


def advice(kind: str, readers: int, cases: int, margin: float, draws: int = 600) -> dict:
    """What this study can show, and what size it would need, for `study new` to say."""
    here = of(kind, readers, cases, margin, draws)
    accuracy = float(stats.norm.cdf(EFFECT / (math.sqrt(2) if kind == "two-alternatives" else 2)))
    rows = [(n, *needed(kind, n, margin, draws)) for n in sorted({3, 5, 10, readers} - {1})]
    return {"readers": readers, "cases": cases, "detects_dprime": EFFECT, "margin": margin, "reader_sd": NULL.reader_sd,
            "case_sd": NULL.case_sd, "power_detect": here.detected,
            "power_equivalent": None if math.isnan(here.equivalent) else here.equivalent,
            "false_alarms": here.false, "one_reader_alone": alone(accuracy) if kind in CHOICES else None,
            "needed": [{"readers": n, "cases_to_detect": a, "cases_for_equivalence": b} for n, a, b in rows]}


def sentences(told: dict) -> list[str]:
    """The advice in words."""
    said = [f"power, if readers' d' spreads by {told['reader_sd']:g} and cases by {told['case_sd']:g} (simulated, 5 % tests):",
            f"  {told['readers']} readers x {told['cases']} cases find a mean d' of {told['detects_dprime']:g} in "
            f"{told['power_detect']:.0%} of studies" + ("" if told["power_equivalent"] is None else
            f", and show equivalence to chance within {told['margin']:g} in {told['power_equivalent']:.0%} "
            "if there is none to find")]
    for row in told["needed"]:
        most = f"more than {SIZES[-1]:,}"
        detect = f"{row['cases_to_detect']} cases" if row["cases_to_detect"] else f"{most} cases (rather more readers)"
        near = ("" if told["power_equivalent"] is None else
                f"; for equivalence {row['cases_for_equivalence']} cases" if row["cases_for_equivalence"] else
                f"; for equivalence {most}")
        said.append(f"  {row['readers']} readers need {detect} for 80 % power{near}")
    alone_said = f"  one reader alone would need {told['one_reader_alone']} cases (exact binomial test)"
    return [*said, alone_said] if told["one_reader_alone"] else said
