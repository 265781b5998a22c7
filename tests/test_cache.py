"""Cache and buckets: frames keep their bits, their aspect and their words."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from medisyn.data import images
from medisyn.training import buckets, cache
from medisyn.training.latents import Variation

WHOLE = Variation(1.0, 0.0, 0.0, 0.0, -1, False)


def ramp(height: int, width: int, channels: int = 1) -> np.ndarray:
    """float32 (C, H, W), rising from left to right within [-1, 1]."""
    return np.broadcast_to(np.linspace(-1, 1, width, dtype=np.float32), (channels, height, width)).copy()


def test_sixteen_bits_reach_the_autoencoder(tmp_path):
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 7
    Image.fromarray(deep).save(tmp_path / "deep.png")
    read = images.read_fine(tmp_path / "deep.png")
    assert read.shape == (1, 64, 64) and read.dtype == np.float32
    assert len(np.unique(read)) == 64 * 64                      # 8 bits would leave 256
    assert (read.min(), read.max()) == (-1, 1)
    assert len(np.unique(cache.framed(read, (64, 64), None))) == 64 * 64
    assert np.abs(read - images.read(tmp_path / "deep.png")).max() <= 1 / 255 + 1e-6   # else the same picture


def test_eight_bits_and_colours_are_read_as_ever(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert np.array_equal(images.read_fine(tmp_path / "colour.png"), images.read(tmp_path / "colour.png"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="broken.png: not a readable image"):
        images.read_fine(tmp_path / "broken.png")


def test_a_frame_is_the_largest_central_one_of_its_aspect():
    wide = ramp(40, 80)
    square = cache.framed(wide, (40, 40), None)
    assert square.shape == (1, 40, 40)
    assert np.allclose(square[0, 0], wide[0, 0, 20:60], atol=0.03)
    assert cache.framed(wide, (20, 40), None).shape == (1, 20, 40)
    assert np.allclose(cache.framed(wide, (40, 80), None), wide, atol=1e-6)


def test_a_variation_crops_tones_turns_and_mirrors():
    image = ramp(32, 32, 3)
    assert np.allclose(cache.framed(image, (32, 32), WHOLE), image, atol=1e-6)
    mirrored = cache.framed(image, (32, 32), dataclasses.replace(WHOLE, mirrored=True))
    assert np.allclose(mirrored, image[..., ::-1], atol=1e-6)
    turned = cache.framed(image, (32, 32), dataclasses.replace(WHOLE, turns=1))
    assert np.allclose(turned, np.rot90(image, 1, (1, 2)), atol=1e-6)
    darker = cache.framed(image, (32, 32), dataclasses.replace(WHOLE, gamma=0.05))
    assert (darker <= image + 1e-6).all() and darker.mean() < image.mean()
    assert cache.framed(ramp(16, 32), (16, 32), dataclasses.replace(WHOLE, turns=1)).shape == (1, 16, 32)  # by half a circle
    assert np.abs(mirrored).max() <= 1


def test_buckets_have_one_area_and_multiples_of_the_step():
    found = buckets.sizes(512, 64)
    assert (512, 512) in found and all(h % 64 == 0 and w % 64 == 0 for h, w in found)
    assert all(0.8 * 512**2 <= h * w <= 512**2 for h, w in found)
    assert {(w, h) for h, w in found} == set(found)
    assert max(w / h for h, w in found) <= 2
    with pytest.raises(ValueError, match="multiples of 64; set image_size to 512"):
        buckets.sizes(500, 64)


@pytest.mark.parametrize("height, width", [(100, 100), (100, 190), (300, 100), (512, 640)])
def test_the_nearest_bucket_has_the_nearest_aspect(height, width):
    found = buckets.sizes(512, 64)
    h, w = found[buckets.nearest(height, width, found)]
    assert all(abs(np.log(w / h / (width / height))) <= abs(np.log(b / a / (width / height))) + 1e-9 for a, b in found)
