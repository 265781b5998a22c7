"""Reading: of how many prompts in free wording is the image type understood, and how many of the facts that they state?

    python benchmarks/reading.py [-o out/reading]

The prompts of free_facts.csv were written by someone who knew the terms of MediSyn-S and neither the vocabulary's wordings nor the
reader. Set A was looked at while wordings were added, B and C after they had been counted once, D not at all. A row holds what a
careful reader finds stated in the prompt or following from it; "!" in front of a fact says that it is denied. No image is made.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

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


def table(of: dict[str, list[Read]]) -> str:
    lines = ["| | prompts | image type | facts found | prompts with a fact too many | every word understood |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name, reads in of.items():
        facts, missed = sum(len(r.stated.facts) for r in reads), sum(len(r.missed) for r in reads)
        counts = [sum(r.type_right for r in reads), f"{facts - missed} of {facts} ({1 - missed / facts:.1%})",
                  sum(bool(r.wrong) for r in reads), sum(not r.understood.not_understood for r in reads)]
        lines.append(f"| {name} | {len(reads)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model folder, else the one that ships: where a prompt leaves its image type "
                                                   "open, what it was trained on decides")
    parser.add_argument("-o", "--out", type=Path, help="a folder for reading.md, which also lists what was misread")
    given = parser.parse_args()
    support = learnt.support_of(shipped.folder(given.model))
    rows = stated()
    asked = {kind: {f.lstrip("!") for row in rows if row.image_type == kind for f in row.facts} for kind in IMAGE_TYPES}
    reads = [read(row, support, asked[row.image_type]) for row in rows]
    by_set = {f"set {name}": [r for r in reads if r.stated.of == name] for name in sorted({row.of for row in rows})}
    by_type = {IMAGE_TYPES[kind].label: mine for kind in IMAGE_TYPES if (mine := [r for r in reads if r.stated.image_type == kind])}
    text = f"# Reading\n\n{table(by_set)}\n\n{table(by_type)}\n"
    print(text)
    if given.out:
        misread = [f"- {r.stated.prompt}\n  - {sentence(r.understood)}\n  - missed: {', '.join(r.missed) or 'nothing'}; too many: "
                   f"{', '.join(r.wrong) or 'none'}" for r in reads if r.missed or r.wrong or not r.type_right]
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "reading.md").write_text("\n".join([text, "## Misread\n", *misread, ""]), encoding="utf-8")
        print(f"{given.out / 'reading.md'} lists the {len(misread)} that were misread")


if __name__ == "__main__":
    main()
