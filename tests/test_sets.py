"""Sets: opened from whatever people have, and refused in one sentence where the comparison would be false."""

import shutil
from pathlib import Path

import numpy as np
import phantoms
import pytest
from PIL import Image

from medisyn.data import records
from medisyn.evaluation import sets


def pictures(folder: Path, n: int = 3, seed: int = 0) -> Path:
    """A bare folder of n different pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (40, 48), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def collection(tmp_path) -> Path:
    return phantoms.collection(tmp_path / "collection", 8)


def one_sentence(call, *parts: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        call()
    told = str(caught.value)
    assert "\n" not in told
    for part in parts:
        assert part in told, told


def test_a_collection_opens_whole_or_by_split(collection):
    assert len(sets.open_images(collection, "train")) == 16
    assert len(sets.open_images(f"{collection}:val", "unseen")) == 6
    assert {r.split for r in sets.open_images(f"{collection}:train", "train").records} == {"train"}


def test_a_bare_folder_is_a_set_of_images_of_which_nothing_is_known(tmp_path):
    found = sets.open_images(pictures(tmp_path / "a"), "synthetic")
    assert len(found) == 3
    assert {name: rows.tolist() for name, rows in sets.groups(found).items()} == {"all": [0, 1, 2]}
    assert len(set(sets.patients(found))) == 3


def test_a_csv_gives_what_is_known(tmp_path):
    home = pictures(tmp_path / "a", 4)
    (home / "labels.csv").write_text("file_name,image_type,patient,sex,age_years,findings\n"
                                     "0.png,chest_xray,p1,female,61,pneumonia=true; pleural_effusion=false\n"
                                     "1.png,chest_xray,p1,,,\n2.png,,,male,20,\"{\"\"glioma\"\": true}\"\n3.png,,,,,\n")
    found = sets.open_images(home, "unseen")
    grouped = {name: rows.tolist() for name, rows in sets.groups(found).items()}
    assert grouped == {"all": [0, 1, 2, 3], "image_type=chest_xray": [0, 1], "finding=glioma": [2], "finding=pneumonia": [0],
                       "sex=female": [0], "sex=male": [2], "age=20-39": [2], "age=60-79": [0]}
    assert found.rows_of("sex=male").tolist() == [2]
    assert found.rows_of("sex=other").tolist() == []
    assert sets.patients(found)[0] == sets.patients(found)[1] == "p1"


@pytest.mark.parametrize(("text", "said"), [
    ("name\n0.png\n", "found the unknown column 'name'"), ("file_name,labl\n0.png,x\n", "found the unknown column 'labl'"),
    ("image_type\nmri\n", "found the columns image_type"), ("file_name,age_years\n0.png,old\n1.png,\n", "age_years as a number"),
    ("file_name,findings\n0.png,pneumonia\n1.png,\n", "expected findings as"), ("file_name\n9.png\n1.png\n", "9.png is missing"),
    ("file_name,split\n0.png,training\n1.png,\n", "split 'training'")])
def test_a_wrong_csv_is_named(tmp_path, text, said):
    home = pictures(tmp_path / "a")
    (home / "t.csv").write_text(text)
    one_sentence(lambda: sets.open_images(home, "train"), said)


def test_what_cannot_be_judged_is_refused(tmp_path, collection):
    one_sentence(lambda: sets.open_images(tmp_path / "none", "train"), "train", "found nothing at")
    one_sentence(lambda: sets.open_images(pictures(tmp_path / "one", 1), "train"), "at least 2 images", "found one")
    one_sentence(lambda: sets.open_images(pictures(tmp_path / "zero", 0), "train"), "found none")
    one_sentence(lambda: sets.open_images(f"{collection}:test", "unseen"), "no image of split 'test'", "train, val")
    one_sentence(lambda: sets.open_images(f"{collection}:tset", "unseen"), "after the colon, found 'tset'")
    home = pictures(tmp_path / "two")
    (home / "a.csv").write_text("file_name\n0.png\n")
    (home / "b.csv").write_text("file_name\n0.png\n")
    one_sentence(lambda: sets.open_images(home, "train"), "one CSV", "found 2", "metadata.csv")


def test_a_file_cut_short_is_named(tmp_path):
    train, unseen, synthetic = (pictures(tmp_path / name, 3, seed) for seed, name in enumerate("abc"))
    broken = synthetic / "1.png"
    broken.write_bytes(broken.read_bytes()[:200])
    one_sentence(lambda: sets.open_sets(train, unseen, synthetic), str(broken), "expected a readable image")
    one_sentence(lambda: sets.open_images(synthetic, "synthetic").pixels([1], 32), str(broken), "expected a readable image")


def test_the_same_patient_may_not_be_in_train_and_unseen(collection, tmp_path):
    synthetic = pictures(tmp_path / "s")
    opened = sets.open_sets(f"{collection}:train", f"{collection}:val", synthetic)
    assert [(name, len(side)) for name, side in opened.items()] == [("train", 10), ("unseen", 6), ("synthetic", 3)]
    one_sentence(lambda: sets.open_sets(collection, f"{collection}:val", synthetic), "6 patients in both", "split by patient")


def test_the_same_file_may_not_be_in_both_under_another_name(tmp_path):
    train, unseen, synthetic = (pictures(tmp_path / name, 3, seed) for seed, name in enumerate("abc"))
    sets.open_sets(train, unseen, synthetic)
    shutil.copyfile(train / "2.png", unseen / "new.png")
    one_sentence(lambda: sets.open_sets(train, unseen, synthetic), "1 file content in both")


def test_synthetic_images_are_no_real_ones(phantom_made, tmp_path):
    one_sentence(lambda: sets.open_sets(phantom_made, pictures(tmp_path / "u"), phantom_made), "train: expected real images",
                 "found 2")


@pytest.fixture
def phantom_made(tmp_path) -> Path:
    """A collection whose records say how they were made."""
    from dataclasses import fields, replace

    from medisyn.data.provenance import Provenance
    home = phantoms.collection(tmp_path / "made", 2)
    kinds = {"str": "x", "int": 1, "float": 1.0}
    made = Provenance(**{f.name: kinds.get(getattr(f.type, "__name__", ""), None) for f in fields(Provenance)})
    records.write([replace(r, provenance=made if i < 2 else None) for i, r in enumerate(records.read(home))], home)
    return home


def test_pixels_are_the_central_square_in_the_order_of_the_rows(tmp_path):
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 200
    home = pictures(tmp_path / "a", 2)
    Image.fromarray(wide).save(home / "9.png")
    found = sets.open_images(home, "synthetic").pixels([2, 0], 16)
    assert found.shape == (2, 16, 16, 3)
    assert found.dtype == np.uint8
    assert (found[0, 2:-2, 2:-2] == 200).all()      # the antialiasing filter sees a little beyond the edge
    assert found[0].std() < 5 < found[1].std()


def test_a_part_of_a_set_keeps_its_order(collection):
    found = sets.open_images(collection, "train")
    part = found.take([5, 2])
    assert [r.id for r in part.records] == [found.records[5].id, found.records[2].id]
    assert part.paths == (found.paths[5], found.paths[2])
