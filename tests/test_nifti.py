"""NIfTI: however a volume lies in its file, its slices look the same, upright; what is broken is refused."""

import gzip
import io
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medisyn.data import nifti

nib = pytest.importorskip("nibabel")

BUNDLED = Path(nib.__file__).parent / "tests" / "data"
REAL = Path(__file__).parents[2] / "shared" / "data" / "raw" / "nifti"
AXES = [("R", "A", "S"), ("L", "P", "S"), ("L", "A", "I"), ("A", "S", "R"), ("I", "R", "P"), ("S", "L", "A")]


@dataclass(frozen=True)
class Asked:
    window: str = "auto"


def body(shape=(24, 30, 16), dtype=np.int16):
    """A volume on R, A, S axes: a ball whose right is bright, whose front is brighter, and whose top is brightest."""
    x, y, z = (np.linspace(-1, 1, n) for n in shape)
    x, y, z = np.meshgrid(x, y, z, indexing="ij")
    ball = (x ** 2 + y ** 2 + z ** 2) < 0.8
    return (ball * (400 + 100 * x + 150 * y + 200 * z)).astype(dtype)


def image(data=None, spacing=(1.0, 1.0, 1.0), axes=("R", "A", "S"), kind=nib.Nifti1Image):
    """The same body, laid down along other axes."""
    made = kind(body() if data is None else data, np.diag([*spacing, 1.0]))
    there, here = (nib.orientations.axcodes2ornt(names) for names in (axes, "RAS"))
    return made.as_reoriented(nib.orientations.ornt_transform(here, there))


def stored(made, compress=False):
    data = made.to_bytes()
    return io.BytesIO(gzip.compress(data) if compress else data)


def seen(file, part="", window="auto"):
    picture, how = nifti.picture(file, part, Asked(window))
    return np.asarray(picture).astype(int), how


@pytest.mark.parametrize("axes", AXES, ids="".join)
def test_a_slice_looks_the_same_however_the_volume_lies(axes):
    for part in ("axial:8", "coronal:12", "sagittal:10"):
        assert np.array_equal(seen(stored(image(axes=axes)), part)[0], seen(stored(image()), part)[0]), part


def test_a_slice_is_seen_as_a_radiologist_sees_it():
    axial, coronal, sagittal = (seen(stored(image()), part)[0] for part in ("axial:8", "coronal:15", "sagittal:12"))
    assert axial.shape == (30, 24) and coronal.shape == (16, 24) and sagittal.shape == (16, 30)
    assert axial[15, 5] > axial[15, 18], "the patient's right is on the left"
    assert axial[5, 12] > axial[24, 12], "anterior is at the top"
    assert coronal[4, 12] > coronal[11, 12] and coronal[8, 5] > coronal[8, 18], "superior is at the top"
    assert sagittal[4, 15] > sagittal[11, 15] and sagittal[8, 6] > sagittal[8, 23], "anterior is on the left"


@pytest.mark.parametrize("spacing, plane", [((1, 1, 3), "axial"), ((1, 4, 1), "coronal"), ((5, 1, 1), "sagittal"),
                                            ((1, 1, 1), "axial"), ((1, 1.1, 1), "axial")])
def test_the_plane_is_the_one_that_was_acquired(spacing, plane):
    for axes in AXES[:4]:
        parts = list(nifti.parts(stored(image(spacing=spacing, axes=axes))))
        assert parts and all(part.startswith(f"{plane}:") and facts == {"view": plane} for part, facts in parts)


def test_pixels_of_a_coarse_direction_are_made_square():
    assert seen(stored(image(spacing=(1, 1, 3))), "coronal:12")[0].shape == (48, 24)
    assert seen(stored(image(spacing=(1, 1, 3))), "axial:8")[0].shape == (30, 24)


def test_slices_that_show_too_little_are_left_out():
    places = [int(part.split(":")[1]) for part, _ in nifti.parts(stored(image()))]
    assert places == list(range(places[0], places[-1] + 1)) and 0 < places[0] < 6 and 10 < places[-1] < 15
    thinned = [int(part.split(":")[1]) for part, _ in nifti.parts(stored(image()), each=3)]
    assert thinned == places[::3]


def test_each_volume_of_a_series_has_slices_and_a_window_of_its_own():
    data = np.stack([body(), 3 * body(), 2 * body()], -1)
    parts = [part for part, _ in nifti.parts(stored(image(data)))]
    assert {part.count(":") for part in parts} == {1, 2} and parts[-1].endswith(":2")
    first, second = seen(stored(image(data)), "axial:8")[0], seen(stored(image(data)), "axial:8:1")[0]
    assert np.array_equal(first, second) and first.max() > 200


def test_scaled_values_are_windowed_in_their_own_unit():
    data = (body() - 1000).astype(np.int16)
    raw = bytearray(image(data).to_bytes())
    raw[112:120] = np.array([2.0, -500.0], "<f4").tobytes()  # scl_slope, scl_inter
    pixels, how = seen(io.BytesIO(bytes(raw)), "axial:8", "-2000/1000")
    shown = np.clip((data[::-1, ::-1, 8].T * 2.0 - 500 + 2000.5) / 999 + 0.5, 0, 1) * 255
    assert np.array_equal(pixels, np.rint(shown)) and how == "window -2000/1000"


def test_percentiles_are_those_of_the_volume():
    pixels, how = seen(stored(image()), "axial:8")
    assert how == "percentiles 0.5 to 99.5 of the volume"
    low, high = np.percentile(body(), [0.5, 99.5], method="inverted_cdf")
    assert np.array_equal(pixels, np.rint(np.clip((body()[::-1, ::-1, 8].T - low) / (high - low), 0, 1) * 255))


def test_voxels_that_are_no_numbers_are_black_and_decide_nothing():
    data = body(dtype=np.float32)
    data[:4] = np.nan
    data[4, 4, 4] = np.inf
    pixels, _ = seen(stored(image(data)), "axial:8")
    assert pixels[:, -4:].max() == 0 and pixels.max() > 200
    with pytest.raises(ValueError, match="none of its voxels is a number"):
        seen(stored(image(np.full((8, 8, 8), np.nan, np.float32))))


def test_colours_are_colours():
    colours = np.random.default_rng(0).integers(0, 256, (6, 7, 5, 3), np.uint8)
    packed = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    picture, how = nifti.picture(stored(nib.Nifti1Image(packed, np.eye(4))), "axial:2")
    assert how is None and np.array_equal(np.asarray(picture), colours[::-1, ::-1, 2].swapaxes(0, 1))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_compressed_or_not_from_disk_or_memory(tmp_path, kind, compress):
    made = stored(image(kind=kind), compress)
    path = tmp_path / "a.nii"
    path.write_bytes(made.getvalue())
    assert nifti.looks(made.getvalue()[:1024])
    assert np.array_equal(seen(made, "axial:8")[0], seen(stored(image()), "axial:8")[0])
    assert np.array_equal(seen(path, "axial:8")[0], seen(made, "axial:8")[0])
    assert len(list(nifti.parts(path))) == len(list(nifti.parts(made)))


def test_big_endian_volumes_are_read():
    made = nib.Nifti1Image(body().astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
    assert np.array_equal(seen(stored(made), "axial:8")[0], seen(stored(image()), "axial:8")[0])


def test_one_slice_is_a_volume_too():
    flat = body()[:, :, 8]
    for data in (flat, flat[:, :, None]):
        assert [part for part, _ in nifti.parts(stored(nib.Nifti1Image(data, np.eye(4))))] == ["axial:0"]


def test_masks_are_no_images():
    labels = (body() > 0).astype(np.uint8) * 3
    for data in (labels, labels.astype(np.float32)):
        with pytest.raises(ValueError, match="labels"):
            list(nifti.parts(stored(image(data))))
    said = image()
    said.header.set_intent("label")
    with pytest.raises(ValueError, match="labels"):
        list(nifti.parts(stored(said)))
    assert seen(stored(image(labels)), "axial:8")[0].max() == 255  # a picture can still be made of it


def test_a_volume_without_orientation_has_no_named_view():
    made = nib.Nifti1Image(body(), None)
    made.header["qform_code"] = made.header["sform_code"] = 0
    assert all(facts == {} for _, facts in nifti.parts(stored(made)))


@pytest.mark.parametrize("part", ["axial", "axial:x", "axial:1:2:3", "up:3", "axial:-1", "57", "axial:1e3", "axial:²"])
def test_a_part_that_cannot_be_meant_says_what_was_expected(part):
    with pytest.raises(ValueError, match="PLANE:SLICE"):
        nifti.picture(stored(image()), part)


def test_a_slice_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="the file holds 16 axial slices in 1 volumes"):
        nifti.picture(stored(image()), "axial:99")


def broken(**fields):
    made = image()
    data = bytearray(made.to_bytes())
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(data))
    for name, value in fields.items():
        header[name] = value
    data[:348] = header.binaryblock
    return io.BytesIO(bytes(data))


@pytest.mark.parametrize("fields, reason", [
    ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "more voxels than can be read"),
    ({"dim": [3, 600, 600, 600, 1, 1, 1, 1]}, "cut short"), ({"dim": [9] * 8}, "not readable|expected 2"),
    ({"dim": [3, 0, 10, 10, 1, 1, 1, 1]}, "expected 2 to 4 dimensions"), ({"dim": [5, 4, 4, 4, 1, 3, 1, 1]}, "expected 2 to 4"),
    ({"dim": [3, -5, 10, 10, 1, 1, 1, 1]}, "expected 2 to 4 dimensions"), ({"vox_offset": 3e9}, "more voxels than can be read"),
    ({"datatype": 32, "bitpix": 64}, "neither whole"), ({"datatype": 99}, "not readable")])
def test_headers_that_cannot_be_meant_are_refused_before_anything_is_allocated(fields, reason):
    tracemalloc.start()
    for read in (nifti.picture, lambda file: list(nifti.parts(file))):
        with pytest.raises(ValueError, match=reason) as caught:
            read(broken(**fields))
        assert "\n" not in str(caught.value)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5e6


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.7, 0.999])
def test_a_file_cut_short_is_refused(compress, share):
    data = stored(image(), compress).getvalue()
    with pytest.raises(ValueError) as caught:
        nifti.picture(io.BytesIO(data[:int(len(data) * share)]))
    assert "\n" not in str(caught.value)


def test_flipped_bits_raise_nothing_but_refusals():
    flips = np.random.default_rng(0)
    for compress in (False, True):
        data = stored(image(), compress).getvalue()
        for _ in range(60):
            bad = bytearray(data)
            for at in flips.integers(0, min(len(data), 400), 4):
                bad[at] ^= 1 << int(flips.integers(0, 8))
            for read in (nifti.picture, lambda file: list(nifti.parts(file))):
                try:
                    read(io.BytesIO(bytes(bad)))
                except ValueError as error:
                    assert "\n" not in str(error)


def test_texts_of_a_header_are_never_told(caplog, capfd):
    made = broken(descrip=b"SECRET", aux_file=b"SECRET", intent_name=b"SECRET", db_name=b"SECRET", datatype=99)
    with pytest.raises(ValueError) as caught:
        nifti.picture(made)
    assert "SECRET" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert "SECRET" not in repr(list(nifti.parts(broken(descrip=b"SECRET", intent_name=b"SECRET"))))


@pytest.mark.parametrize("name", ["example4d.nii.gz", "anatomical.nii", "example_nifti2.nii.gz", "functional.nii",
                                  "reoriented_anat_moved.nii"])
def test_nibabels_own_files_agree_with_its_canonical_orientation(name):
    if not (BUNDLED / name).is_file():
        pytest.skip("nibabel was installed without its test data")
    data = np.asarray(nib.as_closest_canonical(nib.load(BUNDLED / name)).dataobj)
    data = data[..., 0] if data.ndim == 4 else data
    place = data.shape[2] // 2
    pixels, _ = seen(BUNDLED / name, f"axial:{place}", f"{data.mean():.6f}/{4 * data.std():.6f}")
    shown = np.clip((data[::-1, ::-1, place].T - (round(data.mean(), 6) - 0.5)) / (round(4 * data.std(), 6) - 1) + 0.5, 0, 1) * 255
    assert np.abs(pixels - shown).max() <= 0.51


@pytest.mark.skipif(not REAL.is_dir(), reason=f"real files are not at {REAL}")
def test_real_volumes_show_their_heads():
    for path in sorted(REAL.iterdir()):
        parts = list(nifti.parts(path))
        assert len(parts) > 30 and all(facts == {"view": "axial"} for _, facts in parts)
        pixels, _ = seen(path, parts[len(parts) // 2][0])
        assert pixels.shape == (256, 256) and pixels[:8, :8].max() < 20 and pixels[100:156, 100:156].mean() > 40
