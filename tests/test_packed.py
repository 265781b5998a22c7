"""Packed collections: Parquet shards hold what the folder held, in order, and come back as they were."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_records import FULL

from medisyn.data import check, images, packed, records
from medisyn.data.records import Record

pytest.importorskip("pyarrow")


def collection(folder: Path, n: int = 30) -> Path:
    """Records of all splits in no order, with everything a record may say."""
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        name = f"images/{'ab'[i % 2]}/{i}.png"
        images.write_png(rng.uniform(-1, 1, (1, 24, 24)).astype(np.float32), folder / name)
        one = FULL if i % 7 == 0 else Record("x", "x", "mri", reading="window 40/400")
        split = ("train", "train", "val", "test")[i % 4]
        found.append(replace(one, id=f"r{(i * 17) % n}", file_name=name, patient=f"p{i}", split=split))
    records.write(found, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_collection_comes_back_byte_for_byte(tmp_path):
    home = collection(tmp_path / "c")
    assert packed.pack(home, tmp_path / "p", shard_mib=0.004) == 30
    assert len(list((tmp_path / "p/data").iterdir())) > 3
    assert packed.unpack(tmp_path / "p", tmp_path / "back") == 30
    assert files(tmp_path / "back") == files(home)


def test_a_packed_collection_is_read_like_any_other(tmp_path):
    home = collection(tmp_path / "c")
    packed.pack(home, tmp_path / "p")
    assert list(records.read(tmp_path / "p")) == list(records.read(home))
    assert records.counts(records.read(tmp_path / "p")) == records.counts(records.read(home))
    other = tmp_path / "other"
    records.write([Record("new", "n.png", "ct")], other)
    assert [(folder, record.id) for folder, record in records.merge(tmp_path / "p", other)][-1] == (other, "new")
    with pytest.raises(ValueError, match="stands in both"):
        list(records.merge(tmp_path / "p", home))
    for record, data in packed.pictures(tmp_path / "p"):
        assert data == (home / record.file_name).read_bytes()
    assert check.check(tmp_path / "p") == check.check(home)


def test_datasets_opens_the_shards_and_sees_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    packed.pack(collection(tmp_path / "c", 12), tmp_path / "p")
    datasets.disable_progress_bars()
    opened = datasets.load_dataset("parquet", data_dir=str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in opened.items()} == {"train": 6, "validation": 3, "test": 3}
    row = opened["train"][0]
    assert row["image"].size == (24, 24) and row["split"] == "train" and isinstance(json.loads(row["findings"]), dict)
    del opened, row


def test_packing_is_whole_or_not_at_all(tmp_path):
    home = collection(tmp_path / "c")
    (home / next(iter(records.read(home))).file_name).unlink()
    with pytest.raises(ValueError, match="is not readable.*medisyn check"):
        packed.pack(home, tmp_path / "p")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]
    (tmp_path / "p").mkdir()
    (tmp_path / "p/mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="holds something already"):
        packed.pack(home, tmp_path / "p")
    assert (tmp_path / "p/mine.txt").read_text() == "kept"


def test_an_image_that_would_lie_outside_is_not_unpacked(tmp_path):
    home = collection(tmp_path / "c", 4)
    (tmp_path / "out.png").write_bytes(b"x")
    records.write([replace(one, file_name="../out.png") for one in list(records.read(home))[:1]], home)
    packed.pack(home, tmp_path / "p")
    (tmp_path / "out.png").unlink()
    with pytest.raises(ValueError, match="outside the collection"):
        packed.unpack(tmp_path / "p", tmp_path / "deep/back")
    assert not (tmp_path / "out.png").exists() and not list((tmp_path / "deep").iterdir())


@pytest.mark.parametrize("data", [b"", b"no Parquet", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_shard_of_something_else_is_named(tmp_path, data):
    (tmp_path / "p/data").mkdir(parents=True)
    (tmp_path / "p/data/train-00000.parquet").write_bytes(data)
    with pytest.raises(ValueError, match="train-00000.parquet: expected a shard"):
        list(records.read(tmp_path / "p"))


def test_settings_of_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="more than 0"):
        packed.pack(collection(tmp_path / "c", 2), tmp_path / "p", shard_mib=0)
    records.write([], tmp_path / "empty")
    with pytest.raises(ValueError, match="found none"):
        packed.pack(tmp_path / "empty", tmp_path / "q")
    with pytest.raises(ValueError, match="expected a packed collection"):
        packed.unpack(tmp_path / "c", tmp_path / "q")


COUNTED = """
import re, sys
from medisyn.data import records
import pyarrow.parquet
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = peak()
counts = records.counts(records.read(sys.argv[1]))
assert sum(sum(row["split"].values()) for row in counts.values()) == int(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("form, most", [("folder", 3_000), ("packed", 40_000)])
def test_counting_does_not_hold_the_records(tmp_path, form, most, environment):
    n, home = 20_000, tmp_path / "c"
    text = "word " * 400
    records.write((replace(FULL, id=f"r{i}", text=text, provenance=None) for i in range(n)), home)
    assert (home / "metadata.jsonl").stat().st_size > 45_000 * 1024
    if form == "packed":
        (home / FULL.file_name).parent.mkdir(parents=True)
        (home / FULL.file_name).write_bytes(b"x")
        packed.pack(home, tmp_path / "p")
        home = tmp_path / "p"
    done = subprocess.run([sys.executable, "-c", COUNTED, home, str(n)], env=environment, text=True, check=True,
                          stdout=subprocess.PIPE)
    assert int(done.stdout) < most  # KiB
