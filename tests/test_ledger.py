"""The ledger: finished images are noted one by one, a line cut short does not count, nothing tells a file's name."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from medisyn.data import duplicates, ledger


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)


def row(seed: int, how: str | None = None) -> dict:
    return ledger.row_of(f"{seed:016x}", ledger.stamp(b"key", seed), f"{seed:032x}", picture(seed), how)


def written(path, rows):
    with ledger.noting(path) as note:
        for one in rows:
            note(one)
    return path


def test_what_is_noted_is_found_again(tmp_path):
    path = written(tmp_path / "deep/x.jsonl", [row(i, "window 40/400" if i % 2 else None) for i in range(6)])
    assert ledger.stamps(path) == {f"{i:016x}": ledger.stamp(b"key", i) for i in range(6)}
    looks = ledger.looks(path, [f"{i:016x}" for i in (5, 2, 3, 77)])
    assert looks.names == [f"{i:016x}" for i in (2, 3, 5)] and looks.contents == [f"{i:032x}" for i in (2, 3, 5)]
    assert looks.how == {f"{i:016x}": "window 40/400" for i in (3, 5)}
    for i, seed in enumerate((2, 3, 5)):
        assert tuple(looks.hashes[i].tolist()) == duplicates.hashes_of(picture(seed))
        assert np.array_equal(looks.thumbnails[i], duplicates.thumbnail_of(picture(seed)))


def test_a_ledger_cut_anywhere_loses_its_last_line_alone_and_goes_on(tmp_path):
    path = written(tmp_path / "x.jsonl", [row(i) for i in range(5)])
    whole = path.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in random.Random(1).sample(range(len(whole)), 60):
        path.write_bytes(whole[:cut])
        finished = sum(end <= cut for end in ends) - 1  # the first line is empty
        assert len(ledger.stamps(path)) == max(0, finished)
        written(path, [row(9)])
        assert len(ledger.stamps(path)) == max(0, finished) + 1 and f"{9:016x}" in ledger.stamps(path)


def test_the_last_line_of_a_name_counts(tmp_path):
    path = written(tmp_path / "x.jsonl", [row(1, "first"), row(2), {**row(1), "stamp": "new", "content": "other"}])
    assert ledger.stamps(path)[f"{1:016x}"] == "new"
    looks = ledger.looks(path, [f"{1:016x}"])
    assert looks.contents == ["other"] and looks.how == {}


@pytest.mark.parametrize("line", ["", "{", "[1]", "7", "null", '{"name": 3}', '{"name": "a"}',
                                  '{"name": "a", "hashes": "x", "stamp": "s"}',
                                  '{"name": "a", "hashes": ["1"], "thumbnail": "AA==", "content": "c"}', "\udcff"])
def test_lines_of_another_kind_are_passed_over(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n" + json.dumps(row(1)).encode() + b"\n")
    assert f"{1:016x}" in ledger.stamps(path) and ledger.looks(path, ["a", f"{1:016x}"]).names == [f"{1:016x}"]


def test_no_ledger_is_an_empty_one(tmp_path):
    assert ledger.stamps(tmp_path / "gone") == {} and ledger.looks(tmp_path / "gone", ["a"]).names == []


def test_a_stamp_depends_on_the_key_and_on_every_fact():
    one = ledger.stamp(b"key", 12, 34)
    assert one == ledger.stamp(b"key", 12, 34) and len(one) == 16
    assert len({one, ledger.stamp(b"other", 12, 34), ledger.stamp(b"key", 12, 35), ledger.stamp(b"key", 1, 234)}) == 4


def test_ledgers_join_and_group_across_sources(tmp_path):
    one = ledger.looks(written(tmp_path / "a.jsonl", [row(1), row(2)]), [f"{i:016x}" for i in (1, 2)])
    other = ledger.looks(written(tmp_path / "b.jsonl", [row(2), row(3)]), [f"{i:016x}" for i in (2, 3)])
    both = ledger.joined([ledger.Looks([f"{s}/{n}" for n in looks.names], looks.contents, looks.hashes, looks.thumbnails, looks.how)
                          for s, looks in (("a", one), ("b", other))])
    groups = ledger.grouped(both, duplicates.CERTAIN)
    assert groups[f"a/{2:016x}"] == groups[f"b/{2:016x}"] and len(set(groups.values())) == 3
    assert set(ledger.grouped(both, duplicates.CERTAIN, [f"a/{1:016x}"])) == {f"a/{1:016x}"}
    assert ledger.grouped(ledger.joined([]), duplicates.CERTAIN) == {}


def test_one_holds_a_lock_and_another_is_told(tmp_path):
    pytest.importorskip("fcntl")
    with ledger.locked(tmp_path / "lock", "busy"):
        with pytest.raises(ValueError, match="busy; wait for it"):
            with ledger.locked(tmp_path / "lock", "busy"):
                pass
    with ledger.locked(tmp_path / "lock", "busy"):
        pass
