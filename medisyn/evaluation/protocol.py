"""The protocol: every part of an evaluation in its order, each kept on disk as soon as it is done.

    REPORT/report.html, report.json    what people and programs read
    REPORT/pictures/                   what the report shows
    REPORT/cache/                      features, classifiers and finished parts: a second call goes on from here
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medisyn.estimates import Estimate, absent, from_dict
from medisyn.evaluation import declared, validity
from medisyn.evaluation.features import Extractor, extract
from medisyn.evaluation.sets import Images, Sets, content

Progress = Callable[[str, int, int], None]  # (part, done, total)


@dataclass(frozen=True)
class Picture:
    """A picture of the report."""

    title: str
    file: str             # relative to the report's folder
    caption: str = ""
    real: bool = False    # whether it shows images of patients


@dataclass(frozen=True)
class Part:
    """What one part of the protocol found."""

    name: str
    rows: tuple[Estimate, ...]
    pictures: tuple[Picture, ...] = ()
    details: dict = field(default_factory=dict)   # arms and the like, from which figures can be computed again


@dataclass(frozen=True)
class Asked:
    """What an evaluation is to do."""

    sets: Sets
    out: Path
    extractors: tuple[Extractor, ...]
    seed: int = 0
    tasks: tuple[str, ...] = ()        # of utility; () chooses one an image type
    n: int = 200                       # real images of the arm "real n"
    seeds: int = 5
    run: Path | None = None            # the folder of the maker's training, for what it cost
    show_real: bool = True             # False: no picture of a patient's image is drawn
    progress: Progress = lambda part, done, total: None

    @property
    def cache(self) -> Path:
        return self.out / "cache"

    def features(self, extractor: Extractor, part: str) -> dict[str, np.ndarray]:
        """float32 (N, D) by the name of the set."""
        total, done, found = sum(len(images) for _, images in self.sets.items()), 0, {}
        for name, images in self.sets.items():
            found[name] = extract(extractor, images, self.cache / "features",
                                  lambda k, _, start=done: self.progress(f"{part}: {extractor.name}", start + k, total))
            done += len(images)
        return found


def judge_validity(asked: Asked) -> Part:
    from medisyn.evaluation import panels
    rows = validity.measure(asked.sets, lambda k, n: asked.progress("validity", k, n))
    grid = Picture("Synthetic images by prompt", panels.by_prompt(asked.sets.synthetic, asked.out),
                   "The first of each prompt as they lie in the set, none chosen.")
    return Part("validity", (*rows, *declared.measure(asked.sets)), (grid,))


def judge_fidelity(asked: Asked) -> Part:
    from medisyn.evaluation import fidelity
    rows: list[Estimate] = []
    for k, extractor in enumerate(asked.extractors):
        rows += fidelity.measure(asked.sets, asked.features(extractor, "fidelity"), extractor, seed=asked.seed, pixels=k == 0,
                                 progress=lambda k, n: asked.progress("fidelity", k, n))
    return Part("fidelity", unique(rows))


def judge_alignment(asked: Asked) -> Part:
    from medisyn.evaluation import alignment
    return Part("alignment", tuple(alignment.measure(asked.sets, seed=asked.seed, cache=asked.cache / "alignment",
                                                     progress=lambda k, n: asked.progress("alignment", k, n))))


def judge_novelty(asked: Asked) -> Part:
    from medisyn.evaluation import looking, membership, novelty, panels
    rows: list[Estimate] = []
    pictures: list[Picture] = []
    for extractor in asked.extractors:
        features = asked.features(extractor, "novelty")
        looked = looking.look(asked.sets, features, extractor, seed=asked.seed,
                              progress=lambda k, n: asked.progress("novelty", k, n))
        rows += novelty.measure(asked.sets, features, extractor, seed=asked.seed, looked=looked)
        rows += membership.measure(asked.sets, features, extractor, seed=asked.seed)
        if asked.show_real and not pictures:
            pictures.append(Picture("Nearest training images", panels.nearest(asked.sets, looked, asked.out),
                                    "Synthetic images (above) over the training image most like each (below), the likeliest "
                                    "copies first; the number is the correlation after alignment.", real=True))
    return Part("novelty", unique(rows), tuple(pictures))


def judge_utility(asked: Asked) -> Part:
    from medisyn.evaluation import utility
    rows, outcomes = utility.study(asked.sets, seed=asked.seed, names=asked.tasks, cache=asked.cache / "utility", n=asked.n,
                                   seeds=asked.seeds, progress=lambda k, n: asked.progress("utility", k, n))
    utility.write(rows, outcomes, asked.out / "pictures")
    curves = [Picture(f"Learning curve: {o.task.name}",
                      f"pictures/learning-curve-{o.task.name.replace('/', '-').replace(' ', '-')}.png",
                      "Real images only, and the other arms at real n; bars are 95 % intervals over seeds and patients.")
              for o in outcomes]
    return Part("utility", tuple(rows), tuple(curves), {"tasks": [utility.as_dict(o) for o in outcomes]})


def judge_cost(asked: Asked) -> Part:
    from medisyn.evaluation import cost
    folders = [folder for path in asked.sets.synthetic.paths[:1] for folder in path.parents[:2]]
    timing = next((found for folder in folders if (found := cost.noted(folder))), None)
    return Part("cost", tuple(cost.measure(run=asked.run, generation=timing)))


MEANING = 2     # raised when a figure changes what it means, so that no finished part of the old meaning is read again

PARTS: dict[str, Callable[[Asked], Part]] = {
    "validity": judge_validity, "fidelity": judge_fidelity, "alignment": judge_alignment, "novelty": judge_novelty,
    "utility": judge_utility, "cost": judge_cost}


def judge(asked: Asked, only: Sequence[str] = (), message: Callable[[str], None] = lambda text: None) -> list[Part]:
    """The parts, all or `only` those named, in the protocol's order; finished ones are read from the cache.

    A part that cannot be computed at all becomes a row that says why.
    """
    unknown = [name for name in only if name not in PARTS]
    if unknown:
        raise ValueError(f"expected parts of {', '.join(PARTS)}; found {unknown[0]!r}")
    key, found = fingerprint(asked), []
    for name in PARTS:
        if only and name not in only:
            continue
        file = asked.cache / f"{name}.json"
        part = held(file, key) if name != "cost" else None  # it is read from logs, which no image tells of
        if part is None:
            message(f"{name}: started")
            try:
                part = PARTS[name](asked)
            except ValueError as error:
                part = Part(name, (absent(name, str(error).rstrip(".")),))
            keep(part, file, key)
        else:
            message(f"{name}: done before, read from {file}")
        found.append(part)
    return found


def unique(rows: Sequence[Estimate]) -> tuple[Estimate, ...]:
    """Rows without those that a second extractor measured again because they do not depend on it."""
    kept: dict[tuple, Estimate] = {}
    for row in rows:
        kept.setdefault((row.name, row.group, row.extractor), row)
    return tuple(kept.values())


def fingerprint(asked: Asked) -> str:
    """What decides every figure: files, labels, extractors, seed, settings, and what the figures mean."""
    import medisyn
    told = hashlib.sha256(repr((medisyn.__version__, MEANING, [e.label for e in asked.extractors], asked.seed, asked.tasks, asked.n,
                                asked.seeds, asked.show_real)).encode())
    for name, images in asked.sets.items():
        told.update(name.encode())
        told.update(of_set(images).encode())
    return told.hexdigest()


def of_set(images: Images) -> str:
    told = hashlib.sha256()
    for file in dict.fromkeys(path.parents[1] / declared.REFUSED for path in images.paths[:1]):
        told.update(file.read_bytes() if file.is_file() else b"")
    for record, path in zip(images.records, images.paths, strict=True):
        told.update(f"{content(path)} {dataclasses.asdict(record)!r}".encode())
    return told.hexdigest()


def keep(part: Part, file: Path, key: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps({"key": key, "name": part.name, "rows": [row.as_dict() for row in part.rows],
                                 "pictures": [dataclasses.asdict(p) for p in part.pictures], "details": part.details}),
                     encoding="utf-8")
    os.replace(draft, file)


def held(file: Path, key: str) -> Part | None:
    """A part kept earlier, if it was computed from the same things and is whole."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if told.get("key") != key:
        return None
    return Part(told["name"], tuple(from_dict(row) for row in told["rows"]), tuple(Picture(**p) for p in told["pictures"]),
                told["details"])
