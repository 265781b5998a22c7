"""Trees: a dataset in archives is read like the folder that it unpacks to, and its pixels are read in place."""

import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
from test_ingest import held, knees, scene, take, ultrasounds

from medisyn.data import ingest, records, trees
from medisyn.data.sources import called


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_an_archive_gives_the_same_collection_as_its_folder(tmp_path, form):
    raw = ultrasounds(tmp_path / "raw")
    take("busi", raw, tmp_path / "folder")
    archive = Path(shutil.make_archive(str(tmp_path / "busi"), form, raw))
    summary = take("busi", archive, tmp_path / "archive")
    assert summary.written == 12 and held(tmp_path / "archive") == held(tmp_path / "folder")
    assert take("busi", archive, tmp_path / "archive").resumed == 12


def test_a_folder_may_hold_archives_beside_loose_files(tmp_path):
    raw = knees(tmp_path / "raw")
    take("knee_oa_xray", raw, tmp_path / "folder")
    shutil.make_archive(str(raw / "train"), "zip", raw / "train")
    shutil.rmtree(raw / "train")
    scene(raw / "more/0/9111111L.png", 77)
    assert take("knee_oa_xray", raw, tmp_path / "archive").written == 31
    ids = {record.id for record in records.read(tmp_path / "folder")}
    assert len(ids & {record.id for record in records.read(tmp_path / "archive")}) == 30


def test_an_archive_that_lies_there_unpacked_is_not_read_twice(tmp_path):
    raw = knees(tmp_path / "raw", 6)
    shutil.make_archive(str(raw / "train"), "zip", raw / "train")
    assert take("knee_oa_xray", raw, tmp_path / "out").written == 6


def test_pictures_stay_in_the_archive_and_the_tree_is_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as out:
        for name in ("a/1.png", "a/1_mask.png", "table.csv"):
            out.writestr(name, b"1234")
    (tmp_path / "raw").mkdir()
    (tmp_path / "d.zip").rename(tmp_path / "raw/d.zip")
    with trees.tree("busi", tmp_path / "raw/d.zip") as (_, tree):
        sizes = {path.relative_to(tree.folder).as_posix(): path.stat().st_size for path in tree.folder.rglob("*") if path.is_file()}
        assert sizes == {"a/1.png": 0, "a/1_mask.png": 4, "table.csv": 4}
        assert tree.address("a/1.png") == "d.zip!a/1.png" and tree.folder.parent.stat().st_mode & 0o777 == 0o700
    with trees.tree("busi", tmp_path / "raw") as (_, tree):
        assert tree.address("d/a/1.png") == "d.zip!a/1.png" and tree.address("b/1.png") == "b/1.png"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_what_is_unfit_in_an_archive_is_quarantined(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as out:
        scene(tmp_path / "1.png", 1)
        out.write(tmp_path / "1.png", "benign/1.png")
        out.writestr("benign/2.png", b"no image")
        out.writestr("../benign/3.png", b"outside")
    assert take("busi", tmp_path / "d.zip", tmp_path / "out").written == 1
    assert {line["file"]: line["reason"] for line in ingest.quarantined(tmp_path / "out")} == {
        "benign/2.png": "not a readable image (UnidentifiedImageError)", "../benign/3.png": "its name leads out of the archive"}


def test_a_damaged_archive_says_so_and_the_error_names_the_archive(tmp_path):
    (tmp_path / "d.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"d\.zip: expected Dataset_BUSI_with_GT"):
        take("busi", tmp_path / "d.zip", tmp_path / "out")


def test_one_s_own_table_in_an_archive_keeps_its_mapping_and_name(tmp_path):
    raw = tmp_path / "ward"
    scene(raw / "x.png", 1)
    (raw / "t.csv").write_text("path,who\nx.png,anna\n")
    (raw / "medisyn.toml").write_text('table = "t.csv"\nfile = {column = "path"}\nimage_type = "mri"\npatient = {column = "who"}\n')
    shutil.make_archive(str(tmp_path / "ward"), "zip", raw)
    take("table", raw, tmp_path / "one"), take("table", tmp_path / "ward.zip", tmp_path / "two")
    assert held(tmp_path / "one") == held(tmp_path / "two")
    assert next(records.read(tmp_path / "two")).source == "ward"


def test_a_table_may_name_any_part_of_a_file(tmp_path):
    raw = tmp_path / "mine"
    scene(raw / "x.png", 1), scene(raw / "y.png", 2)
    with zipfile.ZipFile(raw / "batch.zip", "w") as out:
        out.write(raw / "y.png", "in/y.png")
    (raw / "y.png").unlink()
    (raw / "metadata.csv").write_text(
        "file_name,image_type\nx.png,mri\nbatch.zip!in/y.png,ct\nbatch.zip!in/z.png,ct\n../x.png,ct\n")
    gone, outside, first, second = called("imagefolder", raw).read(raw)
    assert (first.file_name, second.file_name) == ("x.png", "batch.zip!in/y.png") and "no such image" in gone.reason
    assert outside.file_name == "../x.png"
