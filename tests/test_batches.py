"""Batches: what a step trains on depends on seed and step alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import phantoms
import pytest

from medisyn.data import images, records
from medisyn.data.records import Record
from medisyn.training import batches


def several(**n: int) -> list[Record]:
    return [Record(f"{kind}-{i}", "x.png", kind) for kind, count in n.items() for i in range(count)]


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    return phantoms.collection(tmp_path_factory.mktemp("batches"), n=8)


def test_the_order_is_a_function_of_seed_and_step():
    p = batches.weights(several(ct=30, mri=5))
    first = [batches.order(p, 16, 3, step) for step in range(6)]
    backwards = [batches.order(p, 16, 3, step) for step in reversed(range(6))][::-1]
    assert np.array_equal(first, backwards)
    assert len({tuple(rows) for rows in first}) == 6
    assert not np.array_equal(batches.order(p, 16, 4, 0), first[0])


def test_streams_of_one_step_are_not_the_same_numbers():
    a, b, again = (batches.generator(1, stream, 5).random(4) for stream in ("crops", "captions", "crops"))
    assert np.array_equal(a, again)
    assert not np.array_equal(a, b)


def test_weights_sum_to_one_and_go_by_the_square_root():
    known = several(ct=16, mri=4, oct=1)
    p = batches.weights(known)
    assert p.sum() == pytest.approx(1)
    shares = {kind: sum(q for q, r in zip(p, known, strict=True) if r.image_type == kind) for kind in ("ct", "mri", "oct")}
    assert shares == pytest.approx({"ct": 4 / 7, "mri": 2 / 7, "oct": 1 / 7})


def test_a_type_can_be_drawn_so_many_times_as_often():
    known = several(ct=16, mri=4, oct=1)
    p = batches.weights(known, often={"mri": 3.0})
    shares = {kind: sum(q for q, r in zip(p, known, strict=True) if r.image_type == kind) for kind in ("ct", "mri", "oct")}
    assert shares == pytest.approx({"ct": 4 / 11, "mri": 6 / 11, "oct": 1 / 11})


def test_inside_a_type_rare_classes_go_by_the_square_root_too():
    known = [Record(str(i), "x.png", "ct", findings={"kidney_stone": i < 1}) for i in range(10)]
    assert batches.weights(known)[0] == pytest.approx(1 / (1 + 3))


def test_a_power_of_one_draws_everything_alike():
    assert batches.weights(several(ct=7, mri=2), power=1.0) == pytest.approx(np.full(9, 1 / 9))


def test_rare_types_are_drawn_more_often_than_their_share():
    known = several(ct=90, oct=10)
    rows = np.concatenate([batches.order(batches.weights(known), 64, 0, step) for step in range(60)])
    assert rows.min() >= 0
    assert rows.max() < 100
    drawn = Counter(known[r].image_type for r in rows)
    assert drawn["oct"] / len(rows) == pytest.approx(1 / 4, abs=0.03)


def test_pixels_are_packed_once(collection, tmp_path, monkeypatch):
    first = batches.pack([collection], tmp_path, 24)
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("an image was read again"))
    again = batches.pack([collection], tmp_path, 24)
    assert np.array_equal(first.array, again.array)
    assert first.records == again.records


def test_another_side_is_packed_anew(collection, tmp_path):
    assert batches.pack([collection], tmp_path, 24).array.shape == (16, 24, 24, 3)
    assert batches.pack([collection], tmp_path, 16).array.shape == (16, 16, 16, 3)


def test_a_collection_that_changed_is_packed_anew(tmp_path):
    home = phantoms.collection(tmp_path / "c", n=4)
    before = len(batches.pack([home], tmp_path / "p", 16).records)
    records.write(list(records.read(home))[1:], home)
    assert len(batches.pack([home], tmp_path / "p", 16).records) == before - 1


def test_rows_that_others_count_on_are_kept_and_that_is_said(tmp_path):
    home, said = phantoms.collection(tmp_path / "c", n=4), []
    before = batches.pack([home], tmp_path / "p", 16, keep=True, message=said.append).records
    records.write(list(records.read(home))[1:], home)
    assert batches.pack([home], tmp_path / "p", 16, keep=True, message=said.append).records == before
    assert len(said) == 1 and "changed after" in said[0]
    assert batches.pack([home], tmp_path / "p", 24, keep=True).array.shape[1] == 24


def test_a_packing_cut_short_is_done_again(collection, tmp_path):
    whole = np.array(batches.pack([collection], tmp_path, 24).array)
    (tmp_path / "done.json").unlink()
    (tmp_path / "pixels.npy").write_bytes(b"half of it")
    assert np.array_equal(batches.pack([collection], tmp_path, 24).array, whole)


def test_each_row_is_the_image_of_its_record(collection, tmp_path):
    pixels = batches.pack([collection], tmp_path, 24)
    assert pixels.records == list(records.read(collection))
    row = pixels.of_split("val")[0]
    picture = images.square(images.decode(collection / pixels.records[row].file_name), 24).convert("RGB")
    assert np.array_equal(pixels.array[row], np.asarray(picture))


def test_the_test_split_is_never_packed(tmp_path):
    home = phantoms.collection(tmp_path / "c", n=4)
    known = list(records.read(home))
    kept = [Record(**{**vars(r), "split": "test" if i == 0 else r.split}) for i, r in enumerate(known)]
    records.write(kept, home)
    assert {r.id for r in batches.pack([home], tmp_path / "p", 16).records} == {r.id for r in known[1:]}


def test_nothing_to_train_on_is_said(tmp_path):
    records.write([Record("a", "a.png", "ct", split="test")], tmp_path)
    with pytest.raises(ValueError, match="no image of split train or val"):
        batches.pack([tmp_path], tmp_path / "p", 16)
