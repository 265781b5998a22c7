"""Latents: variants that can be made again, and mirrors only where anatomy allows them."""

from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from PIL import Image

from medisyn.data import vocabulary
from medisyn.data.records import Record
from medisyn.models.vae import Vae, VaeConfig
from medisyn.training import batches, latents
from medisyn.training.batches import Pixels
from medisyn.training.latents import Latents, LatentSettings

SETTINGS = LatentSettings(each_type=60, images_a_style=5)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> Pixels:
    home = tmp_path_factory.mktemp("latents")
    return batches.pack([phantoms.collection(home / "c", n=12)], home / "pixels", 36)


@pytest.fixture(scope="module")
def vae() -> Vae:
    torch.manual_seed(0)
    return Vae(VaeConfig(4, (16, 32, 32), (0, 0, 1), (0, 0, 1))).eval().requires_grad_(False)


def encoded(vae: Vae, pixels: Pixels, folder: Path, seed: int = 0) -> Latents:
    return latents.encode(vae, pixels, folder, 32, seed, SETTINGS)[0]


@pytest.fixture(scope="module")
def known(vae, pixels, tmp_path_factory) -> Latents:
    return encoded(vae, pixels, tmp_path_factory.mktemp("known"))


def types(known: Latents, pixels: Pixels) -> np.ndarray:
    return np.array([pixels.records[row].image_type for row in known.row])


def test_the_same_seed_makes_the_same_variants(vae, pixels, known, tmp_path):
    again = encoded(vae, pixels, tmp_path)
    for name in ("latent", "row", "mirrored", "geometry", "style"):
        assert np.array_equal(getattr(known, name), getattr(again, name)), name
    assert not np.array_equal(encoded(vae, pixels, tmp_path, seed=1).geometry, known.geometry)


def test_an_encoding_cut_short_goes_on_to_the_same_end(vae, pixels, known, tmp_path, monkeypatch):
    def cut(done: int, total: int) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latents.encode(vae, pixels, tmp_path, 32, 0, SETTINGS, cut)
    assert np.array_equal(encoded(vae, pixels, tmp_path).latent, known.latent)


def test_training_images_have_variants_and_held_out_ones_do_not(pixels, known):
    for row, record in enumerate(pixels.records):
        n = int((known.row == row).sum())
        assert n == (latents.variants_of(9, SETTINGS) if record.split == "train" else 1)


def test_the_fewer_the_images_the_more_the_variants():
    settings = LatentSettings(each_type=100, most_variants=8, least_variants=2)
    assert [latents.variants_of(n, settings) for n in (1, 20, 40, 1000)] == [8, 5, 3, 2]


def test_the_first_variant_is_the_whole_frame(known):
    first = np.array([np.flatnonzero(known.row == row)[0] for row in np.unique(known.row)])
    assert np.abs(known.geometry[first]).max() == 0
    assert not known.mirrored[first].any()
    others = np.setdiff1d(np.arange(len(known.row)), first)
    assert (np.abs(known.geometry[others]).max(1) > 0).all()
    assert np.abs(known.geometry).max() <= 1


def test_a_chest_is_never_mirrored(pixels, known):
    assert vocabulary.IMAGE_TYPES["chest_xray"].symmetry == "none"
    kinds = types(known, pixels)
    assert not known.mirrored[kinds == "chest_xray"].any()
    assert known.mirrored[kinds == "dermoscopy"].any()


@pytest.mark.parametrize("symmetry", ["none", "mirror", "dihedral"])
def test_only_what_may_be_mirrored_is(symmetry):
    square = np.zeros((40, 40, 3), np.uint8)
    square[:, 30:] = 255  # bright on the right
    sides = set()
    for seed in range(40):
        made, mirrored, geometry = latents.vary(square, symmetry, np.random.default_rng(seed), 32)
        assert made.shape == (32, 32, 3)
        assert len(geometry) == 4
        left, right = made[:, :8].mean(), made[:, -8:].mean()
        sides.add((left > right, mirrored))
    expected = {"none": {(False, False)}, "mirror": {(False, False), (True, True)}}
    assert sides == expected.get(symmetry, sides)
    assert {mirrored for _, mirrored in sides} == ({False} if symmetry == "none" else {False, True})


def test_a_mirrored_image_swaps_its_words():
    left, right = (Record("a", "a.png", "mammography", laterality=side) for side in ("left", "right"))
    neither = Record("a", "a.png", "mammography")
    assert latents.mirror_words(left) == right
    assert latents.mirror_words(right) == left
    assert latents.mirror_words(neither) == neither


def test_training_latents_have_no_mean_and_unit_variance(pixels, known):
    train = np.array([pixels.records[row].split == "train" for row in known.row])
    block = np.asarray(known.latent[train], np.float32)
    assert np.abs(block.mean((0, 2, 3))).max() < 0.01
    assert np.abs(block.std((0, 2, 3)) - 1).max() < 0.01


def test_the_scale_returned_is_the_one_applied(vae, pixels, tmp_path):
    found, config = latents.encode(vae, pixels, tmp_path, 32, 0, SETTINGS)
    scaled = Vae(config).eval()
    scaled.load_state_dict(vae.state_dict())
    square = Image.fromarray(pixels.array[0]).resize((32, 32), Image.Resampling.LANCZOS)
    image = latents.to_tensor(np.array(square)[None])
    with torch.no_grad():
        assert np.allclose(scaled.encode(image)[0].numpy(), found.latent[0], atol=0.01)


def test_styles_are_numbered_over_types_and_never_shared(pixels, known):
    kinds = types(known, pixels)
    held = {kind: set(known.style[kinds == kind].tolist()) for kind in set(kinds)}
    assert set.union(*held.values()) == set(range(known.n_styles))
    assert not set.intersection(*held.values())
