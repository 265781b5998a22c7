"""Selection keeps what shows its sentence, is new and differs; every other image has its reason."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from test_alignment import QUICK, a_set

from medisyn.data import records
from medisyn.evaluation import selection
from medisyn.evaluation.selection import Verdict
from medisyn.evaluation.sets import Images, Sets, open_images


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("selection")


@pytest.fixture(scope="module")
def three(home) -> Sets:
    """Of 30 synthetic images, number 3 shows no pneumonia though it says so, and number 6 shows training image 6 again."""
    found = Sets(a_set(home, "train", 90, 0), a_set(home, "unseen", 45, 1), a_set(home, "synthetic", 30, 2))
    rng = np.random.default_rng(9)
    Image.fromarray(rng.integers(60, 110, (24, 24)).astype(np.uint8)).save(found.synthetic.paths[3])
    found.synthetic.paths[6].write_bytes(found.train.paths[6].read_bytes())
    return found


def same_pixels(train: Images) -> selection.Copies:
    """A plain stand-in: 1 where the very same picture is in the training set."""
    def scored(images: Images) -> tuple[np.ndarray, np.ndarray]:
        mine, known = images.pixels(range(len(images)), 24), train.pixels(range(len(train)), 24)
        return np.array([float((known == one).all((1, 2, 3)).any()) for one in mine]), np.full(len(images), 0.5)
    return scored


@pytest.fixture(scope="module")
def verdicts(three, home) -> list[Verdict]:
    return selection.judge(three, 4, settings=QUICK, copies=same_pixels(three.train), cache=home / "cache")


def test_what_does_not_show_its_sentence_is_held_back(verdicts):
    assert verdicts[3].sieve == "sentence"
    assert "looks like" in verdicts[3].reason and "pneumonia" in verdicts[3].reason
    assert sum(v.sieve == "sentence" for v in verdicts) < 10


def test_a_copy_is_held_back(verdicts):
    assert verdicts[6].sieve == "copy"
    assert "shows a training image again: likeness 1.000" in verdicts[6].reason
    assert [v.row for v in verdicts if v.sieve == "copy"] == [6]


def test_no_class_has_more_than_was_asked_for(three, verdicts):
    kept = [three.synthetic.records[v.row] for v in verdicts if v.reason is None]
    assert max(sum(selection.shown(r) == kind for r in kept) for kind in map(selection.shown, kept)) == 4
    assert any(v.sieve == "class" for v in verdicts)
    assert [v.row for v in verdicts] == list(range(30))


def test_the_chosen_are_a_collection_with_their_provenance(three, verdicts, tmp_path):
    told = selection.write(three.synthetic, verdicts, tmp_path / "out")
    made = open_images(tmp_path / "out", "chosen")
    assert told["kept"] == len(made) == sum(v.reason is None for v in verdicts)
    by_id = {r.id: (r, p) for r, p in zip(three.synthetic.records, three.synthetic.paths, strict=True)}
    for record, path in zip(made.records, made.paths, strict=True):
        was, at = by_id[record.id]
        assert dataclasses.replace(record, file_name=was.file_name) == was and record.synthetic
        assert path.read_bytes() == at.read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert len(lines) + len(made) == 30
    assert all(line["reason"] for line in lines)
    assert sum(told["rejected"].values()) == len(lines)
    assert len(list(records.read(tmp_path / "out"))) == len(made)
    with pytest.raises(ValueError, match="is not empty"):
        selection.write(three.synthetic, verdicts, tmp_path / "out")


def test_farthest_points_cover_better_than_chance():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 3)) * 50
    points = np.concatenate([c + rng.normal(size=(20, 3)) for c in centres])
    chosen = selection.farthest(points, 6, 0)
    assert sorted(row // 20 for row in chosen) == list(range(6))
    assert selection.farthest(points, 500, 5)[0] == 5
    assert sorted(selection.farthest(points, 500, 5)) == list(range(120))


def test_doubles_are_chosen_last():
    points = np.array([[0.0, 0], [0, 0], [1, 0], [0, 3]])
    assert selection.farthest(points, 3, 0) == [0, 3, 2]


def test_the_search_for_copies_is_wired(three):
    """The package's own search, on pictures large enough to hold structure."""
    score, limit = selection.pixel_copies(three.train, three.unseen)(three.synthetic.take([4, 6]))
    assert score[1] > score[0]
    assert score[1] >= limit[1]


def test_nothing_to_keep_is_an_error(three):
    with pytest.raises(ValueError, match="expects 1 or more"):
        selection.judge(three, 0, settings=QUICK)
