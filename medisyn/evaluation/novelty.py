"""Novelty: are the synthetic images new, or are training images among them? Every figure has its two controls beside it.

Copies are looked for pixel by pixel (`copies`); distances tell whether the whole set lies nearer to train than unseen real
images do. Distances are of an extractor's features at length 1, always within an image type: else a set of the right types
in other shares would look new, or copied. Distances miss single copies (Ganev and De Cristofaro 2025, arXiv 2312.05114;
Alaa et al. 2022 and Meehan et al. 2020 say so of their own): read them beside `copy_rate`, not instead of it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from medisyn import estimates
from medisyn.estimates import Estimate
from medisyn.evaluation import copies
from medisyn.evaluation.copies import Limit, Shown
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.sets import Images, Sets, patients

READ = 128            # pixels a side that images are read at to be compared
WHOLE = 256           # pixels a side at which copies are planted
PLANTED = 20          # training images of each type that are planted, in each change
SUBSETS = 20          # equal-size subsets that a share is averaged over
FOLDS = 5             # of unseen patients: each is judged by a limit that was set on the others
BLURRED = 200         # unseen images of each type that are blurred
MOST = 5000           # images of a type and set whose distances are counted
SURE = 0.9            # correlation from which an image of another type may be the original all the same
FEWEST = 5            # unseen images of a type without which it has no row
Progress = Callable[[int, int], None]


# ---- copies planted on purpose ---------------------------------------------------------------------------------------

def recompressed(pixels: np.ndarray, rng: np.random.Generator, quality: int = 50) -> np.ndarray:
    """Through JPEG: uint8 (n, side, side, 3) -> the same."""
    out = np.empty_like(pixels)
    for k, square in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(square).save(file, "JPEG", quality=quality)
        with Image.open(file) as opened:
            out[k] = np.asarray(opened.convert("RGB"))
    return out


def cropped(pixels: np.ndarray, rng: np.random.Generator, share: float = 0.9) -> np.ndarray:
    """Each image's part of `share` of its side, anywhere, at the old size."""
    out, side = np.empty_like(pixels), pixels.shape[1]
    keep = round(side * share)
    for k, square in enumerate(pixels):
        top, left = rng.integers(0, side - keep + 1, 2)
        cut = Image.fromarray(square[top:top + keep, left:left + keep])
        out[k] = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
    return out


def contrasted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker middle tones, three quarters of the contrast, a lifted black."""
    return np.rint(255 * (0.1 + 0.75 * (pixels / 255.0) ** 1.4)).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "plain": lambda pixels, rng: pixels,
    "flipped": lambda pixels, rng: np.ascontiguousarray(pixels[:, :, ::-1]),
    "cropped": cropped,
    "recompressed": recompressed,
    "contrasted": contrasted,
}


# ---- figures on arrays -----------------------------------------------------------------------------------------------

def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean, of rows (n, D) and (m, D): float32 (n, m)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def closer_to_train(to_train: np.ndarray, to_unseen: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each image's nearest real one is of train, among equally many of both: float64 (n,) in [0, 1].

    to_train, to_unseen: distances (n, N) and (n, M); inf hides an image, such as one's own patient's: as many of the other
    side are then left out. Averaged over 20 subsets, ties half; 0.5 where nothing was copied. nan where nothing is left.
    """
    rng = np.random.default_rng(seed)
    size = min(to_train.shape[1], to_unseen.shape[1])
    votes, counted = np.zeros(len(to_train)), np.zeros(len(to_train))
    for _ in range(SUBSETS):
        a = to_train[:, rng.permutation(to_train.shape[1])[:size]]
        b = to_unseen[:, rng.permutation(to_unseen.shape[1])[:size]]
        left = np.minimum(np.isfinite(a).sum(1), np.isfinite(b).sum(1))
        ok = left > 0
        near = [nearest_of_first(x[ok], left[ok]) for x in (a, b)]
        votes[ok] += (near[0] < near[1]) + 0.5 * (near[0] == near[1])
        counted += ok
    return np.divide(votes, counted, out=np.full(len(votes), np.nan), where=counted > 0)


def nearest_of_first(gaps: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The least of the first n[i] finite values of each row: the columns come in random order."""
    order = np.argsort(~np.isfinite(gaps), axis=1, kind="stable")
    least = np.minimum.accumulate(np.take_along_axis(gaps, order, 1), axis=1)
    return least[np.arange(len(gaps)), n - 1]


def two_nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances of each row (n, D) to its two nearest among (m, D), m at least 2: float32 (n, 2), ascending."""
    parts = [np.sort(np.partition(distances(images[i:i + 512], others), 1, axis=1)[:, :2], axis=1)
             for i in range(0, len(images), 512)]
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.float32)


def tail_ratio(made: np.ndarray, unseen: np.ndarray, share: float = 0.05) -> float:
    """The 5th percentile of one set of values over that of the other; nan where the other's is 0."""
    below = float(np.quantile(unseen, share))
    return float(np.quantile(made, share)) / below if below > 0 else float("nan")


def adversarial_accuracy(a: np.ndarray, b: np.ndarray) -> float:
    """Nearest-neighbour adversarial accuracy of two sets (n, D), n the same (Yale et al. 2020, eq. 1).

    0.5: they cannot be told apart; 1: they lie apart; near 0: each image of one has a twin in the other.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"adversarial accuracy expects two sets of one size of at least 2, found {len(a)} and {len(b)}")
    across, within_a, within_b = distances(a, b), distances(a, a), distances(b, b)
    np.fill_diagonal(within_a, np.inf)
    np.fill_diagonal(within_b, np.inf)
    def beyond(x: np.ndarray, y: np.ndarray) -> float:
        return float(((x > y) + 0.5 * (x == y)).mean())
    return (beyond(across.min(1), within_a.min(1)) + beyond(across.min(0), within_b.min(1))) / 2


def authentic(made: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Which synthetic images (n, D) are authentic: bool (n,) (Alaa et al. 2022, arXiv 2102.08921, section 3.3).

    An image is not, where it lies nearer to its nearest training image than that one's nearest training image does.
    """
    gaps = distances(made, train)
    nearest = gaps.argmin(1)
    used, place = np.unique(nearest, return_inverse=True)
    own = distances(train[used], train)
    own[np.arange(len(used)), used] = np.inf
    return gaps.min(1) >= own.min(1)[place]


def mann_whitney_z(made: np.ndarray, unseen: np.ndarray) -> float:
    """C_T of one cell: the z-score of U of distances to train (Meehan et al. 2020, arXiv 2004.05675, section 3).

    Below 0 synthetic images lie nearer to train than unseen ones; below -3 that is no chance.
    """
    ranked = np.sort(unseen)
    u = (np.searchsorted(ranked, made, "left") + np.searchsorted(ranked, made, "right")).sum() / 2
    n, m = len(made), len(unseen)
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def sharpness(pixels: np.ndarray) -> np.ndarray:
    """The share of an image's contrast that lies in its finest detail: float64 (n,) in [0, 1] of uint8 (n, side, side, 3)."""
    light = (pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)
    fine = light - gaussian_filter(light, (0, 1, 1))
    return fine.var((1, 2), dtype=np.float64) / np.maximum(light.var((1, 2), dtype=np.float64), 1e-6)


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Through a Gaussian of sigma pixels: uint8 (n, side, side, 3) -> the same."""
    return np.rint(gaussian_filter(pixels.astype(np.float32), (0, sigma, sigma, 0))).astype(np.uint8) if sigma > 0 else pixels


def sigma_like(pixels: np.ndarray, wanted: float) -> float:
    """The blur that brings the median sharpness of images down to `wanted`; 0 where they are no sharper."""
    if np.median(sharpness(pixels)) <= wanted:
        return 0.0
    low, high = 0.0, 6.0
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if np.median(sharpness(blurred(pixels, middle))) > wanted else (low, middle)
    return (low + high) / 2


# ---- looking for copies ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Looked:
    """What the search for copies found: the score and the likeliest training row of each image, and the limits."""

    score: dict[str, np.ndarray]           # by "synthetic", "unseen": float32 (n,)
    row: dict[str, np.ndarray]             # int64 (n,), a row of train
    limits: dict[str, Limit]               # by image type; those without unseen images have the strictest of the others
    called: dict[str, np.ndarray]          # bool (n,): called a copy; an unseen image by the limit of other patients
    planted: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by change: (rows of train, score, called)


def kinds_of(images: Images) -> np.ndarray:
    """The image type of each image, "" where it is unknown: strings (n,)."""
    return np.array([r.image_type or "" for r in images.records], dtype=object).astype(str)


def kinds_of_sets(sets: Sets) -> dict[str, np.ndarray]:
    """`kinds_of` each set; where a set knows none, images of all sets are compared as one unknown type."""
    found = {name: kinds_of(images) for name, images in sets.items()}
    return found if all((kinds != "").any() for kinds in found.values()) else {k: np.full(len(v), "") for k, v in found.items()}


def searched(images: Shown, kind: np.ndarray, against: copies.Library, kinds: np.ndarray,
             progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`copies.search`, and once more within their own image type for images that were likened to another one below SURE.

    A lone cell looks like a mole, and limits are an image type's own; a copy under a wrong label scores above SURE.
    kind: (n,) of the images; kinds: (N,) of the training images.
    """
    score, row = copies.search(images, against, progress=progress)
    strange = (row >= 0) & np.isin(kind, kinds) & (kinds[row] != kind) & (score < SURE)
    again = np.flatnonzero(strange)
    if len(again):
        score[again], row[again] = copies.search(images.take(again), against,
                                                 lambda rows: kinds[None] != kind[again[rows]][:, None])
    return score, row


def look(sets: Sets, features: dict[str, np.ndarray], extractor: Extractor, *, seed: int = 0,
         false_alarms: float = copies.FALSE_ALARMS, progress: Progress | None = None) -> Looked:
    """Search the synthetic, the unseen and the planted images for what train shows. About 20 ms an image."""
    kinds = kinds_of_sets(sets)
    planted_rows = plan_planted(kinds["train"], seed)
    total = len(sets.train) + len(sets.synthetic) + len(sets.unseen) + len(CHANGES) * len(planted_rows)
    done = [0]

    def step(n: int) -> Progress:
        start = done[0]
        done[0] += n
        return lambda k, _: progress(start + k, total) if progress else None

    def read(name: str, images: Images, tell: Progress | None = None) -> Shown:
        return copies.shown(lambda rows: images.pixels(rows, READ), len(images), features[name], tell)

    against = copies.library(read("train", sets.train, step(len(sets.train))))
    score, row = {}, {}
    for name, images in (("synthetic", sets.synthetic), ("unseen", sets.unseen)):
        score[name], row[name] = searched(read(name, images), kinds[name], against, kinds["train"], step(len(images)))
    limits = limits_of(score["unseen"], kinds["unseen"], np.unique(kinds["train"]), false_alarms)

    def called(score: np.ndarray, row: np.ndarray, kind: np.ndarray, limits: dict[str, Limit]) -> np.ndarray:
        """By the limit of an image's type, or of its likeliest training image's where train has no such type."""
        where = [k if k in limits else kinds["train"][r] for k, r in zip(kind, row, strict=True)]
        return score >= np.array([limits[w].score for w in where])

    flagged = {"synthetic": called(score["synthetic"], row["synthetic"], kinds["synthetic"], limits),
               "unseen": np.zeros(len(sets.unseen), bool)}
    keys = patients(sets.unseen)
    fold = np.random.default_rng([seed, 2]).permutation(len(np.unique(keys)))[np.unique(keys, return_inverse=True)[1]] % FOLDS
    for k in range(FOLDS):
        mine = fold == k
        if mine.any() and (~mine).sum() >= FEWEST:
            others = limits_of(score["unseen"][~mine], kinds["unseen"][~mine], np.unique(kinds["train"]), false_alarms)
            flagged["unseen"][mine] = called(score["unseen"][mine], row["unseen"][mine], kinds["unseen"][mine], others)
    planted = {}
    rng = np.random.default_rng([seed, 3])
    for name, change in CHANGES.items():
        pixels = lambda rows, change=change: change(sets.train.pixels(planted_rows[rows], WHOLE), rng)  # noqa: E731
        held = np.concatenate([pixels(np.arange(i, min(i + 64, len(planted_rows)))) for i in range(0, len(planted_rows), 64)])
        seen = None if features.get("train") is None else extractor.apply(at_side(held, extractor.side))
        found, at = searched(copies.shown(lambda rows, held=held: held[rows], len(held), seen), kinds["train"][planted_rows],
                             against, kinds["train"], step(len(held)))
        planted[name] = (planted_rows, found, called(found, at, kinds["train"][planted_rows], limits))
    return Looked(score, row, limits, flagged, planted)


def plan_planted(kinds: np.ndarray, seed: int) -> np.ndarray:
    """Some training rows of each image type."""
    rng = np.random.default_rng([seed, 1])
    chosen = [rng.permutation(np.flatnonzero(kinds == kind))[:PLANTED] for kind in np.unique(kinds)]
    return np.sort(np.concatenate(chosen))


def at_side(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (n, s, s, 3) at another side, antialiased."""
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS)) for p in pixels])


def limits_of(score: np.ndarray, kind: np.ndarray, wanted: np.ndarray, false_alarms: float) -> dict[str, Limit]:
    """A limit for each wanted image type; those with too few unseen images take the strictest of the others."""
    found = {name: copies.limit(score[kind == name], false_alarms) for name in np.unique(kind) if (kind == name).sum() >= FEWEST}
    strictest = max((known.score for known in found.values()), default=None)
    for name in wanted:
        if name not in found:
            had = int((kind == name).sum())
            note = f"{had} unseen images of this type: " + ("the strictest limit of the other types stands in" if strictest else
                                                           "no limit could be set, 0.95 stands in")
            found[str(name)] = Limit(strictest or 0.95, float("nan"), had, 0, note)
    return {str(name): known for name, known in found.items()}


# ---- rows ------------------------------------------------------------------------------------------------------------

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
