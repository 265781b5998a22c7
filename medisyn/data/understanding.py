"""Understanding: what a prompt says in words of the vocabulary, and how often that was trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from medisyn.data import reading
from medisyn.data.reading import Span, Token
from medisyn.data.records import Record
from medisyn.data.vocabulary import IMAGE_TYPES, TERMS, closed, label, nearest

SLOTS = ("image_type", "anatomy", "view", "technique", "laterality")  # the first columns of a support table
SUGGESTED = 12  # of the words not understood, for how many the nearest known ones are looked up
WEIGHTS = {"image_type": 20, "present": 5, "anatomy": 4, "absent": 2, "against": 4}  # of what a training combination lacks; else 1
NORMAL_GRADES = {"bone_xray": "kellgren_lawrence_0", "gi_endoscopy": "inactive_colitis"}
LOOSE = 0.05    # how much a word that has its sense only in some image types ("lesion") speaks for them
HANDICAP = {"oct": 0.01}  # of two types that fit equally, people name this one: a "retina" alone is a photograph


@dataclass(frozen=True)
class Understanding:
    """What a prompt says; `None`, or missing from `findings`, is what it leaves open."""

    image_type: str | None = None
    specialty: str | None = None
    anatomy: str | None = None
    view: str | None = None
    technique: str | None = None
    laterality: str | None = None
    findings: dict[str, bool] = field(default_factory=dict)
    age_years: float | None = None
    sex: str | None = None
    not_understood: tuple[str, ...] = ()                               # words with content that matched nothing
    nearest: dict[str, tuple[str, ...]] = field(default_factory=dict)  # for each of them the nearest known terms
    taught: dict[str, bool] = field(default_factory=dict)              # new words of the model, and whether they are wanted
    support: int | None = None                                         # training images like this; None: not counted
    also: tuple[str, ...] = ()                                         # image types that would fit as well, fewer of them trained


def understand(prompt: str, support: Sequence[Sequence] | None = None, taught: Iterable[str] = ()) -> Understanding:
    """Read a prompt; with a support table (`support_table`) count the training images as well.

    taught: the new words that a model has learnt (`learnt.words_of`); to anybody else they are not understood.
    """
    text, words = reading.marked(prompt, taught)
    age, sex, rest = reading.age_of(reading.prepared(text))
    tokens = reading.meant(reading.tokens_of(rest))
    spans = reading.spans_of(tokens)
    spans = reading.spans_of(tokens, _image_types([span for span in spans if not reading.refused(tokens, span)]))
    spans = [span for span in spans if not reading.refused(tokens, span)]
    marks = [Span(at, at + 1, ()) for at, token in enumerate(tokens) if words and token.typed == reading.MARK]
    denied = reading.negated(tokens, sorted([*spans, *marks], key=lambda span: span.start))
    possible = _image_types(spans)
    also: tuple[str, ...] = ()
    if support is not None and 1 < len(possible) < len(IMAGE_TYPES):
        possible, also = _most_trained(tokens, spans, possible, denied, support)
    image_type = possible[0] if len(possible) == 1 else None
    facts, findings, used = _facts(tokens, spans, possible, denied)
    wanted: dict[str, bool] = {}
    for mark, word in zip(marks, words, strict=False):
        wanted[word] = mark.start not in denied or wanted.get(word, False)
    used.update(mark.start for mark in marks)
    if image_type:
        facts["specialty"] = IMAGE_TYPES[image_type].specialty
        facts.setdefault("anatomy", IMAGE_TYPES[image_type].default_anatomy)
    facts.setdefault("sex", sex)
    if support is not None:
        findings = _as_trained(findings, image_type, support)
    for name in [name for name, present in findings.items() if present]:
        for follows in _implied(name):
            findings.setdefault(follows, True)
    if findings.get("normal") and any(present and TERMS[name].abnormal for name, present in findings.items()):
        del findings["normal"]  # "no mass, but calcifications"
    strange = _not_understood(tokens, used)
    understood = Understanding(image_type=image_type, findings=findings, age_years=age, not_understood=strange,
                               nearest={words: tuple(nearest(words)) for words in strange[:SUGGESTED]}, taught=wanted,
                               also=also, **facts)
    return understood if support is None else replace(understood, support=count_support(understood, support))


def sentence(understood: Understanding) -> str:
    """The understanding in one line, to be shown before an image is made."""
    u = understood
    told = ", ".join(_told(u))
    said = f"understood: {told or 'nothing'}"
    if told and u.support is not None:
        said += f"; trained on {u.support:,} such image{'' if u.support == 1 else 's'}"
    if u.taught:
        words = ", ".join(f'"{word}"' + ("" if wanted else " absent") for word, wanted in u.taught.items())
        said += f"; taught word{'' if len(u.taught) == 1 else 's'}: {words}"
    if u.not_understood:
        said += "; not understood: " + ", ".join(f'"{words}"' for words in u.not_understood)
    return said


def support_table(records: Iterable[Record]) -> list[list]:
    """[[image type, anatomy, view, technique, laterality, [present], [absent], count], ...], fit for JSON.

    The findings are closed (`vocabulary.closed`): an image of a bacterial pneumonia counts for pneumonia.
    """
    table: dict[tuple, int] = {}
    for record in records:
        findings = closed(record.findings, record.image_type, record.view)
        row = (*(getattr(record, slot) for slot in SLOTS), *(
            tuple(sorted(name for name, value in findings.items() if value is present)) for present in (True, False)))
        table[row] = table.get(row, 0) + 1
    return [[*row[:5], list(row[5]), list(row[6]), count] for row, count in table.items()]


def count_support(understood: Understanding, table: Sequence[Sequence]) -> int:
    """How many training images are known to show, and to lack, all that was understood; age and sex do not count."""
    return sum(row[7] for row in table if not _missing(understood, row))


def nearest_known(understood: Understanding, table: Sequence[Sequence]) -> str | None:
    """The trained combination that lacks least of an understanding, in words; None: no such image type was trained."""
    table = [row for row in table if understood.image_type in (None, row[0])]
    if not table:
        return None
    row = min(table, key=lambda row: (lack(understood, row), -row[7]))
    kept = {slot: value for slot, value in zip(SLOTS[1:], row[1:], strict=False) if value and value == getattr(understood, slot)}
    present = [name for name in row[5] if understood.findings.get(name)]
    absent = [name for name in row[6] if understood.findings.get(name) is False]
    near = Understanding(image_type=row[0], findings=dict.fromkeys(present, True) | dict.fromkeys(absent, False),
                         **kept)
    return ", ".join(_told(near)) + f" ({count_support(near, table):,} images)"


def lack(understood: Understanding, row: Sequence) -> int:
    """How much of an understanding a row of the support table does not show: findings weigh more than how they were taken, and
    what the row shows the other way round more than what it is silent about."""
    against = sum(name in row[6 if present else 5] for name, present in understood.findings.items())
    return sum(WEIGHTS.get(slot, 1) for slot, _ in _missing(understood, row)) + WEIGHTS["against"] * against


def _missing(understood: Understanding, row: Sequence) -> list[tuple[str, str]]:
    """What a row of the support table does not show of an understanding, as (slot, word)."""
    u = understood
    default = IMAGE_TYPES[u.image_type].default_anatomy if u.image_type else None
    lacks = [(slot, wanted) for slot, wanted, found in zip(SLOTS, map(u.__getattribute__, SLOTS), row, strict=False)
             if wanted not in (None, found) and not (slot == "anatomy" and (wanted == default or shown(found, wanted)))]
    lacks += [("present", name) for name, present in u.findings.items() if present and name not in row[5]]
    return lacks + [("absent", name) for name, present in u.findings.items() if not present and name not in row[6]]


def shown(found: str | None, wanted: str | None) -> bool:
    """Whether images of one anatomy show another: of the brain the head."""
    return found == wanted or found in TERMS and wanted in TERMS[found].shows


def _told(u: Understanding) -> list[str]:
    """The understood facts, a phrase a fact; what follows from another finding is not repeated."""
    follows = {parent for name, present in u.findings.items() if present for parent in _implied(name)}
    place = u.anatomy if u.image_type is None or u.anatomy != IMAGE_TYPES[u.image_type].default_anatomy else None
    where = " ".join(word for word in (u.laterality, label(place) if place else "") if word)
    age = ("" if u.age_years is None else f"{u.age_years:g} years" if u.age_years >= 2 else
           f"{12 * u.age_years:.0f} months")
    kinds = " or ".join(label(name) for name in (u.image_type, *u.also)) if u.image_type else ""
    parts = [kinds, where, f"{label(u.view)} view" if u.view else "",
             label(u.technique) if u.technique else "", u.sex or "", age]
    for name, present in u.findings.items():
        if name == "normal":
            parts.append("normal" if present else "abnormal")
        elif name not in follows:
            parts.append(f"{label(name)} {'present' if present else 'absent'}")
    return [part for part in parts if part]


def _image_types(spans: Sequence[Span]) -> list[str]:
    """The image type that is named or that the other words allow; several where these do not decide."""
    named: dict[str, float] = {}
    votes = {name: -HANDICAP.get(name, 0.0) for name in IMAGE_TYPES}
    for span in spans:
        kinds = {sense.term for sense in span.readings if sense.term in IMAGE_TYPES}
        for name in kinds:
            named[name] = named.get(name, 0) + 1 / len(kinds)
        senses = [sense for sense in span.readings if TERMS[sense.term].kind not in ("specialty", "sex", "laterality")]
        for name in (allowed := {name for sense in senses for name in sense.where}):
            votes[name] += (LOOSE if all(sense.local for sense in senses if name in sense.where) else 1) / len(allowed)
        specialties = {sense.term for sense in span.readings if TERMS[sense.term].kind == "specialty"}
        for name, kind in IMAGE_TYPES.items():
            votes[name] += 0.3 * (kind.specialty in specialties)
    if max(named.values(), default=1) < 1 and LOOSE < max(votes.values()):
        named = {name: n for name, n in named.items() if votes[name] > 0}  # a "picture" of a neutrophil is no photograph
    scores = {name: 10 * named.get(name, 0) + votes[name] for name in (named or IMAGE_TYPES)}
    best = max(scores.values())
    return [name for name, score in scores.items() if score > best - 1e-6] if best > LOOSE else list(IMAGE_TYPES)


def _most_trained(tokens: Sequence[Token], spans: Sequence[Span], possible: list[str], denied: set[int],
                  support: Sequence[Sequence]) -> tuple[list[str], tuple[str, ...]]:
    """Of image types that fit a prompt equally the one with most training images of what it says, and the others that have some;
    all of them where none has, or where the prompt says nothing else."""
    counts = {}
    for name in possible:
        facts, findings, _ = _facts(tokens, spans, [name], denied)
        if findings or "anatomy" in facts:
            counts[name] = count_support(Understanding(name, findings=findings, **facts), support)
    trained = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    return (trained[:1], tuple(trained[1:])) if trained else (possible, ())


def _as_trained(findings: dict[str, bool], image_type: str | None, support: Sequence[Sequence]) -> dict[str, bool]:
    """"Normal" as the grade that means it, where training images of this type were graded and none was called normal."""
    trained = {name for row in support if row[0] == image_type for name in row[5]}
    grade = NORMAL_GRADES.get(image_type or "")
    if findings.get("normal") and grade in trained and "normal" not in trained:
        return {grade if name == "normal" else name: present for name, present in findings.items()}
    return findings


def _facts(tokens: Sequence[Token], spans: Sequence[Span], possible: Sequence[str],
           denied: set[int]) -> tuple[dict, dict, set[int]]:
    """(field -> word, finding -> present, places of the tokens that were understood). denied: starts of spans."""
    facts: dict[str, str] = {}
    findings: dict[str, bool] = {}
    used: set[int] = set()
    default = IMAGE_TYPES[possible[0]].default_anatomy if len(possible) == 1 else None
    places = {sense.term for span in spans for sense in _senses(span, possible) if TERMS[sense.term].kind == "anatomy"}
    for span in spans:
        sense = _sense(span, possible)
        kind = TERMS[sense.term].kind if sense else None
        if sense and sense.local and kind == "finding" and _elsewhere(TERMS[sense.term].sites, places):
            continue  # a cyst of the kidney is no breast lesion
        if sense is None or kind == "laterality" and _lone_letter(span, tokens) and not _beside(span, spans):
            continue
        used.update(range(span.start, span.end))
        if kind == "finding":
            for place in _senses(span, possible):
                if TERMS[place.term].kind == "anatomy":   # "colon cancer"
                    facts.setdefault("anatomy", place.term)
            present, name = sense.present != (span.start in denied), sense.term
            grades = TERMS[name].grades if sense.present else {}
            if grades and (told := reading.severity(tokens, spans, span, grades)):
                name = grades[told[0]]
                used |= told[1]
            findings[name] = present or (findings.get(name, False) and name != "normal")
        elif kind == "anatomy" and default in TERMS[sense.term].shows and not TERMS[sense.term].applies_to(possible[0]):
            continue  # the heart on a chest X-ray
        elif kind not in ("image_type", "specialty") and _says_more(sense.term, facts.get(kind, default), default):
            facts[kind] = sense.term
    return facts, findings, used


def _sense(span: Span, possible: Sequence[str]) -> reading.Reading | None:
    """The sense that fits the image types; where none fits, a whole word is still itself, an abbreviation nothing."""
    fits = _senses(span, possible)
    if len({(sense.term, sense.present) for sense in fits}) > 1:
        return fits[0] if len(possible) == 1 or fits[0].term in IMAGE_TYPES else None
    if fits:
        return fits[0]
    sense = span.readings[0]
    if sense.term in IMAGE_TYPES:
        return sense
    whole = span.end - span.start > 1 or len(TERMS[sense.term].label) > 4
    movable = not sense.local and TERMS[sense.term].kind != "laterality"
    return sense if whole and movable and len(span.readings) == 1 else None


def _senses(span: Span, possible: Sequence[str]) -> list[reading.Reading]:
    """The senses that fit the image types, findings first; an image type itself only where nothing else does."""
    fits = [sense for sense in span.readings if sense.term in possible
            or sense.term not in IMAGE_TYPES and (not sense.where or set(sense.where) & set(possible))]
    fits = [sense for sense in fits if sense.term not in IMAGE_TYPES] or fits
    return sorted(fits, key=lambda sense: TERMS[sense.term].kind != "finding")


def _says_more(word: str, than: str | None, default: str | None) -> bool:
    """Whether a word holds instead of an earlier one: a region for the whole organ, a sequence for "no contrast"."""
    return than in (None, default, "non_contrast") or than in TERMS[word].shows


def _elsewhere(sites: Sequence[str], places: set[str]) -> bool:
    """Whether a finding of these sites is not one of the places that are named."""
    return bool(sites and places) and not any(shown(place, site) or shown(site, place) for place in places for site in sites)


def _lone_letter(span: Span, tokens: Sequence[Token]) -> bool:
    return span.end - span.start == 1 and len(tokens[span.start].text) == 1


def _beside(span: Span, spans: Sequence[Span]) -> bool:
    """Whether an anatomy or an image type stands next to a wording."""
    return any(span.start in (other.start - 1, other.end) and other.kinds() & {"anatomy",
                                                                               "image_type"} for other in spans)


def _implied(name: str) -> list[str]:
    return [follows for parent in TERMS[name].implies for follows in (parent, *_implied(parent))]


def _not_understood(tokens: Sequence[Token], used: set[int]) -> tuple[str, ...]:
    """Runs of words with content that nothing matched."""
    runs: list[str] = []
    last = -2
    for at, token in enumerate(tokens):
        lone = len(token.text) == 1 and not (token.typed.isupper() and token.typed.isalpha())
        if at in used or lone or not token.text[0].isalnum() or reading.ordinary(token.text):
            continue
        runs[-1:] = [f"{runs[-1]} {token.typed}"] if last == at - 1 else [*runs[-1:], token.typed]
        last = at
    return tuple(dict.fromkeys(runs))
