"""Cheats: does the report say so when a synthetic set is not what it claims to be?

    python benchmarks/cheats.py --real data/open -o out/cheats

Six sets made to cheat out of real images, and an honest one (real images of a third group of patients), each judged by
the protocol. Prints what the report says of each; ends with 1 where a cheat goes unnoticed or the honest set is accused.
"""

import argparse
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medisyn.data import images, records
from medisyn.data.records import Record
from medisyn.evaluation import features, protocol, report, sets
from medisyn.evaluation.sets import Images, Sets

TYPES = ("dermoscopy", "blood_smear", "chest_xray")
PARTS = ("validity", "fidelity", "alignment", "novelty")
NOTHING = {"specialty": None, "anatomy": None, "view": None, "technique": None, "laterality": None, "findings": {}}
TRAIN, REST = 900, 240                       # images of each set, over all types
Drawn = Iterator[tuple[Image.Image, Record]]


def some(found: Images, n: int, rng: np.random.Generator) -> Images:
    """n images, image types in equal shares."""
    kinds = np.array([r.image_type for r in found.records])
    rows = [rng.permutation(np.flatnonzero(kinds == kind))[:n // len(TYPES)] for kind in TYPES]
    return found.take(np.sort(np.concatenate(rows)))


def opened(found: Images) -> Drawn:
    for record, path in zip(found.records, found.paths, strict=True):
        yield images.decode(path), record


def near_copy(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrored, a little cropped, another contrast, and through JPEG."""
    width, height = picture.size
    edge = round(0.04 * min(width, height))
    picture = ImageOps.mirror(picture).crop((edge, edge, width - edge, height - edge))
    picture = picture.point([min(255, round(255 * (k / 255) ** 0.85)) for k in range(256)] * len(picture.getbands()))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=int(rng.integers(60, 85)))
    return Image.open(packed)


def cheats(train: Images, unseen: Images, others: Images, rng: np.random.Generator) -> dict[str, Callable[[], Drawn]]:
    """What each set is made of: pictures with the labels they claim."""
    taken = some(train, REST, rng)
    first = {kind: next(opened(train.take([[r.image_type for r in train.records].index(kind)])))[0] for kind in TYPES}
    wrong = dict(zip(TYPES, (*TYPES[1:], TYPES[0]), strict=True))
    return {
        "honest": lambda: opened(others),
        "copies": lambda: opened(taken),
        "near copies": lambda: ((near_copy(p, rng), r) for p, r in opened(taken)),
        "one image repeated": lambda: ((first[r.image_type], r) for _, r in opened(taken)),
        "noise": lambda: ((Image.fromarray(rng.integers(0, 256, (128, 128, 3), np.uint8)), r) for _, r in opened(taken)),
        "another type": lambda: ((p, dataclasses.replace(r, image_type=wrong[r.image_type], **NOTHING))
                                 for p, r in opened(others)),
        "unseen as synthetic": lambda: opened(unseen),
    }


def made(folder: Path, drawn: Drawn) -> Images:
    """A set as its cheat would hand it in: files and labels, no patients."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    found = []
    for k, (picture, record) in enumerate(drawn):
        name = f"images/{k:05}.png"
        picture.convert("RGB").save(folder / name)
        found.append(dataclasses.replace(record, id=f"synthetic/{k}", file_name=name, patient=None, source=None, split="train"))
    records.write(found, folder)
    return sets.open_images(folder, "synthetic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="a collection with the splits train, val and test")
    parser.add_argument("-o", "--out", type=Path, required=True)
    asked = parser.parse_args()
    rng, noticed, told = np.random.default_rng(0), True, {}
    whole = {name: sets.open_images(f"{asked.real}:{name}", name) for name in ("train", "val", "test")}
    train, others = some(whole["train"], TRAIN, rng), some(whole["val"], REST // 2, rng)
    unseen = some(whole["test"], REST, rng)
    extractor = features.load("eye")
    for name, drawn in cheats(train, unseen, others, rng).items():
        synthetic = made(asked.out / "sets" / name.replace(" ", "-"), drawn())
        job = protocol.Asked(Sets(train, unseen, synthetic), asked.out, (extractor,), show_real=False)
        parts = protocol.judge(job, PARTS, lambda text, name=name: print(f"{name}: {text}", file=sys.stderr, flush=True))
        found = report.as_dict(job, parts, {})
        told[name] = [one["text"] for one in found["findings"] if one["grave"]]
        (asked.out / f"{name.replace(' ', '-')}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        fine = bool(told[name]) != (name == "honest")
        noticed &= fine
        print(f"{name} ({len(synthetic)} images): {'as it should be' if fine else 'NOT AS IT SHOULD BE'}")
        for text in told[name] or ["nothing grave"]:
            print(f"  {text}")
    sys.exit(0 if noticed else 1)


if __name__ == "__main__":
    main()
