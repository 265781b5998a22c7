"""Concepts: a classifier learns from real training images every fact that their records teach.

Image type, findings (each present or absent; unknown is not absent), view and laterality, in one network.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medisyn.data.records import Record
from medisyn.evaluation import classifier
from medisyn.evaluation.classifier import Network, Question, Settings
from medisyn.evaluation.sets import Images, patients
from medisyn.evaluation.tasks import facts
from medisyn.evaluation.trials import fingerprint

FEWEST = 10              # training images that show a fact, and that are known to lack it, for it to be learned
MOST = 8000              # training images, evenly over what they show
SETTINGS = Settings(side=96, width=32, steps=2500, batch=32)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Seen:
    """A set with what the classifier saw in it. All arrays have a row an image."""

    questions: tuple[Question, ...]
    records: tuple[Record, ...]
    clusters: np.ndarray            # whose image it is; synthetic ones of one sentence belong together
    answers: dict[str, np.ndarray]  # {question: probabilities (N, choices)}
    truth: dict[str, np.ndarray]    # {question: (N,) or (N, choices)}, -1 unknown


# ---- questions ------------------------------------------------------------------------------------------------------

def questions_of(known: Sequence[Record]) -> list[Question]:
    """All that the training images can teach: a question has choices seen often enough; a finding, both answers."""
    present, absent_ones, views, sides = Counter(), Counter(), Counter(), Counter(r.laterality for r in known)
    for r in known:
        views[r.image_type, r.view] += 1
        for name, seen in facts(r).items():
            (present if seen else absent_ones)[f"{r.image_type}/{name}"] += 1
    types = tuple(sorted(t for t, n in Counter(r.image_type for r in known).items() if t and n >= FEWEST))
    findings = tuple(sorted(n for n in present if present[n] >= FEWEST and absent_ones[n] >= FEWEST))
    told = {t: [v for (kind, v), n in views.items() if kind == t and v and n >= FEWEST] for t in types}
    seen = tuple(sorted(f"{t}/{v}" for t, mine in told.items() if len(mine) > 1 for v in mine))
    asked = [Question("image_type", types)] if len(types) > 1 else []
    asked += [Question("findings", findings, exclusive=False)] if findings else []
    asked += [Question("view", seen)] if seen else []
    asked += [Question("laterality", ("left", "right"))] if min(sides["left"], sides["right"]) >= FEWEST else []
    return asked


def truths(known: Sequence[Record], questions: Sequence[Question]) -> dict[str, np.ndarray]:
    """The right answers by the records: int64 (N,), or int8 (N, choices) of 1, 0; -1 unknown."""
    found: dict[str, np.ndarray] = {}
    for q in questions:
        place = {name: k for k, name in enumerate(q.choices)}
        if q.exclusive:
            word = {"image_type": lambda r: r.image_type, "view": lambda r: f"{r.image_type}/{r.view}",
                    "laterality": lambda r: r.laterality}[q.name]
            found[q.name] = np.array([place.get(word(r), -1) for r in known], np.int64)
        else:
            found[q.name] = np.full((len(known), len(q.choices)), -1, np.int8)
            for i, r in enumerate(known):
                for name, seen in facts(r).items():
                    if f"{r.image_type}/{name}" in place:
                        found[q.name][i, place[f"{r.image_type}/{name}"]] = int(seen)
    return found


def shown(record: Record) -> tuple:
    """What an image shows, as far as how often it is drawn is concerned."""
    return record.image_type, record.view, record.laterality, *sorted(n for n, seen in record.findings.items() if seen)


def evenly(known: Sequence[Record], power: float = 0.5) -> np.ndarray:
    """How often each image is drawn: image types and what they show by n ** power; (N,), sums to 1."""
    types, kinds = Counter(r.image_type for r in known), Counter(map(shown, known))
    total = Counter()
    for kind, n in kinds.items():
        total[kind[0]] += n**power
    p = np.array([types[r.image_type] ** power * kinds[shown(r)] ** (power - 1) / total[r.image_type] for r in known])
    return p / p.sum()


# ---- the classifier -------------------------------------------------------------------------------------------------

def taught(train: Images, settings: Settings = SETTINGS, cache: Path | None = None,
           progress: Progress = lambda done, total: None) -> Network:
    """The classifier of a training set; with a cache, kept there, and gone on with after a kill.

    ValueError where the records name neither two image types nor a finding that is both present and absent.
    """
    rows = np.arange(len(train))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(settings.seed).choice(rows, MOST, replace=False, p=evenly(train.records)))
    known = [train.records[r] for r in rows]
    questions = questions_of(known)
    if not questions:
        raise ValueError(f"train: expected records of two image types, or of findings present and absent in {FEWEST} images "
                         "each, found none; alignment needs labelled real images")
    truth = truths(known, questions)
    about = [[r.id for r in known], [t.tolist() for t in truth.values()], [asdict(q) for q in questions], asdict(settings)]
    name = f"alignment-{fingerprint(*about)}"
    file = Path(cache) / f"{name}.safetensors" if cache else None
    if file and file.is_file():
        return classifier.load(file)
    sided = any(q.name == "laterality" for q in questions)
    network = classifier.fit(
        train.pixels(rows, settings.side), truth, questions, settings, p=evenly(known), progress=progress,
        symmetry=classifier.symmetries([r.image_type for r in known], keep_sides=sided),
        checkpoint=Path(cache) / f"{name}.step.safetensors" if cache else None)
    if file:
        classifier.save(network, file)
        (Path(cache) / f"{name}.step.safetensors").unlink(missing_ok=True)
    return network


def looked_at(network: Network, images: Images, asked: bool = False, chunk: int = 256) -> Seen:
    """What the classifier sees in a set; its memory does not grow with the set.

    asked: the images were made of sentences, and those of one sentence belong together.
    """
    side, parts = network.settings.side, []
    for at in range(0, len(images), chunk):
        parts.append(classifier.answers(network, images.pixels(range(at, min(at + chunk, len(images))), side)))
    answers = {q.name: np.concatenate([p[q.name] for p in parts]) for q in network.questions}
    clusters = patients(images)
    if asked:
        clusters = np.array([r.text or k for r, k in zip(images.records, clusters, strict=True)], dtype=str)
    return Seen(network.questions, images.records, clusters, answers, truths(images.records, network.questions))


def right_of(seen: Seen, question: str) -> tuple[np.ndarray, np.ndarray]:
    """(whether each answer is right, whether the truth is known): bool (N,); a view is one of those of the image's type."""
    answers, truth = seen.answers[question], seen.truth[question]
    if question == "view":
        choices = next(q.choices for q in seen.questions if q.name == question)
        fits = np.array([[c.startswith(f"{r.image_type}/") for c in choices] for r in seen.records], bool)
        answers = np.where(fits.reshape(answers.shape), answers, -1)
    return answers.argmax(1) == truth, truth >= 0
