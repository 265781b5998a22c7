"""Reading: of how many prompts in free wording is the image type understood, and how many of the facts that they state?

    python benchmarks/reading.py [-o out/reading]

The prompts of free_facts.csv were written by a language model, asked to write as clinicians, students and engineers type, which
was told the terms of MediSyn-S and saw neither the vocabulary's wordings nor the reader. Set A was looked at while wordings were
added, B and C after they had been counted once, D not at all. A row holds what a prompt states or what follows from it; "!" in
front of a fact says that it is denied. No image is made.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import intervals
import numpy as np

from medisyn import shipped
from medisyn.data import learnt
from medisyn.data.understanding import Understanding, sentence, understand
from medisyn.data.vocabulary import IMAGE_TYPES, closed

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Stated:
    """A prompt and what it says."""

    of: str
    prompt: str
    image_type: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """How a prompt was read."""

    stated: Stated
    understood: Understanding
    missed: tuple[str, ...]    # facts that it states
    wrong: tuple[str, ...]     # facts that it was taken to state, among those that prompts of its type state

    @property
    def type_right(self) -> bool:
        return self.understood.image_type == self.stated.image_type


def stated() -> list[Stated]:
    with (HERE / "free_facts.csv").open(newline="", encoding="utf-8") as opened:
        return [Stated(row["set"], row["prompt"], row["image_type"], tuple(filter(None, row["facts"].split())))
                for row in csv.DictReader(opened)]


def read(one: Stated, support: list, asked: set[str]) -> Read:
    """asked: the facts that any prompt of this image type states."""
    u = understand(one.prompt, support)
    findings = closed(u.findings, u.image_type, u.view)
    places = {row[1] for row in support if row[0] == u.image_type}
    said = {u.anatomy, u.view, u.technique, u.laterality} | {name for name, present in findings.items() if present}
    if u.image_type:
        said |= {IMAGE_TYPES[u.image_type].default_anatomy} | (places if len(places) == 1 else set())
    denied = {name for name, present in findings.items() if not present}
    missed = tuple(f for f in one.facts if (f[1:] not in denied if f.startswith("!") else f not in said))
    claimed = {name for name, present in u.findings.items() if present} & asked
    known = closed({f: True for f in one.facts if not f.startswith("!")}, one.image_type)
    return Read(one, u, missed, tuple(sorted(name for name in claimed if not known.get(name))))


def rows_of(of: dict[str, list[Read]]) -> list[list]:
    """A row of the table a group of prompts."""
    rows = []
    for name, reads in of.items():
        n = len(reads)
        facts, missed, right = (np.array(values) for values in (
            [len(r.stated.facts) for r in reads], [len(r.missed) for r in reads], [r.type_right for r in reads]))
        types = intervals.estimate(lambda k, right=right: float(right[k].mean()), n, share=True)
        found = intervals.estimate(lambda k, missed=missed, facts=facts: 1 - missed[k].sum() / facts[k].sum(), n, share=True)
        rows.append([name, types.text, f"{facts.sum() - missed.sum()} of {facts.sum()}",
                     f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]", sum(bool(r.wrong) for r in reads),
                     sum(not r.understood.not_understood for r in reads)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model folder, else the one that ships: where a prompt leaves its image type "
                                                   "open, what it was trained on decides")
    parser.add_argument("-o", "--out", type=Path, help="a folder for reading.md, and misread.md with each prompt that was")
    given = parser.parse_args()
    support = learnt.support_of(shipped.folder(given.model))
    rows = stated()
    asked = {kind: {f.lstrip("!") for row in rows if row.image_type == kind for f in row.facts} for kind in IMAGE_TYPES}
    reads = [read(row, support, asked[row.image_type]) for row in rows]
    by_set = {f"set {name}": [r for r in reads if r.stated.of == name] for name in sorted({row.of for row in rows})}
    kinds = [kind for kind in IMAGE_TYPES if asked[kind]]
    by_type = {IMAGE_TYPES[kind].label: [r for r in reads if r.stated.image_type == kind] for kind in kinds}
    head = ("", "image type right", "facts found", "share", "prompts with a fact too many", "with every word understood")
    text = (f"# Reading\n\n{len(rows)} prompts in free wording; 95 % intervals over prompts. Set D was never looked at, A to C "
            f"were while wordings were added.\n\n{intervals.table(head, rows_of(by_set | by_type))}")
    print(text)
    if given.out:
        misread = [f"- {r.stated.prompt}\n  - {sentence(r.understood)}\n  - missed: {', '.join(r.missed) or 'nothing'}; too many: "
                   f"{', '.join(r.wrong) or 'none'}" for r in reads if r.missed or r.wrong or not r.type_right]
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "reading.md").write_text(text, encoding="utf-8")
        (given.out / "misread.md").write_text("\n".join(["# Misread\n", *misread, ""]), encoding="utf-8")
        print(f"{given.out / 'misread.md'} lists the {len(misread)} that were misread")


if __name__ == "__main__":
    main()
