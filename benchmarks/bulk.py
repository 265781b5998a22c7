"""Bulk: images a second of `medisyn generate` in one process, in a pool of processes, and on a Ray cluster of two nodes.

    python benchmarks/bulk.py -o OUTDIR [--n 48] [--rounds 3] [--model FOLDER]

Each way makes the same images of a prompt (other seeds each round, so that nothing is there before) as a command of its own, in
turns; loading the model and starting processes are in its time, the cluster is started beforehand. One process uses one
thread an image and as many images at once as there are cores, so on one machine a pool gains little: the point of the others
is more machines, and that one that dies costs nothing. `ratio`: seconds of one process over those of the way, the median of
the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT = "dermoscopy of a melanoma"


def made(out: Path, n: int, seed: int, model: Path | None, engine: str | None) -> float:
    """Seconds that a command takes."""
    words = [sys.executable, "-m", "medisyn", "generate", PROMPT, "-n", str(n), "--seed", str(seed), "-o", str(out)]
    words += (["--model", str(model)] if model else []) + (["--engine", engine] if engine else [])
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    from ray.cluster_utils import Cluster
    node = {"num_cpus": 1, "object_store_memory": 2**27}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    seconds: dict[str, list[float]] = {}
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        ways = {"one process": None, "processes": "processes", "ray, two nodes": f"ray:{cluster.address}"}
        for k in range(args.rounds):
            for name in list(ways)[::-1 if k % 2 else 1]:
                folder = args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{k}"
                seconds.setdefault(name, []).append(made(folder, args.n, 1000 * k, args.model, ways[name]))
                print(f"round {k + 1} of {args.rounds}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    finally:
        cluster.shutdown()
    lines = ["| way | images/s (median) | ratio |", "|---|---|---|"]
    for name in ways:
        ratio = statistics.median(a / b for a, b in zip(seconds["one process"], seconds[name], strict=True))
        lines.append(f"| {name} | {args.n / statistics.median(seconds[name]):.2f} | {ratio:.2f} |")
    about = f"{args.n} images, {args.rounds} rounds in turns, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    (args.out / "bulk.json").write_text(json.dumps({"about": about, "seconds": seconds}, indent=2) + "\n")
    (args.out / "bulk.md").write_text(f"{about}\n\n" + "\n".join(lines) + "\n")
    print((args.out / "bulk.md").read_text())


if __name__ == "__main__":
    main()
