"""Membership: can one who holds the synthetic images tell who was trained on?

The black-box attack knows nothing of the model: an image is the likelier a member, the nearer its nearest synthetic image
lies (Hilprecht et al. 2019, Monte Carlo attack; van Breugel et al. 2023, arXiv 2302.12580, discuss its limits). Members are
training images, the others are unseen real ones. A white-box attack is any function that gives each image a loss under the
model, such as SecMI's t-error (Duan et al. 2023, arXiv 2302.01316): the caller hands it in, for judges do not know makers.
An AUC of 0.5 and a true-positive rate as large as the false-positive rate mean that nothing leaks. Averages hide the few
who are exposed (Carlini et al. 2022, arXiv 2112.03570), hence the rates at few false positives.
"""

from collections.abc import Callable, Sequence

import numpy as np

from medisyn import estimates
from medisyn.estimates import Estimate
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.sets import Images, Sets, kinds_of_sets, patients

RATES = (0.01, 0.001)        # of false positives
DRAWS = 200                  # bootstrap draws of patients
MEMBERS = 4000               # training images that are attacked at most: enough for the interval to be that of the unseen
LEAST = 10                   # unseen images without which there is no row
BLOCK = 1024                 # rows of distances at a time
Loss = Callable[[np.ndarray, Sequence[str]], np.ndarray]  # (uint8 (n, side, side, 3), n texts) -> float (n,), low for members


def nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each row (n, D) to its nearest among others (m, D): float64 (n,)."""
    images, others = np.asarray(images, np.float32), np.asarray(others, np.float32)
    squares = (others * others).sum(1, dtype=np.float64)
    found = np.empty(len(images))
    for start in range(0, len(images), BLOCK):
        rows = images[start:start + BLOCK]
        gap = squares[None] - 2.0 * (rows @ others.T)
        found[start:start + BLOCK] = gap.min(1) + (rows * rows).sum(1, dtype=np.float64)
    return np.sqrt(np.maximum(found, 0))


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The chance that a member scores above another image, ties half: Mann and Whitney's U over n m. 0.5 tells nothing."""
    ranked = np.sort(others)
    below, upto = np.searchsorted(ranked, members, "left"), np.searchsorted(ranked, members, "right")
    return float((below + upto).mean() / 2 / len(others))


def true_positives(members: np.ndarray, others: np.ndarray, rate: float) -> float:
    """The share of members above the limit that at most `rate` of the others exceed: TPR at a false-positive rate.

    Members exactly at the limit are not counted: ties never favour the attack.
    """
    ranked = np.sort(others)
    allowed = int(np.floor(rate * len(others) + 1e-9))
    return float((members > ranked[len(ranked) - 1 - allowed]).mean())


def rows_of(score: np.ndarray, member: np.ndarray, who: np.ndarray, *, prefix: str = "mia", group: str = "all", seed: int = 0,
            extractor: str | None = None, note: str | None = None, draws: int = DRAWS) -> list[Estimate]:
    """The rows of an attack: score (n,) high for members, member bool (n,), who (n,) the patient of each.

    Patients are drawn whole, those of members and of the others apart. A rate that the unseen images are too few to
    resolve is a row that says so: below 1/n of them no threshold can be set.
    """
    n_others = int((~member).sum())
    names = [f"{prefix}_auc", *(f"{prefix}_tpr_at_{rate:.10g}pct" for rate in (100 * r for r in RATES))]
    if n_others < LEAST or not member.any():
        why = f"expected at least {LEAST} unseen images and one of train, found {n_others} and {int(member.sum())}"
        return [estimates.absent(name, why, group=group, extractor=extractor, better="lower") for name in names]
    statistics: list[Callable[[np.ndarray], float]] = [
        lambda rows: auc(score[rows][member[rows]], score[rows][~member[rows]]),
        *(lambda rows, rate=rate: true_positives(score[rows][member[rows]], score[rows][~member[rows]], rate) for rate in RATES)]
    floors = (0.5, *RATES)
    found = []
    for name, statistic, floor, rate in zip(names, statistics, floors, (None, *RATES), strict=True):
        if rate is not None and n_others * rate < 1 - 1e-9:
            found.append(estimates.absent(name, f"a false-positive rate of {rate:.1%} needs at least {round(1 / rate):,} unseen "
                                                f"images, found {n_others:,}; hold out more", group=group, extractor=extractor,
                                          better="lower"))
            continue
        found.append(estimates.bootstrap(statistic, len(score), name=name, group=group, patients=who, strata=member, draws=draws,
                                         seed=seed, floor=floor, better="lower", extractor=extractor, note=note))
    return found


def measure(sets: Sets, features: dict[str, np.ndarray], extractor: Extractor, *, seed: int = 0,
            progress: Callable[[int, int], None] | None = None) -> list[Estimate]:
    """`mia_auc`, `mia_tpr_at_1pct` and `mia_tpr_at_0.1pct` of the synthetic set alone, for all and each image type.

    features: float32 (N, D) by "train", "unseen" and "synthetic". An image is compared with synthetic ones of its own
    image type where there are any: else a type that was seldom made would look unknown.
    """
    rng = np.random.default_rng([seed, 5])
    space = f"{extractor.name} {extractor.weights}"
    kinds = kinds_of_sets(sets)
    made = sorted(set(kinds["synthetic"]))
    shared = [kind for kind in made if (kinds["train"] == kind).any() and (kinds["unseen"] == kind).any()]
    if not shared:
        return rows_of(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), extractor=space)
    share = min(1.0, MEMBERS / max(1, int(np.isin(kinds["train"], shared).sum())))
    score, member, who, of_kind = [], [], [], []
    keys = {"train": patients(sets.train), "unseen": patients(sets.unseen)}
    for kind in shared:
        near = features["synthetic"][kinds["synthetic"] == kind]
        rows = {name: np.flatnonzero(kinds[name] == kind) for name in ("train", "unseen")}
        few = max(min(len(rows["train"]), 200), round(share * len(rows["train"])))
        rows["train"] = np.sort(rng.choice(rows["train"], few, replace=False))
        near_train, near_unseen = (-nearest(features[name][rows[name]], near) for name in ("train", "unseen"))
        level = np.median(near_unseen)                # types lie at different distances: each against its own unseen images
        spread = max(float(np.median(np.abs(near_unseen - level))), 1e-9)
        for name, found in (("train", near_train), ("unseen", near_unseen)):
            score.append((found - level) / spread)
            member.append(np.full(len(found), name == "train"))
            who.append(np.array([f"{name}/{key}" for key in keys[name][rows[name]]]))
            of_kind.append(np.full(len(found), kind))
        if progress:
            progress(len(of_kind) // 2, len(shared))
    score, member, who, of_kind = (np.concatenate(parts) for parts in (score, member, who, of_kind))
    note = "black box: distance to the nearest synthetic image; an attacker who holds the model can do more"
    found = rows_of(score, member, who, seed=seed, extractor=space, note=note)
    for kind in filter(None, shared):
        mine = of_kind == kind
        found += rows_of(score[mine], member[mine], who[mine], group=f"image_type={kind}", seed=seed, extractor=space, note=note)
    return found


def measure_loss(train: Images, unseen: Images, loss: Loss, side: int, *, n: int = 2000, seed: int = 0, prefix: str = "mia_loss",
                 progress: Callable[[int, int], None] | None = None) -> list[Estimate]:
    """The same rows by a loss under the model itself (white box), on at most n images of either set, in blocks of 32.

    loss: (uint8 (m, side, side, 3), m texts) -> float (m,), lower for members; SecMI's t-error is one.
    """
    rng = np.random.default_rng([seed, 6])
    score, member, who = [], [], []
    chosen = [(images, np.sort(rng.choice(len(images), min(n, len(images)), replace=False))) for images in (train, unseen)]
    total, done = sum(len(rows) for _, rows in chosen), 0
    for (images, rows), is_member in zip(chosen, (True, False), strict=True):
        keys = patients(images)[rows]
        for start in range(0, len(rows), 32):
            mine = rows[start:start + 32]
            score.append(-np.asarray(loss(images.pixels(mine, side), [images.records[i].text or "" for i in mine]), float))
            done += len(mine)
            if progress:
                progress(done, total)
        member.append(np.full(len(rows), is_member))
        who.append(np.array([f"{is_member}/{key}" for key in keys]))
    score, member, who = np.concatenate(score), np.concatenate(member), np.concatenate(who)
    if score.shape != member.shape:
        raise ValueError(f"a loss expects to give one number an image, found {score.shape} for {len(member)} images")
    return rows_of(score, member, who, prefix=prefix, seed=seed, note="white box: the loss of the model itself")
