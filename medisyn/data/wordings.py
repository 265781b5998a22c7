"""Wordings: the templates and turns of phrase that put the facts of a record into a prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from medisyn.data.records import Record
from medisyn.data.vocabulary import IMAGE_TYPES, TERMS, Term, label

if TYPE_CHECKING:  # whoever has a generator has paid for numpy's import already
    import numpy as np

REGISTERS = ("keywords", "phrase", "sentence", "report", "abbreviations")
# Holes: each says one fact in one way, and stays empty where the fact is unknown or already said.
PHRASES = (
    "{normal}{image}{view}{technique}{who}{present}{absent}",
    "{normal}{image}{who}{view}{technique}{present}{absent}",
    "{image}{view}{who}{technique}{present}{absent}",
    "{image}{technique}{present}{who}{view}{absent}",
    "a {normal}{image}{view}{technique}{present}{absent}{who}",
    "{view_front}{normal}{image}{technique}{who}{present}{absent}",
    "{technique_front}{normal}{image}{view}{who}{present}{absent}",
    "{technique_front}{view_front}{normal}{image}{present}{absent}{who}",
    "{view_front}{technique_front}{image}{who}{present}{absent}",
    "{who_front}{normal}{image}{view}{technique}{present}{absent}",
    "{who_front}{view_front}{technique_front}{image}{present}{absent}",
    "{finding_front}{normal}{image}{view}{technique}{who}{absent}",
    "{finding_front}{view_front}{normal}{image}{technique}{who}{absent}",
    "{finding_front}{technique_front}{image}{view}{who}{absent}",
)
SENTENCES = (
    "This {normal}{image}{view}{technique}{who} {shows}. {lacks}",
    "This is a {normal}{image}{view}{technique}{who}. {it_shows} {lacks}",
    "A {image}{who}. {it_shows} {lacks} {view_said} {technique_said}",
    "The {view_front}{technique_front}{image} {shows}. {lacks} {who_said}",
    "A {normal}{image}{who}{technique}. {it_shows} {view_said} {lacks}",
    "{who_said} {image}{view}{technique}. {it_shows} {lacks}",
    "This {view_front}{image}{technique}{who} {shows}. {normal_said} {lacks}",
    "{it_shows} This is a {normal}{image}{view}{technique}{who}. {lacks}",
    "We see a {technique_front}{normal}{image}{view}{who}. {it_shows} {lacks}",
    "{image}{view}{technique}{who}. {normal_said} {it_shows} {lacks}",
    "Shown is a {normal}{image}. {view_said} {technique_said} {who_said} {it_shows} {lacks}",
    "There is a {view_front}{technique_front}{normal}{image}{who}. {it_shows} {lacks}",
    "The patient's {image}{view}{technique} {shows}. {lacks} {who_said} {normal_said}",
    "{who_said} The {technique_front}{image}{view} {shows}. {normal_said} {lacks}",
)
REPORTS = (
    "EXAM: {image}{view}{technique}. {patient_point} {findings_point}",
    "Examination: {image}. {view_point} {technique_point} {patient_point} {findings_point}",
    "{image}{view}. {technique_point} {findings_point} {patient_point}",
    "{patient_point} STUDY: {image}. {technique_point} {view_point} {findings_point}",
    "PROCEDURE: {image}. {findings_point} {patient_point} {view_point} {technique_point}",
    "Modality: {image}.\n{view_point}\n{technique_point}\n{patient_point}\n{findings_point}",
    "{patient_point}\n{image}.\n{view_point} {technique_point}\n{findings_point}",
    "{specialty_point} {image}. {patient_point} {view_point} {technique_point} {findings_point}",
    "REPORT. {image}{view}. {patient_point} {technique_point} {findings_point}",
    "{patient_point} Image: {image}. {technique_point} {view_point} {findings_point}",
    "Study: {image}. {patient_point} {findings_point} {view_point} {technique_point}",
    "{technique_point} {view_point} {image}. {findings_point} {patient_point}",
)
LAST = ("normal_said", "it_shows", "lacks", "view_said", "technique_said",
        "who_said")  # for facts a template has no hole for
FACTS = ("normal", "view", "technique", "who", "present", "absent", "findings")
ALONE = {"mammography": "breast", "fundus_photograph": "eye",
         "oct": "eye"}  # what a side belongs to where no anatomy is named
AN = r"[aeioAEIO]|M[RLS]|X-ray|N[BC]|FLAIR|H&E|un[a-z]|ult|USS?\b|8\d?[ -]|1[18][ -]"  # what "an" stands before


def worded(record: Record, rng: np.random.Generator, register: str | None = None) -> str:
    """Every fact of a record in one register, once."""
    register = register or pick(rng, REGISTERS)
    if register not in REGISTERS:
        raise ValueError(f"expected a register, one of {', '.join(REGISTERS)}; found {register!r}")
    if register in ("keywords", "abbreviations"):
        return _keywords(record, rng, short=register == "abbreviations")
    left = set(FACTS)

    def fill(hole: str) -> str:
        for say, fact in HOLES[hole]:
            words = say(record, rng) if fact is None or fact in left else ""
            if words:
                left.difference_update(("normal", "present", "absent", "findings") if fact == "findings" else (fact,))
                return words
        return ""

    template = pick(rng, {"phrase": PHRASES, "sentence": SENTENCES, "report": REPORTS}[register])
    text = re.sub(r"\{(\w+)\}", lambda hole: fill(hole[1]), template)
    rest = [words for words in map(fill, LAST) if words]
    return _tidy(". ".join([text, *rest]), full=register != "phrase")


def _keywords(record: Record, rng: np.random.Generator, short: bool) -> str:
    """The bare words in any order; what is absent comes last, lest its "no" reach what is present."""
    words = [_say(TERMS[name], rng, short) for name in (record.view, record.technique, *_names(record, True)) if name]
    words += [_image(record, rng, short), _who(record, rng, short), _normal(record, rng, short).strip()]
    no = pick(rng, ("no", "w/o", "neg for") if short else ("no", "without", "negative for", "no"))
    absent = [f"{no} {_say(TERMS[name], rng, short)}" for name in _names(record, False)]
    between = pick(rng, (", ", ", ", " / ", "; ", ". ") if short else (", ", ", ", "; ", " | "))
    return between.join([*_shuffled(rng, [word for word in words if word]), *_shuffled(rng, absent)])


# ---- one fact at a time ---------------------------------------------------------------------------------------------

def _image(record: Record, rng: np.random.Generator, short: bool = False) -> str:
    """The image type with its place and side: "X-ray of the left knee"."""
    kind = IMAGE_TYPES[record.image_type]
    place = TERMS[record.anatomy] if record.anatomy and record.anatomy != kind.default_anatomy else None
    if short:
        head = pick(rng, kind.abbreviations)
    elif record.anatomy and kind.heads and rng.random() < 0.3:
        head, place = pick(rng, kind.heads), TERMS[record.anatomy]
    else:
        head = pick(rng, (kind.label, kind.label, *kind.synonyms))
    if place is None and record.laterality is None:
        return head
    if place is None:
        where = f"{label(record.laterality)} {ALONE.get(kind.name, 'side')}"
        return pick(rng, (f"{head} of the {where}", f"{head}, {where}", f"{head} ({where})"))
    side = _say(TERMS[record.laterality], rng, short) if record.laterality else ""
    where = f"{side} {_say(place, rng, short)}".strip()
    if " of " in where or " of " in head:
        return pick(rng, (f"{head}, {where}", f"{head} ({where})"))
    return pick(rng, (f"{where} {head}", f"{head} of the {where}", f"{head}, {where}", f"{where} {head}"))


def _normal(record: Record, rng: np.random.Generator, short: bool = False) -> str:
    if record.findings.get("normal") is None:
        return ""
    if not record.findings["normal"]:
        return pick(rng, ("abnormal ", "abnormal ", "pathological "))
    return pick(rng, ("normal ", "WNL ", "NAD ", "healthy ") if short else ("normal ", "healthy ", "unremarkable "))


def _normal_said(record: Record, rng: np.random.Generator) -> str:
    if record.findings.get("normal") is None:
        return ""
    if not record.findings["normal"]:
        return pick(rng, ("The image is abnormal.", "The appearance is pathological.", "Abnormal."))
    return pick(rng, ("No abnormality.", "The image is normal.", "The findings are unremarkable.", "Normal.",
                      "There is no abnormality.", "Normal appearance.", "No pathology is seen."))


def _who(record: Record, rng: np.random.Generator, short: bool = False, noun: bool = False) -> str:
    """Age and sex, "54-year-old woman", "F 54", or the one that is known; `noun`: to stand behind an article."""
    age, sex = record.age_years, record.sex
    if age is None:
        if sex is None:
            return ""
        if short and rng.random() < 0.5:
            return {"female": "F", "male": "M"}[sex]
        return pick(rng, {"female": ("female", "woman", "female patient"),
                          "male": ("male", "man", "male patient")}[sex])
    years = f"{age:g}"
    if sex is None:
        if short:
            return pick(rng, (f"{years} y/o", f"age {years}", f"{years}yo"))
        forms = (f"{years}-year-old patient", f"{years}-year-old", f"patient aged {years}", f"patient of {years} years")
        return pick(rng, forms if noun else (*forms, f"aged {years}", f"{years} years old"))
    letter = {"female": "F", "male": "M"}[sex]
    if short:
        return pick(rng, (f"{letter} {years}", f"{years}{letter}", f"{years} y/o {letter}", f"{years}yo {letter}",
                          f"{letter}{years}", f"{years} y/o {letter.lower()}"))
    person = {"female": ("girl", "woman"), "male": ("boy", "man")}[sex][age >= 16]
    forms = (f"{years}-year-old {person}", f"{years} year old {sex}", f"{person} aged {years}",
             f"{years}-year-old {sex} patient", f"{person} of {years} years")
    return pick(rng, forms if noun else (*forms, f"{sex}, {years} years old"))


def _listing(present: bool, *frames: str) -> Callable[[Record, np.random.Generator], str]:
    """The findings present, or absent, within one of several frames; "[one|more]" agrees with their number."""
    def say(record: Record, rng: np.random.Generator) -> str:
        names = [_say(TERMS[name], rng) for name in _shuffled(rng, _names(record, present))]
        if not names:
            return ""
        frame = re.sub(r"\[(\w+)\|(\w+)\]", r"\1" if len(names) == 1 else r"\2", pick(rng, frames))
        return frame.format(names[0] if len(names) == 1 else
                            ", ".join(names[:-1]) + (" and " if present else " or ") + names[-1])
    return say


def _findings_point(record: Record, rng: np.random.Generator) -> str:
    points = [_listing(True, "{}.", "{}.", "{} present.", "Evidence of {}.")(record, rng), _normal_said(record, rng)]
    if rng.random() < 0.6:
        points.append(_listing(False, "No {}.", "Negative for {}.", "No evidence of {}.")(record, rng))
    else:
        for name in _shuffled(rng, _names(record, False)):
            points.append(pick(rng, ("No {}.", "{}: absent.", "{} not seen.", "{} ruled out.")).format(_say(TERMS[name],
                                                                                                            rng)))
    words = " ".join(point[0].upper() + point[1:] for point in points if point)
    head = pick(rng, ("FINDINGS: ", "Findings: ", "IMPRESSION: ", "Impression: ", "", "Conclusion: ", "RESULT: "))
    return head + words if words else ""


def _framed(field: str, *frames: str) -> Callable[[Record, np.random.Generator], str]:
    """One field within one of several frames."""
    def say(record: Record, rng: np.random.Generator) -> str:
        name = getattr(record, field)
        return pick(rng, frames).format(_say(TERMS[name], rng)) if name else ""
    return say


def _person(noun: bool, *frames: str) -> Callable[[Record, np.random.Generator], str]:
    def say(record: Record, rng: np.random.Generator) -> str:
        who = _who(record, rng, noun=noun)
        return pick(rng, frames).format(who) if who else ""
    return say


def _specialty(record: Record, rng: np.random.Generator) -> str:
    return f"{label(IMAGE_TYPES[record.image_type].specialty)}."


HOLES: dict[str, tuple[tuple[Callable[[Record, np.random.Generator], str], str | None], ...]] = {
    # hole: ways to fill it, each with the fact that it says; the first that has something to say is taken
    "image": ((_image, None),),
    "normal": ((_normal, "normal"),),
    "normal_said": ((_normal_said, "normal"),),
    "view": ((_framed("view", ", {} view", " ({})", ", {}", " in {} view"), "view"),),
    "view_front": ((_framed("view", "{} ", "{} view, "), "view"),),
    "view_said": ((_framed("view", "The view is {}.", "{} view.", "View: {}."), "view"),),
    "view_point": ((_framed("view", "View: {}.", "VIEW: {}.", "Projection: {}.", "{} view."), "view"),),
    "technique": ((_framed("technique", ", {}", " ({})", ", technique {}", " [{}]"), "technique"),),
    "technique_front": ((_framed("technique", "{} ", "{}, "), "technique"),),
    "technique_said": ((_framed("technique", "The technique is {}.", "Technique: {}.", "Technique {}."), "technique"),),
    "technique_point": ((_framed("technique", "Technique: {}.", "TECHNIQUE: {}.", "Technique {}."), "technique"),),
    "who": ((_person(True, " of a {}", " from a {}", " in a {}", ", {}", " ({})"), "who"),),
    "who_front": ((_person(False, "{}, ", "{}: ", "{} - "), "who"),),
    "who_said": ((_person(True, "The patient is a {}.", "Patient: {}.", "The image is from a {}.",
                          "It was taken in a {}."), "who"),),
    "patient_point": ((_person(False, "Patient: {}.", "PATIENT: {}.", "{}.", "Clinical: {}.", "History: {}."), "who"),),
    "present": ((_listing(True, " with {}", " showing {}", " demonstrating {}", ", {} present", ", {}",
                          " with evidence of {}", " consistent with {}"), "present"),),
    "finding_front": ((_listing(True, "{} on ", "{}, ", "{} in a ", "{}: "), "present"),),
    "absent": ((_listing(False, ", no {}", ", without {}", " and no evidence of {}", ", negative for {}",
                         ", free of {}", ", with no sign of {}", " without {}"), "absent"),),
    "shows": ((_listing(True, "shows {}", "demonstrates {}", "reveals {}", "is consistent with {}", "displays {}",
                        "has {}"), "present"),
              (_listing(False, "shows no {}", "is free of {}", "has no {}", "is negative for {}"), "absent"),
              (lambda record, rng: pick(rng, ("is shown", "is presented", "can be seen")), None)),
    "it_shows": ((_listing(True, "It shows {}.", "There is evidence of {}.", "Findings include {}.", "{} can be seen.",
                           "{} [is|are] present.", "We note {}."), "present"),),
    "lacks": ((_listing(False, "There is no {}.", "No {} is seen.", "It is negative for {}.",
                        "There is no evidence of {}.", "It is free of {}.", "No sign of {}."), "absent"),),
    "findings_point": ((_findings_point, "findings"),),
    "specialty_point": ((_specialty, None),),
}


def _names(record: Record, present: bool) -> list[str]:
    return [name for name, value in record.findings.items() if value is present and name != "normal"]


def _say(term: Term, rng: np.random.Generator, short: bool = False) -> str:
    """One wording of a term: mostly its label, then a synonym; an abbreviation where it is to be short."""
    if term.abbreviations and rng.random() < (0.85 if short else 0.08):
        return pick(rng, term.abbreviations)
    return pick(rng, term.synonyms) if term.synonyms and rng.random() < 0.5 else term.label


def pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _shuffled(rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))]


def _tidy(text: str, full: bool) -> str:
    """Mend the seams that empty holes leave; `full` makes sentences of it."""
    text = re.sub(r" +", " ", text).strip()
    text = re.sub(r" +([.,;:])", r"\1", text)
    text = re.sub(r"\.(?:\s*\.)+", ".", text)
    text = re.sub(r" *\n\s*", "\n", text)
    text = re.sub(rf"\b([Aa]) (?={AN})", r"\1n ", text)
    if not full:
        return text.strip(" .,")
    text = re.sub(r"(^|[.:]\s+|\n)([a-z])", lambda start: start[1] + start[2].upper(), text).strip()
    return text if text.endswith(".") else f"{text}."
