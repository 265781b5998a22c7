"""Windows: many values become 256 by DICOM's formulas, or by percentiles, and it is told which."""

import numpy as np
import pytest

from medisyn.data import windows
from medisyn.data.windows import Window

pydicom = pytest.importorskip("pydicom")


def by_pydicom(values, window):
    from pydicom.pixels import apply_windowing

    made = pydicom.Dataset()
    made.PhotometricInterpretation, made.BitsStored, made.PixelRepresentation = "MONOCHROME2", 12, 0
    made.WindowCenter, made.WindowWidth, made.VOILUTFunction = window.centre, window.width, window.shape
    return apply_windowing(values, made) / 4095


@pytest.mark.parametrize("window", [
    Window(2000, 500), Window(2000, 1), Window(2000, 501, "LINEAR_EXACT"), Window(1500, 0.5, "LINEAR_EXACT"),
    Window(1000, 900, "SIGMOID"), Window(-100, 400), Window(9000, 20000)])
def test_a_window_is_dicoms(window):
    values = np.arange(0, 4096)
    assert np.allclose(windows.windowed(values, window), by_pydicom(values, window), atol=1e-12)


def test_a_window_shows_its_centre_in_the_middle_and_its_ends_black_and_white():
    shown = windows.windowed([-160, 39.5, 240, -5000, 5000], Window(40, 400))
    assert shown[0] == 0 and shown[1] == pytest.approx(0.5) and shown[2:].tolist() == [1, 0, 1]


def test_a_sigmoid_far_away_does_not_overflow():
    assert windows.windowed([-1e9, 1e9], Window(0, 1, "SIGMOID")) == pytest.approx([0, 1])


@pytest.mark.parametrize("words, meant", [("40/400", Window(40, 400)), ("-600/1500", Window(-600, 1500)), ("auto", None),
                                          ("percentile", None)])
def test_a_window_is_asked_for_in_words(words, meant):
    assert windows.parse(words) == meant


@pytest.mark.parametrize("words", ["40", "40/0", "40/-5", "nan/400", "40/inf", "lung", "1/2/3", ""])
def test_a_window_that_cannot_be_meant_says_what_was_expected(words):
    with pytest.raises(ValueError, match='should be "auto", "percentile" or CENTRE/WIDTH'):
        windows.parse(words)


def test_a_window_tells_itself():
    assert str(Window(40, 400)) == "window 40/400" and str(Window(0.5, 1, "LINEAR_EXACT")) == "window 0.5/1 (linear_exact)"


def test_percentiles_of_counts_are_percentiles_of_pixels():
    pixels = np.random.default_rng(0).normal(300, 80, 5000).astype(np.int16)
    levels, counts, place = windows.levels_of(pixels)
    assert np.array_equal(levels[place], pixels) and counts.sum() == pixels.size
    low, high = windows.percentiles(levels, counts, 2, 98)
    assert (low, high) == (np.percentile(pixels, 2, method="inverted_cdf"), np.percentile(pixels, 98, method="inverted_cdf"))


def test_levels_of_floats_and_wide_numbers_are_found_too():
    for pixels in (np.array([[0.5, np.nan], [0.5, -2.0]], np.float32), np.array([[70000, -5], [70000, 1]], np.int32)):
        levels, counts, place = windows.levels_of(pixels)
        assert np.array_equal(levels[place], pixels, equal_nan=True) and counts.sum() == 4


def test_a_few_metal_voxels_do_not_decide_and_nan_is_black():
    values = np.r_[np.linspace(0, 100, 10_000), [1e6, np.nan]]
    low, high = windows.percentiles(values, np.ones(len(values), int))
    assert 0 <= low < 1 and 99 < high <= 100
    assert windows.eight_bit(windows.stretched(values, low, high))[-2:].tolist() == [255, 0]


def test_nearly_all_of_one_value_still_shows_the_rest():
    levels, counts = np.array([0, 5, 10]), np.array([10_000, 1, 1])
    assert windows.percentiles(levels, counts) == (0, 10)
    assert windows.percentiles(levels, np.zeros(3, int)) == (0, 0)


def test_colours_that_are_gray_have_one_channel():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert windows.as_picture(np.stack([gray] * 3, -1)).mode == "L"
    assert windows.as_picture(np.stack([gray, gray, gray + 1], -1)).mode == "RGB"


def test_pixels_become_square_and_none_is_lost():
    picture = windows.as_picture(np.zeros((20, 30), np.uint8))
    assert windows.square_pixels(picture, 2.0).size == (30, 40) and windows.square_pixels(picture, 0.5).size == (60, 20)
    assert windows.square_pixels(picture, 1.001) is picture and windows.square_pixels(picture, 1e6) is picture
