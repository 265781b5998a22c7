"""Guard: what it costs to look at every image, and whether it would stop a training image.

    python benchmarks/guard.py --model FOLDER -o OUTDIR [--real data/open]

Generation with the guard and without take turns, so that a busy machine slows both alike; the ratio of each pair counts.
With --real, training images of each type are handed to the guard as if they had been made (plain, mirrored, recompressed,
cropped), and unseen ones of other patients: how many are blocked, how many pass.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from intervals import estimate, missing, table, write

from medisyn import shipped, synthesizer
from medisyn.evaluation import guard, looking, sets
from medisyn.evaluation.sets import open_images

PROMPT = "chest X-ray with pneumonia"
GIVEN = ("plain", "flipped", "recompressed", "cropped")  # of looking.CHANGES


def pairs(maker: synthesizer.Synthesizer, accept: guard.Accept, rounds: int) -> np.ndarray:
    """Seconds of CPU and of the clock without and with the guard: float64 (rounds, 2, 2)."""
    plan = maker.plan(PROMPT)
    under = synthesizer.guarded(maker, accept, block=False)
    ways: tuple[Callable, Callable] = (maker.make, under)
    found = np.zeros((rounds, 2, 2))
    for way in ways:
        way(plan, maker.settings(plan, 10**6))
    for k in range(rounds):
        for w in (0, 1) if k % 2 else (1, 0):
            how = maker.settings(plan, k)
            cpu, clock = time.thread_time(), time.perf_counter()
            ways[w](plan, how)
            found[k, w] = time.thread_time() - cpu, time.perf_counter() - clock
    return found


def blocked(accept: guard.Accept, real: Path, n: int, side: int, seed: int = 0) -> list[tuple]:
    """Rows of a table: image type, the share of planted images blocked by change, the share of unseen images passed."""
    train, unseen = open_images(f"{real}:train", "train"), open_images(f"{real}:test", "unseen")
    kinds = {s.name: sets.kinds_of(s) for s in (train, unseen)}
    rows, rng = [], np.random.default_rng(seed)

    def passed(pixels: np.ndarray, kind: str) -> np.ndarray:
        return np.array([v.accepted for v in accept(list(pixels), [kind] * len(pixels))], float)

    for kind in np.unique(kinds["train"]):
        mine = rng.permutation(np.flatnonzero(kinds["train"] == kind))[:n]
        other = rng.permutation(np.flatnonzero(kinds["unseen"] == kind))[:n]
        original = train.pixels(mine, 2 * side)
        line = [kind]
        for change in GIVEN:
            planted = guard.fitted(looking.CHANGES[change](original, rng), side)
            stopped = 1 - passed(planted, kind)
            line.append(estimate(lambda r, x=stopped: x[r].mean(), len(stopped), share=True).text)
        through = passed(unseen.pixels(other, side), kind) if len(other) else np.zeros(0)
        line.append((estimate(lambda r, x=through: x[r].mean(), len(through), share=True) if len(through)
                     else missing("no unseen images")).text)
        rows.append(tuple(line))
        print(*line, sep=" | ", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=shipped.folder())
    parser.add_argument("--guard", type=Path, help="its index; left out: FOLDER/guard")
    parser.add_argument("--real", type=Path, help="the collection that the model was trained on")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("-n", type=int, default=40, help="real images of each type")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    maker, home = synthesizer.load(args.model), args.guard or args.model / "guard"
    accept = guard.load(home)
    seconds = pairs(maker, accept, args.rounds)
    ratio = {name: estimate(lambda r, k=k: float(np.median(seconds[r, 1, k] / seconds[r, 0, k])), len(seconds))
             for k, name in enumerate(("CPU", "clock"))}
    size = sum(p.stat().st_size for p in home.glob("*")) / 2**20
    n = len(guard.read(home).kind)
    text = [f"# Guard\n\n{n:,} training images, {size:.1f} MiB. {args.rounds} pairs of one image with and without, in turn.\n",
            table(("seconds an image", "without", "with", "ratio"),
                  [(name, f"{np.median(seconds[:, 0, k]):.3f}", f"{np.median(seconds[:, 1, k]):.3f}", ratio[name].text)
                   for k, name in enumerate(("CPU", "clock"))])]
    rows = blocked(accept, args.real, args.n, maker.model.card.image_size) if args.real else []
    if rows:
        text += ["\n## Training images handed in as if they had been made: blocked; unseen real images: passed\n",
                 table(("image type", *GIVEN, "unseen, passed"), rows)]
    found = {"n_images": n, "mib": size, "seconds": seconds.tolist(), "ratio": {k: v.value for k, v in ratio.items()}, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out, "guard", found, "\n".join(text))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"guard: {error}")
