"""Novelty: are synthetic images nearer to those they were trained on than to unseen ones, and would copies be found?

    python benchmarks/novelty.py --synthetic COLLECTION --real data/open --judge OUT/judge.safetensors -o OUTDIR

Two spaces: thumbnails of 32 pixels, and what the judge sees. In each, for every image type:
- nearer to train: the share of synthetic images whose nearest real one is of the training split, among equally many
  of both splits; 0.5 where nothing was copied. The same of validation images, which nothing was trained on, beside it.
- called copies: the share nearer to a training image, plain or mirrored, than all but 1 % of unseen real images are.
  Soft images lie nearer to everything, copied or not: the same of unseen images that were blurred stands beside it.
- planted copies found: the same of training images put in on purpose, plain, mirrored and recompressed.
Then, over all image types, the nearest-neighbour ratio that training follows (medisyn/training/nearness.py), and that of
planted copies.
The sheet of the nearest pairs holds real images: it goes to OUTDIR alone.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from intervals import Estimate, estimate, missing, table, write
from judge import SIDE, features, tell, trained
from PIL import Image
from scipy.ndimage import gaussian_filter
from unseen import NONE, SPLITS, distances, kept, rows_of, thumbnails, to_nearest, unseen

from medisyn.data import images, records, sheets
from medisyn.training import batches, finetune, nearness
from medisyn.training.batches import Pixels
from medisyn.training.nearness import Near

FALSE_ALARMS = 0.01       # of unseen real images, how many may be called copies
DRAWS = 20                # equal-size subsets that a share is averaged over
PLANTED = 100             # training images of each type put in on purpose
SOFT = 3.0                # pixels, the blur of the softened
PAIRS = 24                # of the sheet
CONTROL = 60              # every so many-th training image is planted for the nearest-neighbour ratio
FIGURES = ("nearer to train", "nearer to train, validation images", "called copies", "called copies, softened unseen",
           "planted copies found, plain", "planted copies found, mirrored", "planted copies found, recompressed")
Space = Callable[[np.ndarray], np.ndarray]  # uint8 (N, SIDE, SIDE, 3) -> float32 (N, D)


def nearer_to_train(made: np.ndarray, train: np.ndarray, unseen: np.ndarray, seed: int = 0) -> Estimate:
    """The share of rows nearer to `train` than to `unseen`, equally many of both, averaged over random subsets."""
    rng = np.random.default_rng(seed)
    size = min(len(train), len(unseen))
    to_train, to_unseen = distances(made, train), distances(made, unseen)
    votes = np.zeros(len(made))
    for _ in range(DRAWS):
        a = to_train[:, rng.choice(len(train), size, replace=False)].min(1)
        b = to_unseen[:, rng.choice(len(unseen), size, replace=False)].min(1)
        votes += ((a < b) + 0.5 * (a == b)) / DRAWS
    return estimate(lambda rows: votes[rows].mean(), len(votes))


def recompressed(pixels: np.ndarray, quality: int = 60) -> np.ndarray:
    """Each image through JPEG."""
    out = np.empty_like(pixels)
    for k, square in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(square).save(file, "JPEG", quality=quality)
        out[k] = np.asarray(Image.open(file).convert("RGB"))
    return out


def share(found: np.ndarray) -> Estimate:
    return estimate(lambda rows: found[rows].mean(), len(found), share=True)


def one_type(space: Space, made: np.ndarray, real: dict[str, np.ndarray],
             seed: int = 0) -> tuple[dict[str, Estimate], np.ndarray, np.ndarray]:
    """The figures of one image type; distance and row of each synthetic image's nearest training image."""
    train, fresh, val = (real[name] for name in ("train", "unseen", "val"))
    of_train, of_made, of_mirrored = space(train), space(made), space(train[:, :, ::-1])
    distance, row = to_nearest(of_made, of_train, of_mirrored)
    found = dict.fromkeys(FIGURES, missing(NONE))
    if len(fresh):
        of_unseen, comparable = space(fresh), of_train[real["comparable"]]
        found["nearer to train"] = nearer_to_train(of_made, comparable, of_unseen, seed)
        found["nearer to train, validation images"] = missing("no validation images")
        if len(val):
            found["nearer to train, validation images"] = nearer_to_train(space(val), comparable, of_unseen, seed)
        usual = to_nearest(of_unseen, of_train, of_mirrored)[0]
        limit = float(np.quantile(usual, FALSE_ALARMS, method="lower"))
        found["called copies"] = share(distance < limit)
        soft = space(gaussian_filter(fresh, (0, SOFT, SOFT, 0)))
        found["called copies, softened unseen"] = share(to_nearest(soft, of_train, of_mirrored)[0] < limit)
        rng = np.random.default_rng(seed)
        planted = train[rng.choice(len(train), min(PLANTED, len(train)), replace=False)]
        changes = (("plain", np.array), ("mirrored", lambda x: x[:, :, ::-1]), ("recompressed", recompressed))
        for name, change in changes:
            copies = space(change(planted))
            found[f"planted copies found, {name}"] = share(to_nearest(copies, of_train, of_mirrored)[0] < limit)
        distance = distance / max(limit, 1e-6)
    else:
        distance = np.full(len(made), np.inf)
    return found, distance, row


def real_of(pixels: Pixels, name: str) -> dict[str, np.ndarray]:
    """Squares of an image type: train, unseen, val; comparable: which of train come from a source that unseen has."""
    train, (fresh, split) = rows_of(pixels, name, "train"), unseen(pixels, name)
    val = kept(pixels, name, "val")[0] if split and split.startswith("test") else fresh[:0]
    sources = {pixels.records[i].source for i in fresh}
    squares = {what: np.asarray(pixels.array[rows]) for what, rows in
               (("train", train), ("unseen", fresh), ("val", val))}
    return squares | {"comparable": np.array([pixels.records[i].source in sources for i in train], bool)}


def followed(synthetic: Path, real: Path) -> dict[str, Near | None]:
    """What training would have seen of these images, compared with train and val; and of every CONTROL-th training image."""
    known = [(real, r) for r in records.read(real) if r.split in ("train", "val")]
    near = nearness.of(lambda rows: finetune.squares([known[k] for k in rows]), [r.image_type for _, r in known],
                       [r.patient or r.id for _, r in known], [r.split == "train" for _, r in known])
    sets = {"synthetic images": [(synthetic, r) for r in records.read(synthetic)],
            "planted training images": [pair for pair in known if pair[1].split == "train"][::CONTROL]}
    return {name: near and near.look(finetune.squares(pairs), [r.image_type for _, r in pairs]) for name, pairs in sets.items()}


def report(rows: list[dict], about: str, near: dict[str, Near | None]) -> str:
    text = [f"# Novelty\n\n{about}. Intervals: 95 %, bootstrap over images.\n",
            "Nearer to train: 0.5 where nothing was copied; of the training images, those from sources that the unseen "
            "ones come from too. The judge was trained on the training images: compare with validation images.",
            f"Called copies: nearer to a training image than all but {FALSE_ALARMS:.0%} of unseen real images of the "
            f"type are; about {FALSE_ALARMS:.2f} where nothing was copied, or 1 in n of fewer than "
            f"{round(1 / FALSE_ALARMS)} unseen ones.",
            "Planted copies are training images; where they are not found, unseen real images lie as near as copies.\n"]
    for space in dict.fromkeys(r["space"] for r in rows):
        lines = [(r["image_type"], *(r["figures"][name].text for name in FIGURES)) for r in rows if r["space"] == space]
        text += [f"## {space[0].upper()}{space[1:]}\n", table(("image type", *FIGURES), lines)]
    lines = [(name, "not comparable", "") if found is None else (name, f"{found.ratio:.2f}", f"{found.distance:.2f}")
             for name, found in near.items()]
    text += ["## As training follows it\n",
             "1: as unseen images lie; both under 1: nearer to training images than unseen ones are.\n",
             table(("of", "nearest-neighbour ratio", "distance to training images"), lines)]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--synthetic", type=Path, required=True, help="a collection of synthetic images")
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True, help="a judge by recognition.py")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    pixels = batches.pack([args.real.absolute()], args.judge.parent / "pixels", SIDE, SPLITS)
    judge = trained(pixels, args.judge)
    spaces: dict[str, Space] = {"thumbnails": thumbnails, "what the judge sees": lambda x: scaled(features(judge, x))}
    made: dict[str, list[np.ndarray]] = {}
    for record in records.read(args.synthetic):
        made.setdefault(record.image_type, []).append(
            np.asarray(images.square(images.decode(args.synthetic / record.file_name), SIDE).convert("RGB")))
    rows, pairs = [], []
    for name in made:
        real, mine = real_of(pixels, name), np.stack(made[name])
        tell(f"novelty: {name}, {len(mine)} synthetic, {len(real['train'])} of train, {len(real['unseen'])} unseen")
        if not len(real["train"]):
            continue
        for space, seen in spaces.items():
            found, distance, row = one_type(seen, mine, real)
            rows.append({"space": space, "image_type": name, "n_synthetic": len(mine), "n_train": len(real["train"]),
                         "n_unseen": len(real["unseen"]), "figures": found})
            near = [k for k, d in enumerate(distance) if np.isfinite(d)]
            pairs += [(float(distance[k]), name, space, mine[k], real["train"][row[k]]) for k in near]
    if not rows:
        raise ValueError(f"{args.synthetic} and {args.real} share no image type; "
                         "pass the collection that the model was trained on")
    about = f"{sum(map(len, made.values()))} synthetic images of {Path(*args.synthetic.parts[-2:])} against {args.real}"
    tell("novelty: the nearest-neighbour ratio")
    near = followed(args.synthetic, args.real)
    told = {name: found and vars(found) for name, found in near.items()}
    write(args.out, "novelty", {"about": about, "rows": rows, "near": told}, report(rows, about, near))
    panel = [(f"{name}, {space}: {d:.2f} of the limit for a copy", [Image.fromarray(a), Image.fromarray(b)])
             for d, name, space, a, b in sorted(pairs, key=lambda pair: pair[0])[:PAIRS]]
    sheets.sheet(panel, tile=160, title="synthetic | nearest real", columns=2).save(args.out / "nearest-pairs.png")
    tell(f"wrote {args.out / 'novelty.md'}, novelty.json and nearest-pairs.png (holds real images: keep it here)")


def scaled(seen: np.ndarray) -> np.ndarray:
    """Each row at length 1."""
    return seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-6)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"novelty: {error}")
