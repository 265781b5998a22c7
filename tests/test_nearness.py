"""Nearness: copies lie nearer to the training images than unseen images do."""

import numpy as np
import pytest

from medisyn.evaluation import features
from medisyn.training import nearness
from medisyn.training.watch import LEAST_RATIO

KINDS = ("chest_xray", "dermoscopy")


def textures(n: int, seed: int) -> np.ndarray:
    """Pictures that differ from each other as those of different patients do: uint8 (n, 64, 64, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:64, 0:64] / 64
    made = []
    for _ in range(n):
        wave = sum(a * np.sin(2 * np.pi * (f * rows + g * columns + p))
                   for a, f, g, p in zip(rng.random(4), rng.uniform(0, 4, 4), rng.uniform(0, 4, 4), rng.random(4), strict=True))
        colour = rng.uniform(0.4, 1.0, 3)
        made.append(((wave[..., None] - wave.min()) / np.ptp(wave) * colour * 255).astype(np.uint8))
    return np.stack(made)


@pytest.fixture(scope="module")
def real() -> dict:
    squares = textures(96, 1)
    return {"squares": squares, "kinds": [KINDS[i % 2] for i in range(96)], "patients": [f"p{i}" for i in range(96)],
            "is_train": [i < 64 for i in range(96)]}


def looked(real: dict, **more) -> nearness.Nearness:
    return nearness.of(lambda rows: real["squares"][rows], real["kinds"], real["patients"], real["is_train"], **more)


def test_copies_have_a_small_ratio_and_new_images_one_of_about_one(real):
    near = looked(real)
    kinds = real["kinds"][:40]
    copies, new = near.look(real["squares"][:40], kinds), near.look(textures(40, 2), kinds)
    assert copies.ratio < 0.1 and 0.85 < new.ratio < 1.15
    assert copies.distance < 0.1 and 0.85 < new.distance < 1.15
    mixed = near.look(np.concatenate([real["squares"][:10], textures(30, 3)]), kinds)
    assert mixed.ratio < LEAST_RATIO < new.ratio and mixed.distance < 1


def test_noise_is_far_from_all_real_images(real):
    noise = np.random.default_rng(5).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    assert looked(real).look(noise, real["kinds"][:20]).distance > 1.2


def test_unseen_images_of_ones_own_patient_do_not_count():
    train, unseen = np.eye(4, dtype=np.float32)[:1], np.eye(4, dtype=np.float32)[[1, 1, 2]]
    assert nearness.level(train, unseen, ["a", "a", "b"]) == pytest.approx(0.0)   # all are sqrt(2) from all of other patients
    assert nearness.level(train, unseen, ["a", "c", "b"]) > 1                     # two patients with one picture


def test_types_with_too_few_unseen_images_have_no_ratio(real):
    near = looked(real | {"is_train": [i < 64 or i % 2 == 1 for i in range(96)]})
    assert set(near.known) == {KINDS[0]}
    assert near.look(real["squares"][1:2], [KINDS[1]]) is None
    assert looked(real | {"is_train": [True] * 96}) is None
    assert looked(real | {"patients": [f"p{i}" if i < 64 else "one" for i in range(96)]}) is None


def test_features_are_looked_up_once(real, tmp_path, monkeypatch):
    cache = tmp_path / "run" / "nearness.npz"
    first = looked(real, cache=cache)
    monkeypatch.setattr(nearness, "seen", lambda *_: pytest.fail("looked again"))
    again = looked(real, cache=cache)
    assert all(np.array_equal(first.known[k].train, again.known[k].train) for k in KINDS)
    monkeypatch.undo()
    other = looked(real | {"patients": [f"q{i}" for i in range(96)]}, cache=cache)   # other images: not what the cache holds
    assert other.known.keys() == first.known.keys()
    assert features.load("eye").weights == other.extractor.weights
