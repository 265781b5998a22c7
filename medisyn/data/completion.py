"""Completion: what a prompt leaves open, drawn from the training images that show what it asks for.

A sentence names a few facts, a training image has them all, and a denoiser that is told all of them draws better: of
"platelets on a blood smear" alone 8 % were recognised as blood smears, with view and stain added 88 %. The rest is drawn
as often as it goes with what was asked for, p(image | asked) = sum over rest of p(rest | asked) p(image | asked, rest), so
that a set of images stays as varied as the training images are. What was drawn is no label: it stands in the sentence
that the network read, and nowhere else.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medisyn.data.understanding import SLOTS, Understanding, lack, shown
from medisyn.data.vocabulary import IMAGE_TYPES, closed, label

PRESENT, ABSENT, COUNT, STYLES = 5, 6, 7, 8  # columns of a support row; STYLES: how often each style cluster occurs in it


@dataclass(frozen=True)
class Completion:
    """A prompt's facts with the rest of one training combination, and a style cluster that occurs in it."""

    facts: Understanding
    style: int | None  # None: no training image shows this image type


def complete(understood: Understanding, support: Sequence[Sequence], seed: int, pretrained: bool = False) -> Completion:
    """Draw the rest by the seed, from the training combinations that lack least of what was asked for.

    Findings are added only where a combination shows all of it. What no image of this type shows or lacks ("right" of a brain)
    is not told to the network, which never learnt it; a pretrained one may know it from elsewhere.
    """
    mine = [row for row in support if row[0] == understood.image_type]
    if not mine:
        return Completion(understood, None)
    rows = [row for row in mine if lack(understood, row) == 0]
    whole = bool(rows)
    if not whole:
        meant = closed_facts(understood)
        lacks = [lack(meant, row) for row in mine]
        least = min(lacks)
        rows = [row for row, lacking in zip(mine, lacks, strict=True) if lacking == least]
    rng = np.random.default_rng([seed, 1])
    row = rows[chosen(rng, [row[COUNT] for row in rows])]
    styles = sorted((int(style), n) for style, n in row[STYLES].items())
    style = styles[chosen(rng, [n for _, n in styles])][0] if styles else None
    told = understood if whole or pretrained else learnt(understood, mine)
    return Completion(filled(told, row, findings=whole), style)


def closed_facts(understood: Understanding) -> Understanding:
    """An understanding with all that follows from its findings: of "normal", that no disease is there."""
    return dataclasses.replace(understood, findings=closed(understood.findings, understood.image_type, understood.view))


def learnt(understood: Understanding, rows: Sequence[Sequence]) -> Understanding:
    """The facts of an understanding that some of the rows show, or lack where it denies them."""
    slots = {slot: None for at, slot in enumerate(SLOTS) if slot not in ("image_type", "anatomy")
             and getattr(understood, slot) not in {row[at] for row in rows}}
    if understood.anatomy and not any(shown(row[1], understood.anatomy) for row in rows):
        slots["anatomy"] = IMAGE_TYPES[rows[0][0]].default_anatomy
    known = {(name, present) for row in rows for present, at in ((True, PRESENT), (False, ABSENT)) for name in row[at]}
    findings = {name: present for name, present in understood.findings.items() if (name, present) in known}
    return dataclasses.replace(understood, **slots, findings=findings)


def unlearnt(understood: Understanding, support: Sequence[Sequence]) -> list[str]:
    """The labels of what is asked for and no training image of the image type shows; what follows from it is not repeated."""
    rows = [row for row in support if row[0] == understood.image_type]
    if not rows:
        return []
    known = learnt(understood, rows)
    words = [word for slot in SLOTS if (word := getattr(understood, slot)) != getattr(known, slot)]
    lost = [name for name, present in understood.findings.items() if present and name not in known.findings]
    follows = {name for one in lost for name in closed({one: True}) if name != one}
    return [label(word) for word in (*words, *(name for name in lost if name not in follows))]


def filled(understood: Understanding, row: Sequence, findings: bool) -> Understanding:
    """The facts with what the row knows and they leave open; a place more exact than the row's stays."""
    slots = {slot: has for slot, has in zip(SLOTS, row, strict=False) if has and getattr(understood, slot) is None}
    more = {name: True for name in row[PRESENT] if name not in understood.findings} if findings else {}
    return dataclasses.replace(understood, **slots, findings={**understood.findings, **more})


def chosen(rng: np.random.Generator, counts: Sequence[int]) -> int:
    """An index, as often as its count."""
    weight = np.asarray(counts, float)
    return int(rng.choice(len(weight), p=weight / weight.sum()))

