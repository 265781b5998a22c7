"""Images: every raster comes in as 8 bit gray or colour and goes out as it came."""

import io

import numpy as np
import pytest
from PIL import Image

from medisyn.data import images
from medisyn.data.provenance import Provenance

PROVENANCE = Provenance(
    prompt="a chest X-ray, “pneumonia”", read_as="Chest X-ray, pneumonia.", seed=7, steps=20, guidance=3.0,
    sampler="euler", style=None, model="sha256:0", model_name="xs", version="0.1")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def saved(path, pixels, mode=None, **settings):
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **settings)
    return path


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp"])
def test_a_colour_image_is_read_exactly(tmp_path, suffix):
    pixels = noise(12, 10, 3)
    image = images.read(saved(tmp_path / f"a{suffix}", pixels, **({"lossless": True} if suffix == ".webp" else {})))
    assert image.dtype == np.float32 and image.shape == (3, 12, 10) and -1 <= image.min() and image.max() <= 1
    assert np.array_equal(np.asarray(images.to_picture(image)), pixels)


def test_a_gray_image_has_one_channel_whatever_the_file_holds(tmp_path):
    gray = noise(9, 9)
    for name, pixels, mode in (("l.png", gray, None), ("rgb.png", np.stack([gray] * 3, -1), None),
                               ("la.png", gray, "LA"), ("rgba.png", gray, "RGBA"), ("one.png", gray, "1"),
                               ("l.pgm", gray, None)):
        assert images.read(saved(tmp_path / name, pixels, mode)).shape == (1, 9, 9), name
    assert np.array_equal(np.asarray(images.decode(tmp_path / "rgb.png")), gray)


def test_a_deep_image_is_stretched_over_its_own_range(tmp_path):
    deep = np.array([[1000, 2000], [3000, 5000]], np.uint16)
    picture = images.decode(saved(tmp_path / "deep.png", deep))
    assert picture.mode == "L" and np.asarray(picture).tolist() == [[0, 64], [128, 255]]
    flat = images.decode(saved(tmp_path / "flat.tif", np.full((3, 3), 7, np.float32)))
    assert np.asarray(flat).max() == 0


def test_a_photograph_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(noise(8, 16, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert images.decode(tmp_path / "a.jpg").size == (8, 16)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n half"])
def test_what_is_no_image_says_so_by_name(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match="x.png: not a readable image"):
        images.decode(tmp_path / "x.png")


def test_a_truncated_image_is_not_half_read(tmp_path):
    path = saved(tmp_path / "x.png", noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="not a readable image"):
        images.decode(path)


def test_shrinking_keeps_the_aspect_and_never_enlarges():
    assert images.shrink(Image.new("L", (400, 200)), 50).size == (100, 50)
    assert images.shrink(Image.new("L", (40, 20)), 50).size == (40, 20)
    assert images.shrink(Image.new("L", (4000, 2)), 1).size == (2000, 1)


def test_shrinking_does_not_alias():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    assert np.asarray(images.shrink(Image.fromarray(stripes), 64))[8:-8, 8:-8].std() < 12


def test_a_square_is_the_centre():
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 255
    assert np.asarray(images.square(Image.fromarray(pixels), 10)).min() == 255


def test_values_beyond_the_range_are_clipped():
    picture = images.to_picture(np.array([[[-3.0, -1.0, 0.0, 1.0, 9.0]]], np.float32))
    assert np.asarray(picture).tolist() == [[0, 0, 128, 255, 255]]


def test_a_png_carries_its_provenance_and_a_real_one_none(tmp_path):
    image = images.from_picture(Image.fromarray(noise(8, 8, 3)))
    assert images.read_provenance(images.write_png(image, tmp_path / "deep/synthetic.png", PROVENANCE)) == PROVENANCE
    assert images.read_provenance(images.write_png(image, tmp_path / "real.png")) is None
    assert np.array_equal(images.read(tmp_path / "deep/synthetic.png"), image)
    with Image.open(tmp_path / "deep/synthetic.png") as picture:
        assert picture.text["Description"] == PROVENANCE.prompt


def test_a_file_that_is_no_png_has_no_provenance_to_read(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="expected a PNG"):
        images.read_provenance(tmp_path / "x.png")


def test_the_compression_level_changes_the_size_alone():
    picture = Image.fromarray(noise(32, 32))
    fast, small = (images.png_bytes(picture, compress_level=level) for level in (1, 9))
    assert all(np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(picture)) for data in (fast, small))
