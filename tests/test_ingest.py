"""Ingest: raw folders accumulate in a collection, interrupted work goes on, patients never cross a split."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medisyn.data import check, deidentify, images, ingest, ledger, packed, prompts, records
from medisyn.data.sources import SOURCES, Source


def scene(path: Path, seed: int, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)


def knees(folder: Path, n: int = 30) -> Path:
    for i in range(n):
        scene(folder / f"train/{i % 5}/{9000000 + i // 2}{'LR'[i % 2]}.png", i)
    return folder


def ultrasounds(folder: Path) -> Path:
    for i in range(12):
        scene(folder / f"Dataset_BUSI_with_GT/{('benign', 'malignant')[i % 2]}/{i}.png", 100 + i)
    return folder


def take(source: str, folder: Path, out: Path, **settings) -> ingest.Summary:
    return ingest.ingest(source, folder, out, workers=1, **settings)


def held(out: Path) -> dict[str, bytes]:
    """Everything a collection says: its files without the ledgers."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*"))
            if path.is_file() and ingest.NOTES not in path.parts}


def test_a_raw_folder_becomes_a_collection(tmp_path):
    summary = take("knee_oa_xray", knees(tmp_path / "raw"), tmp_path / "out")
    found = list(records.read(tmp_path / "out"))
    assert summary.written == len(found) == 30 and summary.groups == 15 and summary.quarantined == 0
    assert summary.counts == records.counts(found)
    for record in found:
        assert record.file_name == f"images/{record.id}.png" and (tmp_path / "out" / record.file_name).is_file()
        assert record.source == "knee_oa_xray" and record.licence == SOURCES["knee_oa_xray"].licence
        assert record.text == prompts.canonical(record) and not record.synthetic
        assert record.split == records.split_of(record.patient)
    assert check.check(tmp_path / "out") == []


def test_neither_file_names_nor_patients_are_kept(tmp_path):
    take("knee_oa_xray", knees(tmp_path / "raw"), tmp_path / "out")
    for name, data in held(tmp_path / "out").items():
        assert "90000" not in name and b"90000" not in data
    assert all(b"90000" not in path.read_bytes() for path in (tmp_path / "out" / ingest.NOTES).iterdir())


def test_images_are_reduced_to_the_short_side_and_never_enlarged(tmp_path):
    scene(tmp_path / "raw/train/0/9000001L.png", 1, side=300)
    scene(tmp_path / "raw/train/0/9000002L.png", 2, side=20)
    take("knee_oa_xray", tmp_path / "raw", tmp_path / "out", size=64)
    sides = {images.decode(path).size for path in (tmp_path / "out/images/knee_oa_xray").iterdir()}
    assert sides == {(64, 64), (20, 20)}


def test_sources_accumulate_and_a_source_taken_again_replaces_its_own_lines(tmp_path):
    out = tmp_path / "out"
    take("knee_oa_xray", knees(tmp_path / "knees"), out)
    take("busi", ultrasounds(tmp_path / "busi"), out)
    before = held(out)
    assert len(list(records.read(out))) == 42
    assert take("knee_oa_xray", tmp_path / "knees", out).resumed == 30
    assert held(out) == before
    next((tmp_path / "knees/train/0").iterdir()).unlink()
    take("knee_oa_xray", tmp_path / "knees", out)
    assert len(list(records.read(out))) == 41 and len(list((out / "images/knee_oa_xray").iterdir())) == 29


def test_the_order_of_sources_does_not_count(tmp_path):
    knees(tmp_path / "knees"), ultrasounds(tmp_path / "busi")
    for name in ("knee_oa_xray", "busi"):
        take(name, tmp_path / {"busi": "busi"}.get(name, "knees"), tmp_path / "one")
    for name in ("busi", "knee_oa_xray"):
        take(name, tmp_path / {"busi": "busi"}.get(name, "knees"), tmp_path / "two")
    assert held(tmp_path / "one") == held(tmp_path / "two")


def test_processes_change_nothing(tmp_path):
    knees(tmp_path / "raw", 40)
    take("knee_oa_xray", tmp_path / "raw", tmp_path / "one")
    ingest.ingest("knee_oa_xray", tmp_path / "raw", tmp_path / "two", workers=2)
    assert held(tmp_path / "one") == held(tmp_path / "two")


KILLED = """
import os, signal, sys
from medisyn.data import ingest
def progress(done, n):
    if done == 11:
        os.kill(os.getpid(), signal.SIGKILL)
ingest.ingest("knee_oa_xray", sys.argv[1], sys.argv[2], workers=1, progress=progress)
"""


@pytest.mark.skipif(os.name == "nt", reason="a process that is killed there ends otherwise")
def test_a_killed_ingest_goes_on_where_it_stopped(tmp_path):
    knees(tmp_path / "raw"), take("knee_oa_xray", tmp_path / "raw", tmp_path / "whole")
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "raw", tmp_path / "out"], check=False,
                           env={**os.environ, "PYTHONPATH": str(Path(ingest.__file__).parents[2])})
    assert ended.returncode == -signal.SIGKILL and not (tmp_path / "out/metadata.jsonl").exists()
    ledger = tmp_path / "out" / ingest.NOTES / "knee_oa_xray.jsonl"
    ledger.write_text(ledger.read_text()[:-40])  # the last line cut short, as a crash leaves it
    (tmp_path / "out/images/knee_oa_xray/0123456789abcdef.png.part").write_bytes(b"half an image")
    assert take("knee_oa_xray", tmp_path / "raw", tmp_path / "out").resumed == 10
    assert held(tmp_path / "out") == held(tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="a process that is killed there ends otherwise")
def test_an_ingest_killed_anywhere_again_and_again_loses_and_doubles_nothing(tmp_path):
    knees(tmp_path / "raw", 40), take("knee_oa_xray", tmp_path / "raw", tmp_path / "whole")
    (tmp_path / "raw/train/0/9999999L.png").write_bytes(b"no image")
    take("knee_oa_xray", tmp_path / "raw", tmp_path / "whole")
    code = ("import sys; from medisyn.data import ingest; ingest.ingest('knee_oa_xray', sys.argv[1], sys.argv[2], workers=1, "
            "progress=lambda done, n: print(done, flush=True))")
    draw, killed = random.Random(7), 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "raw", tmp_path / "out"], stdout=subprocess.PIPE,
                                   env={**os.environ, "PYTHONPATH": str(Path(ingest.__file__).parents[2])})
        for _ in range(draw.randrange(1, 12)):
            process.stdout.readline()
        time.sleep(draw.uniform(0, 0.01))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    summary = take("knee_oa_xray", tmp_path / "raw", tmp_path / "out")
    assert killed > 1 and summary.resumed > 2 and summary.written == 40 and held(tmp_path / "out") == held(tmp_path / "whole")
    names = [row["name"] for row in ledger.rows(ledger.path_of(tmp_path / "out", "knee_oa_xray"))]
    assert len(names) == len(set(names)) == 40
    assert check.check(tmp_path / "out") == []


def test_a_changed_file_another_size_or_a_lost_image_is_read_again(tmp_path):
    raw, out = knees(tmp_path / "raw", 10), tmp_path / "out"
    take("knee_oa_xray", raw, out)
    scene(raw / "train/0/9000000L.png", 999, side=48)
    assert take("knee_oa_xray", raw, out).resumed == 9
    next((out / "images/knee_oa_xray").iterdir()).unlink()
    assert take("knee_oa_xray", raw, out).resumed == 9
    assert take("knee_oa_xray", raw, out, size=16).resumed == 0
    assert {images.decode(path).size for path in (out / "images/knee_oa_xray").iterdir()} == {(16, 16)}


def test_an_unreadable_file_is_quarantined_and_the_run_goes_on(tmp_path):
    raw = knees(tmp_path / "raw", 10)
    (raw / "train/1/9999999L.png").write_bytes(b"no image")
    (raw / "train/2/9999998L.png").write_bytes((raw / "train/0/9000000L.png").read_bytes()[:200])
    summary = take("knee_oa_xray", raw, tmp_path / "out")
    assert (summary.written, summary.quarantined) == (10, 2)
    lines = ingest.quarantined(tmp_path / "out")
    assert [(line["file"], line["source"]) for line in lines] == [
        ("train/1/9999999L.png", "knee_oa_xray"), ("train/2/9999998L.png", "knee_oa_xray")]
    assert all("not a readable image" in line["reason"] for line in lines)
    scene(raw / "train/1/9999999L.png", 77), (raw / "train/2/9999998L.png").unlink()
    assert take("knee_oa_xray", raw, tmp_path / "out").written == 11
    assert ingest.quarantined(tmp_path / "out") == []


def test_a_limit_is_spread_over_the_whole_dataset_and_grows(tmp_path):
    raw = knees(tmp_path / "raw", 50)
    take("knee_oa_xray", raw, tmp_path / "ten", limit=10)
    take("knee_oa_xray", raw, tmp_path / "again", limit=10)
    assert held(tmp_path / "ten") == held(tmp_path / "again")
    ten = list(records.read(tmp_path / "ten"))
    grades = {name for record in ten for name, value in record.findings.items() if value}
    assert len(ten) == 10 and len(grades - {"osteoarthritis"}) >= 3
    assert take("knee_oa_xray", raw, tmp_path / "ten", limit=20).resumed == 10
    with pytest.raises(ValueError, match="limit should be 1 or more"):
        take("knee_oa_xray", raw, tmp_path / "ten", limit=0)


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    raw = knees(tmp_path / "raw", 10)
    take("knee_oa_xray", raw, tmp_path / "out", progress=lambda done, n: seen.append((done, n)))
    assert seen == [(i, 10) for i in range(11)]
    seen.clear()
    take("knee_oa_xray", raw, tmp_path / "out", progress=lambda done, n: seen.append((done, n)))
    assert seen == [(10, 10)]


def test_copies_without_a_patient_share_a_group_and_a_split(tmp_path):
    raw = ultrasounds(tmp_path / "raw")
    for i in range(12):
        scene(raw / f"Dataset_BUSI_with_GT/benign/copy {i}.png", 100 + i, side=64)
    summary = take("busi", raw, tmp_path / "out")
    assert summary.written == 24 and summary.groups == 12
    assert check.check(tmp_path / "out") == []


def test_mirrored_and_turned_copies_share_a_group_and_a_split(tmp_path):
    raw = ultrasounds(tmp_path / "raw")
    for path in sorted(raw.rglob("*.png")):
        for name, how in (("mirrored", Image.Transpose.FLIP_LEFT_RIGHT), ("turned", Image.Transpose.ROTATE_90)):
            Image.open(path).transpose(how).save(path.with_name(f"{name} {path.name}"))
    summary = take("busi", raw, tmp_path / "out")
    assert summary.written == 36 and summary.groups == 12
    assert check.check(tmp_path / "out") == []


def test_no_image_leaves_the_training_split_when_data_and_copies_are_added(tmp_path):
    raw = ultrasounds(tmp_path / "raw")
    for i in range(40):
        scene(raw / f"Dataset_BUSI_with_GT/benign/first {i}.png", 500 + i, side=64)
    take("busi", raw, tmp_path / "out")
    before = {record.id: record.split for record in records.read(tmp_path / "out")}
    for number, path in enumerate(sorted(raw.rglob("first*.png"))):  # copies whose digests sort anywhere
        Image.open(path).resize((70 + number, 70 + number)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
            path.with_name(f"second {number}.png"))
    take("busi", raw, tmp_path / "out")
    after = {record.id: record.split for record in records.read(tmp_path / "out")}
    assert set(before.values()) == {"train", "val", "test"}
    assert [name for name, split in before.items() if split == "train" and after[name] != "train"] == []
    assert any(before[name] != after[name] for name in before)


def test_check_says_where_copies_could_not_be_looked_for(tmp_path):
    out = tmp_path / "out"
    take("busi", ultrasounds(tmp_path / "raw"), out)
    ledger = out / ingest.NOTES / "busi.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines() if line]
    ledger.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "hashes"}) + "\n" for row in rows))
    assert any("12 images were ingested before" in problem for problem in check.check(out))


def test_two_patients_who_share_a_picture_share_a_split(tmp_path):
    raw = tmp_path / "raw"
    for i in range(60):
        scene(raw / f"train/0/{9000000 + i}L.png", i // 2, side=40 + i % 2)
    take("knee_oa_xray", raw, tmp_path / "out")
    found = list(records.read(tmp_path / "out"))
    assert len({record.patient for record in found}) == 60 and len({record.split for record in found}) > 1
    assert check.check(tmp_path / "out") == []


def test_a_key_of_ones_own_changes_every_name(tmp_path):
    raw = knees(tmp_path / "raw", 6)
    take("knee_oa_xray", raw, tmp_path / "public")
    take("knee_oa_xray", raw, tmp_path / "secret", key=b"of the hospital")
    one, other = (list(records.read(tmp_path / name)) for name in ("public", "secret"))
    assert not {r.patient for r in one} & {r.patient for r in other} and not {r.id for r in one} & {r.id for r in other}


def test_a_word_outside_the_vocabulary_stops_before_the_first_image(tmp_path):
    scene(tmp_path / "mine/a.png", 1)
    (tmp_path / "mine/metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "image_type": "chest_xra"}) + "\n")
    with pytest.raises(ValueError, match="did you mean 'chest_xray'.*map it"):
        take("imagefolder", tmp_path / "mine", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ones_own_folder_joins_a_collection_under_its_own_name(tmp_path):
    out = tmp_path / "out"
    take("knee_oa_xray", knees(tmp_path / "raw", 6), out)
    for name in ("ward a", "ward b"):
        scene(tmp_path / name / "x.png", len(name) + ord(name[-1]))
        (tmp_path / name / "medisyn.toml").write_text('image_type = "mri"\npatient = {name = "(x)"}\n')
        take("imagefolder", tmp_path / name, out)
    found = [record for record in records.read(out) if record.image_type == "mri"]
    assert [record.source for record in found] == ["ward_a", "ward_b"]
    assert len({record.patient for record in found}) == 2  # two wards number their patients separately


def test_a_second_ingest_of_the_same_source_is_refused_while_the_first_runs(tmp_path):
    pytest.importorskip("fcntl")
    (tmp_path / "out" / ingest.NOTES).mkdir(parents=True)
    with ingest.locked(tmp_path / "out" / ingest.NOTES / "knee_oa_xray.lock"):
        with pytest.raises(ValueError, match="another run"):
            take("knee_oa_xray", knees(tmp_path / "raw", 2), tmp_path / "out")


def test_check_finds_what_is_planted(tmp_path):
    out = tmp_path / "out"
    take("knee_oa_xray", knees(tmp_path / "raw", 20), out)
    found = list(records.read(out))
    first, second = found[0], next(record for record in found[1:] if record.patient == found[0].patient)
    other = "train" if first.split != "train" else "test"
    records.write([replace(first, split=other), replace(found[-1], view="sideways"), *found[1:]], out)
    (out / second.file_name).unlink()
    problems = "\n".join(check.check(out))
    assert f"{second.file_name} is missing" in problems
    assert f"patient {first.patient}: stands in" in problems
    assert "sideways" in problems and f"{found[-1].id}: the id stands 2 times" in problems


def test_check_finds_a_picture_in_two_splits(tmp_path):
    out = tmp_path / "out"
    take("busi", ultrasounds(tmp_path / "raw"), out)
    ledger = out / ingest.NOTES / "busi.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines() if line]
    rows[1] |= {name: rows[0][name] for name in ("content", "hashes", "thumbnail")}
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    twins = {f"busi/{row['name']}": split for row, split in zip(rows[:2], ("train", "test"), strict=True)}
    records.write([replace(r, split=twins.get(r.id, r.split)) for r in records.read(out)], out)
    assert any("nearly the same picture stands in test and train" in problem for problem in check.check(out))


def test_check_looks_at_pictures_without_a_ledger_where_it_is_asked_to(tmp_path):
    out, shards = tmp_path / "out", tmp_path / "shards"
    take("knee_oa_xray", knees(tmp_path / "raw", 12), out)
    found = list(records.read(out))
    copy = Image.open(out / found[0].file_name)
    copy.save(out / "images/hand.png", compress_level=1)
    planted = replace(found[0], id="hand", file_name="images/hand.png", source=None, patient="another",
                      split="test" if found[0].split == "train" else "train")
    records.write([*found, planted], out)
    said = f"{found[0].id} and hand: nearly the same picture stands in test and train"
    assert check.check(out) == [] and check.check(out, look=True) == [said]
    packed.pack(out, shards)  # ledgers do not travel
    seen = []
    assert check.check(shards) == [] and check.check(shards, True, lambda done, n: seen.append((done, n))) == [said]
    assert seen == [(13, 13)]
    (out / "images/hand.png").write_bytes(b"no image")
    assert check.check(out, look=True) == []


def test_ingest_reads_any_source_function(tmp_path, monkeypatch):
    def one(folder):
        yield records.Record("mine/1", "1.png", "mri", patient="p", licence="MIT", text="kept as it is")
    scene(tmp_path / "raw/1.png", 1)
    mine = Source("mine", "", ("mri",), ("radiology",), "CC0-1.0", "", "", None, "patient", "", True, one)
    monkeypatch.setitem(SOURCES, "mine", mine)
    take("mine", tmp_path / "raw", tmp_path / "out")
    (record,) = records.read(tmp_path / "out")
    assert (record.licence, record.text, record.patient) == ("MIT", "kept as it is", records.pseudonym("mine", "p"))


def test_a_window_of_ones_own_is_part_of_what_was_done(tmp_path):
    raw = knees(tmp_path / "raw", 4)
    take("knee_oa_xray", raw, tmp_path / "out")
    assert take("knee_oa_xray", raw, tmp_path / "out", window="40/400").resumed == 0
    with pytest.raises(ValueError, match="CENTRE/WIDTH"):
        take("knee_oa_xray", raw, tmp_path / "out", window="lung")


def test_how_deep_pixels_were_read_stands_in_the_record(tmp_path):
    raw = knees(tmp_path / "raw", 4)
    deep = np.random.default_rng(0).integers(0, 60_000, (30, 30)).astype(np.uint16)
    Image.fromarray(deep).save(raw / "train/0/9000000L.png")
    take("knee_oa_xray", raw, tmp_path / "out")
    assert sorted(str(record.reading) for record in records.read(tmp_path / "out")) == ["None"] * 3 + ["minimum to maximum"]


HOSTILE = {"empty.png": b"", "text.jpg": b"no image", "nul.dcm": bytes(4096), "bomb.gz.nii.gz": b"\x1f\x8b" + bytes(30),
           "half.tif": b"II*\0" + bytes(8), "zip.npz": b"PK\x03\x04" + bytes(40), "long.svs": b"II+\0" + b"\xff" * 400,
           "\u202egnp.png": b"GIF89a" + b"\xff" * 20}


def test_hostile_files_end_in_the_quarantine_each_with_a_sentence(tmp_path):
    raw = tmp_path / "mine"
    scene(raw / "fine.png", 1)
    for name, data in HOSTILE.items():
        (raw / name).write_bytes(data)
    lines = [json.dumps({"file_name": name, "image_type": "mri"}) for name in ("fine.png", *HOSTILE)]
    (raw / "metadata.jsonl").write_text("\n".join(lines))
    summary = take("imagefolder", raw, tmp_path / "out")
    assert (summary.written, summary.quarantined) == (1, len(HOSTILE))
    for line in ingest.quarantined(tmp_path / "out"):
        assert line["file"] in HOSTILE and str(tmp_path) not in line["reason"] and "\n" not in line["reason"]
        assert 10 < len(line["reason"]) < 200
    assert len(list((tmp_path / "out/images/mine").iterdir())) == 1


def test_a_local_key_keeps_names_out_and_holds_images_until_somebody_has_looked(tmp_path):
    raw, out, home = tmp_path / "SMITH_JOHN", tmp_path / "out", tmp_path / "home"
    scene(raw / "smith.png", 1), scene(raw / "jones.png", 2)
    (raw / "broken_smith.png").write_bytes(b"no image")
    (raw / "medisyn.toml").write_text(
        'image_type = "mri"\nage_years = "93"\ntext = "John Smith"\npatient = {name = "([a-z]+)[.]"}\n')
    key = deidentify.key(home / "key", collection=out)
    summary = take("imagefolder", raw, out, key=key, home=home)
    assert (summary.written, summary.quarantined) == (2, 1)
    assert {(r.age_years, r.source[:4]) for r in records.read(out)} == {(90.0, "own_")}
    for name, data in held(out).items():
        assert b"mith" not in data and "mith" not in name
    assert all(b"mith" not in path.read_bytes() for path in (out / ingest.NOTES).iterdir())
    (line,) = ingest.quarantined(out)
    assert line["file"] == ingest.neutral_name(line["source"], "broken_smith.png", key)
    assert take("imagefolder", raw, out, key=key, home=home).resumed == 2


def test_an_image_in_doubt_waits_until_it_is_released(tmp_path, monkeypatch):
    from medisyn.data import review
    from medisyn.data.sources import Unfit

    def doubted(folder):
        yield Unfit("1.png", "its modality is at risk", records.Record("m/1", "1.png", "mri"))
    scene(tmp_path / "raw/1.png", 1)
    mine = Source("mine", "", ("mri",), ("radiology",), None, "", "", None, "patient", "", True, doubted)
    monkeypatch.setitem(SOURCES, "mine", mine)
    assert take("mine", tmp_path / "raw", tmp_path / "public").written == 1  # published as it is: nobody has to look
    key, home, out = b"of the hospital", tmp_path / "home", tmp_path / "out"
    assert take("mine", tmp_path / "raw", out, key=key, home=home).written == 0
    review.release(deidentify.private(home, out), [line["file"] for line in ingest.quarantined(out)])
    assert take("mine", tmp_path / "raw", out, key=key, home=home).written == 1 and ingest.quarantined(out) == []
