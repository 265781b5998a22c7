"""Tones: stored values become what is seen, by the header's own tables and windows, and the choice is told."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medisyn.data import dicom

pydicom = pytest.importorskip("pydicom")

from dicoms import dataset, item, smooth, written  # noqa: E402
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut  # noqa: E402

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
REAL = Path(__file__).parents[2] / "shared" / "data" / "raw" / "dicom"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"real files are not at {REAL}")
WINDOW = {"WindowCenter": "2000", "WindowWidth": "3000"}


@dataclass(frozen=True)
class Asked:
    window: str = "auto"


def seen(made, window="auto"):
    file = io.BytesIO(written(made)) if isinstance(made, pydicom.Dataset) else made
    picture, how = dicom.picture(file, "", Asked(window))
    return np.asarray(picture).astype(int), how


def test_the_first_window_of_several_is_taken():
    several = dataset(smooth(), WindowCenter=["500", "2000"], WindowWidth=["700", "3000"])
    one = dataset(smooth(), WindowCenter="500", WindowWidth="700")
    assert np.array_equal(seen(several)[0], seen(one)[0]) and seen(several)[1] == "window 500/700 from the header"


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_every_shape_of_window_is_pydicoms(shape, dtype):
    pixels = smooth(dtype=dtype) - dtype(0 if dtype is np.uint16 else 1500)
    made = dataset(pixels, VOILUTFunction=shape, BitsStored=16, WindowCenter="800", WindowWidth="1200")
    least = 0 if dtype is np.uint16 else -32768
    shown = (apply_voi_lut(apply_modality_lut(made.pixel_array, made), made) - least) / 65535
    assert np.abs(seen(made)[0] - shown * 255).max() < 0.5 + 1e-6


def test_what_a_user_asks_for_comes_before_the_header():
    made = dataset(smooth(), RescaleSlope="1", RescaleIntercept="-1024", **WINDOW)
    pixels, how = seen(made, "40/400")
    assert how == "window 40/400"
    assert np.array_equal(pixels, np.rint(np.clip((smooth() - 1024.0 - 39.5) / 399 + 0.5, 0, 1) * 255))
    assert seen(made, "percentile")[1] == "percentiles 0.5 to 99.5"
    with pytest.raises(ValueError, match="CENTRE/WIDTH"):
        seen(made, "lung")


def test_without_a_window_percentiles_decide_and_eight_bits_stay():
    assert seen(dataset(smooth()))[1] == "percentiles 0.5 to 99.5"
    eight = smooth(top=90, dtype=np.uint8)
    pixels, how = seen(dataset(eight))
    assert np.array_equal(pixels, eight) and how is None


def test_few_bits_are_seen_over_their_whole_range():
    pixels, _ = seen(dataset(smooth(top=15, dtype=np.uint8), BitsStored=4, HighBit=3))
    assert np.array_equal(pixels, np.rint(smooth(top=15, dtype=np.uint8) / 15 * 255))


def test_monochrome1_is_inverted():
    for tags in (WINDOW, {}):
        dark, bright = (seen(dataset(smooth(), PhotometricInterpretation=f"MONOCHROME{n}", **tags))[0] for n in (1, 2))
        assert np.abs(dark + bright - 255).max() <= 1 and np.ptp(dark) > 100


def test_padding_is_black_and_decides_nothing():
    plain = smooth(dtype=np.int16)
    holed = plain.copy()
    holed[:10] = -32000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        pixels, _ = seen(dataset(holed, PixelPaddingValue=-32000, PhotometricInterpretation=photometric))
        assert pixels[:10].max() == 0 and np.ptp(pixels[10:]) == 255
    unsigned = dataset(holed, PhotometricInterpretation="MONOCHROME2")
    unsigned.add_new(0x00280120, "US", 65536 - 32000)  # -32000, written without its sign
    assert seen(unsigned)[0][:10].max() == 0 and np.ptp(seen(unsigned)[0][10:]) == 255
    ranged = holed.copy()
    ranged[0] = -31990
    pixels, _ = seen(dataset(ranged, PixelPaddingValue=-32000, PixelPaddingRangeLimit=-31990))
    assert np.array_equal(pixels, seen(dataset(holed, PixelPaddingValue=-32000))[0])


def lut(first, depth, entries):
    made = item()
    made.add_new(0x00283002, "US", [len(entries), first, depth])
    made.add_new(0x00283006, "US", [int(one) for one in entries])
    return made


def test_a_voi_lut_comes_before_a_window_and_is_pydicoms():
    table = np.rint(np.linspace(0, 1, 3000) ** 0.5 * 4095)
    made = dataset(smooth(), BitsStored=12, HighBit=11, VOILUTSequence=[lut(500, 12, table)], **WINDOW)
    pixels, how = seen(made)
    assert how == "VOI LUT from the header"
    assert np.array_equal(pixels, np.rint(apply_voi_lut(made.pixel_array, made) / 4095 * 255))


def test_a_modality_lut_is_pydicoms():
    table = np.rint(np.linspace(1, 0, 4096) ** 2 * 4095)
    made = dataset(smooth(), BitsStored=12, HighBit=11, ModalityLUTSequence=[lut(0, 16, table)], **WINDOW)
    shown = apply_voi_lut(apply_modality_lut(made.pixel_array, made), made)
    assert np.array_equal(seen(made)[0], np.rint(shown / 65535 * 255))


@needs_real
def test_real_tables_are_pydicoms():
    made = pydicom.dcmread(REAL / "vlut_04.dcm")
    depth = made.VOILUTSequence[0].LUTDescriptor[2]
    assert np.array_equal(seen(REAL / "vlut_04.dcm")[0], np.rint(apply_voi_lut(made.pixel_array, made) / (2 ** depth - 1) * 255))
    made = pydicom.dcmread(REAL / "mlut_18.dcm")
    values = apply_modality_lut(made.pixel_array, made).astype(float)
    low, high = np.percentile(values, [0.5, 99.5], method="inverted_cdf")
    assert np.array_equal(seen(REAL / "mlut_18.dcm")[0], np.rint(np.clip((values - low) / (high - low), 0, 1) * 255))


@pytest.mark.parametrize("folder, name", [(BUNDLED, "examples_palette.dcm"), (REAL, "OT-PAL-8-face.dcm"),
                                          (REAL, "OBXXXX1A_rle.dcm"), (REAL, "OBXXXX1A_expb.dcm")])
def test_palettes_are_pydicoms(folder, name):
    if not (folder / name).is_file():
        pytest.skip(f"real files are not at {folder}")
    made = pydicom.dcmread(folder / name, force=True)
    if "TransferSyntaxUID" not in made.file_meta:
        made.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    shown = apply_color_lut(made.pixel_array, made)[..., :3]
    assert np.array_equal(seen(folder / name)[0], shown if shown.dtype == np.uint8 or shown.max() < 256 else shown >> 8)


def test_a_palette_of_16_bits_and_one_of_8_in_16_are_the_same_colours():
    index = np.arange(16, dtype=np.uint8).reshape(4, 4)
    colours = np.random.default_rng(0).integers(0, 256, (3, 16))
    shown = []
    for scale in (257, 1):
        made = dataset(index, PhotometricInterpretation="PALETTE COLOR")
        for place, table in enumerate(colours):
            made.add_new(0x00281101 + place, "US", [16, 0, 16])
            made.add_new(0x00281201 + place, "OW", (table * scale).astype("<u2").tobytes())
        shown.append(seen(made)[0])
    assert np.array_equal(shown[0], shown[1]) and np.array_equal(shown[0], colours.T[index])


def test_colours_of_16_bits_are_scaled_and_told():
    deep = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), np.uint16)
    pixels, how = seen(dataset(deep))
    assert np.array_equal(pixels, np.rint(deep / 65535 * 255)) and how == "16 bits a colour scaled to 8"


def test_a_window_that_shows_nothing_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="shows nothing of it; name another"):
        seen(dataset(smooth(), WindowCenter="50000", WindowWidth="10"))
    with pytest.raises(ValueError, match="all its pixels are alike"):
        seen(dataset(np.full((9, 9), 7, np.uint16)))


@pytest.mark.parametrize("window", [{"WindowCenter": "100", "WindowWidth": "0"}, {"WindowCenter": "100", "WindowWidth": "-400"},
                                    {"WindowCenter": "100"}])
def test_a_window_that_cannot_be_meant_is_passed_over(window):
    pixels, how = seen(dataset(smooth(), **window))
    assert how.startswith("percentiles") and np.ptp(pixels) == 255


def test_fractions_are_windowed_exactly():
    made = dataset(smooth())
    del made.PixelData, made.BitsStored, made.HighBit, made.PixelRepresentation
    values = (smooth() / 4095).astype(np.float32)
    values[0, 0] = np.nan
    made.BitsAllocated, made.FloatPixelData, made.WindowCenter, made.WindowWidth = 32, values.tobytes(), "0.5", "1"
    pixels, how = seen(made)
    assert how == "window 0.5/1 (linear_exact) from the header"
    assert np.array_equal(pixels, np.rint(np.nan_to_num(values.astype(np.float64)) * 255))
    made.WindowCenter = None
    assert np.ptp(seen(made)[0]) == 255


def test_overlays_are_not_drawn():
    made = dataset(smooth(), **WINDOW)
    plain = seen(made)[0]
    for element, vr, value in ((0x0010, "US", 40), (0x0011, "US", 48), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
                               (0x0100, "US", 1), (0x0102, "US", 0), (0x3000, "OW", b"\xff" * 240)):
        made.add_new(0x60000000 + element, vr, value)
    assert np.array_equal(seen(made)[0], plain)


def test_pixels_that_are_not_square_become_square():
    for tags, size in (({"PixelSpacing": [2, 1]}, (48, 80)), ({"PixelAspectRatio": [1, 2]}, (96, 40)),
                       ({"PixelSpacing": [1e9, 1]}, (48, 40)), ({"PixelSpacing": [0, 0]}, (48, 40))):
        assert dicom.picture(io.BytesIO(written(dataset(smooth(), **tags))))[0].size == size
