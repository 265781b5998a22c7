"""How long near-duplicates take among many pictures, and how much memory, beside comparing all with all.

    python benchmarks/duplicates.py [--n 10000 100000 1000000] [--both 20000] [--real COLLECTION] [--json FILE]

The pictures are generated as what ingest keeps of one: 64 random low frequencies, hashed in eight orientations, and a
thumbnail. One in ten is a copy of another, in any orientation, noisy; one in a hundred is a frame of the same standing
film. `--both` is the size at which both ways run; their pairs must be the same, and so must they on the pictures of a
real collection that ingest left ledgers for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medisyn.data import duplicates, ledger
from medisyn.data.duplicates import LIKELY, ORIENTATIONS, THUMBNAIL, Limits, turned

ROWS = 2048  # of all with all at a time


def generated(n: int, seed: int = 0, copies: float = 0.1, frames: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64 (n, 8), thumbnails uint8 (n, 16, 16)) of generated pictures."""
    rng = np.random.default_rng(seed)
    hashes, thumbnails = np.empty((n, ORIENTATIONS), np.uint64), np.empty((n, THUMBNAIL, THUMBNAIL), np.uint8)
    drawn = rng.random(n)
    of = np.where(drawn < frames, 0, np.where(drawn < frames + copies, rng.integers(0, n, n), np.arange(n)))
    how = rng.integers(0, ORIENTATIONS, n) * (of != np.arange(n)) * (drawn >= frames)
    for start in range(0, n, ROWS):
        for i in range(start, min(start + ROWS, n)):
            scene = np.random.default_rng((seed, int(of[i])))
            low, small = scene.normal(size=(8, 8)).astype(np.float32), scene.integers(30, 226, (THUMBNAIL, THUMBNAIL))
            if of[i] != i:
                low, small = low + rng.normal(0, 0.05, low.shape), small + rng.integers(-6, 7, small.shape)
            thumbnails[i] = turned(small, how[i])
            low = turned(low, how[i], duplicates.ODD)
            hashes[i] = duplicates.codes(np.stack([turned(low, k, duplicates.ODD) for k in range(ORIENTATIONS)]))
    return hashes, thumbnails


def all_with_all(hashes: np.ndarray, thumbnails: np.ndarray, limits: Limits = LIKELY) -> list[tuple[int, int]]:
    """What `duplicates.pairs` gives, by comparing every picture with every other."""
    squares = thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL).astype(float)
    squares -= squares.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(squares, axis=(1, 2))
    squares /= np.maximum(length, 1e-6)[:, None, None]
    found: set[tuple[int, int]] = set()
    for how in range(ORIENTATIONS):
        for top in range(0, len(hashes), ROWS):
            for left in range(top, len(hashes), ROWS):
                i, j = np.nonzero(np.bitwise_count(hashes[top:top + ROWS, None, 0] ^ hashes[None, left:left + ROWS, how])
                                  <= limits.distance)
                i, j = i + top, j + left
                for start in range(0, len(i), 65536):
                    a, b = i[start:start + 65536], j[start:start + 65536]
                    alike = (np.einsum("nhw,nhw->n", squares[a], turned(squares[b], how)) >= limits.correlation)
                    alike &= (a < b) & (length[a] >= THUMBNAIL) & (length[b] >= THUMBNAIL)
                    found |= set(zip(a[alike].tolist(), b[alike].tolist(), strict=True))
    return sorted(found)


def of_collection(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the ledgers of a collection hold."""
    paths = sorted((folder / ledger.FOLDER).glob("*.jsonl"))
    looks = ledger.joined([ledger.looks(path, [row["name"] for row in ledger.rows(path)]) for path in paths])
    return looks.hashes, looks.thumbnails


def both(hashes: np.ndarray, thumbnails: np.ndarray, what: str) -> dict:
    """The two ways beside each other; an error where their pairs are not the same."""
    start = time.process_time()
    ours = duplicates.pairs(hashes, thumbnails)
    middle = time.process_time()
    theirs = all_with_all(hashes, thumbnails)
    end = time.process_time()
    if ours != theirs:
        raise SystemExit(f"{what}: {len(ours):,} pairs, comparing all with all {len(theirs):,}; "
                         f"{len(set(ours) ^ set(theirs)):,} in one alone")
    ratio = (end - middle) / (middle - start)
    print(f"{what}: {len(hashes):,} pictures, the same {len(ours):,} pairs; all with all {end - middle:.1f} s of processor, "
          f"by masks {middle - start:.2f} s: {ratio:.1f} times", flush=True)
    return {"of": what, "n": len(hashes), "pairs": len(ours), "all_with_all_s": end - middle, "masks_s": middle - start,
            "ratio": ratio}


GROUPED = """
import re, sys, time
import numpy as np
from medisyn.data import duplicates
held = np.load(sys.argv[1])
hashes, thumbnails = held["hashes"], held["thumbnails"]
contents = [f"{i:032x}" for i in range(len(hashes))]
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, clock, start = peak(), time.perf_counter(), time.process_time()
found = duplicates.groups(contents, hashes, thumbnails, getattr(duplicates, sys.argv[2]))
print(len(set(found)), time.perf_counter() - clock, time.process_time() - start, before, peak())
"""


def grouped(n: int, limits: str, path: Path) -> dict:
    """Seconds and memory of grouping generated pictures, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", GROUPED, path, limits], check=True, capture_output=True, text=True)
    groups, clock, cpu, before, peak = map(float, done.stdout.split())
    print(f"{n:,} pictures, {limits}: {groups:,.0f} groups in {clock:.1f} s ({cpu:.1f} s of processor); peak {peak:,.0f} MiB, "
          f"{before:,.0f} of them the pictures' own", flush=True)
    return {"n": n, "limits": limits, "groups": int(groups), "seconds": clock, "cpu_seconds": cpu, "own_mib": before,
            "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--both", type=int, default=20_000)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [both(*generated(args.both), "generated")] if args.both else []
    if args.real:
        rows.append(both(*of_collection(args.real), "real"))
    with tempfile.TemporaryDirectory() as home:
        for n in args.n:
            hashes, thumbnails = generated(n)
            np.savez(Path(home) / f"{n}.npz", hashes=hashes, thumbnails=thumbnails)
            del hashes, thumbnails
            rows += [grouped(n, limits, Path(home) / f"{n}.npz") for limits in ("LIKELY", "CERTAIN")]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
