"""Equivalence: two one-sided tests, which ask whether a figure is as near to a reference as somebody fixed beforehand.

That accuracy is "not significantly different from chance" shows nothing: few cases do that too. Schuirmann 1987
(J. Pharmacokinet. Biopharm. 15:657): both "below reference - margin" and "above reference + margin" must be refuted.
"""

from dataclasses import dataclass

from scipy import stats

from medisyn.reader_study.mrmc import Effect

ALPHA = 0.05


@dataclass(frozen=True)
class Test:
    """A test with what was asked and what came out."""

    name: str                 # "equivalence", "chance", "arms", ...
    group: str
    asked: str                # the hypothesis that a small p refutes
    p: float
    statistic: str = ""       # "t = 1.20, df 12.7"
    holm: float | None = None  # p of the family, Holm 1979; None: of no family
    note: str = ""

    @property
    def refuted(self) -> bool:
        return (self.p if self.holm is None else self.holm) < ALPHA


def tost(effect: Effect, low: float, high: float) -> float:
    """p of the two one-sided t tests: below 0.05 exactly when the 90 % interval lies within low..high."""
    if effect.se == 0:
        return 0.0 if low < effect.value < high else 1.0
    return float(max(stats.t.sf((effect.value - low) / effect.se, effect.df),
                     stats.t.cdf((effect.value - high) / effect.se, effect.df)))


def tost_share(k: int, n: int, low: float, high: float) -> float:
    """p of the two one-sided exact binomial tests that a share, k of n, lies within low..high."""
    return float(max(stats.binom.sf(k - 1, n, low), stats.binom.cdf(k, n, high)))


def holm(ps: list[float]) -> list[float]:
    """p values of a family of tests, in their order. Holm 1979 (Scand. J. Stat. 6:65)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted
