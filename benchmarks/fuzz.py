"""Fuzzing: damaged files for every reader of medisyn/data, and what each reader made of them.

    python benchmarks/fuzz.py -n 2000 -o out/fuzz                      # all readers, random damage: the table of docs/hostile.md
    python benchmarks/fuzz.py --reader dicom nifti -n 20000            # some of them
    python benchmarks/fuzz.py --atheris dicom --runs 100000            # guided by coverage, one reader, until it finds something

A reader may give a picture, or a ValueError of one sentence. Anything else is a crash: another exception, a sentence that
quotes the file's name, a file written outside, a process that ends, a case that takes longer than --seconds. Each case runs
in a process whose address space is limited, and can be made again from its reader and number; what crashed is kept in the
folder of -o.
"""

import argparse
import contextlib
import gzip
import io
import os
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import archives, handles, parts

Seed = tuple[str, bytes]   # (suffix, a sound file)
ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)  # sizes that break
HEAD = 1024                # bytes in which half of the damage falls: headers decide sizes
PARTS = 3                  # of one file that are read
SMALL = 150_000            # bytes of the sound files that are taken from other packages


# Sound files, to be damaged

def gray(side: int = 40, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return ((np.sin(7 * x) * np.cos(5 * y) + 1) / 2 * np.iinfo(dtype).max).astype(dtype)


def encoded(form: str, picture: Image.Image, **settings: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **settings)
    return out.getvalue()


def rasters() -> list[Seed]:
    one, colour = Image.fromarray(gray()), Image.fromarray(np.stack([gray(), gray().T, 255 - gray()], -1))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep, real = Image.fromarray(gray(dtype=np.uint16)), Image.fromarray(gray().astype(np.float32))
    return [(".png", encoded("PNG", one)), (".png", encoded("PNG", colour.quantize(16))), (".png", encoded("PNG", deep)),
            (".png", encoded("PNG", one.convert("1"))), (".jpg", encoded("JPEG", colour, exif=exif)),
            (".jpg", encoded("JPEG", one, progressive=True)), (".jpg", encoded("JPEG", colour.convert("CMYK"))),
            (".webp", encoded("WEBP", colour)), (".webp", encoded("WEBP", colour, lossless=True)), (".bmp", encoded("BMP", colour)),
            (".bmp", encoded("BMP", colour.quantize(16))), (".pgm", encoded("PPM", one)), (".ppm", encoded("PPM", colour)),
            (".tif", encoded("TIFF", colour, compression="tiff_lzw")), (".tif", encoded("TIFF", deep)),
            (".tif", encoded("TIFF", one, compression="tiff_deflate")), (".tif", encoded("TIFF", colour, compression="jpeg")),
            (".tif", encoded("TIFF", real)), ("", encoded("GIF", one))]


def dicoms() -> list[Seed]:
    """The small files that come with pydicom."""
    import pydicom
    home = Path(pydicom.__file__).parent / "data" / "test_files"
    return [(".dcm", path.read_bytes()) for path in sorted(home.glob("*.dcm")) if path.stat().st_size < SMALL]


def niftis() -> list[Seed]:
    """The small files that come with nibabel, and one of each kind of voxel."""
    import nibabel
    home = Path(nibabel.__file__).parent / "tests" / "data"
    found = [(parts.suffix(path.name), path.read_bytes()) for path in sorted(home.glob("*.nii*")) if path.stat().st_size < SMALL]
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        voxels = np.random.default_rng(0).integers(0, 100, (9, 8, 7)).astype(dtype)
        data = nibabel.Nifti1Image(voxels, np.diag((1.0, 1, 2, 1)), dtype=dtype).to_bytes()
        found += [(".nii", data), (".nii.gz", gzip.compress(data, mtime=0))]
    return found


def videos() -> list[Seed]:
    import av
    found = []
    kinds = ((".mp4", "mp4", "mpeg4"), (".avi", "avi", "mjpeg"), (".mkv", "matroska", "mpeg4"), (".mpg", "mpeg", "mpeg1video"),
             (".wmv", "asf", "msmpeg4v3"), (".webm", "webm", "libvpx"))
    for suffix, form, codec in kinds:
        out = io.BytesIO()
        with av.open(out, "w", format=form) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(6):
                frame = av.VideoFrame.from_ndarray(np.stack([np.roll(gray(48)[:32], 5 * i)] * 3, -1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        found.append((suffix, out.getvalue()))
    return found


def tables() -> list[Seed]:
    import pyarrow
    import pyarrow.parquet
    arrays, rows = io.BytesIO(), io.BytesIO()
    np.savez_compressed(arrays, train_images=np.stack([gray(16)] * 3), train_labels=np.zeros((3, 1), np.uint8))
    png = encoded("PNG", Image.fromarray(gray(16)))
    table = pyarrow.table({"image": [{"bytes": png, "path": "a.png"}] * 3, "label": [0, 1, 2]})
    pyarrow.parquet.write_table(table, rows)
    plain = io.BytesIO()
    np.savez(plain, images=np.stack([gray(16)] * 3))
    return [(".npz", arrays.getvalue()), (".npz", plain.getvalue()), (".parquet", rows.getvalue())]


def slides() -> list[Seed]:
    import tifffile
    found = []
    pixels = np.full((512, 512, 3), 240, np.uint8)  # glass
    pixels[:, :400] = (190, 60, 150) + np.random.default_rng(2).integers(-30, 30, (512, 400, 3))
    for compression in (None, "deflate"):
        out = io.BytesIO()
        tifffile.imwrite(out, pixels, photometric="rgb", tile=(64, 64), compression=compression, metadata=None,
                         description="Aperio Image Library v11\r\n512x512 [0,0 512x512] (64x64)|AppMag = 20|MPP = 0.5")
        found.append((".svs", out.getvalue()))
    return found


def dicom_slides() -> list[Seed]:
    import pydicom
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import whole_slides
    pixels, found = np.full((300, 400, 3), 240, np.uint8), []
    pixels[:256, :300] = (190, 60, 150)
    for compressed in (False, True):
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(out, whole_slides.image(pixels, 0.5, "VOLUME", "1.2.3", compressed, 1), enforce_file_format=True)
        found.append((".dcm", out.getvalue()))
    return found


def packs() -> list[Seed]:
    png, found = encoded("PNG", Image.fromarray(gray())), []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("a/x.png", png)
            archive.writestr("labels.csv", "file,label\nx.png,1\n" * 20)
        found.append((".zip", out.getvalue()))
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:
            for name, data in (("a/x.png", png), ("b" * 120 + ".csv", b"file,label\n")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        found.append((suffix, out.getvalue()))
    return found


# What a reader does with a file

def read_parts(path: Path, module: str) -> int:
    """How many pictures a reader gives of a file's first parts."""
    given = 0
    for part, _ in islice(parts.module(module).parts(path, each=1), PARTS):
        picture = parts.open_part(path.parent, f"{path.name}#{part}" if part else path.name).picture
        given += expect_picture(picture)
    return given


def read_slide(path: Path) -> int:
    """The same of a DICOM slide, as its source reads one."""
    from medisyn.data.sources import shards
    return sum(expect_picture(parts.open_part(path.parent, f"{path.name}{part}").picture)
               for part, _, _ in islice(shards.tiles(path), PARTS))


def read_frame(path: Path, module: str) -> int:
    """The same of headers that are refused for what they say, and of bytes in memory, as those of a member of an archive."""
    with contextlib.suppress(ValueError):
        read_parts(path, module)
    expect_picture(parts.module(module).picture(io.BytesIO(path.read_bytes()), "")[0])
    return expect_picture(parts.module(module).picture(path, "")[0])


def read_raster(path: Path) -> int:
    return expect_picture(parts.open_part(path.parent, path.name).picture)


def read_archive(path: Path) -> int:
    """How many members an archive gives, unpacked beside it and read in place."""
    into = path.parent / "unpacked"
    wanted = [member for member in archives.unpack(path, into, lambda member: member.size < 2**24) if member.trap is None]
    for member in wanted[:PARTS]:
        archives.read(path, member.name)
    if any(one.is_symlink() or not one.resolve().is_relative_to(into.resolve()) for one in into.rglob("*")):
        raise AssertionError("a member lies outside, or is a link")
    return len(wanted)


def expect_picture(picture: Image.Image) -> int:
    if picture.mode not in ("L", "RGB") or not min(picture.size):
        raise AssertionError(f"a picture of mode {picture.mode} and size {picture.size}")
    picture.load()
    return 1


READERS: dict[str, tuple[Callable[[], list[Seed]], Callable[[Path], int]]] = {
    "raster": (rasters, read_raster), "dicom": (dicoms, lambda path: read_frame(path, "dicom")),
    "nifti": (niftis, lambda path: read_frame(path, "nifti")), "video": (videos, lambda path: read_parts(path, "video")),
    "tables": (tables, lambda path: read_parts(path, "tables")), "slides": (slides, lambda path: read_parts(path, "slides")),
    "dicom_slides": (dicom_slides, read_slide), "archives": (packs, read_archive)}


# Damage

def damaged(data: bytes, rng: random.Random, others: list[bytes] = ()) -> bytes:
    """A file with one to four kinds of damage."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if made:
            rng.choice(KINDS)(made, rng, others)
    return bytes(made)


def somewhere(made: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(made), HEAD) if rng.random() < 0.5 else len(made))


def cut(made: bytearray, rng: random.Random, _: object) -> None:
    del made[somewhere(made, rng):]


def flip(made: bytearray, rng: random.Random, _: object) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        made[somewhere(made, rng)] ^= 1 << rng.randrange(8)


def number(made: bytearray, rng: random.Random, _: object) -> None:
    """A number that no size should be, of 1, 2, 4 or 8 bytes."""
    size, at = rng.choice((1, 2, 4, 8)), somewhere(made, rng)
    value = rng.choice(ODD) & (256**size - 1)
    made[at:at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def lose(made: bytearray, rng: random.Random, _: object) -> None:
    at = somewhere(made, rng)
    del made[at:at + rng.choice((1, 2, 16, 256))]


def repeat(made: bytearray, rng: random.Random, _: object) -> None:
    at = somewhere(made, rng)
    made[at:at] = made[at:at + rng.choice((1, 4, 64, 1024))]


def blank(made: bytearray, rng: random.Random, _: object) -> None:
    at = somewhere(made, rng)
    length = len(made[at:at + rng.choice((4, 32, 512))])
    made[at:at + length] = bytes([rng.choice((0, 0xFF))]) * length


def splice(made: bytearray, rng: random.Random, others: list[bytes]) -> None:
    """The head of one file before the rest of another."""
    if others:
        other, at = rng.choice(others), somewhere(made, rng)
        made[at:] = other[at:]


KINDS = (cut, flip, flip, number, number, lose, repeat, blank, splice)


def case(reader: str, index: int, seeds: list[Seed], seed: int) -> Seed:
    """The damaged file of a number: always the same."""
    rng = random.Random(f"{seed}/{reader}/{index}")
    suffix, data = rng.choice(seeds)
    made = damaged(data, rng, [other for kind, other in seeds if kind == suffix])
    return (rng.choice((suffix, suffix, suffix, "")) if reader != "archives" else suffix), made


# One case, in a process of its own

def tried(reader: str, suffix: str, data: bytes, home: Path) -> str:
    """"accepted", "refused", or "crash: why"."""
    folder = Path(tempfile.mkdtemp(dir=home))
    path = folder / f"SMITH_JOHN{suffix}"
    path.write_bytes(data)
    try:
        outcome = "accepted" if READERS[reader][1](path) else "refused: it holds no part that shows anything"
    except ValueError as error:
        said = str(error)
        good = said and "\n" not in said and len(said) < 300 and "SMITH" not in said and str(folder) not in said
        outcome = f"refused: {said}" if good else f"crash: its reason is no sentence, or names the file: {said[:200]!r}"
    except Exception as error:
        outcome = f"crash: {type(error).__name__}: {str(error)[:200]}"
    handles.close()
    for one in sorted(folder.rglob("*"), reverse=True):
        one.rmdir() if one.is_dir() and not one.is_symlink() else one.unlink()
    folder.rmdir()
    return outcome


def serve(pipe: Connection, home: str, gib: float) -> None:
    """A process that tries what it is sent and answers (outcome, seconds, MiB at the worst)."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders in C write
    while True:
        reader, suffix, data = pipe.recv()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        began = time.perf_counter()
        outcome = tried(reader, suffix, data, Path(home))
        pipe.send((outcome, time.perf_counter() - began, peak_mib()))


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Process:
    """A process that tries cases, replaced when it ends or hangs."""

    def __init__(self, home: str, gib: float, seconds: float) -> None:
        self.home, self.gib, self.seconds = home, gib, seconds
        self.start()

    def start(self) -> None:
        fresh = get_context("spawn")  # nothing of what the seeds were made with
        self.pipe, theirs = fresh.Pipe()
        self.process = fresh.Process(target=serve, args=(theirs, self.home, self.gib), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, reader: str, suffix: str, data: bytes) -> tuple[str, float, float]:
        try:
            self.pipe.send((reader, suffix, data))
            if self.pipe.poll(self.seconds):
                return self.pipe.recv()
            answer = f"crash: no answer within {self.seconds:g} s", self.seconds, 0.0
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode or 0
            answer = f"crash: its process ended ({signal.Signals(-code).name if code < 0 else code})", 0.0, 0.0
        self.close()
        self.start()
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("-n", type=int, default=1000, help="cases a reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gib", type=float, default=6, help="address space of the process that reads")
    parser.add_argument("--seconds", type=float, default=30, help="of one case, before it counts as a crash")
    parser.add_argument("-o", "--out", type=Path, default=Path("out/fuzz"), help="folder for what crashed")
    parser.add_argument("--atheris", choices=READERS, help="one reader, guided by coverage (needs atheris)")
    parser.add_argument("--runs", type=int, default=100_000, help="of --atheris")
    asked = parser.parse_args()
    if asked.atheris:
        return guided(asked.atheris, asked.runs, asked.out)
    print("| reader | files tried | gave a picture | refused | median ms | slowest s | worst MiB | crashes |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        process = Process(home, asked.gib, asked.seconds)
        for reader in asked.reader:
            seeds, outcomes, crashes, took, worst = READERS[reader][0](), Counter(), Counter(), [], 0.0
            for index in range(asked.n):
                sound = index < len(seeds)  # the undamaged ones first
                suffix, data = seeds[index] if sound else case(reader, index, seeds, asked.seed)
                outcome, seconds, mib = process.ask(reader, suffix, data)
                kind, _, why = outcome.partition(": ")
                outcomes[kind] += 1
                took.append(seconds)
                worst = max(worst, mib)
                if kind == "crash":
                    crashes[why] += 1
                    asked.out.mkdir(parents=True, exist_ok=True)
                    (asked.out / f"{reader}-{asked.seed}-{index}{suffix}").write_bytes(data)
            print(f"| {reader} | {asked.n:,} | {outcomes['accepted']:,} | {outcomes['refused']:,} | {1000 * np.median(took):.1f} | "
                  f"{max(took):.2f} | {worst:.0f} | {outcomes['crash']} |", flush=True)
            for why, count in crashes.most_common(20):
                print(f"    {count} x {why}", file=sys.stderr, flush=True)
        process.close()


def guided(reader: str, runs: int, out: Path) -> None:
    """Fuzz one reader by atheris: it keeps what reaches new lines of our code and pydicom's or nibabel's."""
    import atheris
    home, seeds = tempfile.mkdtemp(prefix="fuzz-"), READERS[reader][0]()
    corpus = Path(home) / "corpus"
    corpus.mkdir()
    for i, (_, data) in enumerate(seeds):
        (corpus / str(i)).write_bytes(data)

    def one(data: bytes) -> None:
        outcome = tried(reader, seeds[0][0], data, Path(home))
        if outcome.startswith("crash"):
            raise AssertionError(outcome)
    out.mkdir(parents=True, exist_ok=True)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={runs}", f"-artifact_prefix={out}/", "-rss_limit_mb=6144", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
