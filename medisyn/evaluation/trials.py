"""Trials: one classifier an arm and a seed; arms differ in what they learn from and in nothing else.

The same network, steps, augmentation and test images. Each finished trial is a line of trials.jsonl with what it
answered about every test image, so that every figure can be computed again without training.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medisyn.evaluation.sets import Images, Sets, content, patients
from medisyn.evaluation.tasks import Task

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Arm:
    """What one classifier learns from, in multiples of n; inf: all there is."""

    name: str
    real: float
    synthetic: float = 0.0
    copies: int = 1          # of each real image: a control, that seeing more of the same does not help
    first: bool = False      # the synthetic images first, for half of the steps, then the real ones


ARMS = (
    Arm("real n/2", 0.5), Arm("real n", 1), Arm("real 2n", 2), Arm("real n, each twice", 1, copies=2),
    Arm("synthetic only", 0, math.inf),
    *(Arm(f"real n + {k:g}n synthetic", 1, k) for k in (0.5, 1, 2, 5)),
    Arm("synthetic first, then real n", 1, math.inf, first=True))


@dataclass(frozen=True)
class Trial:
    """One classifier of one arm: what it answered about every test image."""

    arm: str
    seed: int
    n_real: int
    n_synthetic: int
    probabilities: np.ndarray     # float (N, choices)


@dataclass(frozen=True)
class Outcome:
    """All classifiers of a task."""

    task: Task
    n: int                        # real images of the arm "real n"
    truth: np.ndarray             # int (N,) the right choice of each test image
    patients: np.ndarray          # (N,) whose image it is
    test: Images
    trials: tuple[Trial, ...]
    lacking: dict[str, str]       # arm: why it could not be trained

    def of(self, arm: str) -> list[Trial]:
        return [t for t in self.trials if t.arm == arm]


def run(task: Task, sets: Sets, folder: Path, *, n: int = 200, seeds: int = 5, settings: object = None,
        arms: Sequence[Arm] = ARMS, progress: Progress = lambda done, total: None) -> Outcome:
    """Train every arm for every seed; each finished one is a line of folder/trials.jsonl and is not trained again.

    n: real images of the arm "real n", evenly over the choices. settings: a `classifier.Settings`, its seed apart.
    ValueError where a task has no test images, or n is less than two a choice.
    """
    from medisyn.evaluation import classifier
    settings = settings or classifier.Settings()
    if seeds < 1 or n < 2 * len(task.choices):
        raise ValueError(f"{task.name}: expected at least 1 seed and n of 2 a choice ({2 * len(task.choices)}), "
                         f"found {seeds} and {n}; give --seeds and -n")
    test = sets.unseen.take([i for i, r in enumerate(sets.unseen.records) if task.of(r) >= 0])
    truth = np.array([task.of(r, asked=False) for r in test.records], np.int64)
    if len(set(truth.tolist())) < len(task.choices):
        raise ValueError(f"{task.name}: unseen patients should show every choice, found {len(set(truth.tolist()))} of "
                         f"{len(task.choices)}; give more unseen images or another --task")
    pools = {"real": by_choice(task, sets.train), "synthetic": by_choice(task, sets.synthetic, asked=True)}
    held = Held({"real": sets.train, "synthetic": sets.synthetic, "test": test}, settings.side)
    told, file = known(Path(folder) / "trials.jsonl"), Path(folder) / "trials.jsonl"
    seen = fingerprint([content(p) for p in test.paths], truth.tolist(), [dataclasses.astuple(c) for c in task.choices])
    trials, lacking, total = [], {}, len(arms) * seeds
    for a, arm in enumerate(arms):
        for seed in range(seeds):
            try:
                rows, extra = drawn(arm, pools, n, seed)
            except ValueError as error:
                lacking[arm.name] = str(error)
                break
            mine = dataclasses.replace(settings, seed=seed)
            used = [content(sets.train.paths[r]) for r, _ in rows] + [content(sets.synthetic.paths[r]) for r, _ in extra]
            key = fingerprint(task.name, dataclasses.astuple(arm), dataclasses.asdict(mine), used, seen)
            if key not in told:
                found = train(arm, rows, extra, held, task, mine)
                told[key] = {"key": key, "task": task.name, "arm": arm.name, "seed": seed, "n_real": len(rows),
                             "n_synthetic": len(extra), "steps": mine.steps,
                             "probabilities": np.round(found, 5).tolist()}
                append(told[key], file)
            line = told[key]
            trials.append(Trial(arm.name, seed, line["n_real"], line["n_synthetic"], np.array(line["probabilities"], float)))
            progress(a * seeds + seed + 1, total)
    return Outcome(task, n, truth, patients(test), test, tuple(trials), lacking)


def by_choice(task: Task, images: Images, asked: bool = False) -> list[np.ndarray]:
    """The rows of a set that show each choice; `asked`: that were asked to show it."""
    answers = np.array([task.of(r, asked) for r in images.records], np.int64)
    return [np.flatnonzero(answers == k) for k in range(len(task.choices))]


def drawn(arm: Arm, pools: dict[str, list[np.ndarray]], n: int, seed: int) -> tuple[list, list]:
    """[(row, choice)] of real and of synthetic images; the smaller arms of a seed lie inside the larger ones.

    ValueError says what is lacking.
    """
    found = []
    for side, wanted in (("real", arm.real), ("synthetic", arm.synthetic)):
        mine = []
        for k, rows in enumerate(pools[side]):
            c = len(pools[side])
            number = len(rows) if wanted == math.inf else math.ceil((round(wanted * n) - k) / c)
            if number > len(rows) or (wanted and number == 0):
                raise ValueError(f"this arm needs {max(number, 1):,} {side} images of choice {k + 1}, there are {len(rows):,}")
            order = np.random.default_rng([seed, k, side == "real"]).permutation(rows)
            mine += [(int(row), k) for row in order[:number]]
        found.append(mine)
    return found[0] * arm.copies, found[1]


class Held:
    """Small squares of the images asked for so far: each file is read once."""

    def __init__(self, sides: dict[str, Images], side: int):
        self.sides, self.side, self.squares = sides, side, {}

    def of(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """uint8 (n, side, side, 3)"""
        for row in rows:
            if (name, row) not in self.squares:
                self.squares[name, row] = self.sides[name].pixels([row], self.side)[0]
        return np.stack([self.squares[name, row] for row in rows]) if len(rows) else \
            np.zeros((0, self.side, self.side, 3), np.uint8)


def train(arm: Arm, real: list, synthetic: list, held: Held, task: Task, settings: object) -> np.ndarray:
    """One classifier; its probabilities for the test images (N, choices)."""
    from medisyn.evaluation import classifier
    question = [classifier.Question("choice", tuple(c.label for c in task.choices))]

    def fit(parts: dict[str, list], steps: int, start: object = None) -> object:
        pixels = np.concatenate([held.of(side, [row for row, _ in rows]) for side, rows in parts.items()])
        truth = {"choice": np.array([k for rows in parts.values() for _, k in rows], np.int64)}
        turned = classifier.symmetries([task.image_type] * len(pixels))
        return classifier.fit(pixels, truth, question, dataclasses.replace(settings, steps=steps), symmetry=turned, start=start)

    if arm.first:
        half = settings.steps // 2
        network = fit({"real": real}, settings.steps - half, fit({"synthetic": synthetic}, half))
    else:
        network = fit({"real": real, "synthetic": synthetic}, settings.steps)
    return classifier.answers(network, held.of("test", range(len(held.sides["test"]))))["choice"]


def fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def known(file: Path) -> dict[str, dict]:
    """The finished trials by key; a line cut short by a kill is passed over."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = {}
    for line in lines:
        try:
            row = json.loads(line)
            found[row["key"]] = row
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return found


def append(line: dict, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cut = file.is_file() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as out:
        out.write(("\n" if cut else "") + json.dumps(line) + "\n")
