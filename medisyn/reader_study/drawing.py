"""Drawing a study: collections in, a folder with stimuli, truth and readers out."""

import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medisyn.reader_study import cases, design, questions, readers, stimuli
from medisyn.reader_study.cases import Drawn
from medisyn.reader_study.design import Case, Study, Truth


@dataclass(frozen=True)
class Plan:
    """What a study should be."""

    design: str               # a key of questions.DESIGNS
    cases: int = 100          # different ones; fewer where the collections hold fewer
    readers: int = 5
    repeats: float = 0.1      # share of the cases shown twice
    seed: int = 0
    side: int | None = None   # pixels; None: three quarters of the shortest side of any image
    margin: float = 0.1       # of equivalence: accuracy within 0.5 -/+ margin counts as chance
    title: str = ""


def new(plan: Plan, real: str | Path, synthetic: str | Path, folder: Path,
        progress: Callable[[int, int], None] = lambda done, total: None) -> Study:
    """Draw a study into an empty folder; the same plan and collections always make the same one."""
    folder = Path(folder)
    if plan.design not in questions.DESIGNS:
        raise ValueError(f"expected a design of {', '.join(questions.DESIGNS)}; found {plan.design!r}")
    for name, good, want in (("cases", plan.cases >= 4, "4 or more"), ("readers", 1 <= plan.readers <= 99, "1 to 99"),
                             ("repeats", 0 <= plan.repeats <= 1, "0 to 1"), ("margin", 0 < plan.margin < 0.5, "between 0 and 0.5"),
                             ("side", plan.side is None or 16 <= plan.side <= 4096, "16 to 4096")):
        if not good:
            raise ValueError(f"--{name}: expected {want}, found {getattr(plan, name)}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder with -o")
    rng = np.random.default_rng(plan.seed)
    drawn = cases.draw(plan.design, cases.open_arm(real, False), cases.open_arm(synthetic, True), plan.cases, rng)
    smallest = stimuli.common_side(path for one in drawn for path, _ in one.pictures)
    side = plan.side or stimuli.reduced(smallest)
    if side > smallest:
        raise ValueError(f"--side: expected at most {smallest}, the shortest side of an image of the study; found {side}")
    shown, truth, files = named(drawn, plan.repeats, rng)
    for done, image in enumerate(sorted(files), 1):
        stimuli.write(stimuli.encode(files[image], side), folder / "images" / f"{image}.png")
        progress(done, len(files))
    name = hashlib.sha256("/".join(case.id for case in shown).encode()).hexdigest()[:16]
    study = Study(folder, name, plan.title or plan.design.replace("-", " ").capitalize(), plan.design,
                  questions.DESIGNS[plan.design], plan.seed, side, plan.margin, tuple(sorted({d.arm for d in drawn})),
                  readers.keys(plan.readers), shown, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    design.whole(folder / "readers.json", dict.fromkeys(study.readers))
    design.write(study, truth)
    return study


def named(drawn: list[Drawn], repeats: float, rng: np.random.Generator
          ) -> tuple[tuple[Case, ...], dict[str, Truth], dict[str, Path]]:
    """Cases with opaque ids, their truth by id, and the file that each opaque image id stands for.

    A repeat is a case of its own, its image a file of its own with the same pixels; in a pair the sides are swapped.
    """
    shown: list[Case] = []
    truth: dict[str, Truth] = {}
    files: dict[str, Path] = {}

    def add(one: Drawn, repeat_of: str | None) -> str:
        pictures = one.pictures if repeat_of is None else one.pictures[::-1]
        swapped = {"left": "right", "right": "left"} if repeat_of else {}
        ids = tuple(opaque(rng) for _ in pictures)
        case = Case(opaque(rng), ids, cases.sentence(one.told) if one.told else None)
        main = main_record(one)
        truth[case.id] = Truth(one.arm, tuple(r.id for _, r in pictures), main.image_type, swapped.get(one.answer, one.answer),
                               dict(sorted(main.findings.items())), cases.concepts(one.told or main), repeat_of)
        files.update({image: path for image, (path, _) in zip(ids, pictures, strict=True)})
        shown.append(case)
        return case.id
    first = [add(one, None) for one in drawn]
    chosen: list[int] = []
    for arm in sorted({one.arm for one in drawn}):  # so that the repeats are balanced over arms as well
        rows = [i for i, one in enumerate(drawn) if one.arm == arm]
        chosen += list(rng.permutation(rows)[:round(repeats * len(rows))])
    for i in chosen:
        add(drawn[i], first[i])
    return tuple(sorted(shown, key=lambda case: case.id)), truth, files


def main_record(one: Drawn):
    """The record that the case is grouped by: the synthetic one of a pair."""
    records = [record for _, record in one.pictures]
    return next((r for r in records if r.synthetic), records[0])


def opaque(rng: np.random.Generator) -> str:
    """16 hex digits that say nothing."""
    return rng.bytes(8).hex()
