"""Reading: a prompt as wordings of the vocabulary, which of them a "no" reaches, and the age."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from medisyn.data.vocabulary import STRANGE, TERMS, fold, wordings

ORDINARY = """
a about above absence absent adolescent adult after again age aged all along also am among an and another any anything
appear appearance appears are area around artificial as associated at attached available baby be because been before
being below best between both but by call called camera can capture captured case cases cause caused central child
children class classic clear clearly clinic clinical close closeup colour coloured com common compare conclusion
consistent contain contains could create creates dataset date day demonstrate demonstrates demonstrating depict
depicting depicts detail detailed detected diagnosed diagnosis diagnostic did different digital display displays do
doctor does done draw due during each either elderly et etc evidence exam examination example examples excellent
exclude excluded exhibit exhibits eye eyes fake feature features featuring few figure file find finding findings first
for found frame free from full further gender general generate generated generates give given good great had has have
having help here high history hospital how however i ideal if illustrate image imagery images imaging impression in
include included includes including indicate indicated indicates indication infant information into is isn it its just
kid kind know known lacking lacks large like located look looking looks low made magnification main make makes making
many may me medical middle modality more most mostly much must my near need needed needs neg negative neither neonatal
neonate new newborn next nice no non none nor not note noted now number obtain obtained obvious of off ok okay old on
one only onto or order other our out over own paediatric particular patch patient patients pattern pediatric per
person photo photograph photographs photorealistic photos picture pictures plausible please pls point positioned
positive possible presence present presented presenting presents previous probable probably procedure produce
projection proven provide pt quality quite random rather real realistic really recorded region related report request
resolution result results reveal revealing reveals routine rule ruled sample samples say scan scanned scans secondary
section see seen senior several sex shot should show showing shown shows side sign signs similar simple simulate situ
size slice small so some someone sort specimen stain stained staining standard state status still student students
study style such suffering suggest suggesting suggestive suggests suspected suspicion synthesise synthesize synthetic
take taken taking teaching technique teenager test than thank thanks that the their them then there these they thing
things this those through tissue to today toddler together training true turned turns type typical under unknown until
up upon us use used using variant very via view viewed views visible visualised visualized vs want was way we were
what when where whether which while whose will wish with within without work would year years yes yet you young your
"""
# Words that are spelt almost like known ones and mean something else.
NO_TYPOS = """
breath bright cannot center centre contact contract doing going normalised normalized renal steel store stores
minimal moderate severe advanced marked doubtful questionable slight
"""
UPPER_ONLY = frozenset(("us", "he", "or", "it", "as", "ex", "my", "no", "bet", "bus", "ma", "le", "re"))  # words unless in capitals
WEIGHTY = ("without", "negative", "absent", "absence", "evidence", "excluded", "lacking", "present", "showing", "image",
           "patient", "findings", "examination", "technique", "projection", "severe",
           "moderate", "minimal")  # ordinary, yet read through typos
STOPS = frozenset((
    "but", "with", "show", "showing", "however", "although", "though", "present", "positive", "has", "reveal",
    "revealing", "demonstrate", "demonstrating", "consistent", "yes", "from", ".", ";", ":", "|"))
PRE_NO = frozenset((
    "no", "without", "not", "non", "nor", "neither", "never", "lacking", "lack", "denies", "excluding", "exclude",
    "absence", "minus", "negative for", "neg for", "free of", "free from", "rule out", "ruled out", "devoid of",
    "clear of", "instead of"))
SEVERITIES = {tuple(words.split()): level for level, said in (
    (1, "doubtful, questionable"), (2, "mild, minimal, slight"), (3, "moderate, moderately severe"),
    (4, "severe, advanced, marked, end stage, endstage, gross, very severe, bone on bone")) for words in said.split(", ")}
POST_NO = tuple(tuple(words.split()) for words in (
    "absent", "excluded", "negative", "no", "free", "ruled out", "not seen", "not see", "not present", "not visible",
    "not detected", "not shown", "not found", "not identified", "not evident", "not there", "not noted",
    "not observed", "not demonstrated", "not included"))
YES = frozenset(("present", "visible", "seen", "noted", "shown", "normal", "healthy", "unremarkable", "intact", "yes", "positive"))
COPULAS = frozenset(("is", "are", "was", "were", "has", "have", "been", ":", "be", "can", "could"))
LINKS = frozenset((",", "and", "or", "nor"))
SIDES = {"L": "left", "R": "right"}
SMALL = {word: n for n, word in enumerate((
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen").split())}
TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
AGES = (  # pattern, its unit in years; one group is the number, a lone letter the sex
    (r"\b(\d{1,3}(?:\.\d+)?)\s*-?\s*(?:y[ea]{1,3}rs?|yrs?|yo|y)\b(?:\s*-?\s*(?:old|of age|o)\b)?"
     r"(?:\s*[-,]?\s*([fm])\b)?", 1.0),
    (r"\b(\d{1,3}(?:\.\d+)?)\s*-?\s*(?:months?|mo)\b(?:\s*-?\s*old)?(?:\s*,?\s*([fm])\b)?", 1 / 12),
    (r"\b(\d{1,3})\s*-?\s*(?:weeks?|wks?)\b(?:\s*-?\s*old)?(?:\s*,?\s*([fm])\b)?", 1 / 52.18),
    (r"\b(\d{1,3})\s*-?\s*days?\s*-?\s*old(?:\s*,?\s*([fm])\b)?", 1 / 365.25),
    (r"\b(?:aged?|age)\s*(?:of|is|:|=)?\s*(\d{1,3}(?:\.\d+)?)\b(?:\s*,?\s*([fm])\b)?", 1.0),
    (r"\b([fm])\s*[/,]?\s*(\d{1,3})\b(?!\s*[%x])", 1.0),
    (r"\b(\d{1,3})(?:\s?|/)([fm])\b", 1.0),
    (r"\b(?:wom[ae]n|m[ae]n|female|male|girl|boy|lady|patient)\s*,?\s*(\d{1,3})\b", 1.0),
)
MARK = "TAUGHT0WORD"   # stands in a prompt for a new word of a model: no word, no age, no typo of anything
GRADES = r"(?i)(?:grade|klg?|type|fst|score|fitz\w*|phototype|lawrence|kellgren|stage)[\s-]*$"  # no age follows


@dataclass(frozen=True)
class Token:
    text: str    # folded
    typed: str   # as it was typed


@dataclass(frozen=True)
class Reading:
    """One sense of a wording."""

    term: str
    present: bool               # False for a wording that says the finding is absent: "abnormal"
    where: tuple[str, ...]      # the image types in which the wording has this sense; () everywhere
    local: bool                 # elsewhere it has no sense at all


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `end` are one wording; without readings a model's new word, which stands for a finding."""

    start: int
    end: int
    readings: tuple[Reading, ...]

    def kinds(self) -> set[str]:
        return {TERMS[reading.term].kind for reading in self.readings} or {"finding"}


def marked(prompt: str, words: Iterable[str]) -> tuple[str, list[str]]:
    """A prompt with a MARK in the place of each new word of a model, and those words in the order of the marks.

    Capitals or not, but whole: "glow" is not in "glowing". What a new word is made of says nothing: "<mole-2>" is no mole.
    """
    known = sorted(filter(None, words), key=len, reverse=True)
    if not known:
        return prompt, []
    whole = [(r"(?<!\w)" if word[0].isalnum() else "") + re.escape(word) + (r"(?!\w)" if word[-1].isalnum() else "")
             for word in known]
    pattern = re.compile("|".join(f"({one})" for one in whole), re.IGNORECASE)
    return pattern.sub(f" {MARK} ", prompt), [known[found.lastindex - 1] for found in pattern.finditer(prompt)]


def prepared(prompt: str) -> str:
    """A prompt with accents off and the shorthand that holds punctuation written out."""
    text = unicodedata.normalize("NFKD", prompt)
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text).replace("\u2019", "'")
    text = re.sub(r"(?i)\bx[\s-]?ray", "xray", text)
    text = re.sub(r"(?i)\bxrs?\b", "xray", text)
    text = re.sub(r"(?i)\b(?:side|laterality|eye|knee|breast)\s*[:=]\s*([LR])\b", lambda m: f"{SIDES[m[1].upper()]} side", text)
    text = re.sub(r"(?i)\bu/s\b", "ultrasound", text)
    text = re.sub(r"(?i)\b([LR])[\s-]?(MLO)\b", lambda m: f"{SIDES[m[1].upper()]} {m[2]}", text)
    text = re.sub(r"(?i)\b(biopsy|histolog\w*|patholog\w*)[\s-]+(proven|confirmed|verified|proved)\b", "proven", text)
    text = re.sub(r"(?i)\b\w+[\s-]shaped\b", "shaped", text)   # a "kidney-shaped nucleus" shows no kidney
    text = re.sub(r"(?i)\bgr\.?(?=\s?[\dIV])", "grade ", text)
    text = re.sub(rf"(?i)\b(grade|stage|lawrence|kl|score|type)(?:\s*[:=]\s*|[\s-]+)({'|'.join(list(SMALL)[:7])}|\d)\b",
                  lambda m: f"{m[1]} {SMALL.get(m[2].lower(), m[2])}", text)
    text = re.sub(r"(?i)\b(\w+)=(?:0|no|false|none|absent)\b", r"no \1", text)
    text = re.sub(r"(?i)\bw/o\b\.?", "without ", text)
    text = re.sub(r"(?i)\bw/\s?", "with ", text)
    text = re.sub(r"\b([Hh])\s?&\s?([Ee])\b", r"\1&\2", text)
    text = re.sub(r"(?i)\by\s?/\s?o\b|\by\.\s?o\.", "yo", text)
    return re.sub(r"(?i)n't\b|(?<=do)nt\b|(?<=does)nt\b|(?<=did)nt\b|(?<=is)nt\b|(?<=was)nt\b", " not", text)


def tokens_of(text: str) -> list[Token]:
    """Words, and the points that end a list; a hyphen or a slash only separates."""
    found = list(re.finditer(r"[A-Za-z0-9]+(?:[&+][A-Za-z]+)?\+?|[.,;:|](?=\s|$|[A-Za-z])|\n", text))
    return [Token(fold("." if match[0] == "\n" else match[0]), match[0]) for match in found]


def meant(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with misspelt words replaced by the known ones they stand for."""
    return [Token(_meant(token.text) or token.text, token.typed) for token in tokens]


def spans_of(tokens: Sequence[Token], image_types: Sequence[str] | None = None) -> list[Span]:
    """The wordings of a prompt, longest first, from left to right; image_types: without the senses that none of these has, so that
    "malignant nodule", which is a breast lesion in a mammogram, is a nodule in a lung."""
    phrases, longest, _ = _phrases()
    words = [token.text for token in tokens]
    loud = all(token.typed.upper() == token.typed for token in tokens)
    spans: list[Span] = []
    at = 0
    while at < len(tokens):
        for length in range(min(longest, len(tokens) - at), 0, -1):
            readings = phrases.get(tuple(words[at:at + length]))
            if readings == ():   # one of STRANGE
                at += length
                break
            if readings and image_types is not None:
                readings = tuple(sense for sense in readings if not sense.local or set(sense.where) & set(image_types))
            if readings and (length > 1 or words[at] not in UPPER_ONLY or _stands_out(tokens[at], spans, at, loud)):
                spans.append(Span(at, at + length, readings))
                at += length
                break
        else:
            at += 1
    return spans


def _stands_out(token: Token, spans: Sequence[Span], at: int, loud: bool) -> bool:
    """Whether "US" is an ultrasound and not a pronoun: in capitals among small letters, or right behind an anatomy."""
    if token.text == "us" and spans and spans[-1].end == at and "anatomy" in spans[-1].kinds():
        return True
    return token.typed.isupper() and (not loud or token.text == "us")


def negated(tokens: Sequence[Token], spans: Sequence[Span]) -> set[int]:
    """The starts of the findings' spans that a "no" reaches, from before or from behind.

    From before it reaches through a list ("no X, Y or Z") up to a stop ("but", "with", a point)
    or, after a comma, up to a word of another kind or a grade; from behind ("X and Y not seen") through
    what "and", "or" and commas join.
    """
    inside = {at: span for span in spans for at in range(span.start, span.end)}
    words = [token.text for token in tokens]
    reached: set[int] = set()
    reaching = alone = False
    for at, word in enumerate(words):
        span = inside.get(at)
        before = words[at - 1] if at else ""
        if span is not None and at == span.start:
            normal = any(reading.term == "normal" and reading.present for reading in span.readings)
            if before == "," and (_graded(span) or alone or _affirmed(words, span.end)):
                reaching = False  # "no osteoarthritis, Kellgren-Lawrence grade 0", "no glioma, meningioma present"
            if reaching and "finding" in span.kinds() and (not normal or before in PRE_NO):
                reached.add(at)
            elif before == ",":
                reaching = False
        elif span is None and _says_no(words, at, inside) and not _is_image_type(inside.get(at + 1)):
            after = words[at + 1] if at + 1 < len(words) else "."
            reaching = at + 1 in inside or word != "non" and after not in ",."  # not in "non functioning", nor in "no, a mole"
            alone = word in ("non", "not") and at + 1 in inside  # "not melanoma, seborrhoeic keratosis"
        elif span is None and word in STOPS and not (word == "with" and words[at + 1:at + 2] == ["no"]
                                                     or word == "with" and before in ("consistent", "compatible")
                                                     or word.isalpha() and before in ("not", "never", "without")):
            reaching = False
    for span in spans:
        if _denied(words, span.end, inside):
            reached |= {member.start for member in _joined(words, spans, span)}
    return reached


def refused(tokens: Sequence[Token], span: Span) -> bool:
    """Whether a wording names an image type that is not wanted: "not dermoscopy"."""
    return _is_image_type(span) and span.start > 0 and tokens[span.start - 1].text in ("not", "non", "no", "without")


def severity(tokens: Sequence[Token], spans: Sequence[Span], span: Span, levels: Iterable[int]) -> tuple[int, set[int]] | None:
    """(how severe what a span says is, as a level of SEVERITIES; the places of the words that say so); None: nothing does.

    In front of it the side and the place may stand between, "severe left knee osteoarthritis"; behind it up to three words may,
    "osteoarthritis of the knee, moderate". What lies in another finding's reach is that finding's.
    """
    words = [token.text for token in tokens]
    inside = {at: other for other in spans for at in range(other.start, other.end)}

    def said(at: int) -> tuple[int, set[int]] | None:
        for length in (3, 2, 1):
            level = SEVERITIES.get(tuple(words[at:at + length]))
            if level in levels and not any(place in inside for place in range(at, at + length)):
                return level, set(range(at, at + length))
        return None

    for at in range(span.start - 1, max(-1, span.start - 7), -1):
        if found := said(at):
            return found
        if words[at] in STOPS or words[at] == "," or at in inside and "finding" in inside[at].kinds():
            break
    for at in range(span.end, min(len(words), span.end + 6)):
        if (found := said(at)) and not any(place in inside and "finding" in inside[place].kinds()
                                           for place in range(max(found[1]) + 1, max(found[1]) + 3)):
            return found
        if words[at] in STOPS - {":"} or at in inside and "finding" in inside[at].kinds():
            break
    return None


def _graded(span: Span) -> bool:
    return any(reading.term.rpartition("_")[2].isdigit() for reading in span.readings)


def _affirmed(words: Sequence[str], at: int) -> bool:
    """Whether the words from `at` on say that what stands before them is there: "no glioma, meningioma present"."""
    while at < len(words) and words[at] in COPULAS - {":"}:
        at += 1
    return at < len(words) and words[at] in YES


def _is_image_type(span: Span | None) -> bool:
    return span is not None and "image_type" in span.kinds()


def _says_no(words: Sequence[str], at: int, inside: dict[int, Span]) -> bool:
    word, before, after = words[at], words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else "."
    if before == ":" and after in ".,;":  # "pneumonia: no, effusion: yes"
        return False
    if word == "absent":
        return at - 1 not in inside and before not in COPULAS
    return word in PRE_NO or f"{before} {word}" in PRE_NO


def _denied(words: Sequence[str], at: int, inside: dict[int, Span]) -> bool:
    """Whether the words from `at` on deny what stands before them."""
    while at < len(words) and words[at] in COPULAS:
        at += 1
    for no in POST_NO:
        after = words[at + len(no)] if at + len(no) < len(words) else "."
        if tuple(words[at:at + len(no)]) == no and at not in inside:
            if no == ("no",) and after not in ".,;|":
                return False
            return not (no == ("negative",) and after == "for" or no == ("free",) and after in ("of", "from"))
    return False


def _joined(words: Sequence[str], spans: Sequence[Span], last: Span) -> list[Span]:
    """The spans that share what is said behind the last: "X, Y and Z absent"; of "X, Z absent" only Z is."""
    group, linked = [last], set()
    for span in reversed([span for span in spans if span.end < last.start]):
        between = set(words[span.end:group[-1].start])
        if not between or between - LINKS:
            break
        group.append(span)
        linked |= between
    return group if linked - {","} else [last]


def age_of(text: str) -> tuple[float | None, str | None, str]:
    """(age in years, sex where a letter beside the age says it, the text without them)."""
    text = re.sub(rf"(?i)\b({'|'.join(TENS)})(?:[\s-]({'|'.join(list(SMALL)[1:10])}))?(?=[\s-]+(?:years?|months?)\b)",
                  lambda m: str(TENS[m[1].lower()] + (SMALL[m[2].lower()] if m[2] else 0)), text)
    text = re.sub(rf"(?i)\b({'|'.join(SMALL)})(?=[\s-]+(?:years?|months?|weeks?|days?)\b)",
                  lambda m: str(SMALL[m[1].lower()]), text)
    for pattern, unit in AGES:
        for match in re.finditer(pattern, text, re.IGNORECASE):
            groups = [group for group in match.groups() if group]
            years = next(float(group) for group in groups if group[0].isdigit()) * unit
            if years > 120 or re.search(GRADES, text[:match.start()]):
                continue
            sex = next(({"f": "female", "m": "male"}[group.lower()] for group in groups if group.isalpha()), None)
            person = re.match(r"(?i)(wom[ae]n|m[ae]n|female|male|girl|boy|lady)\b", match[0])
            kept = person[0] if person else ""
            return round(years, 2), sex, f"{text[:match.start()]} {kept} , {text[match.end():]}"
    return None, None, text


def ordinary(word: str) -> bool:
    """Whether a folded word says nothing about the image: "please", "showing", "patient"."""
    return word in _ordinary()


@cache
def _ordinary() -> frozenset[str]:
    return frozenset(map(fold, ORDINARY.split()))


@cache
def _phrases() -> tuple[dict[tuple[str, ...], tuple[Reading, ...]], int, frozenset[str]]:
    """Wording in folded words -> readings; the length of the longest; the words that a typo may stand for."""
    table: dict[tuple[str, ...], dict[tuple[str, bool], Reading]] = {}

    def add(words: str, reading: Reading) -> None:
        key = tuple(token.text for token in tokens_of(prepared(words)))
        table.setdefault(key, {}).setdefault((reading.term, reading.present), reading)

    for term in TERMS.values():
        for words in (*wordings(term), *getattr(term, "heads", ())):
            add(words, Reading(term.name, True, term.image_types, local=False))
        for words, where in term.local.items():
            add(words, Reading(term.name, True, tuple(where), local=True))
        for words, where in term.local_opposites.items():
            add(words, Reading(term.name, False, tuple(where), local=True))
        for words in term.opposites:
            add(words, Reading(term.name, False, term.image_types, local=False))
    for words in STRANGE:
        table[tuple(token.text for token in tokens_of(words))] = {}
    known = frozenset(word for key in table for word in key if len(word) >= 5 and word.isalpha())
    return {key: tuple(readings.values()) for key, readings in table.items()}, max(map(len, table)), known


@cache
def _weighty() -> frozenset[str]:
    return frozenset(map(fold, WEIGHTY))


@cache
def _strangers() -> frozenset[str]:
    return frozenset(map(fold, NO_TYPOS.split()))


@lru_cache(maxsize=4096)
def _meant(word: str) -> str | None:
    """The known word that a misspelt one stands for; None where it is known, ordinary, short or like nothing."""
    known = _phrases()[2]
    if len(word) < 5 or word in known or not word.isalpha() or ordinary(word) or word in _strangers():
        return None
    alike = [other for other in known | _weighty() if abs(len(word) - len(other)) < 3
             and (word[0] == other[0] or sorted(word) == sorted(other))]  # people seldom miss the first letter
    for other in difflib.get_close_matches(word, alike, 3, cutoff=0.75):
        if difflib.SequenceMatcher(None, word, other).ratio() >= 0.85 or _one_slip(word, other):
            return other
    return None


def _one_slip(a: str, b: str) -> bool:
    """One letter lost, added or changed, or two neighbours swapped."""
    if abs(len(a) - len(b)) > 1:
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if len(a) == len(b):
        return a[at + 1:] == b[at + 1:] or (a[at + 2:] == b[at + 2:] and sorted(a) == sorted(b))
    long, short = (a, b) if len(a) > len(b) else (b, a)
    return long[at + 1:] == short[at:]
