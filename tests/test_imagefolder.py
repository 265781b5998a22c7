"""A collection is what other tools already read."""

import phantoms
import pytest
from PIL import Image

from medisyn.data import images, records
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record

MADE = Provenance("a mole", "Dermoscopy image.", 7, 16, 2.0, "multistep", None, "sha256:00", "phantom", "0.1.0")


def opened(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="needs `datasets`; `make test` installs it")
    return datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))["train"]


@pytest.mark.filterwarnings("default")  # of the library's own making
def test_datasets_opens_a_real_collection_with_its_facts(tmp_path, monkeypatch):
    folder = phantoms.collection(tmp_path / "c", n=4)
    rows = {row["id"]: row for row in opened(folder, tmp_path, monkeypatch)}
    assert set(rows) == {r.id for r in records.read(folder)}
    sick = rows["chest_xray-000"]
    assert sick["findings"]["pneumonia"] is True
    assert rows["chest_xray-001"]["findings"]["pneumonia"] is False
    assert sick["findings"]["melanoma"] is None
    assert sick["image"].size == (64, 64)
    assert sick["provenance"] is None


@pytest.mark.filterwarnings("default")
def test_datasets_opens_a_synthetic_collection_beside_its_contact_sheet(tmp_path, monkeypatch):
    folder = tmp_path / "s"
    images.write_png(images.from_picture(Image.new("L", (16, 16), 90)), folder / "images" / "a.png", MADE)
    Image.new("RGB", (20, 20)).save(folder / "contact-sheet.png")
    records.write([Record("a", "images/a.png", "dermoscopy", text="a mole", provenance=MADE)], folder)
    (row,) = opened(folder, tmp_path, monkeypatch)
    assert (row["text"], row["provenance"]["seed"]) == ("a mole", 7)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_of_a_folder_is_read_as_the_folder(kind, tmp_path):
    """Its tables stand below one folder of its name."""
    import shutil

    from medisyn.data.sources import own
    from medisyn.data.trees import found, tree
    phantoms.collection(tmp_path / "mine", n=4)
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "mine")

    def facts(folder):
        with tree("imagefolder", folder) as (source, seen):
            return sorted((seen.address(r.file_name), r.image_type, sorted(r.findings.items())) for r in found(source, seen))
    inside = facts(archive)
    assert len(inside) == 8 and all(address.split("!")[1].startswith("mine/images/") for address, *_ in inside)
    assert [row[1:] for row in inside] == [row[1:] for row in facts(tmp_path / "mine")]
    assert own.top_of(tmp_path / "mine") == tmp_path / "mine"     # a table beside its images is no nesting
