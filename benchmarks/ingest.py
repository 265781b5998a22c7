"""How fast raw images become a collection, beside `datasets` (imagefolder to Parquet) and MONAI's loader; and a million records.

    python benchmarks/ingest.py images FOLDER [--most N] [--jpeg SIDE] [--size 256] [--rounds 3] [--workers N] [--json FILE]
    python benchmarks/ingest.py million [--n 1000000] [--json FILE]

`images` runs the three over the same images one after the other, `rounds` times, so that whatever else the machine does
falls on all of them. Each decodes every image, brings its short side to `size` and stores the result: medisyn as
PNG with hashes, ledger, groups and splits; datasets by `map` into a Parquet file of encoded PNG; MONAI by LoadImage and
Resize into .npy (it stores tensors). A figure is the ratio of the rates, with its range over the rounds. `--jpeg SIDE`
first turns the images into JPEG of that short side, as cameras and archives deliver them.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import images, ingest, packed, records
from medisyn.data.records import Record
from medisyn.data.sources import files

MAPPING = 'name = "bench"\nimage_type = "mri"\n'


def by_medisyn(raw: Path, out: Path, size: int, workers: int) -> None:
    ingest.ingest("imagefolder", raw, out, size=size, workers=workers, mapping=raw.parent / "medisyn.toml")


def smaller(row: dict, size: int) -> dict:
    picture = row["image"]
    picture = images.shrink(picture.convert("RGB" if picture.mode not in ("L", "RGB") else picture.mode), size)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return {"image": {"bytes": out.getvalue(), "path": None}}


def by_datasets(raw: Path, out: Path, size: int, workers: int) -> None:
    import datasets
    datasets.disable_progress_bars()
    found = datasets.load_dataset("imagefolder", data_dir=str(raw), split="train", cache_dir=str(out / "cache"))
    found = found.map(smaller, fn_kwargs={"size": size}, num_proc=workers if workers > 1 else None)
    found.to_parquet(str(out / "train.parquet"))


def monai_one(task: tuple[str, str, int]) -> None:
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize
    path, target, size = task
    load = Compose([LoadImage(image_only=True, reader="PILReader"), EnsureChannelFirst()])(path)
    scale = min(1.0, size / min(load.shape[1:]))
    wanted = [max(1, round(n * scale)) for n in load.shape[1:]]
    small = Resize(wanted, mode="area", anti_aliasing=False)(load) if scale < 1 else load
    np.save(target, small.numpy().clip(0, 255).astype(np.uint8))


def by_monai(raw: Path, out: Path, size: int, workers: int) -> None:
    from multiprocessing import get_context
    out.mkdir(parents=True)
    tasks = [(str(raw / path), str(out / f"{i}.npy"), size) for i, path in enumerate(files.rasters(raw))]
    if workers == 1:
        for task in tasks:
            monai_one(task)
        return
    with get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(monai_one, tasks, 8):
            pass


MAKERS: dict[str, Callable[[Path, Path, int, int], None]] = {"medisyn": by_medisyn, "datasets": by_datasets, "monai": by_monai}


def child(maker: str, raw: Path, out: Path, size: int, workers: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor that one maker takes in a process of its own, imports left out."""
    code = (f"import sys, time, resource; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import ingest as b; from pathlib import Path\n"
            f"{'import datasets' if maker == 'datasets' else 'import monai.transforms' if maker == 'monai' else 'import numpy'}\n"
            f"def used():\n    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in "
            f"(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
            f"if __name__ == '__main__':\n"
            f"    clock, cpu = time.perf_counter(), used()\n"
            f"    b.MAKERS[{maker!r}](Path({str(raw)!r}), Path({str(out)!r}), {size}, {workers})\n"
            f"    print('took', time.perf_counter() - clock, used() - cpu)\n")
    script = out.parent / "run.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    clock, cpu = done.stdout.rsplit("took", 1)[1].split()
    return float(clock), float(cpu)


def compare(raw: Path, size: int, rounds: int, workers: int, most: int | None, jpeg: int | None) -> dict:
    """The rates of the three, round by round."""
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "raw"
        (Path(home) / "medisyn.toml").write_text(MAPPING)
        paths = files.rasters(raw)
        paths = paths[::max(1, len(paths) // most)][:most] if most else paths
        for i, path in enumerate(paths):
            target = folder / f"{i:06d}{'.jpg' if jpeg else path.suffix.lower()}"
            target.parent.mkdir(exist_ok=True)
            if jpeg:
                picture = images.decode(raw / path)
                scale = jpeg / min(picture.size)
                picture.resize([round(n * scale) for n in picture.size], Image.Resampling.BICUBIC).save(target, quality=92)
            else:
                shutil.copy(raw / path, target)
        read = [target.read_bytes() for target in folder.iterdir()]  # into the system's cache
        sizes = [Image.open(io.BytesIO(data)).size for data in read]
        for number in range(rounds):
            for maker in list(MAKERS)[number % 3:] + list(MAKERS)[:number % 3]:
                out = Path(home) / f"{maker}{number}"
                clock, cpu = child(maker, folder, out, size, workers)
                per_s, per_cpu_s = len(paths) / clock, len(paths) / cpu
                rows.append({"round": number, "maker": maker, "images_per_s": per_s, "images_per_cpu_s": per_cpu_s})
                print(f"round {number}: {maker:<9} {per_s:8.1f} images/s, {per_cpu_s:8.1f} a second of processor", flush=True)
                with contextlib.suppress(OSError):
                    shutil.rmtree(out)
    ratios = {}
    for other in ("datasets", "monai"):
        for unit in ("images_per_s", "images_per_cpu_s"):
            held = [by(rows, n, "medisyn", unit) / by(rows, n, other, unit) for n in range(rounds)]
            median, low, high = float(np.median(held)), min(held), max(held)
            ratios[f"{unit}, medisyn / {other}"] = {"median": median, "range": [low, high], "rounds": rounds}
            print(f"{unit}: medisyn / {other} = {median:.2f} ({low:.2f} to {high:.2f}, {rounds} rounds)")
    side = float(np.median([min(one) for one in sizes]))
    return {"n": len(paths), "median_short_side": side, "size": size, "workers": workers, "rounds": rows, "ratios": ratios}


def by(rows: list[dict], number: int, maker: str, unit: str) -> float:
    return next(row[unit] for row in rows if row["round"] == number and row["maker"] == maker)


def generated(n: int) -> Iterator[Record]:
    """Records of nobody, a patient each."""
    for i, draw in enumerate(np.random.default_rng(0).integers(0, 1 << 60, n).tolist()):
        yield Record(f"bench/{i:08d}", "images/x.png", ("mri", "ct", "chest_xray")[draw % 3], findings={"normal": draw % 5 > 0},
                     age_years=float(draw % 90), sex=("female", "male")[draw % 2], text=f"A generated sentence about image {i}.",
                     patient=f"{draw:016x}", source="bench", split=records.split_of(f"{draw:016x}"))


COUNT = "sum(sum(row['split'].values()) for row in records.counts(records.read(sys.argv[1])).values())"
CHECK = "len(check.check(sys.argv[1]))"
TIMED = """
import re, sys, time
from medisyn.data import check, records
start = time.perf_counter()
result = {}
print(result, time.perf_counter() - start, time.process_time(), re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def million(n: int) -> dict:
    """Seconds and peak memory to open and count generated records, as lines and packed."""
    found: dict = {"n": n}
    with tempfile.TemporaryDirectory() as home:
        forms = {name: Path(home) / name for name in ("lines", "packed")}
        image = forms["lines"] / "images" / "x.png"
        image.parent.mkdir(parents=True)
        Image.new("L", (1, 1)).save(image)
        records.write(generated(n), forms["lines"])
        start = time.perf_counter()
        packed.pack(*forms.values())
        found["pack_seconds"] = time.perf_counter() - start
        for form, folder in forms.items():
            for verb, code in (("count", COUNT), ("check", CHECK)):
                run = [sys.executable, "-c", TIMED.replace("{}", code), folder]
                done = subprocess.run(run, check=True, capture_output=True, text=True)
                result, seconds, cpu, peak = done.stdout.split()
                found[f"{form}, {verb}"] = {"result": int(result), "seconds": float(seconds), "cpu_seconds": float(cpu),
                                            "peak_mib": int(peak) / 1024}
                print(f"{form}: {verb} {n:,}: {float(seconds):.1f} s ({float(cpu):.1f} s of processor), peak "
                      f"{int(peak) // 1024} MiB (result {result})", flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["images", "million"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--jpeg", type=int, metavar="SIDE")
    parser.add_argument("--most", type=int, help="images, spread over the folder")
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = million(args.n) if args.what == "million" else \
        compare(args.folder, args.size, args.rounds, args.workers, args.most, args.jpeg)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
