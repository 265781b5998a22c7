"""Selection: of many synthetic images, those that show their sentence, are new, and differ from each other.

Three sieves in this order, each with its reason for every image it holds back: a classifier of real images must see
what the sentence states; no training image may be shown again; and of what is left, each class keeps the images that
lie farthest apart.
"""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medisyn.data import records
from medisyn.data.records import Record
from medisyn.data.vocabulary import label
from medisyn.evaluation.concepts import SETTINGS, Seen, looked_at, shown, taught
from medisyn.evaluation.sets import Images, Sets

DOUBTFUL = 0.10   # of unseen real images, how many are less clear than what is still kept
FEWEST = 10       # unseen images of a type, to set its limit; with fewer the limit of all types holds
Progress = Callable[[int, int], None]
Copies = Callable[[Images], tuple[np.ndarray, np.ndarray]]   # (scores (n,), limits (n,)): at its limit or above, a copy
Features = Callable[[Images], np.ndarray]                    # float32 (n, D)


@dataclass(frozen=True)
class Verdict:
    """What became of one image."""

    row: int
    reason: str | None       # None: kept
    sieve: str = "kept"      # "sentence", "copy", "class" (enough others) or "kept"
    clearness: float = 0.0   # mean log-probability of what its sentence states


# ---- sieves on arrays -----------------------------------------------------------------------------------------------

def clearness(seen: Seen) -> np.ndarray:
    """The mean log-probability, by the classifier, of what each image's sentence states: float (N,), nan where nothing."""
    total, number = np.zeros(len(seen.records)), np.zeros(len(seen.records))
    for name, truth in seen.truth.items():
        p = seen.answers[name].clip(1e-6, 1 - 1e-6).astype(float)
        if truth.ndim == 1:
            known = truth >= 0
            total += np.where(known, np.log(p[np.arange(len(p)), truth.clip(0)]), 0)
            number += known
        else:
            total += np.where(truth == 1, np.log(p), np.where(truth == 0, np.log(1 - p), 0)).sum(1)
            number += (truth >= 0).sum(1)
    with np.errstate(invalid="ignore"):
        return total / number


def farthest(features: np.ndarray, n: int, first: int) -> list[int]:
    """n rows that lie far apart, by greedy k-centre (Gonzalez 1985): each next one is farthest from those chosen.

    No choice of n rows leaves any row less than half as far from its nearest. features (N, D), Euclidean.
    """
    points = np.asarray(features, float)
    chosen, gap = [first], np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < min(n, len(points)):
        gap[chosen] = -1
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


# ---- the whole ------------------------------------------------------------------------------------------------------

def judge(sets: Sets, per_class: int, *, settings: object = SETTINGS, copies: Copies | None = None,
          features: Features | None = None, cache: Path | None = None,
          progress: Progress = lambda done, total: None) -> list[Verdict]:
    """A verdict an image of the synthetic set, in its order.

    per_class   at most so many of each class (image type, view, laterality and present findings) are kept.
    copies      scores and limits of images; None: `pixel_copies` of the training set.
    features    in which images must differ; None: those of the classifier that was taught on the training set.
    ValueError where per_class is less than 1 or the training set teaches nothing.
    """
    from medisyn.evaluation import classifier
    if per_class < 1:
        raise ValueError(f"--per-class expects 1 or more, found {per_class}")
    network = taught(sets.train, settings, cache, progress)
    made, real = looked_at(network, sets.synthetic, asked=True), looked_at(network, sets.unseen)
    found: dict[int, Verdict] = {}
    clear, limits = clearness(made), limits_of(real)
    for row, record in enumerate(made.records):
        least = limits.get(record.image_type, limits["all"])
        if not clear[row] >= least:
            found[row] = Verdict(row, unlike_its_sentence(made, row, clear[row], least), "sentence", float(clear[row]))
    left = [row for row in range(len(made.records)) if row not in found]
    if left:
        score, limit = (copies or pixel_copies(sets.train, sets.unseen))(sets.synthetic.take(left))
        for row, is_at, most in zip(left, score, limit, strict=True):
            if is_at >= most:
                found[row] = Verdict(row, f"shows a training image again: likeness {is_at:.3f}, the limit is {most:.3f}", "copy",
                                     float(clear[row]))
    left = [row for row in left if row not in found]
    seen_as = (features or (lambda images: classifier.features(network, pixels_of(images, network.settings.side))))
    for kind in dict.fromkeys(shown(made.records[row]) for row in left):
        mine = [row for row in left if shown(made.records[row]) == kind]
        if len(mine) > per_class:
            points = seen_as(sets.synthetic.take(mine))
            kept = {mine[k] for k in farthest(points, per_class, int(np.argmax(clear[mine])))}
        else:
            kept = set(mine)
        for row in mine:
            reason = None if row in kept else f"{per_class} of its class are kept that differ more from each other"
            found[row] = Verdict(row, reason, "kept" if row in kept else "class", float(clear[row]))
    return [found[row] for row in range(len(made.records))]


def pixels_of(images: Images, side: int) -> np.ndarray:
    return images.pixels(range(len(images)), side)


def limits_of(real: Seen) -> dict[str, float]:
    """The clearness below which an image is held back: what 90 % of unseen real images reach, an image type and all."""
    clear, types = clearness(real), np.array([r.image_type for r in real.records], dtype=str)
    known = np.isfinite(clear)
    found = {"all": float(np.quantile(clear[known], DOUBTFUL)) if known.any() else -np.inf}
    for kind in set(types[known].tolist()):
        if (known & (types == kind)).sum() >= FEWEST:
            found[kind] = float(np.quantile(clear[known & (types == kind)], DOUBTFUL))
    return found


def unlike_its_sentence(made: Seen, row: int, clear: float, least: float) -> str:
    """What the classifier saw instead, in words."""
    if not np.isfinite(clear):
        return "its sentence states nothing that the training images teach"
    wrong = []
    for q in made.questions:
        p, truth = made.answers[q.name][row], made.truth[q.name][row]
        if q.exclusive and truth >= 0 and p.argmax() != truth:
            wrong.append(f"{spoken(q.choices[p.argmax()])} instead of {spoken(q.choices[truth])}")
        elif not q.exclusive:
            wrong += [f"{'no ' if truth[k] else ''}{spoken(q.choices[k])}" for k in np.flatnonzero(truth >= 0)
                      if (p[k] > 0.5) != bool(truth[k])]
    told = f"looks like {', '.join(wrong[:3])}" if wrong else "shows its sentence less clearly than real images do"
    return f"{told}; clearness {np.exp(clear):.2f}, at least {np.exp(least):.2f} is asked for"


def spoken(choice: str) -> str:
    return label(choice.rpartition("/")[2])


def pixel_copies(train: Images, unseen: Images) -> Copies:
    """The search for copies by coarse sketch and aligned pixels, its limits set an image type on the unseen images."""
    from medisyn.evaluation import copies
    side = 2 * copies.SIDE

    def seen(images: Images) -> copies.Shown:
        return copies.shown(lambda rows: images.pixels(rows, side), len(images))

    def scored(images: Images) -> tuple[np.ndarray, np.ndarray]:
        score, limit = np.full(len(images), -1.0), np.full(len(images), np.inf)
        for kind in dict.fromkeys(r.image_type for r in images.records):
            mine, known, fresh = ([i for i, r in enumerate(s.records) if r.image_type == kind] for s in (images, train, unseen))
            if known:
                against = copies.library(seen(train.take(known)))
                score[mine] = copies.search(seen(images.take(mine)), against)[0]
                of_unseen = copies.search(seen(unseen.take(fresh)), against)[0] if len(fresh) >= 4 else None
                limit[mine] = copies.LEAST if of_unseen is None else copies.limit(of_unseen).score
        return score, limit
    return scored


def write(images: Images, verdicts: Sequence[Verdict], out: Path) -> dict:
    """The kept images as a collection, records and provenance as they were, and rejected.jsonl; a summary as a dict.

    ValueError where `out` holds something already, or lies inside the set.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder with -o")
    (out / "images").mkdir(parents=True, exist_ok=True)
    kept: list[Record] = []
    with (out / "rejected.jsonl").open("w", encoding="utf-8") as lines:
        for verdict in verdicts:
            record, path = images.records[verdict.row], images.paths[verdict.row]
            if verdict.reason is None:
                name = f"images/{len(kept):06d}-{path.name}"  # files of the same name may lie in several folders
                shutil.copyfile(path, out / name)
                kept.append(dataclasses.replace(record, file_name=name))
            else:
                lines.write(json.dumps({"id": record.id, "file": str(path), "sieve": verdict.sieve, "reason": verdict.reason,
                                        "clearness": rounded(verdict.clearness), "text": record.text}, ensure_ascii=False) + "\n")
    records.write(kept, out)
    sieves = Counter(v.sieve for v in verdicts)
    classes = Counter(" ".join(str(word) for word in shown(r) if word) for r in kept)
    return {"out": str(out), "images": len(verdicts), "kept": len(kept),
            "rejected": {s: sieves[s] for s in ("sentence", "copy", "class")}, "classes": dict(sorted(classes.items()))}


def rounded(value: float) -> float | None:
    """A number that JSON can hold."""
    return round(value, 4) if np.isfinite(value) else None
