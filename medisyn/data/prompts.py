"""Prompts: a record put into words, in many wordings; what is unknown is never mentioned."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from medisyn.data.records import Record
from medisyn.data.understanding import Understanding, sentence, understand
from medisyn.data.vocabulary import IMAGE_TYPES, TERMS, Term, applicable, closed, label
from medisyn.data.wordings import REGISTERS, pick, worded

if TYPE_CHECKING:  # whoever has a generator has paid for numpy's import already
    import numpy as np

__all__ = ["REGISTERS", "Understanding", "canonical", "caption", "describe", "necessary", "noisy", "paraphrases",
           "random_record", "sentence", "understand"]

DROPPABLE = ("anatomy", "view", "technique", "laterality", "age_years", "sex")  # the image type is always said
TOLD_BROADLY = 0.3  # of the findings left unsaid, how many have their parent said: bacterial pneumonia as pneumonia
TOLD_TWICE = 0.04   # of the findings said, how many have their parent said as well
FILLERS = ("please generate", "an image of", "show me a", "I need", "generate", "create a picture of", "can you make",
           "give me", "sample of", "example of", "synthesise", "i want to see", "pls make")
TAILS = ("high quality", "for teaching", "please", "portable", "high resolution", "realistic", "ED", "4k", "thanks",
         "stat",
         "for my students", "ward round", "follow-up", "known case", "urgent", "typical", "from the archive", "adult",
         "elderly patient", "postoperative", "outpatient", "no priors", "as discussed")
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {key: row[i - 1:i] + row[i + 1:i + 2] for row in ROWS for i, key in enumerate(row)}
PAIRED = ("bone_xray", "ultrasound", "mammography", "fundus_photograph", "oct", "skin_photograph", "dermoscopy")


def describe(record: Record, rng: np.random.Generator, register: str | None = None, drop: float = 0.25) -> str:
    """A prompt for a record: each attribute but the image type is left out with probability `drop`.

    `register` is one of `REGISTERS`; None draws one.
    """
    return caption(record, rng, register, drop)[0]


def caption(record: Record, rng: np.random.Generator, register: str | None = None,
            drop: float = 0.25) -> tuple[str, Record]:
    """A prompt, and the record reduced to the facts that the prompt states.

    A fact is stated when it is said or follows from what is said (`vocabulary.closed`).
    """
    said, stated = reduced(record, rng, drop)
    return worded(said, rng, register), stated


def paraphrases(record: Record, rng: np.random.Generator, n: int, drop: float = 0.25) -> list[str]:
    """`n` wordings of one and the same subset of the facts; different ones as far as there are so many."""
    said, _ = reduced(record, rng, drop)
    texts = list(dict.fromkeys(worded(said, rng) for _ in range(2 * n)))[:n]
    return texts + [worded(said, rng) for _ in range(n - len(texts))]


def canonical(record: Record) -> str:
    """One fixed, plain sentence that names every known fact."""
    kind = IMAGE_TYPES[record.image_type]
    findings = necessary(record)
    place = record.anatomy if record.anatomy != kind.default_anatomy else None
    where = " ".join(word for word in (record.laterality, label(place) if place else "side") if word)
    parts = [kind.label + (f" of the {where}" if place else f", {where}" if record.laterality else "")]
    parts += [f"{label(record.view)} view"] if record.view else []
    parts += [label(record.technique)] if record.technique else []
    parts += [record.sex] if record.sex else []
    parts += [f"{record.age_years:g} years old"] if record.age_years is not None else []
    parts += ["normal" if findings["normal"] else "abnormal"] if "normal" in findings else []
    for present, no in ((True, ""), (False, "no ")):
        parts += [no + label(name) for name in TERMS if findings.get(name) is present and name != "normal"]
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def necessary(record: Record) -> dict[str, bool]:
    """The findings that must be said for all to be known: those that follow from others are left out."""
    said = dict(sorted(record.findings.items(), key=lambda fact: fact[1]))  # the absent are the first to go
    for name, present in list(said.items()):
        rest = {other: value for other, value in said.items() if other != name}
        if closed(rest, record.image_type, record.view).get(name) is present:
            said = rest
    return said


def reduced(record: Record, rng: np.random.Generator, drop: float) -> tuple[Record, Record]:
    """(what to say of a record, what is stated once that is said)."""
    kind = IMAGE_TYPES[record.image_type]
    kept = replace(record, **{name: None for name in DROPPABLE if rng.random() < drop})
    findings: dict[str, bool] = {}
    for name, present in necessary(kept).items():
        parents = {parent: True for parent in TERMS[name].implies if present and record.findings.get(parent)}
        if rng.random() >= drop:
            findings |= {name: present} | (parents if rng.random() < TOLD_TWICE else {})
        elif rng.random() < TOLD_BROADLY:
            findings |= parents
    said = replace(kept, findings=findings)
    follows = closed(findings, said.image_type, said.view)
    stated = {name: present for name, present in record.findings.items() if follows.get(name) is present}
    anatomy = record.anatomy if record.anatomy == kind.default_anatomy else said.anatomy  # a chest X-ray shows a chest
    return said, replace(said, findings=stated, anatomy=anatomy)


# ---- beyond the data ------------------------------------------------------------------------------------------------

def noisy(text: str, rng: np.random.Generator, rate: float = 0.05) -> str:
    """A prompt as people in a hurry type it: typos at `rate` a word, lost capitals and points, filler words."""
    text = " ".join(_slip(word, rng) if len(word) >= 5 and rng.random() < rate else word for word in text.split(" "))
    if rng.random() < 4 * rate:
        text = f"{pick(rng, FILLERS)} {text}"
    if rng.random() < 4 * rate:
        text = f"{text.rstrip('.')}, {pick(rng, TAILS)}"
    if rng.random() < 4 * rate:
        text = pick(rng, (text.lower(), text.lower(), text.upper(), text.title()))
    if rng.random() < 2 * rate:
        text = re.sub(r"[,;:](?=\s|$)|\.$", "", text)
    return text


def _slip(word: str, rng: np.random.Generator) -> str:
    """One slip of the fingers behind a word's first letter: keys swapped, missed, doubled or beside the right one."""
    at = int(rng.integers(1, len(word) - 1))
    before, here, after = word[:at], word[at], word[at + 1:]
    if not (here + after[0]).isalpha():
        return word
    beside = NEIGHBOURS.get(here.lower(), here)
    return pick(rng, (before + after[0] + here + after[1:], before + after, before + here + here + after,
                      before + pick(rng, beside) + after))


def random_record(rng: np.random.Generator) -> Record:
    """A plausible record of words that fit together, for prompts beyond the combinations that exist in images."""
    kind = IMAGE_TYPES[pick(rng, list(IMAGE_TYPES))]

    def one(what: str, share: float) -> str | None:
        fitting = [term.name for term in applicable(what, kind.name)]
        return pick(rng, fitting) if fitting and rng.random() < share else None

    default = kind.default_anatomy if rng.random() < 0.6 else None
    anatomy = default or one("anatomy", 1.0)
    view = one("view", 0.6)
    return Record(id=f"random-{int(rng.integers(2**31)):08x}", file_name="", image_type=kind.name,
                  specialty=kind.specialty,
                  view=view, technique=one("technique", 0.6), findings=_random_findings(kind.name, anatomy, view, rng),
                  anatomy=anatomy if rng.random() < 0.85 else None,
                  laterality=one("laterality", 0.4) if kind.name in PAIRED else None, sex=one("sex", 0.5),
                  age_years=float(round(rng.triangular(0, 60, 95))) if rng.random() < 0.5 else None)


def _random_findings(image_type: str, anatomy: str | None, view: str | None, rng: np.random.Generator) -> dict[str,
                                                                                                               bool]:
    """Up to three findings, none at odds with another, and some of what follows from them."""
    fitting: list[Term] = [term for term in applicable("finding", image_type)
                           if term.name != "normal" and (not term.sites or anatomy in term.sites)]
    draw = rng.random()
    chosen = {"normal": True} if draw < 0.15 else {"normal": False} if draw < 0.2 else {}
    for at in rng.permutation(len(fitting))[:int(rng.integers(0, 4))]:
        follows = closed(chosen, image_type, view)
        present = bool(rng.random() < 0.65)
        if all(follows.get(name, value) is value for name, value in closed({fitting[at].name: present}, image_type,
                                                                           view).items()):
            chosen[fitting[at].name] = present
    recorded = rng.random()
    return {name: present for name, present in closed(chosen, image_type, view).items()
            if present or name in chosen or rng.random() < recorded}
