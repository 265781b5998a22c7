"""Utility: what a classifier learns from synthetic images, told by real images of unseen patients.

The data-equivalence factor says how many times n real images would teach what n real and the synthetic ones teach
together (MediSyn, arXiv 2405.09806, found 2 and more): it is read off the learning curve of the arms of real images.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from medisyn.estimates import Estimate, absent, joined, percentiles
from medisyn.evaluation import tasks
from medisyn.evaluation.sets import AGES, Sets
from medisyn.evaluation.trials import ARMS, Outcome, Progress, by_choice, run

METRICS = ("accuracy", "balanced_accuracy", "auroc")
DRAWS = 1000
FEWEST_OF_GROUP = 10   # test images of a sex or an age, for a gap
HEADLINE = ("real n + 1n synthetic", "real n + 0.5n synthetic", "real n + 2n synthetic", "real n + 5n synthetic")


# ---- figures on arrays ----------------------------------------------------------------------------------------------

def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """The chance that a case which shows it scores above one that does not, ties by half (Hanley and McNeil 1982).

    scores float (N,), truth bool (N,); nan where either kind is lacking.
    """
    truth = np.asarray(truth, bool)
    shown, not_shown = int(truth.sum()), int((~truth).sum())
    if not shown or not not_shown:
        return float("nan")
    ranks = rankdata(np.asarray(scores, float))
    return float((ranks[truth].sum() - shown * (shown + 1) / 2) / (shown * not_shown))


def aurocs(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`auroc` where each case counts so often, for several weightings at once: weights (draws, N) -> (draws,)."""
    truth = np.asarray(truth, bool)
    gap = np.asarray(scores, float)[truth][:, None] - np.asarray(scores, float)[~truth][None]
    wins = (gap > 0) + 0.5 * (gap == 0)
    shown, not_shown = weights[:, truth], weights[:, ~truth]
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((shown @ wins) * not_shown).sum(1) / (shown.sum(1) * not_shown.sum(1))


def measured(metric: str, probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A metric for several weightings of the cases: (N, C), (N,), (draws, N) -> (draws,).

    accuracy: share right. balanced_accuracy: mean share right of each choice that occurs. auroc: of the second of two
    choices, or the mean of each choice against the rest.
    """
    weights = np.asarray(weights, float)
    right, n_choices = (probabilities.argmax(1) == truth).astype(float), probabilities.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "accuracy":
            return weights @ right / weights.sum(1)
        if metric == "balanced_accuracy":
            each = [weights @ (right * (truth == k)) / (weights @ (truth == k)) for k in range(n_choices)]
            return mean_of_known(each)
    each = [aurocs(probabilities[:, k], truth == k, weights) for k in ([1] if n_choices == 2 else range(n_choices))]
    return mean_of_known(each)


def mean_of_known(each: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the first axis without nan; nan where all are."""
    stacked = np.stack(each)
    there = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there, stacked, 0).sum(0) / there.sum(0)


def equivalent(reached: float, sizes: Sequence[float], curve: Sequence[float]) -> tuple[float, str | None]:
    """How many real images reach as much: linear in log n on a curve made to rise; (images, "below", "above" or None).

    sizes ascending; curve what each reached. Outside the curve the end is given and named: it is a bound.
    """
    sizes, risen = np.asarray(sizes, float), np.maximum.accumulate(np.asarray(curve, float))
    if reached < risen[0]:
        return float(sizes[0]), "below"
    if reached > risen[-1]:
        return float(sizes[-1]), "above"
    k = int(np.argmax(risen >= reached))
    if k == 0 or risen[k] == reached:
        return float(sizes[k]), None
    part = (reached - risen[k - 1]) / (risen[k] - risen[k - 1])
    return float(np.exp(np.log(sizes[k - 1]) + part * np.log(sizes[k] / sizes[k - 1]))), None


# ---- figures of an outcome ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Draws:
    """How often each test image and each seed counts in each bootstrap draw; draw 0 is what was measured."""

    cases: np.ndarray     # float (draws + 1, N)
    seeds: np.ndarray     # float (draws + 1, seeds)


def draws_of(outcome: Outcome, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Whole patients and whole seeds, each drawn with replacement; every arm shares them."""
    rng = np.random.default_rng(seed)
    names, place = np.unique(outcome.patients, return_inverse=True)
    counted = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), draws)[:, place]
    s = 1 + max((t.seed for t in outcome.trials), default=0)
    taken = rng.multinomial(s, np.full(s, 1 / s), draws)
    return Draws(np.concatenate([np.ones((1, len(place))), counted]), np.concatenate([np.ones((1, s)), taken]))


def over_seeds(outcome: Outcome, arm: str, metric: str, drawn: Draws, cases: np.ndarray | None = None) -> np.ndarray:
    """The mean over an arm's seeds of a metric in each draw: (draws + 1,). cases: bool (N,), only these test images."""
    mine = outcome.of(arm)
    keep = np.ones(len(outcome.truth), bool) if cases is None else cases
    each = np.stack([measured(metric, t.probabilities[keep], outcome.truth[keep], drawn.cases[:, keep]) for t in mine])
    share = drawn.seeds[:, [t.seed for t in mine]].T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (each * share).sum(0) / share.sum(0)


def estimate(values: np.ndarray, name: str, group: str, n: int, n_patients: int, note: str | None = None,
             better: str | None = "higher", floor: float | None = None) -> Estimate:
    """Draw 0 is the value, the others its interval."""
    spread = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or not len(spread):
        return absent(name, "undefined on these images: one class only, or too few", group, n=n, better=better)
    low, high = percentiles(spread)
    return Estimate(name, float(values[0]), low, high, n, group, floor, better, None, None, note, n_patients)


def figures(outcome: Outcome, draws: int = DRAWS, seed: int = 0) -> list[Estimate]:
    """Every figure of a task: each arm's metrics, tstr_accuracy, data_equivalence, gaps between sexes and ages."""
    task, rows = f"task={outcome.task.name}", []
    drawn, n, n_patients = draws_of(outcome, draws, seed), len(outcome.truth), len(set(outcome.patients.tolist()))
    for arm in dict.fromkeys([t.arm for t in outcome.trials] + list(outcome.lacking)):
        for metric in METRICS:
            name, group = f"utility_{metric}", f"{task}; arm={arm}"
            if arm in outcome.lacking:
                rows.append(absent(name, outcome.lacking[arm], group, n=n, better="higher"))
            else:
                mine = outcome.of(arm)
                note = f"{mine[0].n_real} real and {mine[0].n_synthetic} synthetic images, {len(mine)} seeds"
                rows.append(estimate(over_seeds(outcome, arm, metric, drawn), name, group, n, n_patients, note))
    return [*rows, tstr(outcome, drawn, task, n_patients), *equivalence(outcome, drawn, task, n_patients),
            *gaps(outcome, drawn, task)]


def tstr(outcome: Outcome, drawn: Draws, task: str, n_patients: int) -> Estimate:
    """Train on synthetic, test on real (Esteban et al. 2017, arXiv 1706.02633); the floor is the arm of n real images."""
    mine, real = outcome.of("synthetic only"), outcome.of("real n")
    if not mine:
        return absent("tstr_accuracy", outcome.lacking.get("synthetic only", "this arm was not trained"), task, better="higher")
    floor = float(over_seeds(outcome, "real n", "accuracy", drawn)[0]) if real else None
    note = f"trained on {mine[0].n_synthetic} synthetic images" + (f", the floor on {real[0].n_real} real ones" if real else "")
    return estimate(over_seeds(outcome, "synthetic only", "accuracy", drawn), "tstr_accuracy", task, len(outcome.truth),
                    n_patients, f"{note}; chance is {1 / len(outcome.task.choices):.2f} where choices are even", floor=floor)


def equivalence(outcome: Outcome, drawn: Draws, task: str, n_patients: int, metric: str = "balanced_accuracy") -> list[Estimate]:
    """data_equivalence of the task (of a mixing arm fixed beforehand: HEADLINE) and of each arm beside the curve."""
    curve = [(arm.real, arm.name) for arm in ARMS if not arm.synthetic and arm.copies == 1 and outcome.of(arm.name)]
    if len(curve) < 2:
        return [absent("data_equivalence", "needs at least two arms of real images only, to draw a learning curve", task,
                       better="higher")]
    curve.sort()
    steps = np.stack([over_seeds(outcome, name, metric, drawn) for _, name in curve])
    risen = steps[-1] - steps[0]
    if not np.nanquantile(risen[1:], 0.025) > 0 or not risen[0] > 0:
        # on a flat curve any arm is worth anything: a difference of nothing would read as twice or half the images
        reason = (f"the learning curve does not rise beyond its interval ({metric} {steps[0, 0]:.3f} at {curve[0][1]}, "
                  f"{steps[-1, 0]:.3f} at {curve[-1][1]}), so no number of real images can be read off it; "
                  "train for more steps, or give more seeds or test images")
        return [absent("data_equivalence", reason, task, n=len(outcome.truth), better="higher")]
    rows = []
    for arm in ARMS:
        if not outcome.of(arm.name) or arm.name in [name for _, name in curve]:
            continue
        reached = over_seeds(outcome, arm.name, metric, drawn)
        found = [equivalent(r, [size for size, _ in curve], steps[:, d]) for d, r in enumerate(reached)]
        bounded = np.mean([end is not None for _, end in found[1:]]) if len(found) > 1 else 0.0
        end = {"below": f"a bound: it reaches less than {curve[0][1]}", None: None,
               "above": f"a bound: it reaches more than {curve[-1][1]}"}[found[0][1]]
        note = joined(end, f"{metric} on the learning curve of {', '.join(name for _, name in curve)}; "
                      f"{bounded:.0%} of the draws lie beyond the curve and count as its end")
        rows.append(estimate(np.array([value for value, _ in found]), "data_equivalence", f"{task}; arm={arm.name}",
                             len(outcome.truth), n_patients, note, floor=1.0))
    named = {row.group.partition("; arm=")[2]: row for row in rows}
    head = next((name for name in HEADLINE if name in named), None)
    if head is None:
        reason = outcome.lacking.get(HEADLINE[0], "no arm of real and synthetic images was trained")
        return [absent("data_equivalence", reason, task, better="higher"), *rows]
    return [dataclasses.replace(named[head], group=task, note=joined(f"of the arm {head}", named[head].note)), *rows]


def gaps(outcome: Outcome, drawn: Draws, task: str) -> list[Estimate]:
    """How much accuracy differs between sexes, and between ages: the largest less the smallest."""
    rows, records = [], outcome.test.records
    by = {"sex": np.array([r.sex or "" for r in records], dtype=str),
          "age": np.array([next((b for low, high, b in AGES if r.age_years is not None and low <= r.age_years < high), "")
                           for r in records], dtype=str)}
    for kind, of in by.items():
        big = [g for g in sorted(set(of.tolist()) - {""}) if (of == g).sum() >= FEWEST_OF_GROUP]
        for arm in ("real n", next((a for a in HEADLINE if outcome.of(a)), "")):
            group = f"{task}; {kind}; arm={arm}"
            if not arm or not outcome.of(arm):
                continue
            if len(big) < 2:
                rows.append(absent("utility_gap", f"needs two groups of {FEWEST_OF_GROUP} test images of known {kind}, found "
                                   f"{len(big)}", group, better="lower"))
                continue
            each = np.stack([over_seeds(outcome, arm, "accuracy", drawn, of == g) for g in big])
            known = of != ""
            rows.append(estimate(each.max(0) - each.min(0), "utility_gap", group, int(known.sum()),
                                 len(set(outcome.patients[known].tolist())), better="lower",
                                 note="accuracy of " + ", ".join(f"{g} {v:.2f}" for g, v in zip(big, each[:, 0], strict=True))
                                 + "; biased upwards: the largest less the smallest"))
    return rows


def measure(sets: Sets, *, seed: int = 0, names: Iterable[str] = (), cache: Path, progress: Progress = lambda done, total: None,
            **asked: object) -> list[Estimate]:
    """Every figure of the tasks named, or of one task an image type; `asked` goes to `trials.run`: n, seeds, settings."""
    return study(sets, seed=seed, names=names, cache=cache, progress=progress, **asked)[0]


def study(sets: Sets, *, seed: int = 0, names: Iterable[str] = (), cache: Path, progress: Progress = lambda done, total: None,
          **asked: object) -> tuple[list[Estimate], list[Outcome]]:
    """(`measure`, the outcomes behind it). A task that cannot be run is a row that says why; an unknown name a ValueError.

    Without names, only tasks of which the synthetic set shows every choice: others would train on real images for nothing.
    """
    rows, outcomes, heads = [], [], ("tstr_accuracy", "data_equivalence")
    found = tasks.find(sets.train.records, sets.unseen.records)
    shown = {name: task for name, task in found.items() if all(map(len, by_choice(task, sets.synthetic, asked=True)))}
    wanted = [tasks.named(found, name) for name in names] or tasks.chosen(shown, sets.train.records)
    if not wanted:
        reason = (f"the synthetic set shows every choice of none of the {len(found)} tasks; make images of each" if found else
                  f"no image type has findings with {tasks.FEWEST} training and {tasks.FEWEST_UNSEEN} unseen images a choice")
        return [absent(name, reason, better="higher") for name in heads], []
    for k, task in enumerate(wanted):
        try:
            outcome = run(task, sets, cache, progress=lambda done, total, k=k: progress(k * total + done, len(wanted) * total),
                          **asked)
        except ValueError as error:
            rows += [absent(name, str(error), f"task={task.name}", better="higher") for name in heads]
        else:
            outcomes.append(outcome)
            rows += figures(outcome, seed=seed)
    return rows, outcomes


# ---- on disk --------------------------------------------------------------------------------------------------------

def as_dict(outcome: Outcome) -> dict:
    """Each arm's figures seed by seed: all that `data_equivalence` is computed from."""
    ones = np.ones((1, len(outcome.truth)))
    arms = [{"arm": arm.name, "missing": outcome.lacking[arm.name]} if arm.name in outcome.lacking else
            {"arm": arm.name, "n_real": mine[0].n_real, "n_synthetic": mine[0].n_synthetic,
             "seeds": [{"seed": t.seed} | {m: round(float(measured(m, t.probabilities, outcome.truth, ones)[0]), 5)
                                           for m in METRICS} for t in mine]}
            for arm in ARMS for mine in [outcome.of(arm.name)] if mine or arm.name in outcome.lacking]
    return {"task": outcome.task.name, "choices": [c.label for c in outcome.task.choices], "n": outcome.n,
            "n_test": len(outcome.truth), "n_test_patients": len(set(outcome.patients.tolist())), "arms": arms}


def write(rows: Sequence[Estimate], outcomes: Sequence[Outcome], folder: Path) -> Path:
    """folder/utility.json, and a learning curve (PNG) a task. Returns the JSON's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    curves = [curve(outcome, folder / f"learning-curve-{outcome.task.name.replace('/', '-').replace(' ', '-')}.png").name
              for outcome in outcomes]
    path = folder / "utility.json"
    path.write_text(json.dumps({"tasks": [as_dict(o) for o in outcomes], "curves": curves,
                                "estimates": [row.as_dict() for row in rows]}, indent=1), encoding="utf-8")
    return path


def curve(outcome: Outcome, file: Path, metric: str = "balanced_accuracy") -> Path:
    """The learning curve of real images, and the other arms beside it, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    drawn = draws_of(outcome, 200)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = {}
    for arm in ARMS:
        if outcome.of(arm.name):
            values = over_seeds(outcome, arm.name, metric, drawn)
            low, high = percentiles(values[1:])
            points[arm.name] = (outcome.of(arm.name)[0].n_real, values[0], low, high)
    real = sorted(points[arm.name] for arm in ARMS if arm.name in points and not arm.synthetic and arm.copies == 1)
    if real:
        x, y, low, high = map(np.array, zip(*real, strict=True))
        axes.plot(x, y, "k-o", label="real images only")
        axes.fill_between(x, low, high, color="k", alpha=0.12, linewidth=0)
    others = [arm.name for arm in ARMS if arm.name in points and (arm.synthetic or arm.copies > 1)]
    for k, name in enumerate(others):
        x, y, low, high = points[name]
        at = outcome.n * 1.05 ** (k - len(others) / 2)  # side by side, that intervals do not hide each other
        axes.errorbar([at], [y], [[max(0, y - low)], [max(0, high - y)]], fmt="s", capsize=3, label=name)
    axes.axhline(1 / len(outcome.task.choices), color="gray", linestyle=":", linewidth=1, label="chance")
    axes.set(xscale="log", xlabel="real images", ylabel=metric.replace("_", " "), title=outcome.task.name)
    axes.set_xticks(sorted({n for n, *_ in real} | {outcome.n}), [str(n) for n in sorted({n for n, *_ in real} | {outcome.n})])
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(file, dpi=120)
    return file
