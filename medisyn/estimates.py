"""Estimates: a measured figure, how sure we are of it, and from how many cases.

Nothing in medisyn reports a bare number, and a figure that cannot be computed is a row that says why. ("Score"
is avoided: in diffusion it means the gradient of log p.)
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

Z = 1.959963984540054  # of the normal distribution: 95 % lie within


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; value, low and high are None where `missing` says why."""

    name: str                       # "fd_eye", "copy_rate", ...
    value: float | None
    low: float | None               # None where nothing could be resampled; `note` says so
    high: float | None
    n: int                          # images
    group: str = "all"              # "all", "image_type=chest_xray", "finding=glioma", "sex=female", "age=60-79"
    floor: float | None = None      # the same figure of real against real, at the same n
    better: str | None = None       # "lower", "higher", or None where neither is
    extractor: str | None = None    # name and hash of the network whose features were compared
    missing: str | None = None      # why there is no figure
    note: str | None = None         # what a reader must know: bias, what was resampled
    patients: int | None = None     # resampled whole; None where images were

    @property
    def text(self) -> str:
        """The figure as people read it."""
        if self.value is None:
            return f"not computed: {self.missing}"
        digits = 3 if abs(self.value) < 10 else 1
        interval = "" if self.low is None or self.high is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        floor = "" if self.floor is None else f", real against real {self.floor:.{digits}f}"
        return f"{self.value:.{digits}f}{interval}, n {self.n:,}{floor}"

    def as_dict(self) -> dict:
        """All fields, for JSON."""
        return dataclasses.asdict(self)


def from_dict(row: dict) -> Estimate:
    """An Estimate from its JSON object; ValueError names an unknown or a lacking field."""
    try:
        return Estimate(**row)
    except TypeError as error:
        raise ValueError(f"expected the fields of an estimate, found {sorted(row)} ({error})") from None


def absent(name: str, reason: str, group: str = "all", *, n: int = 0, better: str | None = None,
           extractor: str | None = None) -> Estimate:
    """The row of a figure that could not be computed; `reason` is one sentence without a full stop."""
    return Estimate(name, None, None, None, n, group, None, better, extractor, reason)


def whole(keys: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """`rows` gathered by their keys, a key an array."""
    names = np.unique(keys[rows], return_inverse=True)[1]
    order = np.argsort(names, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(names[order])) + 1)


def resamples(n: int, draws: int, seed: int = 0, patients: Sequence | None = None, strata: Sequence | None = None):
    """Yield `draws` bootstrap samples of the rows 0..n-1: int64 (about n,).

    patients: (n,) keys; their images are drawn together, as correlated cases must be (Field and Welsh 2007).
    strata: (n,) keys; as many cases or patients are drawn from each stratum as it has, so that two sets which
    are compared keep their sizes. Without patients a sample has exactly n rows.
    """
    rng = np.random.default_rng(seed)
    keys = np.arange(n) if patients is None else np.asarray(patients)
    layers = [np.arange(n)] if strata is None else whole(np.asarray(strata), np.arange(n))
    members = [whole(keys, rows) if patients is not None else rows for rows in layers]
    for _ in range(draws):
        yield np.concatenate([layer[rng.integers(len(layer), size=len(layer))] if patients is None else
                              np.concatenate([layer[k] for k in rng.integers(len(layer), size=len(layer))])
                              for layer in members])


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, *, name: str, group: str = "all",
              patients: Sequence | None = None, strata: Sequence | None = None, draws: int = 1000, seed: int = 0,
              share: bool = False, centred: bool = False, floor: float | None = None, better: str | None = None,
              extractor: str | None = None, note: str | None = None) -> Estimate:
    """statistic(rows), rows int64, of all n cases with a 95 % percentile interval (Efron and Tibshirani 1993, ch. 13).

    patients   (n,) keys: whole patients are drawn, and counted in the estimate.
    strata     (n,) keys: each stratum is drawn on its own.
    share      the statistic is a share of the cases: where it is 0 or 1 nothing varies to resample, and the
               interval is Clopper and Pearson's for so many patients (or cases).
    centred    the statistic is biased by the doubles of a resample (distances between sets are, upwards): the
               draws are moved so that their mean is the value.

    A statistic that is nan, such as the AUROC of one class, makes a row that says it is undefined. One patient
    alone gives a value without an interval.
    """
    facts = {"better": better, "extractor": extractor}
    if n == 0:
        return absent(name, "there are no images", group, **facts)
    value = float(statistic(np.arange(n)))
    if not math.isfinite(value):
        return absent(name, "undefined on these images: one class only, or too few", group, n=n, **facts)
    known = None if patients is None else len(np.unique(np.asarray(patients)))
    units = n if known is None else known
    if units < 2:
        told = "one patient only, so there is no interval" if known else "one image only, so there is no interval"
        return Estimate(name, value, None, None, n, group, floor, better, extractor, None, joined(note, told), known)
    if share and value in (0.0, 1.0):
        low, high = exact(round(value * units), units)
    else:
        values = np.array([statistic(rows) for rows in resamples(n, draws, seed, patients, strata)], float)
        values = values[np.isfinite(values)]
        if not len(values):
            return absent(name, "undefined on every resample of these images", group, n=n, **facts)
        low, high = percentiles(values, value if centred else None)
    return Estimate(name, value, low, high, n, group, floor, better, extractor, None, note, known)


def percentiles(values: np.ndarray, centre: float | None = None) -> tuple[float, float]:
    """The middle 95 % of draws, moved where asked so that their mean is `centre`."""
    low, high = np.quantile(np.asarray(values, float), [0.025, 0.975])
    move = 0.0 if centre is None else centre - float(np.mean(values))
    return float(low + move), float(high + move)


def proportion(k: int, n: int, *, name: str, group: str = "all", floor: float | None = None, better: str | None = None,
               extractor: str | None = None, note: str | None = None) -> Estimate:
    """k of n independent cases, with Wilson's 95 % interval (1927); Clopper and Pearson's (1934) when none or all.

    Cases of one patient are not independent: use `bootstrap(..., patients=..., share=True)` for them.
    """
    if n == 0:
        return absent(name, "there are no images", group, better=better, extractor=extractor)
    if not 0 <= k <= n:
        raise ValueError(f"{name}: expected 0 <= k <= n, found k = {k} and n = {n}")
    low, high = exact(k, n) if k in (0, n) else wilson(k, n)
    return Estimate(name, k / n, low, high, n, group, floor, better, extractor, None, note)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson 1927: the shares p for which |k/n - p| <= z sqrt(p (1 - p) / n)."""
    p, spread = k / n, Z * Z / n
    middle = (p + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(p * (1 - p) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def exact(k: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson 1934: two-sided 95 %, from the quantiles of the beta distribution."""
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 0.025))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.975))
    return low, high


def joined(*notes: str | None) -> str | None:
    """Several remarks as one."""
    return "; ".join(note for note in notes if note) or None
