"""Estimates: a figure, its 95 % interval and from how many cases; a figure that cannot be computed says why."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """value with its percentile-bootstrap interval; all None where `note` says why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0                # images
    clusters: int = 0         # what was resampled: patients where known, else images
    note: str = ""

    @property
    def text(self) -> str:
        if self.value is None:
            return self.note
        digits = 3 if abs(self.value) < 10 else 1
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}], n {self.n}" \
            + (f" ({self.note})" if self.note else "")


def missing(why: str) -> Estimate:
    return Estimate(None, note=why)


def estimate(metric: Callable[[np.ndarray], float], n: int, groups: Sequence | None = None, rounds: int = 1000,
             seed: int = 0, note: str = "", share: bool = False) -> Estimate:
    """metric(rows) over n cases; `groups` (n,) names what is resampled whole, such as patients; None: every case.

    share: the metric is a share of the cases, so that all or none of a few is still uncertain.
    """
    if n == 0:
        return missing("no images")
    rng = np.random.default_rng(seed)
    names = np.unique(np.arange(n) if groups is None else np.asarray(groups), return_inverse=True)[1]
    order = np.argsort(names, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(names[order])) + 1)
    if len(members) == n:
        drawn = (rng.integers(n, size=n) for _ in range(rounds))
    else:
        whole = len(members)
        drawn = (np.concatenate([members[k] for k in rng.integers(whole, size=whole)]) for _ in range(rounds))
    values = np.array([metric(rows) for rows in drawn])
    value, values = metric(np.arange(n)), values[np.isfinite(values)]
    if not np.isfinite(value) or not len(values):
        return missing("one class only")
    low, high = np.quantile(values, [0.025, 0.975])
    if share and value in (0, 1):  # nothing varies to resample: Clopper and Pearson's bound
        far = 0.025 ** (1 / len(members))
        low, high = (far, 1.0) if value == 1 else (0.0, 1 - far)
    return Estimate(float(value), float(low), float(high), n, len(members), note)


def auroc(score: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve, Mann and Whitney's U over all pairs; nan where one class is missing."""
    positive = int(truth.sum())
    if positive in (0, len(truth)):
        return float("nan")
    from scipy.stats import rankdata  # 58 MiB, which `generate.py` would count as its own
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def balanced_accuracy(guess: np.ndarray, truth: np.ndarray) -> float:
    """The mean over the classes that occur of the share recognised; chance is 1 / classes."""
    return float(np.mean([np.mean(guess[truth == k] == k) for k in np.unique(truth)]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def write(folder: Path, name: str, found: object, text: str) -> None:
    """name.json, for programs, and name.md, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps(found, indent=1, default=dataclasses.asdict)
    (folder / f"{name}.json").write_text(told + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
