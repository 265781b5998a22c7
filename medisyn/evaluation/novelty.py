"""Novelty: are the synthetic images new, or are training images among them? Every figure has its two controls beside it.

Copies are looked for pixel by pixel (`looking`); distances tell whether the whole set lies nearer to train than unseen real
images do (`closeness`). Distances are of an extractor's features at length 1, always within an image type: else a set of the
right types in other shares would look new, or copied. Distances miss single copies (Ganev and De Cristofaro 2025, arXiv
2312.05114; Alaa et al. 2022 and Meehan et al. 2020 say so of their own): read them beside `copy_rate`, not instead of it.
"""

from collections.abc import Callable

import numpy as np

from medisyn import estimates
from medisyn.estimates import Estimate
from medisyn.evaluation import copies
from medisyn.evaluation.closeness import (
    adversarial_accuracy,
    authentic,
    blurred,
    closer_to_train,
    distances,
    mann_whitney_z,
    sharpness,
    sigma_like,
    tail_ratio,
    two_nearest,
)
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.looking import FEWEST, Looked, Progress, look
from medisyn.evaluation.sets import Sets, kinds_of_sets, patients

BLURRED = 200         # unseen images of each type that are blurred
MOST = 5000           # images of a type and set whose distances are counted


def measure(sets: Sets, features: dict[str, np.ndarray], extractor: Extractor, *, seed: int = 0, progress: Progress | None = None,
            looked: Looked | None = None) -> list[Estimate]:
    """All rows of novelty, for all images and each image type.

    features: float32 (N, D) by "train", "unseen" and "synthetic". looked: what `look` found before, else it is looked now.
    """
    looked = looked or look(sets, features, extractor, seed=seed, progress=progress)
    space = f"{extractor.name} {extractor.weights}"
    return (copy_rows(sets, looked, space) + reidentified(sets, looked, space, seed)
            + distance_rows(sets, {k: copies.unit(v) for k, v in features.items()}, extractor, space, seed))


def each_group(kind: np.ndarray) -> dict[str, np.ndarray]:
    """Rows by "all" and "image_type=...": int64."""
    return {"all": np.arange(len(kind))} | {f"image_type={k}": np.flatnonzero(kind == k) for k in np.unique(kind) if k}


def copy_rows(sets: Sets, looked: Looked, space: str) -> list[Estimate]:
    """copy_rate, its floor on unseen real images, and the share of planted copies that is found."""
    kinds = kinds_of_sets(sets)
    keys = patients(sets.unseen)
    found, floors = [], {}
    for group, rows in each_group(kinds["unseen"]).items():
        far = [looked.limits[k] for k in np.unique(kinds["unseen"][rows])]
        note = ("the false alarms: each patient is judged by a limit set on others; "
                f"{sum(one.far_out for one in far)} unseen images show what a training image shows: doubles in the collection")
        row = estimates.bootstrap(lambda r, rows=rows: looked.called["unseen"][rows][r].mean(), len(rows), name="copy_rate_unseen",
                                  group=group, patients=keys[rows], share=True, better="lower", extractor=space, note=note)
        floors[group] = row.value
        found.append(row)
    for group, rows in each_group(kinds["synthetic"]).items():
        kind = group.partition("=")[2]
        known = looked.limits.get(kind)
        note = f"correlation from {known.score:.3f}, {known.note}" if known else None
        found.append(estimates.proportion(int(looked.called["synthetic"][rows].sum()), len(rows), name="copy_rate", group=group,
                                          floor=floors.get(group), better="lower", extractor=space, note=note))
    every = {name: (rows, called) for name, (rows, _, called) in looked.planted.items()}
    rows = np.concatenate([rows for rows, _ in every.values()])
    called = np.concatenate([called for _, called in every.values()])
    for name, (of_train, right) in ({"": (rows, called)} | {f"_{k}": v for k, v in every.items()}).items():
        for group, mine in each_group(kinds["train"][of_train]).items():
            found.append(estimates.proportion(int(right[mine].sum()), len(mine), name=f"copy_rate_planted{name}", group=group,
                                              better="higher", extractor=space,
                                              note="training images put in on purpose: below 0.99 copies may go unseen"))
    return found


def reidentified(sets: Sets, looked: Looked, space: str, seed: int) -> list[Estimate]:
    """The likeliest copy among the seeds of each prompt (CheXGenBench, Dutt et al. 2025, arXiv 2505.10496, section 3.2).

    `reid_max` is the mean over prompts of the largest score among their images; its floor the same of as many unseen real
    images drawn together. `reid_rate` is the share of prompts of which any image is called a copy. A proxy: that two images
    show one patient is judged by their pixels, not by a network that learned to tell patients apart.
    """
    kinds = kinds_of_sets(sets)
    kind, unseen_kind = kinds["synthetic"], kinds["unseen"]
    prompts: dict[tuple[str, str], list[int]] = {}
    for row, record in enumerate(sets.synthetic.records):
        prompts.setdefault((kind[row], record.text or record.id), []).append(row)
    rng = np.random.default_rng([seed, 4])
    largest = np.array([looked.score["synthetic"][rows].max() for rows in prompts.values()])
    any_called = np.array([looked.called["synthetic"][rows].any() for rows in prompts.values()])
    floor = [looked.score["unseen"][rng.choice(pool, min(len(rows), len(pool)), replace=False)].max()
             for (name, _), rows in prompts.items() if len(pool := np.flatnonzero(unseen_kind == name))]
    note = "a proxy: by pixels, not by a network that tells patients apart; " \
           f"{len(sets.synthetic) / max(len(prompts), 1):.1f} images a prompt"
    return [estimates.bootstrap(lambda r: largest[r].mean(), len(largest), name="reid_max", better="lower", extractor=space,
                                floor=float(np.mean(floor)) if floor else None, note=note, seed=seed),
            estimates.proportion(int(any_called.sum()), len(any_called), name="reid_rate", better="lower", extractor=space,
                                 note=note)]


DISTANCES = {  # name: (better, note)
    "nn_closer_to_train": (None, "0.5 where nothing was copied; soft images lie nearer to everything: see the blurred row"),
    "nn_closer_to_train_blurred_unseen": (None, "control: unseen real images, as soft as the synthetic ones, own patient hidden"),
    "dcr": ("higher", "5th percentile of the distance to train, over that of unseen images; 1 where nothing was copied"),
    "nndr": ("higher", "5th percentile of nearest over second nearest distance to train, over that of unseen images"),
    "nnaa": (None, "0.5 cannot be told from train, 1 apart, near 0 twins"),
    "auth_pct": ("higher", "its authors warn that it misses copies and depends on the density of train"),
    "c_t": ("higher", "z-score, below -3 nearer to train than by chance; its authors warn that single copies do not show"),
}


def distance_rows(sets: Sets, features: dict[str, np.ndarray], extractor: Extractor, space: str, seed: int) -> list[Estimate]:
    """Rows of distances: each image type on its own, and all of them together, each image weighing the same."""
    kinds = kinds_of_sets(sets)
    keys, rng = patients(sets.unseen), np.random.default_rng([seed, 8])
    found: list[Estimate] = []
    kept: dict[str, dict[str, np.ndarray]] = {}
    for kind in np.unique(kinds["synthetic"]):
        rows = {name: np.sort(rng.permutation(np.flatnonzero(k == kind))[:MOST]) for name, k in kinds.items()}
        group = f"image_type={kind}"
        if len(rows["train"]) < 2 or len(rows["unseen"]) < FEWEST:
            why = f"expected at least 2 training and {FEWEST} unseen images of the type, found {len(rows['train'])} and " \
                  f"{len(rows['unseen'])}"
            found += [estimates.absent(name, why, group, n=len(rows["synthetic"]), better=better, extractor=space)
                      for name, (better, _) in DISTANCES.items() if kind]
            continue
        kept[str(kind)] = one_type(sets, {k: features[k][r] for k, r in rows.items()}, rows, keys, extractor, seed)
        if kind:
            found += distance_estimates([kept[str(kind)]], group, space, seed)
    if not kept:
        why = f"no image type has {FEWEST} unseen and 2 training images"
        return found + [estimates.absent(name, why, n=len(sets.synthetic), better=better, extractor=space)
                        for name, (better, _) in DISTANCES.items()]
    return found + distance_estimates(list(kept.values()), "all", space, seed)


def one_type(sets: Sets, seen: dict[str, np.ndarray], rows: dict[str, np.ndarray], keys: np.ndarray, extractor: Extractor,
             seed: int) -> dict[str, np.ndarray]:
    """What is counted of one image type: votes, distances and accuracies."""
    made, train, unseen = seen["synthetic"], seen["train"], seen["unseen"]
    mine = keys[rows["unseen"]]
    own = mine[:, None] == mine[None]
    rng = np.random.default_rng([seed, 7])
    near = {"synthetic": two_nearest(made, train), "unseen": two_nearest(unseen, train)}
    blur_rows = np.sort(rng.permutation(len(unseen))[:BLURRED])
    some = rng.permutation(len(made))[:BLURRED]
    wanted = float(np.median(sharpness(sets.synthetic.pixels(rows["synthetic"][some], extractor.side))))
    pixels = sets.unseen.pixels(rows["unseen"][blur_rows], extractor.side)
    sigma = sigma_like(pixels, wanted)
    soft = copies.unit(extractor.apply(blurred(pixels, sigma)))
    n = min(len(made), len(train), len(unseen))
    chosen = {k: v[np.sort(rng.permutation(len(v))[:n])] for k, v in seen.items()}
    scale = max(float(np.median(near["unseen"][:, 0])), 1e-9)
    return {
        "votes": closer_to_train(distances(made, train), distances(made, unseen), seed),
        "floor": closer_to_train(distances(unseen, train), np.where(own, np.inf, distances(unseen, unseen)), seed),
        "soft": closer_to_train(distances(soft, train), np.where(own[blur_rows], np.inf, distances(soft, unseen)), seed),
        "sigma": np.array([sigma]), "patients": mine, "soft_patients": mine[blur_rows],
        "dcr": near["synthetic"][:, 0] / scale, "dcr_unseen": near["unseen"][:, 0] / scale,
        "nndr": near["synthetic"][:, 0] / np.maximum(near["synthetic"][:, 1], 1e-9),
        "nndr_unseen": near["unseen"][:, 0] / np.maximum(near["unseen"][:, 1], 1e-9),
        "nnaa": np.array([adversarial_accuracy(chosen["synthetic"], chosen["train"]),
                          adversarial_accuracy(chosen["unseen"], chosen["train"]), n]) if n >= 2 else np.array([np.nan, np.nan, n]),
        "authentic": authentic(made, train), "authentic_unseen": authentic(unseen, train),
        "c_t": np.array([mann_whitney_z(near["synthetic"][:, 0], near["unseen"][:, 0])]),
    }


def distance_estimates(types: list[dict[str, np.ndarray]], group: str, space: str, seed: int) -> list[Estimate]:
    """Rows from what was counted of one image type or of several."""
    def joined(name: str) -> np.ndarray:
        return np.concatenate([one[name] for one in types])

    def row(name: str, values: np.ndarray, statistic: Callable[[np.ndarray], float], **more: object) -> Estimate:
        better, note = DISTANCES[name]
        return estimates.bootstrap(statistic, len(values), name=name, group=group, better=better, extractor=space, seed=seed,
                                   **({"note": note} | more))

    def share(name: str, key: str, who: str | None = None, **more: object) -> Estimate:
        values = joined(key).astype(float)
        ok = np.isfinite(values)
        keys = None if who is None else joined(who)[ok]
        return row(name, values[ok], lambda r: values[ok][r].mean(), patients=keys, share=True, **more)

    def tail(name: str) -> Estimate:
        made, unseen = joined(name), joined(f"{name}_unseen")
        both = np.concatenate([made, unseen])
        side = np.arange(len(both)) < len(made)
        keys = np.concatenate([[f"image {k}" for k in range(len(made))], joined("patients")])
        return row(name, both, lambda r: tail_ratio(both[r][side[r]], both[r][~side[r]]), patients=keys, strata=side, floor=1.0)

    floor = joined("floor")
    weights = np.array([one["nnaa"][2] for one in types])
    accuracy, accuracy_floor = (float(np.average([one["nnaa"][k] for one in types], weights=weights)) for k in (0, 1))
    n = np.array([len(one["votes"]) for one in types])
    c_t = float(np.average([one["c_t"][0] for one in types], weights=n))
    sigma = ", ".join(f"{one['sigma'][0]:.1f}" for one in types)
    return [
        share("nn_closer_to_train", "votes", floor=float(np.nanmean(floor)) if np.isfinite(floor).any() else None),
        share("nn_closer_to_train_blurred_unseen", "soft", "soft_patients",
              note=f"{DISTANCES['nn_closer_to_train_blurred_unseen'][1]}; Gaussian of {sigma} pixels"),
        tail("dcr"), tail("nndr"),
        Estimate("nnaa", accuracy, None, None, int(weights.sum()), group, accuracy_floor, None, space, None,
                 f"{DISTANCES['nnaa'][1]}; no interval: doubles of a resample are twins"),
        share("auth_pct", "authentic", floor=float(joined("authentic_unseen").mean())),
        Estimate("c_t", c_t, None, None, int(n.sum()), group, 0.0, "higher", space, None, DISTANCES["c_t"][1]),
    ]
