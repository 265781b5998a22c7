"""Facts: what a record or an understood prompt states, as numbers a network can be asked about."""

from typing import Protocol

import numpy as np

from medisyn.data import vocabulary

UNSTATED, PRESENT, ABSENT = 0, 1, 2
KINDS = ("image_type", "anatomy", "view", "technique", "laterality", "sex", "finding")
AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 75), (75, 200))  # years: from, below


class Stated(Protocol):
    """Anything with a record's facts: a `Record`, an `Understanding`."""

    image_type: str | None
    anatomy: str | None
    view: str | None
    technique: str | None
    laterality: str | None
    findings: dict[str, bool]
    age_years: float | None
    sex: str | None


def names() -> tuple[str, ...]:
    """Every fact there is, in a fixed order."""
    found = [term.name for kind in KINDS for term in vocabulary.terms_of(kind)]
    return tuple(dict.fromkeys(found)) + tuple(f"age_{a}_{b}" for a, b in AGE_BANDS)


def states(stated: Stated, of: tuple[str, ...]) -> np.ndarray:
    """UNSTATED, PRESENT or ABSENT for each name: int64 (len(of),). Words that are not among `of` are passed over."""
    found = np.zeros(len(of), np.int64)
    place = {name: i for i, name in enumerate(of)}
    words = (stated.image_type, stated.anatomy, stated.view, stated.technique, stated.laterality, stated.sex)
    facts = {word: True for word in words if word} | stated.findings
    if stated.age_years is not None:
        facts |= {f"age_{a}_{b}": True for a, b in AGE_BANDS if a <= stated.age_years < b}
    for name, present in facts.items():
        if name in place:
            found[place[name]] = PRESENT if present else ABSENT
    return found
