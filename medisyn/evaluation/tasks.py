"""Tasks: what a classifier of one image type can be taught, found in the records themselves."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from medisyn.data.records import Record
from medisyn.data.vocabulary import GROUPS, TERMS, closed, label

FEWEST = 40        # training images that each choice of a task must have
FEWEST_UNSEEN = 5  # and unseen ones


@dataclass(frozen=True)
class Choice:
    """One answer: a finding present or absent, at a place where places are told apart."""

    label: str
    finding: str
    present: bool = True
    anatomy: str | None = None   # None: any


@dataclass(frozen=True)
class Task:
    """A question about an image of one type, with exactly one right answer of several."""

    name: str                    # "blood_smear/cell", "chest_xray/pneumonia", "histopathology/lesion by anatomy"
    image_type: str
    choices: tuple[Choice, ...]

    def of(self, record: Record, asked: bool | None = None) -> int:
        """The number of the right answer for an image; -1 where it is unknown or none of them.

        A real image belongs to a finding's choice only where the other choices' findings are known to be absent. One that
        was `asked` for (None: one with a provenance) shows what its sentence says: silence about the others is enough.
        """
        if record.image_type != self.image_type:
            return -1
        known = facts(record)
        unsaid = False if (record.synthetic if asked is None else asked) else None
        for k, choice in enumerate(self.choices):
            others = {c.finding for c in self.choices} - {choice.finding}
            if known.get(choice.finding) is choice.present and choice.anatomy in (None, record.anatomy) and \
                    all(known.get(name, unsaid) is False for name in others):
                return k
        return -1


def facts(record: Record) -> dict[str, bool]:
    """A record's findings with all that follows from them."""
    return closed(record.findings, record.image_type, record.view)


def find(train: Sequence[Record], unseen: Sequence[Record]) -> dict[str, Task]:
    """Every task that both sets can carry, by name: kinds that exclude each other first, then single findings."""
    found: dict[str, Task] = {}
    for image_type in dict.fromkeys(r.image_type for r in train):
        mine, theirs = ([r for r in side if r.image_type == image_type] for side in (train, unseen))
        proposed = [*kinds(image_type, mine), *single(image_type, mine)]
        for task in proposed:
            kept = enough(task, mine, theirs)
            if kept:
                found.setdefault(kept.name, kept)  # the kinds of brain tumour before any brain tumour
    return found


def kinds(image_type: str, mine: Sequence[Record]) -> list[Task]:
    """Tasks of findings that exclude each other (a group of the vocabulary, and normal), also told apart by anatomy."""
    present = Counter(name for r in mine for name, seen in facts(r).items() if seen)
    places = [place for place, n in Counter(r.anatomy for r in mine).items() if place and n >= FEWEST]
    made = []
    for group, members in GROUPS.items():
        names = [name for name in members if present[name] >= FEWEST]
        if names and present["normal"] >= FEWEST and all(TERMS[name].abnormal for name in names):
            names.append("normal")
        if len(names) > 1:
            made.append(Task(f"{image_type}/{group}", image_type, tuple(Choice(label(n), n) for n in names)))
            if len(places) > 1:
                made.append(Task(f"{image_type}/{group} by anatomy", image_type, tuple(
                    Choice(f"{label(place)}: {label(n)}", n, anatomy=place) for place, n in product(sorted(places), names))))
    return made


def single(image_type: str, mine: Sequence[Record]) -> list[Task]:
    """Tasks of one finding, present or absent."""
    names = dict.fromkeys(name for r in mine for name in facts(r))
    return [Task(f"{image_type}/{name}", image_type, (Choice(f"no {label(name)}", name, False), Choice(label(name), name)))
            for name in names]


def enough(task: Task, train: Sequence[Record], unseen: Sequence[Record]) -> Task | None:
    """The task with the choices that have images enough in both sets; None where fewer than two are left."""
    seen, fresh = (Counter(task.of(r) for r in side) for side in (train, unseen))
    kept = tuple(c for k, c in enumerate(task.choices) if seen[k] >= FEWEST and fresh[k] >= FEWEST_UNSEEN)
    return None if len(kept) < 2 else Task(task.name, task.image_type, kept)


def chosen(found: dict[str, Task], train: Sequence[Record]) -> list[Task]:
    """One task an image type: of kinds before a single finding, then the one whose smallest choice is largest."""
    def worth(task: Task) -> tuple:
        held = Counter(task.of(r) for r in train)
        return len({c.finding for c in task.choices}) > 1, min(held[k] for k in range(len(task.choices)))
    best: dict[str, Task] = {}
    for task in found.values():
        if task.image_type not in best or worth(task) > worth(best[task.image_type]):
            best[task.image_type] = task
    return list(best.values())


def named(found: dict[str, Task], name: str) -> Task:
    """The task of a name; ValueError with the nearest ones where there is none."""
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name, found, 3, cutoff=0.3)
    raise ValueError(f"no task {name!r} is carried by these images; " + (f"did you mean {' or '.join(map(repr, near))}? "
                     if near else "") + (f"there are {', '.join(list(found)[:12])}" if found else "there is none at all"))
