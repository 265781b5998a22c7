"""Tables: rows of an .npz and of a Parquet file are images, each read by its number."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from medisyn.data import parts, tables

RNG = np.random.default_rng(0)
GRAY, COLOUR = RNG.integers(0, 256, (7, 9, 8), np.uint8), RNG.integers(0, 256, (5, 9, 8, 3), np.uint8)


def medmnist(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_rows_of_an_npz_are_read_in_any_order(tmp_path):
    medmnist(tmp_path / "m.npz", train_images=GRAY, test_images=COLOUR)
    for i in (0, 6, 3, 3, 1):
        assert np.array_equal(np.asarray(parts.open_part(tmp_path, f"m.npz#train_images:{i}").picture), GRAY[i])
    assert np.array_equal(np.asarray(parts.open_part(tmp_path, "m.npz#test_images:4").picture), COLOUR[4])


def test_rows_of_an_npz_have_their_labels_and_split(tmp_path):
    path = medmnist(tmp_path / "m.npz", train_images=GRAY, train_labels=np.arange(7)[:, None], val_images=GRAY[:1],
                    test_images=COLOUR, test_labels=np.eye(5, dtype=np.int64))
    rows = dict(tables.rows(path))
    assert len(rows) == 13 and rows["train_images:5"] == {"label": 5, "split": "train"}
    assert rows["val_images:0"] == {"split": "val"}
    assert rows["test_images:1"] == {"split": "test", **{f"label_{k}": int(k == 1) for k in range(5)}}
    assert [part for part, _ in tables.parts(path, each=3)] == [
        "train_images:0", "train_images:3", "train_images:6", "val_images:0", "test_images:0", "test_images:3"]


@pytest.mark.parametrize("arrays, part, message", [
    ({"train_images": GRAY}, "train_images:7", "the array holds 7"), ({"train_images": GRAY}, "images:0", "not a readable"),
    ({"train_images": GRAY}, "3", "an array and a row"), ({"train_images": GRAY}, "train_images:-1", "an array and a row"),
    ({"images": GRAY.astype(np.float64)}, "images:0", "of 8 bits"), ({"images": GRAY[..., None, None]}, "images:0", "of 8 bits"),
    ({"images": np.array([{}, {}], object)}, "images:0", "array of numbers"),
    ({"images": np.uint8(3)}, "images:0", "array of numbers")])
def test_a_row_that_is_no_image_says_why(tmp_path, arrays, part, message):
    np.savez(tmp_path / "m.npz", allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match=message):
        parts.open_part(tmp_path, f"m.npz#{part}")


def test_a_row_of_absurd_size_is_refused_before_it_is_read(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1, 10**6, 10**6)})
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as out:
        out.writestr("images.npy", header.getvalue())
    with pytest.raises(ValueError, match="more than 2 GiB"):
        parts.open_part(tmp_path, "m.npz#images:0")


def test_an_npz_without_images_says_what_it_should_hold(tmp_path):
    with pytest.raises(ValueError, match="should hold arrays called images"):
        list(tables.rows(medmnist(tmp_path / "m.npz", weights=GRAY)))


def encoded(seed: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8), np.uint8)).save(out, kind)
    return out.getvalue()


def shard(path, column, rows_a_group=2, **others):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet
    pyarrow.parquet.write_table(pa.table({"image": column, **others}), path, row_group_size=rows_a_group)
    return path


def test_rows_of_a_parquet_file_are_images_with_columns(tmp_path):
    shard(tmp_path / "s.parquet", [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(5)], label=list("abcde"))
    assert dict(tables.rows(tmp_path / "s.parquet")) == {str(i): {"label": letter} for i, letter in enumerate("abcde")}
    for i in (4, 0, 3):
        found = np.asarray(parts.open_part(tmp_path, f"s.parquet#{i}").picture)
        assert np.array_equal(found, np.random.default_rng(i).integers(0, 256, (9, 8), np.uint8))


def test_a_parquet_column_of_plain_bytes_will_do(tmp_path):
    shard(tmp_path / "s.parquet", [encoded(1), encoded(2)])
    assert parts.open_part(tmp_path, "s.parquet#1").picture.size == (8, 9)
    assert [part for part, _ in tables.rows(tmp_path / "s.parquet")] == ["0", "1"]


@pytest.mark.parametrize("column, part, message", [
    ([{"bytes": b"no image", "path": "a.png"}], "0", "not a readable image"),
    ([{"bytes": None, "path": "a.png"}], "0", "only the name"), ([{"bytes": b"", "path": None}], "0", "not a readable image"),
    ([b"x"], "1", "the file holds 1"), ([b"x"], "a", "number of a row"), (["text"], "0", "a column of images")])
def test_a_row_without_an_image_says_why(tmp_path, column, part, message):
    shard(tmp_path / "s.parquet", column)
    with pytest.raises(ValueError, match=message):
        parts.open_part(tmp_path, f"s.parquet#{part}")


@pytest.mark.parametrize("name", ["m.npz#images:0", "s.parquet#0"])
def test_any_damage_ends_in_one_sentence(tmp_path, name):
    file = name.partition("#")[0]
    if file == "m.npz":
        medmnist(tmp_path / file, images=GRAY)
    else:
        shard(tmp_path / file, [{"bytes": encoded(1), "path": "a.png"}])
    whole = (tmp_path / file).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / file).write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:] if at % 2 else whole[:at])
        try:
            parts.open_part(tmp_path, name)
            list(tables.rows(tmp_path / file))
        except ValueError as error:
            assert "\n" not in str(error) and str(tmp_path) not in str(error)
