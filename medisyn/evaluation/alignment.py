"""Alignment: whether synthetic images show what their sentences say.

A classifier learns from real training images what images show: image type, findings, view, laterality. What it sees
in synthetic images is compared with the facts of their records, beside the same on unseen real images as the floor.
Recognition is a low bar that soft images can pass: it says nothing of realism.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medisyn.data.records import Record
from medisyn.estimates import Estimate, absent, bootstrap
from medisyn.evaluation import classifier
from medisyn.evaluation.classifier import Network, Settings
from medisyn.evaluation.concepts import FEWEST, SETTINGS, Seen, looked_at, right_of, taught
from medisyn.evaluation.sets import Sets
from medisyn.evaluation.tasks import facts
from medisyn.evaluation.utility import auroc

FEWEST_JUDGED = 5        # images that show a finding, and that lack it, for a figure
DISTRACTORS = 15         # other sentences among which an image must find its own
Progress = Callable[[int, int], None]


# ---- figures on arrays ----------------------------------------------------------------------------------------------

def f1(said: np.ndarray, truth: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) of bool (N,) arrays; nan where nothing is present and nothing was said to be."""
    both, either = 2 * int((said & truth).sum()), int(said.sum() + truth.sum())
    return both / either if either else float("nan")


def agreement(answers: dict[str, np.ndarray], stated: dict[str, np.ndarray]) -> np.ndarray:
    """The log-probability of what is stated, less its mean over the images: float (images, sentences).

    answers {question: (N, choices)}, stated {question: (M,) or (M, choices)} with -1 for what a sentence leaves open. It
    is an estimate of the pointwise mutual information of image and sentence, so that long sentences have no advantage.
    """
    n, m = len(next(iter(answers.values()))), len(next(iter(stated.values())))
    total = np.zeros((n, m))
    for name, p in answers.items():
        p = p.clip(1e-4, 1 - 1e-4).astype(float)
        if stated[name].ndim == 1:
            gain = np.log(p) - np.log(p.mean(0))
            open_ones = np.concatenate([gain, np.zeros((n, 1))], 1)  # the last column answers -1
            total += open_ones[:, stated[name]]
        else:
            yes, no = np.log(p) - np.log(p.mean(0)), np.log(1 - p) - np.log((1 - p).mean(0))
            total += yes @ (stated[name] == 1).T + no @ (stated[name] == 0).T
    return total


def found_at(match: np.ndarray, own: np.ndarray, sentences: np.ndarray, k: int, distractors: int, seed: int = 0) -> np.ndarray:
    """Whether each image ranks its own sentence among the first k, ties by half as chance has it: float (N,) in [0, 1].

    match (N, M) image by sentence; own (N,) the image's sentence; sentences (M,) keys: those with the same key say the
    same and are no distractors of each other. nan where no other sentence exists.
    """
    rng, keys = np.random.default_rng(seed), np.asarray(sentences)
    first = np.unique(keys, return_index=True)[1]
    out = np.full(len(match), np.nan)
    for i, mine in enumerate(own):
        others = first[keys[first] != keys[mine]]
        if len(others):
            drawn = rng.choice(others, min(distractors, len(others)), replace=False)
            above, level = (match[i, drawn] > match[i, mine]).sum(), (match[i, drawn] == match[i, mine]).sum()
            out[i] = np.clip((k - above) / (level + 1), 0, 1)
    return out


# ---- figures --------------------------------------------------------------------------------------------------------

def measure(sets: Sets, *, seed: int = 0, settings: Settings = SETTINGS, cache: Path | None = None,
            progress: Progress = lambda done, total: None) -> list[Estimate]:
    """Every figure of alignment, each with that of the unseen real images as its floor; too few images: a row says so."""
    try:
        network = taught(sets.train, settings, cache, progress)
    except ValueError as error:
        return [absent(name, str(error), better="higher") for name in ("image_type_accuracy", "finding_auroc")]
    made, real = looked_at(network, sets.synthetic, asked=True), looked_at(network, sets.unseen)
    tool = f"classifier {classifier.digest(network)}"
    rows = [*recognised("image_type", made, real, network, tool, seed), *findings(made, real, network, tool, seed),
            *recognised("view", made, real, network, tool, seed), *recognised("laterality", made, real, network, tool, seed),
            *retrieval(made, real, tool, seed), *combinations(made, sets.train.records, tool, seed)]
    return rows


def share(right: np.ndarray, seen: Seen, keep: np.ndarray, name: str, group: str, seed: int, **more: object) -> Estimate:
    """The share of right answers among the images kept, whole clusters drawn."""
    mine = np.asarray(right, float)[keep]
    return bootstrap(lambda rows: mine[rows].mean(), len(mine), name=name, group=group, patients=seen.clusters[keep], share=True,
                     seed=seed, better="higher", **more)


def recognised(question: str, made: Seen, real: Seen, network: Network, tool: str, seed: int) -> list[Estimate]:
    """image_type_accuracy, view_accuracy or laterality_accuracy: all, and an image type each."""
    name = f"{question}_accuracy"
    if question not in made.answers:
        return [absent(name, f"the training images do not teach it: fewer than two choices with {FEWEST} images", better="higher")]
    (right, known), (right_real, known_real) = right_of(made, question), right_of(real, question)
    types, types_real = (np.array([r.image_type for r in s.records], dtype=str) for s in (made, real))
    rows = []
    for kind in (None, *sorted(set(types[known].tolist()) | set(types_real[known_real].tolist()))):
        group = "all" if kind is None else f"image_type={kind}"
        keep, keep_real = ((k if kind is None else k & (t == kind)) for k, t in ((known, types), (known_real, types_real)))
        if keep.sum() < FEWEST_JUDGED:
            rows.append(absent(name, f"{keep.sum()} synthetic images ask for it, {FEWEST_JUDGED} are needed", group,
                               n=int(keep.sum()), better="higher", extractor=tool))
        else:
            floor = float(right_real[keep_real].mean()) if keep_real.sum() >= FEWEST_JUDGED else None
            rows.append(share(right, made, keep, name, group, seed, extractor=tool, floor=floor, note=told(keep_real)))
    return rows


def told(keep_real: np.ndarray) -> str:
    return f"floor: {int(keep_real.sum())} unseen real images"


def findings(made: Seen, real: Seen, network: Network, tool: str, seed: int) -> list[Estimate]:
    """finding_auroc and finding_f1: the mean over the findings that both sets carry, and each finding."""
    names = next((q.choices for q in network.questions if q.name == "findings"), ())
    if not names:
        return [absent(n, f"no finding is known both present and absent in {FEWEST} training images", better="higher")
                for n in ("finding_auroc", "finding_f1")]
    metrics: dict[str, Callable] = {"finding_auroc": auroc, "finding_f1": lambda p, t: f1(p > 0.5, t)}
    counts, counts_real = ([((s.truth["findings"] == v).sum(0)) for v in (1, 0)] for s in (made, real))
    enough, enough_real = ((np.minimum(*c) >= FEWEST_JUDGED) for c in (counts, counts_real))
    rows: list[Estimate] = []
    for name, metric in metrics.items():
        def of(seen: Seen, k: int, rows: np.ndarray, metric: Callable = metric) -> float:
            truth = seen.truth["findings"][rows, k]
            return metric(seen.answers["findings"][rows, k][truth >= 0], truth[truth >= 0] == 1)

        def mean(seen: Seen, columns: np.ndarray, rows: np.ndarray, of: Callable = of) -> float:
            values = np.array([of(seen, k, rows) for k in columns])
            return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

        both = np.flatnonzero(enough & enough_real)
        if len(both):
            told_of = np.flatnonzero((made.truth["findings"][:, both] >= 0).any(1))
            rows.append(bootstrap(lambda r, o=told_of, b=both, m=mean: m(made, b, o[r]), len(told_of), name=name, seed=seed,
                                  draws=200, patients=made.clusters[told_of], better="higher", extractor=tool,
                                  floor=mean(real, both, np.arange(len(real.records))),
                                  note=f"mean over {len(both)} findings that both sets carry"))
        else:
            rows.append(absent(name, f"no finding is asked for and asked to be absent in {FEWEST_JUDGED} synthetic images each",
                               better="higher", extractor=tool))
        for k, finding in enumerate(names):
            group, (yes, no) = f"finding={finding}", (int(c[k]) for c in counts)
            if not enough[k]:
                reason = f"{yes} synthetic images show it and {no} lack it by their sentences, {FEWEST_JUDGED} of each are needed"
                rows.append(absent(name, reason, group, n=yes + no, better="higher", extractor=tool))
                continue
            mine = np.flatnonzero(made.truth["findings"][:, k] >= 0)
            floor = of(real, k, np.arange(len(real.records))) if enough_real[k] else None
            rows.append(bootstrap(lambda r, o=mine, k=k, f=of: f(made, k, o[r]), len(mine), name=name, group=group, seed=seed,
                                  draws=300, patients=made.clusters[mine], better="higher", extractor=tool, floor=floor,
                                  note=f"{yes} present, {no} absent; floor: {int(counts_real[0][k])} and {int(counts_real[1][k])}"))
    return rows


def sentences_of(seen: Seen) -> np.ndarray:
    """A key for all that an image's sentence states and the classifier is asked about: strings (N,)."""
    stated = np.concatenate([t.reshape(len(t), -1) for t in seen.truth.values()], 1)
    return np.array([hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in stated.astype(np.int8)])


def retrieval(made: Seen, real: Seen, tool: str, seed: int) -> list[Estimate]:
    """retrieval_at_1 and _at_5: an image finds its own sentence among distractors, from all and from its own image type."""
    rows, types = [], [np.array([r.image_type for r in s.records], dtype=str) for s in (made, real)]
    for kind in (None, *sorted(set(types[0].tolist()) - {""})):
        group = "all" if kind is None else f"image_type={kind}"
        ranked = []
        for seen, of in zip((made, real), types, strict=True):
            mine = np.arange(len(of)) if kind is None else np.flatnonzero(of == kind)
            keys = sentences_of(seen)[mine]
            first, own = np.unique(keys, return_index=True, return_inverse=True)[1:]
            stated = {name: t[mine][first] for name, t in seen.truth.items()}
            match = agreement({name: a[mine] for name, a in seen.answers.items()}, stated) if len(mine) else np.zeros((0, 0))
            ranked.append((mine, len(first), [found_at(match, own, keys[first], k, DISTRACTORS, seed) for k in (1, 5)]))
        (mine, n_sentences, found), (_, _, found_real) = ranked
        for k, hit, hit_real in zip((1, 5), found, found_real, strict=True):
            among = min(DISTRACTORS, n_sentences - 1)
            if n_sentences < 2 or len(mine) < FEWEST_JUDGED or k > among:
                reason = (f"{len(mine)} images of {n_sentences} different sentences; {FEWEST_JUDGED} images and {k + 1} sentences "
                          "are needed")
                rows.append(absent(f"retrieval_at_{k}", reason, group, n=len(mine), better="higher", extractor=tool))
                continue
            everywhere = np.zeros(len(made.records))
            everywhere[mine] = hit
            keep = np.isin(np.arange(len(made.records)), mine)
            fitting = hit_real[np.isfinite(hit_real)]
            rows.append(share(everywhere, made, keep, f"retrieval_at_{k}", group, seed, extractor=tool,
                              floor=float(fitting.mean()) if len(fitting) >= FEWEST_JUDGED else None,
                              note=f"among {among} other sentences; chance {k / (among + 1):.2f}"))
    return rows


def stated_by(record: Record) -> frozenset:
    """The facts of a record as a set: image type, anatomy, view, technique, laterality, sex, findings present or absent."""
    words = {(kind, getattr(record, kind)) for kind in ("anatomy", "view", "technique", "laterality", "sex")}
    return frozenset({w for w in words if w[1]} | set(facts(record).items()))


def combinations(made: Seen, train: Sequence[Record], tool: str, seed: int) -> list[Estimate]:
    """facts_shown: the share of its stated facts that an image shows; sentences whose facts no training image unites apart."""
    known: dict[str, set[frozenset]] = {}
    for r in train:
        known.setdefault(r.image_type, set()).add(stated_by(r))
    asked = [stated_by(r) for r in made.records]
    seen_before = {(r.image_type, a): any(a <= has for has in known.get(r.image_type, ()))
                   for r, a in zip(made.records, asked, strict=True)}
    old = np.array([seen_before[r.image_type, a] for r, a in zip(made.records, asked, strict=True)], bool)
    right, number = np.zeros(len(old)), np.zeros(len(old))
    for name, truth in made.truth.items():
        p = made.answers[name]
        known_ones = truth >= 0
        agreed = (p.argmax(1) == truth) if truth.ndim == 1 else ((p > 0.5) == (truth == 1))
        right += (agreed & known_ones).reshape(len(old), -1).sum(1)
        number += known_ones.reshape(len(old), -1).sum(1)
    part, asked_any = right / number.clip(1), number > 0
    rows = []
    for group, keep in (("all", asked_any), ("combination=in training", asked_any & old), ("combination=unseen", asked_any & ~old)):
        if keep.sum() < FEWEST_JUDGED:
            rows.append(absent("facts_shown", f"{keep.sum()} synthetic images ask for it, {FEWEST_JUDGED} are needed", group,
                               n=int(keep.sum()), better="higher", extractor=tool))
        else:
            rows.append(share(part, made, keep, "facts_shown", group, seed, extractor=tool))
    return rows
