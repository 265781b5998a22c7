"""Looking: planted copies are found, and an image is likened to its own type unless it surely is of another one."""

from pathlib import Path

import judged
import numpy as np
import pytest

from medisyn.evaluation import copies, looking
from medisyn.evaluation.sets import open_images

OPEN = Path(__file__).parent.parent / "data" / "open"


@pytest.mark.skipif(not (OPEN / "metadata.jsonl").is_file(), reason="needs the collection data/open, which is not there")
def test_planted_copies_of_real_ultrasound_images_are_found():
    train, unseen = open_images(f"{OPEN}:train", "train"), open_images(f"{OPEN}:test", "unseen")
    rows, held = (np.array([i for i, r in enumerate(s.records) if r.image_type == "ultrasound"])[:60] for s in (train, unseen))
    against = copies.library(copies.shown(lambda k: train.pixels(rows[k], 128), len(rows)))
    unseen_score, _ = copies.search(copies.shown(lambda k: unseen.pixels(held[k], 128), len(held)), against)
    limit, rng = copies.limit(unseen_score), np.random.default_rng(0)
    original = train.pixels(rows[:6], 256)
    for change in looking.CHANGES.values():
        planted = change(original, rng)
        score, _ = copies.search(copies.shown(lambda k, planted=planted: planted[k], 6), against)
        assert (score >= limit.score).all()


def test_an_image_is_likened_to_its_own_type_unless_it_surely_is_another_one():
    squares = np.stack([np.repeat(judged.scene(seed, side=96)[..., None], 3, 2) for seed in range(12)])
    kinds = np.array(["dermoscopy"] * 6 + ["blood_smear"] * 6)
    against = copies.library(copies.shown(lambda rows: squares[rows], 12))
    mixed = (0.5 * squares[2] + 0.5 * np.repeat(judged.scene(99, side=96)[..., None], 3, 2)).astype(np.uint8)
    made = np.stack([mixed, squares[2]])
    images = copies.shown(lambda rows: made[rows], 2)
    score, row = copies.search(images, against)
    assert row.tolist() == [2, 2] and score[0] < looking.SURE <= score[1]
    score, row = looking.searched(images, np.array(["blood_smear", "blood_smear"]), against, kinds)
    assert kinds[row[0]] == "blood_smear" and row[1] == 2
    assert looking.searched(images, np.array(["dermoscopy", "dermoscopy"]), against, kinds)[1].tolist() == [2, 2]
    assert looking.searched(images, np.array(["", "mri"]), against, kinds)[1].tolist() == [2, 2]
