"""Words: the vocabulary as a page needs it, and what a prompt is understood to say."""

import re
from collections.abc import Sequence
from dataclasses import asdict

from medisyn.data import prompts, vocabulary
from medisyn.data.understanding import SLOTS, nearest_known
from medisyn.data.vocabulary import IMAGE_TYPES, SPECIALTIES, label
from medisyn.web.orders import shown_findings

PLACES = SLOTS[1:]  # anatomy, view, technique, laterality
AGES = re.compile(r"\b(child(?:ren)?|bab(?:y|ies)|infants?|newborns?|neonat(?:es?|al)|toddlers?|p(?:a)?ediatric|adolescents?|"
                  r"teenagers?|adults?|elderly|geriatric)\b", re.IGNORECASE)  # of people, but no number of years


def tree(support: Sequence[Sequence]) -> list[dict]:
    """Specialty -> image type -> words that fit, each with how many training images show it; trained ones first."""
    trained: dict[str, int] = {}
    for row in support:
        trained[row[0]] = trained.get(row[0], 0) + row[7]
    known = sorted(IMAGE_TYPES.values(), key=lambda kind: trained.get(kind.name, 0) == 0)
    branches = []
    for specialty in SPECIALTIES.values():
        kinds = [branch(kind.name, trained.get(kind.name, 0), support) for kind in known if kind.specialty == specialty.name]
        if kinds:
            branches.append({"name": specialty.name, "label": specialty.label, "image_types": kinds})
    return sorted(branches, key=lambda one: not any(kind["support"] for kind in one["image_types"]))


def branch(image_type: str, n: int, support: Sequence[Sequence]) -> dict:
    """One image type with its words."""
    mine = [row for row in support if row[0] == image_type]
    slots = {}
    for at, slot in enumerate(SLOTS):
        if slot == "image_type":
            continue
        seen = {row[at] for row in mine if row[at]}
        words = [term.name for term in vocabulary.applicable(slot, image_type)] if slot != "laterality" or seen else []
        slots[slot] = [{"name": word, "label": label(word), "support": sum(row[7] for row in mine if row[at] == word)}
                       for word in sorted(words, key=lambda word: word not in seen)]
    shown = shown_findings(support, image_type)
    names = [*shown, *(term.name for term in vocabulary.applicable("finding", image_type) if term.name not in shown)]
    told = [{"name": name, "label": label(name), "support": shown.get(name, 0)} for name in names]
    return {"name": image_type, "label": label(image_type), "support": n,
            "default_anatomy": IMAGE_TYPES[image_type].default_anatomy, **slots, "findings": told}


def understood(prompt: str, support: Sequence[Sequence], taught: Sequence[str] = ()) -> dict:
    """What a prompt says in words of the vocabulary, what it says besides, and how many training images support it.

    taught: the new words of the model.
    """
    found = prompts.understand(prompt, support, taught)
    told = asdict(found) | {"not_understood": list(found.not_understood),
                            "nearest": {words: list(near) for words, near in found.nearest.items()},
                            "sentence": prompts.sentence(found), "warning": None, "facts": facts(found),
                            "age_left_open": [] if found.age_years is not None else list(dict.fromkeys(AGES.findall(prompt)))}
    trained = list(dict.fromkeys(row[0] for row in support))
    known = ", ".join(label(name) for name in IMAGE_TYPES if name in trained)
    if found.image_type is None:
        told["warning"] = f"No image type was understood. This model knows {known}."
    elif found.image_type not in trained:
        told["warning"] = f"{label(found.image_type).capitalize()} was never trained on. This model knows {known}."
    elif found.also:
        told["warning"] = (f"No image type is named. It is drawn as {label(found.image_type)}, of which there are most training "
                           f"images of this; {' or '.join(map(label, found.also))} would fit as well.")
    elif found.support == 0:
        told["warning"] = f"No training image shows this combination. The nearest known one: {nearest_known(found, support)}."
    return told


def facts(found: prompts.Understanding) -> list[dict]:
    """The understood facts in reading order: kind, label, for a finding whether it is present; `said`: it follows from no other."""
    default = IMAGE_TYPES[found.image_type].default_anatomy if found.image_type else None
    follows = {other for name, present in found.findings.items() if present
               for other in vocabulary.closed({name: True}) if other != name}
    told = [{"kind": slot, "label": label(value), "present": None, "said": not (slot == "anatomy" and value == default)}
            for slot in SLOTS if (value := getattr(found, slot)) is not None]
    if found.age_years is not None:
        years = f"{found.age_years:g} years" if found.age_years >= 2 else f"{12 * found.age_years:.0f} months"
        told.append({"kind": "age", "label": years, "present": None, "said": True})
    if found.sex:
        told.append({"kind": "sex", "label": found.sex, "present": None, "said": True})
    told += [{"kind": "finding", "label": label(name), "present": present, "said": not (present and name in follows)}
             for name, present in found.findings.items()]
    return told + [{"kind": "taught", "label": f"taught word {word}", "present": wanted, "said": True}
                   for word, wanted in found.taught.items()]
