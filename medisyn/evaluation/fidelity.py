"""Fidelity: how far synthetic images lie from real ones of other patients, and how varied they are.

Every figure compares equally many images of each image type (a distance is biased in n, and a set is not worse
for another mixture of types), and stands beside its floor: the same figure of as many *train* images in place of the
synthetic ones. Train and unseen are both real and of different patients: a perfect generator stands at the floor.
For distances and two-sample tests each of these train images shows what a synthetic one says that it shows, so that a
generator is not worse for the prompts it was given. Where a set lies among real images and how much of them it reaches
(precision, density, recall, coverage) is compared with train images as they come: a set of one finding alone is narrow,
whoever made it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medisyn.data.records import Record
from medisyn.estimates import Estimate, absent, bootstrap, joined, percentiles, resamples
from medisyn.evaluation import distances, diversity, manifolds, mixture, two_sample
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.sets import Images, Progress, Sets, groups, groups_of, patients

FEWEST = 30            # images a side for a figure of a whole set, such as a distance
FEWEST_EACH = 10       # images for a mean of what each image is worth
DRAWS = 100            # bootstrap samples of a distance; means of images have estimates.bootstrap's 1,000
AS_THEY_COME = "train images as they come"   # the floor in no mixture, where a remark names it
RAISED = 1.5           # times as far as train images as they come, where a floor is said to be raised by the mixture
PIXELS = 800           # images a side that the two-sample test on pixels sees at most
PAIRS = 40             # pairs of an image type for MS-SSIM
SIDE = 128             # pixels a side at which pixels are compared

NOTES = {
    "fd": "a low distance does not imply that images are useful (arXiv:2502.17160); biased upwards, compare with the floor",
    "kd": "unbiased: about 0 for equal distributions", "cmmd": "unbiased: about 0 for equal distributions; times 1,000",
    "precision": "share of synthetic images among real ones", "recall": "share of unseen images among synthetic ones",
    "density": "may exceed 1", "coverage": "share of unseen images with a synthetic one near", "vendi": "grows with n",
    "two_sample": "0.5: a classifier cannot tell them apart, 1: it always can",
    "ms_ssim": "higher than the floor: images of one prompt are more alike than real images of one class",
}
BETTER = {"fd": "lower", "kd": "lower", "cmmd": "lower", "vendi": "higher", "two_sample": "lower", "ms_ssim": "lower",
          "precision": "higher", "recall": "higher", "density": "higher", "coverage": "higher"}

Features = dict[str, np.ndarray]  # by "train", "unseen" and "synthetic": float32 (N, D)


@dataclass(frozen=True)
class Rows:
    """Equally many rows of each set, image type by image type."""

    train: np.ndarray
    unseen: np.ndarray
    synthetic: np.ndarray
    mixed: np.ndarray             # train rows that show what the synthetic ones say: `mixture.alike`
    left_out: tuple[str, ...]     # image types that one of the sets lacks

    def __len__(self) -> int:
        return len(self.unseen)


def measure(sets: Sets, features: Features, extractor: Extractor, *, seed: int = 0, progress: Progress | None = None,
            pixels: bool = True) -> list[Estimate]:
    """Every figure of fidelity, by group: names end in the extractor's name, `fd_eye`.

    features: float32 (N, D) by set name. pixels: also what needs no extractor (`two_sample_pixels`, `ms_ssim`);
    False for the second and later extractors of a report.
    """
    tell = progress or (lambda done, total: None)
    by_set = {name: groups(images) for name, images in sets.items()}
    shown = list(dict.fromkeys([*by_set["unseen"], *by_set["synthetic"]]))
    total, found = len(shown) + 3, []
    for done, group in enumerate(shown):
        found += of_group(sets, features, extractor, {name: rows.get(group, ()) for name, rows in by_set.items()}, group, seed)
        tell(done + 1, total)
    every = matched(sets, {name: rows["all"] for name, rows in by_set.items()}, seed)
    found += of_each(sets, features, extractor, every, shown, seed)
    tell(total - 2, total)
    found += told_apart(sets, features, extractor, every, shown, seed)
    tell(total - 1, total)
    if pixels:
        found += told_apart(sets, None, None, every, shown, seed) + alike(sets, shown, seed)
    tell(total, total)
    return found


def matched(sets: Sets, rows: dict[str, Sequence[int]], seed: int) -> Rows:
    """As many rows of each set as the smallest has, image type by image type; where types are unknown, all in all.

    All are drawn by chance, and train rows once more in the mixture of the synthetic ones.
    """
    known = all(r.image_type for _, images in sets.items() for r in images.records)
    rng = np.random.default_rng(seed)
    strata: dict[str, dict[str, list[int]]] = defaultdict(lambda: {name: [] for name, _ in sets.items()})
    for name, images in sets.items():
        for row in rows[name]:
            strata[images.records[row].image_type if known else ""][name].append(row)
    taken: dict[str, list[np.ndarray]] = {name: [] for name in ("train", "unseen", "synthetic", "mixed")}
    left_out = []
    for stratum, members in sorted(strata.items()):
        n = min(map(len, members.values()))
        if n == 0:
            left_out.append(stratum)
            continue
        for name, mine in members.items():
            taken[name].append(np.sort(rng.choice(mine, n, replace=False)))
        wanted, real = [sets.synthetic.records[row] for row in taken["synthetic"][-1]], np.sort(members["train"])
        apart = np.random.default_rng([seed, len(taken["mixed"])])
        taken["mixed"].append(np.sort(real[mixture.alike(wanted, [sets.train.records[row] for row in real], apart)]))
    joint = {name: np.concatenate(parts) if parts else np.empty(0, np.int64) for name, parts in taken.items()}
    return Rows(**joint, left_out=tuple(left_out))


def of_group(sets: Sets, features: Features, extractor: Extractor, rows: dict[str, Sequence[int]], group: str,
             seed: int) -> list[Estimate]:
    """The distances of one group and the diversity in it."""
    use, names = matched(sets, rows, seed), ("fd", "kd", "cmmd", "vendi")
    if len(use) < FEWEST:
        told = ", ".join(f"{name} {len(mine):,}" for name, mine in rows.items())
        why = f"fewer than {FEWEST} images of this group that are matched by image type ({told})"
        return [absent(f"{name}_{extractor.name}", why, group, n=len(use), better=BETTER[name], extractor=extractor.label)
                for name in names]
    x, y = (np.asarray(features[name][getattr(use, name)], np.float64) for name in ("unseen", "synthetic"))
    mixed, come = (np.asarray(features["train"][rows], np.float64) for rows in (use.mixed, use.train))
    keys = patients(sets.unseen)[use.unseen]
    left = f"without {', '.join(use.left_out)}, which one of the sets lacks" if use.left_out and group == "all" else None
    far = {"fd": distances.frechet_distance, "kd": lambda x, y: distances.kernel_distance(x, y, seed),
           "cmmd": lambda x, y: distances.cmmd(x, y, seed)}
    found = {name: (figure(x, y), figure(x, mixed)) for name, figure in far.items()}
    found["vendi"] = diversity.vendi_score(y), diversity.vendi_score(x)
    spread = resampled(x, y, keys, seed)
    out = []
    for name, (value, floor) in found.items():
        low, high = percentiles(spread[name], value)
        note = None if name == "vendi" else as_they_come(floor, far[name](x, come))
        if name in ("fd", "vendi"):
            low = max(low, 0.0 if name == "fd" else 1.0)
        out.append(Estimate(f"{name}_{extractor.name}", value, low, high, len(use), group, floor, BETTER[name], extractor.label,
                            None, joined(NOTES[name], left, note), None if name == "vendi" else len(set(keys))))
    return out


def as_they_come(mixed: float, come: float) -> str | None:
    """What is said of a floor that the mixture of findings has raised well above that of train images as they come."""
    if not mixed > RAISED * come > 0:
        return None
    return f"{AS_THEY_COME}: {come:.3g}; the set is mixed otherwise than the unseen images"


def resampled(x: np.ndarray, y: np.ndarray, keys: np.ndarray, seed: int, draws: int = DRAWS) -> dict[str, np.ndarray]:
    """Each distance on bootstrap samples: whole patients of the real side x, images of the synthetic side y. (draws,) each."""
    mine = np.stack([np.bincount(r, minlength=len(x)) for r in resamples(len(x), draws, seed, keys)])
    theirs = np.stack([np.bincount(r, minlength=len(y)) for r in resamples(len(y), draws, seed + 1)])
    pairs = list(zip(mine, theirs, strict=True))
    out = {"fd": np.array([distances.frechet_distance(x, y, a, b) for a, b in pairs]),
           "vendi": np.array([diversity.vendi_score(y, b) for b in theirs])}
    for name, kernel, a, b, scale in (("kd", distances.cubic, x, y, 1.0),
                                      ("cmmd", distances.gaussian, distances.unit(x), distances.unit(y), distances.SCALE)):
        if max(len(x), len(y)) <= distances.EXACT:
            out[name] = scale * distances.mmd(a, b, kernel, mine, theirs)
        else:
            parts = scale * distances.mmd_blocks(a, b, kernel, seed=seed)
            out[name] = np.array([parts[r].mean() for r in resamples(len(parts), 1000, seed)])
    return out


def members(images: Images, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Positions in `rows` by group."""
    found = defaultdict(list)
    for place, row in enumerate(rows):
        for group in groups_of(images.records[row]):
            found[group].append(place)
    return {group: np.array(places) for group, places in found.items()}


def of_each(sets: Sets, features: Features, extractor: Extractor, use: Rows, shown: list[str], seed: int) -> list[Estimate]:
    """Precision, recall, density, coverage: balls around all images, then the mean over the images of a group."""
    names = ("precision", "recall", "density", "coverage")
    facts = {"extractor": extractor.label}
    if len(use) <= manifolds.K:
        why = f"{manifolds.K + 1} images of each set that are matched by image type are needed, found {len(use)}"
        return [absent(f"{name}_{extractor.name}", why, better=BETTER[name], n=len(use), **facts) for name in names]
    x, y, z = (features[name][getattr(use, name)] for name in ("unseen", "synthetic", "train"))
    judged, floor = manifolds.manifolds(x, y), manifolds.manifolds(x, z)
    found = []
    for name in names:
        real_side = name in ("recall", "coverage")              # these ask of each unseen image, the others of each synthetic one
        images, rows = (sets.unseen, use.unseen) if real_side else (sets.synthetic, use.synthetic)
        mine, theirs = members(images, rows), members(*((images, rows) if real_side else (sets.train, use.train)))
        values, floors, keys = getattr(judged, name), getattr(floor, name), patients(sets.unseen)[use.unseen]
        found += [mean_of(f"{name}_{extractor.name}", values, mine.get(group, ()), group, seed,
                          floor=None if len(theirs.get(group, ())) < FEWEST_EACH else float(floors[theirs[group]].mean()),
                          keys=keys if real_side else None, share=name != "density", better=BETTER[name], note=NOTES[name], **facts)
                  for group in shown]
    return found


def mean_of(name: str, values: np.ndarray, places: Sequence[int], group: str, seed: int, keys: np.ndarray | None = None,
            **facts: object) -> Estimate:
    """The mean of what the images of a group are worth; patients are drawn whole where `keys` names them."""
    if len(places) < FEWEST_EACH:
        why = f"fewer than {FEWEST_EACH} images of this group ({len(places)}) among those compared"
        return absent(name, why, group, n=len(places), better=facts.get("better"), extractor=facts.get("extractor"))
    mine = values[places]
    return bootstrap(lambda rows: mine[rows].mean(), len(mine), name=name, group=group, seed=seed,
                     patients=None if keys is None else keys[places], **facts)


def told_apart(sets: Sets, features: Features | None, extractor: Extractor | None, use: Rows, shown: list[str],
               seed: int) -> list[Estimate]:
    """Two-sample tests on features, or without any on pixels: accuracy on patients that the classifier never met."""
    name = f"two_sample_{extractor.name if extractor else 'pixels'}"
    facts = {"better": "lower", "extractor": extractor.label if extractor else None}
    if len(use) < FEWEST:
        why = f"fewer than {FEWEST} images of each set that are matched by image type ({len(use)})"
        return [absent(name, why, n=len(use), **facts)]
    chosen = np.arange(len(use))
    if features is None and len(use) > PIXELS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(use), PIXELS, replace=False))
    rows = {"unseen": use.unseen[chosen], "synthetic": use.synthetic[chosen], "train": use.mixed[chosen]}
    keys = {key: np.array([f"{key} {k}" for k in patients(getattr(sets, key))[mine]]) for key, mine in rows.items()}
    seen = {key: features[key][mine] if features else getattr(sets, key).pixels(mine, SIDE) for key, mine in rows.items()}
    test = two_sample.tell_apart_features if features else two_sample.tell_apart_pixels
    right = np.concatenate(test(seen["unseen"], seen["synthetic"], keys["unseen"], keys["synthetic"], seed))
    floor = np.concatenate(test(seen["unseen"], seen["train"], keys["unseen"], keys["train"], seed))
    inside = {key: members(getattr(sets, key), mine) for key, mine in rows.items()}
    every, n = np.concatenate((keys["unseen"], keys["synthetic"])), len(chosen)
    found = []
    for group in shown:
        a, b, c = (np.asarray(inside[key].get(group, ()), int) for key in ("unseen", "synthetic", "train"))
        if min(len(a), len(b)) < FEWEST_EACH:
            why = f"fewer than {FEWEST_EACH} images of this group among those compared (unseen {len(a)}, synthetic {len(b)})"
            found.append(absent(name, why, group, n=len(a) + len(b), **facts))
            continue
        places, sides = np.concatenate((a, n + b)), np.repeat([0, 1], [len(a), len(b)])
        mine, weight = right[places], np.where(sides == 0, 0.5 / len(a), 0.5 / len(b))     # both sides count alike
        real = (floor[a].mean() + floor[n + c].mean()) / 2 if len(c) >= FEWEST_EACH else None
        found.append(bootstrap(lambda r, m=mine, w=weight: float((m[r] * w[r]).sum() / w[r].sum()), len(places), name=name,
                               group=group, patients=every[places], strata=sides, seed=seed, note=NOTES["two_sample"],
                               floor=None if real is None else float(real), **facts))
    return found


def alike(sets: Sets, shown: list[str], seed: int) -> list[Estimate]:
    """MS-SSIM of pairs of one prompt, beside pairs of real images of one class and different patients."""
    made = pairs_of(sets.synthetic, lambda r: r.text or class_of(r), lambda r: None, seed)
    real = pairs_of(sets.unseen, class_of, lambda r: r.patient, seed)
    if not made:
        why = "no two synthetic images have the same prompt" if any(r.text or r.image_type for r in sets.synthetic.records) else \
            "the prompts and image types of the synthetic images are unknown"
        return [absent("ms_ssim", why, better="lower")]
    cache: dict[tuple[str, int], np.ndarray] = {}
    found, pooled = [], []
    for image_type, pairs in made.items():
        ours = similarities(sets.synthetic, [p[:2] for p in pairs], cache)
        theirs = similarities(sets.unseen, [p[:2] for p in real.get(image_type, [])], cache)
        pooled.append((ours, theirs, [p[2] for p in pairs]))
        if image_type:
            found.append(of_pairs(ours, theirs, [p[2] for p in pairs], f"image_type={image_type}", seed))
    both = [(a, b, c) for a, b, c in pooled if len(b)] or pooled
    return [of_pairs(*(np.concatenate([part[i] for part in both]) for i in range(3)), "all", seed)] + found


def of_pairs(made: np.ndarray, real: np.ndarray, prompts: Sequence[str], group: str, seed: int) -> Estimate:
    return bootstrap(lambda rows: made[rows].mean(), len(made), name="ms_ssim", group=group, patients=prompts, seed=seed,
                     floor=float(np.mean(real)) if len(real) else None, better="lower",
                     note=joined(NOTES["ms_ssim"], "pairs are counted; prompts were resampled"))


def class_of(record: Record) -> str | None:
    """What a record shows, as one string; None where not even the image type is known."""
    if not record.image_type:
        return None
    shown = sorted(name for name, present in record.findings.items() if present)
    return " ".join(filter(None, (record.image_type, record.anatomy, record.view, record.technique, *shown)))


def pairs_of(images: Images, what: Callable[[Record], str | None], who: Callable[[Record], str | None],
             seed: int) -> dict[str, list[tuple[int, int, str]]]:
    """Up to PAIRS pairs of each image type: (row, row, what both show), of two patients where those are known."""
    rng, alike_rows = np.random.default_rng(seed), defaultdict(list)
    for row, record in enumerate(images.records):
        if what(record):
            alike_rows[record.image_type, what(record)].append(row)
    found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    many = Counter(image_type for (image_type, _), rows in alike_rows.items() if len(rows) > 1)
    for (image_type, shown), rows in sorted(alike_rows.items()):
        each = max(1, PAIRS // max(1, many[image_type]))
        order = rng.permutation(rows)
        pairs = [(int(a), int(b)) for a, b in zip(order[::2], order[1::2], strict=False)
                 if who(images.records[a]) is None or who(images.records[a]) != who(images.records[b])]
        found[image_type] += [(a, b, shown) for a, b in pairs[:each]]
    return {image_type: pairs for image_type, pairs in sorted(found.items()) if pairs}


def similarities(images: Images, pairs: list[tuple[int, int]], cache: dict[tuple[str, int], np.ndarray]) -> np.ndarray:
    """MS-SSIM of each pair in gray: (n,)."""
    def gray(row: int) -> np.ndarray:
        if (images.name, row) not in cache:
            cache[images.name, row] = images.pixels([row], SIDE)[0] @ np.array([0.299, 0.587, 0.114])
        return cache[images.name, row]
    return np.array([diversity.ms_ssim(gray(a), gray(b)) for a, b in pairs])
