"""Burned-in text: planted writing is found, pictures without any pass, a side marker is no reason for doubt."""

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from medisyn.data import burned_in, ocr

OPEN = Path(__file__).parents[2] / "shared" / "data" / "open"
NAME = "SMITH^JOHN 1961-02-03"


@functools.cache
def anatomy(side: int = 512, seed: int = 0) -> np.ndarray:
    """Smooth bright shapes on dark ground with noise: a radiograph, to a program that looks for strokes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 200, (9, 9), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse, float) * np.hanning(side)[:, None] * np.hanning(side) + rng.normal(0, 4, (side, side)),
                   0, 255).astype(np.uint8)


def written(text: str, size: int, colour: object = "white", at: tuple[int, int] = (6, 6), turned: bool = False,
            ground: np.ndarray | None = None) -> Image.Image:
    picture = Image.fromarray(anatomy() if ground is None else ground).convert("RGB")
    ink = Image.new("L", (picture.width, 2 * size))
    ImageDraw.Draw(ink).text((2, 2), text, fill=255, font=ImageFont.load_default(size))
    ink = ink.transpose(Image.Transpose.ROTATE_90) if turned else ink
    picture.paste(Image.new("RGB", ink.size, colour), at if not turned else (at[0], 0), ink)
    return picture


@pytest.mark.parametrize("size", [10, 12, 16, 24, 40])
@pytest.mark.parametrize("colour", ["white", "yellow", (160, 160, 160)])
def test_a_name_is_found_where_it_stands(size, colour):
    ground = anatomy(1024)
    found = burned_in.text_boxes(written(NAME, size, colour, ground=ground))
    assert found
    box = found[0]
    assert box.left < 60 and box.top < 60 and box.bottom - box.top < 2 * size and box.right - box.left > 3 * size


def test_dark_writing_on_bright_ground_is_found():
    assert burned_in.text_boxes(written(NAME, 20, "black", ground=255 - anatomy()))


def test_writing_turned_by_90_degrees_is_found():
    found = burned_in.text_boxes(written(NAME, 20, turned=True))
    assert found and found[0].bottom - found[0].top > 3 * (found[0].right - found[0].left)


def test_larger_writing_in_a_larger_picture_is_found():
    big = Image.fromarray(anatomy()).resize((2048, 2048), Image.Resampling.BICUBIC)
    assert burned_in.text_boxes(written("SMITH^JOHN", 96, ground=np.asarray(big)))


def test_a_picture_and_its_negative_hold_the_same_writing():
    picture = written(NAME, 20).convert("L")
    one, other = (burned_in.text_boxes(p) for p in (picture, picture.point(lambda v: 255 - v)))
    assert len(one) == len(other) == 1
    assert one[0].left == pytest.approx(other[0].left, abs=2) and one[0].bottom == pytest.approx(other[0].bottom, abs=2)


@pytest.mark.parametrize("marker", ["R", "L", "AP"])
def test_a_side_marker_is_no_writing(marker):
    assert burned_in.doubt(written(marker, 40)) is None


def test_calipers_and_ticks_are_no_writing():
    picture = Image.fromarray(anatomy()).convert("RGB")
    drawing = ImageDraw.Draw(picture)
    for k in range(12):
        drawing.line((500, 20 + 40 * k, 508, 20 + 40 * k), fill="white")      # a ruler
    for x, y in ((200, 220), (300, 260)):
        drawing.line((x - 6, y, x + 6, y), fill="yellow")
        drawing.line((x, y - 6, x, y + 6), fill="yellow")                     # calipers
    assert burned_in.doubt(picture) is None


def test_smooth_anatomy_noise_and_empty_pictures_pass():
    noise = np.random.default_rng(1).normal(90, 10, (256, 256)).astype(np.uint8)
    for pixels in (*(anatomy(seed=seed) for seed in range(6)), np.zeros((64, 64), np.uint8), np.full((300, 40), 255, np.uint8),
                   np.zeros((1, 1), np.uint8), np.zeros((3, 900), np.uint8), noise):
        assert burned_in.text_boxes(Image.fromarray(pixels)) == []


def test_the_reason_counts_lines_and_quotes_nothing():
    two = written(NAME, 20)
    two.paste(written("MRN 4711-0815", 20).crop((0, 0, 400, 60)), (0, 300))
    reason = burned_in.doubt(two)
    assert "2 lines of text" in reason and "SMITH" not in reason


def test_overlapping_boxes_become_one():
    boxes = [burned_in.Box(0, 0, 10, 10, 1.0), burned_in.Box(8, 0, 20, 10, 3.0), burned_in.Box(19, 2, 30, 9, 2.0),
             burned_in.Box(0, 50, 9, 60, 4.0)]
    assert burned_in.merged(boxes) == [burned_in.Box(0, 50, 9, 60, 4.0), burned_in.Box(0, 0, 30, 10, 3.0)]


@pytest.mark.skipif(not OPEN.is_dir(), reason=f"{OPEN} is absent: no real images to look at")
@pytest.mark.parametrize("source", ["bccd", "idrid", "knee_oa_xray", "pbc_blood", "isic2017", "lc25000"])
def test_real_images_without_writing_pass(source):
    paths = sorted((OPEN / source).rglob("*.webp"))[::7][:24]
    found = sum(burned_in.doubt(Image.open(path)) is not None for path in paths)
    assert found <= 2, f"{found} of {len(paths)}"


@pytest.mark.skipif(not OPEN.is_dir(), reason=f"{OPEN} is absent: no real images to write on")
def test_writing_over_real_images_is_found():
    paths = [path for source in sorted(OPEN.iterdir()) for path in sorted(source.rglob("*.webp"))[:2]]
    hits = []
    for path in paths:
        picture = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
        bright = np.asarray(picture.convert("L"))[:60].mean() > 120
        hits.append(bool(burned_in.text_boxes(written(NAME, 20, "black" if bright else "white", ground=np.asarray(picture)))))
    assert np.mean(hits) >= 0.9, f"{sum(hits)} of {len(hits)}"


# OCR

@pytest.mark.skipif(not ocr.available(), reason="the program tesseract is not installed")
def test_ocr_reads_a_name_and_clears_a_scale():
    picture = written(NAME, 24)
    assert "1961" in ocr.line(picture, burned_in.text_boxes(picture)[0])
    assert "may name" in ocr.doubt(picture)
    assert ocr.doubt(written("120 mm", 24)) is None


def test_what_names_nobody_is_harmless():
    for words in ("R", "L MLO", "10 cm", "0,5 mm", "7.5MHz", "AP portable", "~ R '", "x2"):
        assert ocr.harmless(words), words
    for words in ("SMITH", "1961", "03.02.1961", "Dr L", "4711-0815", "12:45:07 R Smith", "MRN 12", "", "~ '"):
        assert not ocr.harmless(words), words


def test_ocr_without_its_program_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModuleNotFoundError, match="apt install tesseract-ocr"):
        ocr.spoken(Image.new("L", (40, 20)))
