"""Hostile files: whatever a reader is given, it gives a picture or one sentence, in bounded memory and time."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from medisyn.data import archives, images, ingest, parts, records  # noqa: E402

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
fuzz = import_module("fuzz")
NEEDS = {"dicom": "pydicom", "nifti": "nibabel", "video": "av", "tables": "pyarrow", "slides": "tiffslide"}
GIB = 2**30

# Reads one file in a process that may take so much address space; says what came of it, seconds and MiB at the worst
LIMITED = """
import json, resource, sys, time
from pathlib import Path
from medisyn.data import parts
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
folder, address = Path(sys.argv[1]), sys.argv[2]
began = time.perf_counter()
try:
    said = str(parts.open_part(folder, address).picture.size)
    kind = "picture"
except Exception as error:
    said, kind = str(error), "ValueError" if isinstance(error, ValueError) else type(error).__name__
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(json.dumps({"kind": kind, "said": said, "seconds": time.perf_counter() - began, "mib": int(peak) / 1024}))
"""


def limited(folder: Path, address: str, gib: float = 3.0) -> dict:
    """What reading an address came to, in a process with little memory."""
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(folder), address, str(int(gib * GIB))], text=True, capture_output=True,
                         env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                         timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def expect_refused(said: dict, seconds: float = 10, mib: float = 400) -> None:
    assert said["kind"] == "ValueError", said
    assert said["said"] and "\n" not in said["said"] and len(said["said"]) < 300
    assert said["seconds"] < seconds and said["mib"] < mib, said


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, pixels: bytes = b"\0" * 64) -> bytes:
    """A PNG that says it is so large, whatever it holds."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")


def nifti_of(shape: tuple[int, ...], data: bytes = b"", dtype: int = 2, bits: int = 8) -> bytes:
    """A NIfTI-1 file whose header says so many voxels."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into(f"<{1 + len(shape)}h", head, 40, len(shape), *shape)
    struct.pack_into("<hh", head, 70, dtype, bits)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head) + data


# Damaged files

def outcome(reader: str, suffix: str, data: bytes, tmp: Path) -> None:
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader])
    said = fuzz.tried(reader, suffix, data, tmp)
    assert not said.startswith("crash"), said


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_every_reader_reads_a_sound_file(reader, tmp_path):
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader])
    suffix, data = fuzz.READERS[reader][0]()[0]
    assert fuzz.tried(reader, suffix, data, tmp_path) == "accepted"


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_a_damaged_file_is_a_picture_or_one_sentence(reader, tmp_path):
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader])
    seeds = fuzz.READERS[reader][0]()
    for index in range(25):
        outcome(reader, *fuzz.case(reader, index, seeds, seed=1), tmp_path)


@pytest.mark.parametrize("reader", ["raster", "dicom", "nifti", "tables", "archives"])
def test_bytes_that_were_changed_anywhere_are_a_picture_or_one_sentence(reader, tmp_path):
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader])
    seeds = sorted(fuzz.READERS[reader][0](), key=lambda seed: len(seed[1]))[:12]
    change = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))  # where, to what

    @settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), st.lists(change, max_size=4), st.floats(0, 1))
    def holds(seed: tuple[str, bytes], changes: list[tuple[float, bytes]], kept: float) -> None:
        made = bytearray(seed[1])
        for place, data in changes:
            at = int(place * len(made))
            made[at:at + len(data)] = data
        outcome(reader, seed[0], bytes(made[:max(1, int(kept * len(made)))]), tmp_path)
    holds()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".pgm", ".dcm", ".nii", ".nii.gz", ".mp4", ".avi",
                                    ".mkv", ".npz", ".parquet", ".svs", ".zip", ".tar", ".tar.gz", ""])
def test_an_empty_file_is_refused(suffix, tmp_path):
    (tmp_path / f"x{suffix}").write_bytes(b"")
    with pytest.raises(ValueError) as refused:
        if suffix in archives.SUFFIXES:
            archives.members(tmp_path / f"x{suffix}")
        parts.open_part(tmp_path, f"x{suffix}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".dcm", ".nii", ".nii.gz", ".mp4", ".npz", ".parquet", ".svs", ".mrxs"])
def test_a_wrong_suffix_is_a_picture_or_one_sentence(suffix, tmp_path):
    (tmp_path / f"x{suffix}").write_bytes(fuzz.encoded("PNG", Image.fromarray(fuzz.gray())))
    try:
        assert parts.open_part(tmp_path, f"x{suffix}").picture.size == (40, 40)
    except ValueError as refused:
        assert str(refused) and "\n" not in str(refused)


def test_a_dicom_file_without_a_suffix_is_found_out(tmp_path):
    pytest.importorskip("pydicom")
    sound = (data for _, data in fuzz.dicoms() if fuzz.tried("dicom", "", data, tmp_path) == "accepted")
    (tmp_path / "IM0001").write_bytes(next(sound))
    assert parts.open_part(tmp_path, "IM0001").picture.mode in ("L", "RGB")


# Bombs and absurd sizes

def test_a_png_of_50000_by_50000_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "x.png").write_bytes(png_of(50_000, 50_000, bytes(100_000)))
    expect_refused(limited(tmp_path, "x.png"), mib=150)


def test_a_png_that_is_cut_short_takes_no_more_than_its_pixels(tmp_path):
    (tmp_path / "x.png").write_bytes(png_of(17_000, 17_000))  # just below the limit
    said = limited(tmp_path, "x.png")
    assert said["kind"] in ("ValueError", "picture") and said["mib"] < 900, said


def test_a_tiff_that_claims_too_much_is_refused(tmp_path):
    made = bytearray(fuzz.encoded("TIFF", Image.fromarray(fuzz.gray())))
    for tag in (256, 257):  # width, height
        at = made.find(struct.pack("<HH", tag, 4))
        at = at if at >= 0 else made.find(struct.pack("<HH", tag, 3))
        struct.pack_into("<HII", made, at + 2, 4, 1, 2_000_000)
    (tmp_path / "x.tif").write_bytes(made)
    expect_refused(limited(tmp_path, "x.tif"), mib=150)


def test_a_dicom_header_that_claims_too_much_is_refused(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    import dicoms
    for name, tags in {"pixels": {"Rows": 65535, "Columns": 65535}, "frames": {"NumberOfFrames": 2**31 - 1}}.items():
        made = dicoms.dataset(dicoms.smooth())
        for keyword, value in tags.items():
            setattr(made, keyword, value)
        dicoms.written(made, tmp_path / f"{name}.dcm")
        expect_refused(limited(tmp_path, f"{name}.dcm"), mib=250)
    assert pydicom.dcmread(tmp_path / "pixels.dcm").Rows == 65535


def test_a_dicom_codestream_larger_than_its_header_is_refused(tmp_path):
    pytest.importorskip("pydicom")
    import dicoms
    jpeg = bytearray(fuzz.encoded("JPEG", Image.fromarray(fuzz.gray(48)[:40])))
    at = jpeg.find(b"\xff\xc0")
    jpeg[at + 5:at + 9] = b"\xff\xff\xff\xff"
    made = dicoms.encapsulated(dicoms.dataset(fuzz.gray(48)[:40]), "1.2.840.10008.1.2.4.50", bytes(jpeg))
    dicoms.written(made, tmp_path / "x.dcm")
    expect_refused(limited(tmp_path, "x.dcm"), mib=250)


@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (32767, 32767, 3), (-5, 4, 4), (0, 4, 4), (4, 4, 4, 4, 4, 4, 4)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_volume_that_claims_too_much_is_refused(shape, packed, tmp_path):
    pytest.importorskip("nibabel")
    data = nifti_of(shape, bytes(1000))
    (tmp_path / "x.nii").write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError) as refused:
        parts.open_part(tmp_path, "x.nii")
    assert "\n" not in str(refused.value)


def test_a_gzip_bomb_in_a_volume_is_read_to_the_size_that_it_claims_and_no_further(tmp_path):
    pytest.importorskip("nibabel")
    with gzip.open(tmp_path / "x.nii.gz", "wb", compresslevel=9) as out:
        out.write(nifti_of((64, 64, 64), np.arange(64**3, dtype=np.uint32).astype(np.uint8).tobytes()))
        for _ in range(100):
            out.write(bytes(2**20))
    said = limited(tmp_path, "x.nii.gz")
    assert said["kind"] == "picture" and said["mib"] < 150, said


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_voxels_that_are_no_numbers_are_a_picture_or_one_sentence(share, tmp_path):
    pytest.importorskip("nibabel")
    voxels = np.random.default_rng(1).normal(size=(12, 12, 12)).astype(np.float32)
    voxels[np.random.default_rng(2).random(voxels.shape) < share] = np.nan
    voxels[0, 0, 0] = np.inf
    (tmp_path / "x.nii").write_bytes(nifti_of((12, 12, 12), voxels.tobytes(order="F"), 16, 32))
    try:
        assert parts.open_part(tmp_path, "x.nii#axial:5").picture.mode == "L"
        assert share < 1
    except ValueError as refused:
        assert share == 1 and "\n" not in str(refused)


def test_floats_that_are_no_numbers_are_refused_in_a_raster(tmp_path):
    Image.fromarray(np.full((5, 5), np.nan, np.float32), "F").save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="no numbers|not a readable image"):
        parts.open_part(tmp_path, "x.tif")


def test_an_array_that_claims_too_much_is_refused(tmp_path):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (1, 2**20, 2**20)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", out.getvalue())
    expect_refused(limited(tmp_path, "x.npz#images:0"), mib=250)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))
    np.savez(tmp_path / "x.npz", images=np.array([Trap(), None], dtype=object))
    with pytest.raises(ValueError):
        parts.open_part(tmp_path, "x.npz#images:0")
    assert not (tmp_path / "sprung").exists()


# Archives

def test_a_zip_bomb_is_refused_and_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.png", "w") as out:
            for _ in range(100):
                out.write(bytes(2**20))
    expect_refused(limited(tmp_path, "x.zip!x.png"), mib=80)


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(60 * 2**20))
    data = bytearray(out.getvalue())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the unpacked size
        struct.pack_into("<I", data, data.find(signature) + at, 1000)
    (tmp_path / "x.zip").write_bytes(data)
    expect_refused(limited(tmp_path, "x.zip!x.png"), mib=80)


def test_a_tar_bomb_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", compresslevel=9) as archive:
        info = tarfile.TarInfo("x.png")
        info.size = 100 * 2**20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    expect_refused(limited(tmp_path, "x.tar.gz!x.png"), mib=100)


SLIPS = ("../slip.png", "a/../../slip.png", "/tmp/slip.png", "..\\slip.png", "C:\\slip.png", "C:slip.png")


@pytest.mark.parametrize("name", SLIPS)
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_name_that_leads_outside_writes_nothing_there(name, form, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    data = fuzz.encoded("PNG", Image.fromarray(fuzz.gray()))
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, data)
    else:
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    before = {path for path in tmp_path.rglob("*") if path != home}
    for member in archives.unpack(tmp_path / f"x.{form}", home / "in", lambda member: True):
        assert member.trap
        with pytest.raises(ValueError):
            archives.read(tmp_path / f"x.{form}", member.name)
    assert {path for path in tmp_path.rglob("*") if path != home and home not in path.parents} == before
    assert not list(home.rglob("*.png")) and not Path("/tmp/slip.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_left_alone(kind, tmp_path):
    data = fuzz.encoded("PNG", Image.fromarray(fuzz.gray()))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("way.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
        through = tarfile.TarInfo("way.png/through.png")
        through.size = len(data)
        archive.addfile(through, io.BytesIO(data))
    traps = {member.name: member.trap for member in archives.unpack(tmp_path / "x.tar", tmp_path / "in", lambda member: True)}
    assert traps["way.png"]
    assert not any(path.is_symlink() or path.is_fifo() for path in (tmp_path / "in").rglob("*"))


def test_a_link_in_a_zip_is_left_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("way.png")
        info.create_system, info.external_attr = 3, (0o120777 << 16)
        archive.writestr(info, "/etc/passwd")
    assert [member.trap for member in archives.members(tmp_path / "x.zip")] == [archives.TRAPS["link"]]


@pytest.mark.parametrize("address", ["../x.png", "a/../../x.png", "/etc/hostname", "x\0.png", "x.zip!../y.png", "x.zip!", "#", "!"])
def test_an_address_that_leads_out_is_refused(address, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    images.write_png(np.zeros((1, 4, 4), np.float32), tmp_path / "x.png")
    with zipfile.ZipFile(home / "x.zip", "w") as archive:
        archive.writestr("x.png", (tmp_path / "x.png").read_bytes())
    with pytest.raises(ValueError):
        parts.open_part(home, address)


# The whole way

def test_an_ingest_of_hostile_files_takes_the_sound_ones_and_says_why_of_the_others(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in ("benign", "malignant"):
        (raw / name).mkdir(parents=True)
    sound = fuzz.encoded("PNG", Image.fromarray(fuzz.gray()))
    hostile = {"bomb.png": png_of(50_000, 50_000), "empty.png": b"", "text.jpg": b"not a picture", "cut.png": sound[:60]}
    for name, data in hostile.items():
        (raw / "benign" / name).write_bytes(data)
    for i in range(3):
        (raw / "malignant" / f"{i}.png").write_bytes(fuzz.encoded("PNG", Image.fromarray(np.roll(fuzz.gray(), 13 * i))))
    (raw / "malignant" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (raw / "medisyn.toml").write_text('image_type = "ultrasound"\n')
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    ran = ingest.ingest("imagefolder", raw, out, workers=1)
    rows = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert ran.written == 3 and len(list(records.read(out))) == 3
    assert {Path(row["file"]).name for row in rows} >= set(hostile)
    assert all(row["reason"] and "\n" not in row["reason"] for row in rows)
    assert {path for path in tmp_path.rglob("*") if out not in path.parents and path != out} == before


# The benchmark finds what is planted

@pytest.mark.parametrize("fault,found", [
    (KeyError("x"), "crash: KeyError"), (ValueError("two\nlines"), "crash: its reason"),
    (ValueError("SMITH_JOHN.png is broken"), "crash: its reason"), (ValueError("it is empty"), "refused: it is empty"),
    (MemoryError(), "crash: MemoryError")])
def test_a_reader_that_fails_is_found_out(fault, found, tmp_path, monkeypatch):
    def reader(path: Path) -> int:
        raise fault
    monkeypatch.setitem(fuzz.READERS, "planted", (list, reader))
    assert fuzz.tried("planted", ".png", b"x", tmp_path).startswith(found)
    assert not list(tmp_path.iterdir())


def test_a_picture_of_another_kind_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setitem(fuzz.READERS, "planted", (list, lambda path: fuzz.expect_picture(Image.new("RGBA", (2, 2)))))
    assert fuzz.tried("planted", ".png", b"x", tmp_path).startswith("crash: AssertionError")


def test_a_case_is_the_same_each_time():
    seeds = fuzz.rasters()
    assert fuzz.case("raster", 7, seeds, 0) == fuzz.case("raster", 7, seeds, 0) != fuzz.case("raster", 8, seeds, 0)


def test_a_process_that_hangs_or_dies_is_replaced(tmp_path):
    process = fuzz.Process(str(tmp_path), 3, seconds=0)
    sound = fuzz.encoded("PNG", Image.fromarray(fuzz.gray()))
    assert process.ask("raster", ".png", sound)[0].startswith("crash: no answer")
    process.process.kill()
    process.seconds = 60
    assert process.ask("raster", ".png", sound)[0].startswith("crash: its process ended (SIGKILL)")
    assert process.ask("raster", ".png", sound)[0] == "accepted"
    process.close()
