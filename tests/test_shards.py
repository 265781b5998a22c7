"""Sources of many images a file: a mapping says what their columns mean."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from test_ingest import take

from medisyn.data import ingest, records
from medisyn.data.sources import Unfit, called

MAPPING = 'name = "mine"\nimage_type = "mri"\n[findings]\nglioma = {column = "label", values = {1 = true, 0 = false}}\n'


def pixels(seed: int) -> np.ndarray:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5), np.uint8))
    return np.asarray(coarse.resize((28, 28), Image.Resampling.BICUBIC))


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(seed)).save(out, "PNG")
    return out.getvalue()


def test_an_npz_keeps_its_own_splits(tmp_path):
    arrays = {}
    for start, split in ((0, "train"), (30, "val"), (40, "test")):
        arrays[f"{split}_images"] = np.stack([pixels(start + i) for i in range(10)])
        arrays[f"{split}_labels"] = np.arange(10)[:, None] % 2
    np.savez_compressed(tmp_path / "m.npz", **arrays)
    (tmp_path / "medisyn.toml").write_text(MAPPING)
    take("npz", tmp_path, tmp_path / "out")
    found = list(records.read(tmp_path / "out"))
    assert [sum(r.split == split for r in found) for split in records.SPLITS] == [10, 10, 10]
    assert sum(r.findings["glioma"] for r in found) == 15
    arrays["test_images"] = np.stack([pixels(i) for i in range(10)])  # all of them copies from train
    np.savez_compressed(tmp_path / "m.npz", **arrays)
    take("npz", tmp_path, tmp_path / "out")
    assert {r.split for r in records.read(tmp_path / "out")} == {"train", "val"}


def test_a_parquet_file_of_ones_own(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet
    table = pa.table({"image": [{"bytes": png(i), "path": None} for i in range(6)], "label": ["0", "1"] * 3, "sex": ["F"] * 6})
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    (tmp_path / "medisyn.toml").write_text(MAPPING)
    found = list(called("parquet", tmp_path).read(tmp_path))
    assert [r.file_name for r in found] == [f"s.parquet#{i}" for i in range(6)]
    assert found[1].findings == {"glioma": True} and found[1].sex == "female"
    assert take("parquet", tmp_path / "s.parquet", tmp_path / "out").written == 6


def test_a_webdataset_tar(tmp_path):
    with tarfile.open(tmp_path / "00.tar", "w") as out:
        for i in range(4):
            said = json.dumps({"label": i % 2}).encode()
            for suffix, data in (("seg.png" if i == 3 else "png", png(i)), ("json", said), ("txt", b"a sentence"), ("cls", b"7")):
                info = tarfile.TarInfo(f"in/{i:04d}.{suffix}")
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("in/0009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    (tmp_path / "medisyn.toml").write_text(MAPPING + 'normal = {column = "cls", holds = "7"}\n')
    *found, trap = called("webdataset", tmp_path).read(tmp_path)
    assert [r.file_name for r in found] == [*(f"00.tar!in/{i:04d}.png" for i in range(3)), "00.tar!in/0003.seg.png"]
    assert [r.findings for r in found] == [{"glioma": bool(i % 2), "normal": True} for i in range(4)]
    assert isinstance(trap, Unfit) and trap.reason == "it is a link"
    assert take("webdataset", tmp_path, tmp_path / "out").written == 4


@pytest.mark.parametrize("source, name", [("npz", "m.npz"), ("parquet", "s.parquet"), ("webdataset", "w.tar"), ("slides", "s.svs")])
def test_a_damaged_file_is_quarantined_with_a_reason(tmp_path, source, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    (tmp_path / "medisyn.toml").write_text('name = "mine"\nimage_type = "mri"\n')
    take(source, tmp_path, tmp_path / "out")
    (line,) = ingest.quarantined(tmp_path / "out")
    assert line["file"] == name and line["source"] == "mine" and "\n" not in line["reason"]


def test_without_an_image_type_nothing_is_read(tmp_path):
    np.savez(tmp_path / "m.npz", images=np.stack([pixels(1)]))
    with pytest.raises(ValueError, match="nothing says the image type"):
        take("npz", tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="expected Parquet files"):
        take("parquet", tmp_path, tmp_path / "out")
