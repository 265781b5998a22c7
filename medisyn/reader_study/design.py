"""Designs: a study on disk, what is true of its cases, and the order in which a reader meets them.

A study is a folder: `study.json` (question, cases by opaque id), `images/`, `truth.json` (never shown to a reader),
`readers.json` (hashes of tokens) and `responses.jsonl`. From the seed in `study.json` and the collections anybody can draw the
study again, so neither that file nor the truth is for readers.
"""

import hashlib
import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medisyn.reader_study import questions
from medisyn.reader_study.questions import Question

FORMAT = 1
BLOCK = 20  # cases: within so many, arms and image types come about as often as in the whole


@dataclass(frozen=True)
class Case:
    """What a reader is shown."""

    id: str                       # opaque
    images: tuple[str, ...]       # opaque ids: images/<id>.png; two where two are shown, left first
    sentence: str | None = None


@dataclass(frozen=True)
class Truth:
    """What nobody may know who reads."""

    arm: str                                     # "real", "synthetic", "pair", "mismatch"
    records: tuple[str, ...]                     # ids in their collections, as the images stand
    image_type: str
    answer: str | None = None                    # the right one; None where there is none
    findings: dict[str, bool] = field(default_factory=dict)  # of the image, or the synthetic one of a pair
    concepts: tuple[str, ...] = ()               # what the sentence names
    repeat_of: str | None = None                 # the case that shows the same


@dataclass(frozen=True)
class Study:
    folder: Path
    id: str
    title: str
    design: str                   # a key of questions.DESIGNS
    question: Question
    seed: int
    side: int                     # pixels of every image, both ways
    margin: float                 # of equivalence, fixed before anybody reads
    arms: tuple[str, ...]
    readers: tuple[str, ...]      # keys
    cases: tuple[Case, ...]       # by id, which says nothing
    made: str = ""                # UTC

    def case(self, name: str) -> Case:
        """A case by its id; ValueError where there is none."""
        for case in self.cases:
            if case.id == name:
                return case
        raise ValueError(f"{self.folder}: expected the id of one of {len(self.cases)} cases, found {name[:40]!r}")


def write(study: Study, truth: dict[str, Truth]) -> Path:
    """study.json and truth.json."""
    told = {"format": FORMAT} | {name: value for name, value in asdict(study).items() if name not in ("folder", "question")}
    told |= {"question": study.question.as_dict()}
    whole(study.folder / "truth.json", {"format": FORMAT, "cases": {name: asdict(truth[name]) for name in sorted(truth)}})
    return whole(study.folder / "study.json", told)


def read(folder: Path) -> Study:
    """The study in a folder."""
    folder = Path(folder)
    told = load(folder / "study.json", folder)
    if told.pop("format", None) != FORMAT:
        raise ValueError(f"{folder}/study.json: expected format {FORMAT}; make the study again with this medisyn")
    try:
        cases = tuple(Case(c["id"], tuple(c["images"]), c["sentence"]) for c in told.pop("cases"))
        return Study(folder, question=questions.from_dict(told.pop("question")), cases=cases,
                     arms=tuple(told.pop("arms")), readers=tuple(told.pop("readers")), **told)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}/study.json: expected the fields of a study ({error}); make it again") from None


def truth(study: Study) -> dict[str, Truth]:
    """What is true of every case, by id."""
    told = load(study.folder / "truth.json", study.folder)["cases"]
    found = {name: Truth(**row | {"records": tuple(row["records"]), "concepts": tuple(row["concepts"])})
             for name, row in told.items()}
    if set(found) != {case.id for case in study.cases}:
        raise ValueError(f"{study.folder}: truth.json and study.json should name the same cases; restore the pair")
    return found


def order(study: Study, reader: str) -> list[str]:
    """The ids of all cases as this reader meets them: the same list every time, another one for another reader.

    Arms and image types are spread over blocks of about 20 and shuffled within; the two showings of a repeated case lie at
    least a quarter of the study apart.
    """
    if reader not in study.readers:
        raise ValueError(f"{study.folder}: expected a reader of {', '.join(study.readers)}, found {reader[:40]!r}")
    known = truth(study)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{study.seed}/{reader}".encode()).digest()[:16], "big"))
    layers: dict[tuple, list[str]] = defaultdict(list)
    for name in sorted(known):
        if known[name].repeat_of is None:
            layers[known[name].arm, known[name].image_type].append(name)
    n = sum(len(names) for names in layers.values())
    blocks: list[list[str]] = [[] for _ in range(max(1, round(n / BLOCK)))]
    place = int(rng.integers(len(blocks)))
    for key in sorted(layers):
        for name in rng.permutation(layers[key]):
            blocks[place % len(blocks)].append(str(name))
            place += 1
    listed = [str(name) for k in rng.permutation(len(blocks)) for name in rng.permutation(blocks[k])]
    for name in rng.permutation(sorted(set(known) - set(listed))):
        at, apart = listed.index(known[str(name)].repeat_of), len(known) // 4
        free = [k for k in range(len(listed) + 1) if k <= at - apart or k > at + apart] or [len(listed)]
        listed.insert(int(rng.choice(free)), str(name))
    return listed


def picture(study: Study, image: str) -> Path:
    """The file of an image by its opaque id; ValueError where no case shows it, so no path comes from outside."""
    if not any(image in case.images for case in study.cases):
        raise ValueError(f"{study.folder}: no case shows an image {image[:40]!r}")
    return study.folder / "images" / f"{image}.png"


def load(path: Path, folder: Path) -> Any:
    """A JSON file of a study."""
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a study: it should hold {path.name}; make one with `medisyn study new`")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON ({error})") from None


def whole(path: Path, told: Any) -> Path:
    """A JSON file that appears whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(draft, path)
    return path
