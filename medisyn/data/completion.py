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

from medisyn.data import vocabulary
from medisyn.data.understanding import SLOTS, Understanding

PRESENT, ABSENT, COUNT, STYLES = 5, 6, 7, 8  # columns of a support row; STYLES: how often each style cluster occurs in it


@dataclass(frozen=True)
class Completion:
    """A prompt's facts with the rest of one training combination, and a style cluster that occurs in it."""

    facts: Understanding
    style: int | None  # None: no training image shows this image type


def complete(understood: Understanding, support: Sequence[Sequence], seed: int) -> Completion:
    """Draw the rest by the seed. Findings are added only where a training combination shows all that was asked for."""
    if understood.image_type is None:
        return Completion(understood, None)
    for wanted in (understood, dataclasses.replace(understood, findings={}), Understanding(image_type=understood.image_type)):
        rows = [row for row in support if matches(wanted, row)]
        if rows:
            break
    else:
        return Completion(understood, None)
    rng = np.random.default_rng([seed, 1])
    row = rows[chosen(rng, [row[COUNT] for row in rows])]
    styles = sorted((int(style), n) for style, n in row[STYLES].items())
    style = styles[chosen(rng, [n for _, n in styles])][0] if styles else None
    return Completion(filled(understood, row, findings=wanted is understood), style)


def filled(understood: Understanding, row: Sequence, findings: bool) -> Understanding:
    """The facts with what the row knows and they leave open; a place more exact than the row's stays."""
    slots = {slot: has for slot, has in zip(SLOTS, row, strict=False) if has and getattr(understood, slot) is None}
    more = {name: True for name in row[PRESENT] if name not in understood.findings} if findings else {}
    return dataclasses.replace(understood, **slots, findings={**understood.findings, **more})


def chosen(rng: np.random.Generator, counts: Sequence[int]) -> int:
    """An index, as often as its count."""
    weight = np.asarray(counts, float)
    return int(rng.choice(len(weight), p=weight / weight.sum()))


def matches(understood: Understanding, row: Sequence) -> bool:
    """Whether the training images of a support row show everything that was understood of a prompt."""
    if any(wanted not in (None, has) for wanted, has in
           zip((getattr(understood, slot) for slot in SLOTS if slot != "anatomy"),
               (has for slot, has in zip(SLOTS, row, strict=False) if slot != "anatomy"), strict=False)):
        return False
    default = vocabulary.IMAGE_TYPES[row[0]].default_anatomy
    if understood.anatomy not in (None, row[1], default):
        return False
    return all(name in (row[PRESENT] if present else row[ABSENT]) for name, present in understood.findings.items())
