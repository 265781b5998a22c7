"""Validity: whether a synthetic set is what it claims to be; all else presumes it, so it must be 100 %."""

from collections import Counter

import numpy as np

from medisyn.data import vocabulary
from medisyn.data.records import Record
from medisyn.estimates import Estimate, absent, proportion
from medisyn.evaluation.sets import Images, Progress, Sets

SIDE = 64     # pixels a side at which images are compared with one another
FLAT = 2.0    # gray levels of 255: an image whose standard deviation is below shows nothing


def prints(images: Images, progress: Progress = lambda done, total: None) -> tuple[np.ndarray, np.ndarray]:
    """(what each image shows, as a number: images of equal pixels share it, its standard deviation in gray levels)."""
    code, spread = np.empty(len(images), np.int64), np.empty(len(images), np.float32)
    for row in range(len(images)):
        pixels = images.pixels([row], SIDE)[0]
        code[row], spread[row] = hash(pixels.tobytes()), pixels.std()
        progress(row + 1, len(images))
    return code, spread


def labelled(record: Record) -> bool:
    """Whether a record names an image type and every word in it is one of the vocabulary."""
    return bool(record.image_type) and not vocabulary.check(record)


def measure(sets: Sets, progress: Progress = lambda done, total: None) -> list[Estimate]:
    """How many images show something, are labelled, say how they were made, are unlike each other and unlike real files.

    `valid_share` has its ideal at 1, `repeated_share` and `found_in_train`, `found_in_unseen` (equal pixels at 64 x 64)
    have it at 0; `provenance_share` is 1 for sets made by medisyn and says nothing against those of others.
    """
    sides = dict(sets.items())
    total, done, seen = sum(map(len, sides.values())), 0, {}
    for name, images in sides.items():
        seen[name] = prints(images, lambda k, _, start=done: progress(start + k, total))
        done += len(images)
    made, n = sets.synthetic, len(sets.synthetic)
    code, spread = seen["synthetic"]
    named = np.array([labelled(r) for r in made.records])
    counted = Counter(code.tolist())
    known = any(r.image_type for r in made.records)
    rows = [proportion(int((spread >= FLAT).sum()), n, name="valid_share", better="higher",
                       note="readable, and not one flat colour; unreadable files are refused before anything is measured")]
    rows.append(proportion(int(named.sum()), n, name="labelled_share", better="higher") if known else
                absent("labelled_share", "no synthetic image has labels: give a metadata.jsonl or a CSV with image_type", n=n))
    rows.append(proportion(sum(r.provenance is not None for r in made.records), n, name="provenance_share", better="higher",
                           note="images that say how they were made, so that they can be made again"))
    rows.append(proportion(sum(k - 1 for k in counted.values()), n, name="repeated_share", better="lower",
                           note="images that show exactly what another one of the set shows"))
    for name in ("train", "unseen"):
        there = set(seen[name][0].tolist())
        rows.append(proportion(sum(k in there for k in code.tolist()), n, name=f"found_in_{name}", better="lower",
                               note="images with the very pixels of a real one"))
    return rows
