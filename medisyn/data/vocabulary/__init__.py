"""The vocabulary: the words that sources, prompts and training share.

A word that is not here is a mistake in a record and "not understood" in a prompt. To add
one, add a `Term`: nothing else keeps a list.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache

from medisyn.data.records import Record
from medisyn.data.vocabulary.findings import FINDINGS as FIRST_FINDINGS
from medisyn.data.vocabulary.findings import STRANGE
from medisyn.data.vocabulary.image_types import IMAGE_TYPE_LIST, SPECIALTY_LIST
from medisyn.data.vocabulary.places import ANATOMY, SEXES, SIDES, TECHNIQUES, VIEWS
from medisyn.data.vocabulary.radiological import RADIOLOGICAL
from medisyn.data.vocabulary.terms import KINDS, ImageType, Term, fold
from medisyn.data.vocabulary.visible import VISIBLE

__all__ = ["IMAGE_TYPES", "KINDS", "SPECIALTIES", "STRANGE", "TERMS", "ImageType", "Term", "applicable", "check", "closed", "find",
           "fold", "label", "nearest", "terms_of", "wordings"]

FINDINGS = (*FIRST_FINDINGS, *RADIOLOGICAL, *VISIBLE)
SPECIALTIES: dict[str, Term] = {term.name: term for term in SPECIALTY_LIST}
IMAGE_TYPES: dict[str, ImageType] = {term.name: term for term in IMAGE_TYPE_LIST}
TERMS: dict[str, Term] = {term.name: term for term in (
    *SPECIALTY_LIST, *IMAGE_TYPE_LIST, *ANATOMY, *VIEWS, *TECHNIQUES, *SIDES, *SEXES, *FINDINGS)}

FIELDS = ("specialty", "anatomy", "view", "technique", "laterality", "sex")  # of a record, each a kind of term
PARENTS = {term.name: term.implies for term in FINDINGS if term.implies}
CHILDREN = {name: tuple(child for child, parents in PARENTS.items() if name in parents) for name in TERMS}
CELL_GROUPS = ("cell", "neutrophil", "granulocyte")  # these exclude each other in a picture of one cell only
GROUPS: dict[str, tuple[str, ...]] = {}
for _term in FINDINGS:
    if _term.group:
        GROUPS[_term.group] = (*GROUPS.get(_term.group, ()), _term.name)


def terms_of(kind: str) -> list[Term]:
    """The terms of one kind of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"expected a kind of term, one of {', '.join(KINDS)}; found {kind!r}")
    return [term for term in TERMS.values() if term.kind == kind]


def applicable(kind: str, image_type: str) -> list[Term]:
    """The terms of a kind that apply to an image type; those that apply everywhere come too."""
    return [term for term in terms_of(kind) if term.applies_to(image_type)]


def label(name: str) -> str:
    """A word as it stands in a sentence; a word of nobody's comes back readable."""
    return TERMS[name].label if name in TERMS else name.replace("_", " ")


def wordings(term: Term) -> tuple[str, ...]:
    """Everything people write for a term that needs no context."""
    return (term.name.replace("_", " "), term.label, *term.synonyms, *term.abbreviations, *term.typed)


def find(word: str) -> Term | None:
    """The term of a name, a label or a synonym, whatever its case; None where there is none."""
    if word in TERMS:
        return TERMS[word]
    return _spoken().get(_plain(word))


def nearest(words: str, n: int = 3) -> list[str]:
    """The labels of the terms whose wordings are spelt most like these words or hold one of them, best first."""
    asked, spoken = _plain(words), _spoken()
    close = difflib.get_close_matches(asked, spoken, 4 * n, cutoff=0.7) if len(asked) > 2 else []
    parts = {part for part in asked.split() if len(part) > 4}
    close += [wording for wording in spoken if parts & set(wording.split())]
    return list(dict.fromkeys(spoken[wording].label for wording in close))[:n]


def closed(findings: Mapping[str, bool], image_type: str | None = None, view: str | None = None) -> dict[str, bool]:
    """Findings with all that follows from them; what was said is never overruled.

    Bacterial pneumonia present: pneumonia present, normal absent. Pneumonia absent: bacterial
    pneumonia absent. Normal: every abnormal finding
    of its image type absent. One of a group present (a Kellgren-Lawrence grade): the others absent; the
    kinds of blood cell exclude each other only where a single cell is shown.
    """
    known = dict(findings)
    waiting = list(known)
    while waiting:
        name = waiting.pop()
        term, present = TERMS.get(name), known[name]
        if term is None:
            continue
        follows = dict.fromkeys(term.implies, True) if present else dict.fromkeys(CHILDREN.get(name, ()), False)
        if present and term.abnormal:
            follows["normal"] = False
        if present and name == "normal" and image_type:
            follows |= {other.name: False for other in FINDINGS if other.abnormal and image_type in other.image_types}
        if present and term.group and (term.group not in CELL_GROUPS or view == "single_cell"):
            follows |= {other: False for other in GROUPS[term.group] if other != name}
        for other, value in follows.items():
            if other not in known and TERMS[other].applies_to(image_type):
                known[other] = value
                waiting.append(other)
    return known


def check(record: Record) -> list[str]:
    """What is wrong with the words of a record, a sentence a problem; [] when all are known and fit."""
    problems = []
    if record.image_type not in IMAGE_TYPES:
        problems.append(_unknown("image type", record.image_type, IMAGE_TYPES))
    elif record.specialty not in (None, IMAGE_TYPES[record.image_type].specialty):
        problems.append(f"{record.image_type} belongs to {IMAGE_TYPES[record.image_type].specialty}, "
                        f"found specialty {record.specialty!r}")
    for kind in FIELDS:
        word = getattr(record, kind)
        if word is not None:
            problems += _misfit(record, kind, word)
    for word in record.findings:
        problems += _misfit(record, "finding", word)
    if record.age_years is not None and not 0 <= record.age_years <= 120:
        problems.append(f"age_years {record.age_years} should lie in 0..120")
    return [f"{record.id}: {problem}" for problem in problems]


def _misfit(record: Record, kind: str, word: str) -> list[str]:
    term = TERMS.get(word)
    if term is None or term.kind != kind:
        return [_unknown(kind, word, [t.name for t in terms_of(kind)])]
    if record.image_type in IMAGE_TYPES and not term.applies_to(record.image_type):
        return [f"{kind} {word!r} does not apply to {record.image_type}, only to {', '.join(term.image_types)}"]
    return []


def _unknown(kind: str, word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, cutoff=0.5)
    return f"{kind} {word!r} is not in the vocabulary" + (f"; did you mean {near[0]!r}?" if near else "")


def _plain(words: str) -> str:
    return " ".join(fold(word) for word in words.replace("-", " ").replace("_", " ").split())


@cache
def _spoken() -> dict[str, Term]:
    """Every wording that needs no context, folded, with its term; the first term that claims one has it."""
    terms: dict[str, Term] = {}
    for term in TERMS.values():
        for wording in wordings(term):
            terms.setdefault(_plain(wording), term)
    return terms
