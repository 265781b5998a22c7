"""Parts: an address names one image in a file, whatever the file is."""

import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medisyn.data import images, parts
from medisyn.data.parts import Reading

WARD = Path(__file__).parents[2] / "shared" / "data" / "raw"


def picture(seed: int = 0, side: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8))


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    picture(seed).save(out, "PNG")
    return out.getvalue()


def same(read: parts.Read, seed: int = 0) -> bool:
    return np.array_equal(np.asarray(read.picture), np.asarray(picture(seed)))


def test_a_plain_file_is_its_own_part(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.png").write_bytes(png())
    read = parts.open_part(tmp_path, "a/b.png")
    assert same(read) and read.how is None


@pytest.mark.parametrize("name", ["week #3.png", "now!.png", "a#1!b.png", "a!b/c#d.png"])
def test_a_name_may_hold_the_marks_of_an_address(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(png())
    assert same(parts.open_part(tmp_path, name))


def test_a_member_of_an_archive_is_read_in_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "a#b.zip", "w") as out:
        out.writestr("in/x.png", png(1))
        out.writestr("in/week #3.png", png(2))
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as out:
        info = tarfile.TarInfo("in/x.png")
        info.size = len(png(3))
        out.addfile(info, io.BytesIO(png(3)))
    assert same(parts.open_part(tmp_path, "a#b.zip!in/x.png"), 1)
    assert same(parts.open_part(tmp_path, "a#b.zip!in/week #3.png"), 2)
    assert same(parts.open_part(tmp_path, "t.tar.gz!in/x.png"), 3)
    assert {path.name for path in tmp_path.iterdir()} == {"a#b.zip", "t.tar.gz"}


def test_a_part_of_a_member_is_read_too(tmp_path):
    inner = io.BytesIO()
    np.savez(inner, train_images=np.stack([np.asarray(picture(seed)) for seed in range(3)]))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as out:
        out.writestr("m.npz", inner.getvalue())
    assert same(parts.open_part(tmp_path, "z.zip!m.npz#train_images:2"), 2)


@pytest.mark.parametrize("address, message", [
    ("../x.png", "leads out"), ("a/../../x.png", "leads out"), ("/etc/passwd", "leads out"), ("a\0b", "leads out"),
    ("gone.png", "no such file"), ("gone.zip!x.png", "no such file"), ("x.png#1", "one image and has no parts"),
    ("x.png!y.png", "cannot be read"), ("z.zip!gone.png", "holds no such file"), ("z.zip!../x.png", "no such file"),
    ("", "no such file")])
def test_an_address_of_nothing_says_so(tmp_path, address, message):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.png").write_bytes(png()), (tmp_path / "x.png").write_bytes(png())
    with zipfile.ZipFile(folder / "z.zip", "w") as out:
        out.writestr("x.png", png())
    with pytest.raises(ValueError, match=message):
        parts.open_part(folder, address)


@pytest.mark.parametrize("data", [b"", b"no image", png()[:60], png()[:-60], b"\x89PNG\r\n\x1a\n" + bytes(300)])
@pytest.mark.parametrize("name", ["x.png", "x.dcm", "x.nii.gz", "x.svs", "x.npz#images:0", "x.parquet#0", "x"])
def test_what_cannot_be_read_ends_in_one_sentence_that_names_no_file(tmp_path, name, data):
    (tmp_path / name.partition("#")[0]).write_bytes(data)
    with pytest.raises(ValueError) as caught:
        parts.open_part(tmp_path, name)
    assert str(tmp_path) not in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_file_of_absurd_dimensions_is_refused_before_it_is_unpacked(tmp_path):
    data = bytearray(png())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match="Bomb"):
        parts.open_part(tmp_path, "x.png")


def test_a_picture_with_values_that_are_no_numbers_is_refused(tmp_path):
    deep = np.ones((8, 8), np.float32)
    deep[3, 3] = np.nan
    Image.fromarray(deep).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="no numbers"):
        parts.open_part(tmp_path, "x.tif")


def test_deep_pixels_say_how_they_became_eight_bits(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900).save(tmp_path / "x.png")
    read = parts.open_part(tmp_path, "x.png")
    assert read.how == "minimum to maximum" and read.picture.getextrema() == (0, 255)


def test_a_large_jpeg_may_come_reduced_and_looks_the_same(tmp_path):
    large = picture(side=12).resize((1600, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "x.jpg", quality=95)
    small = parts.open_part(tmp_path, "x.jpg", Reading(short_side=100)).picture
    assert min(small.size) >= 200 and small.size < large.size
    both = [np.asarray(one.resize((160, 120), Image.Resampling.BOX), int) for one in (small, large)]
    assert np.abs(both[0] - both[1]).mean() < 2
    assert parts.open_part(tmp_path, "x.jpg", Reading(short_side=700)).picture.size == large.size


@pytest.mark.parametrize("window", ["auto", "percentile", "40/400", "-600/1500", "0.5/0.25"])
def test_a_window_is_a_word_or_centre_and_width(window):
    parts.expect_window(window)


@pytest.mark.parametrize("window", ["", "lung", "40", "40/0", "40/-3", "a/b", "40/400/1"])
def test_another_window_is_refused(window):
    with pytest.raises(ValueError, match="CENTRE/WIDTH"):
        parts.expect_window(window)


@pytest.mark.skipif(not WARD.is_dir(), reason="needs shared/data/raw")
def test_a_file_without_a_suffix_is_told_by_its_first_bytes(tmp_path):
    for name in ("dicom/liver.dcm", "nifti/patient01_study2_T1W.nii.gz"):
        (tmp_path / "x").write_bytes((WARD / name).read_bytes())
        assert parts.format_of("x", tmp_path / "x").__name__ == f"medisyn.data.{name.split('/')[0]}"
    (tmp_path / "y").write_bytes(png())
    assert parts.format_of("y", tmp_path / "y") is None and same(parts.open_part(tmp_path, "y"))


@pytest.mark.skipif(not WARD.is_dir(), reason="needs shared/data/raw")
def test_a_member_of_an_archive_may_be_a_dicom_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as out:
        out.write(WARD / "dicom/MR2_J2KR.dcm", "in/s.dcm")
    inside, beside = parts.open_part(tmp_path, "z.zip!in/s.dcm"), parts.open_part(WARD, "dicom/MR2_J2KR.dcm")
    assert np.array_equal(np.asarray(inside.picture), np.asarray(beside.picture)) and inside.how == beside.how


@pytest.mark.parametrize("shape", [(1, 1), (7, 1, 3), (1, 9), (33, 20), (33, 20, 3)])
def test_a_quick_png_holds_the_same_pixels_and_no_text(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    opened = Image.open(io.BytesIO(images.quick_png(Image.fromarray(pixels))))
    opened.load()
    assert np.array_equal(np.asarray(opened), pixels) and opened.format == "PNG" and opened.text == {}
