"""Metrics: our distances beside the libraries that people know, on the same arrays, each in a process of its own.

    python benchmarks/metrics.py                        a minute
    python benchmarks/metrics.py --n 50000 --dims 1024  the size for which the goals are set

Prints value, seconds and the peak of memory beyond the arrays themselves, and the ratios. Peers: torchmetrics
(FID's and KID's own functions, fed as its modules feed them), scipy's matrix root, and whole distance matrices
as the authors of precision, recall, density and coverage publish them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MANIFOLDS_N = 8000      # beyond, the whole matrices of the peer would not fit most machines


def arrays(n: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of features, correlated and shifted: float32 (n, dims) each."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.2, 2, dims, dtype=np.float32)
    x, y = (np.empty((n, dims), np.float32) for _ in range(2))
    for cloud in (x, y):  # in place: what is thrown away here would hide what a metric takes
        rng.standard_normal(out=cloud, dtype=np.float32)
        cloud *= scale
    y += 0.05
    return x, y


def ours_fd(x: np.ndarray, y: np.ndarray) -> float:
    from medisyn.evaluation import distances
    return distances.frechet_distance(x, y)


def torchmetrics_fd(x: np.ndarray, y: np.ndarray) -> float:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Same(torch.nn.Module):
        num_features = x.shape[1]

        def forward(self, features):
            return features
    metric = FrechetInceptionDistance(feature=Same(), normalize=True, input_img_size=(x.shape[1],))
    for rows, real in ((x, True), (y, False)):
        for start in range(0, len(rows), 1024):
            metric.update(torch.from_numpy(rows[start:start + 1024]), real=real)
    return float(metric.compute())


def scipy_fd(x: np.ndarray, y: np.ndarray) -> float:
    import scipy.linalg
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c1 + c2 - 2 * root))


def ours_kd(x: np.ndarray, y: np.ndarray) -> float:
    from medisyn.evaluation import distances
    return distances.kernel_distance(x, y)


def torchmetrics_kd(x: np.ndarray, y: np.ndarray) -> float:
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    class Same(torch.nn.Module):
        num_features = x.shape[1]

        def forward(self, features):
            return features
    metric = KernelInceptionDistance(feature=Same(), subset_size=min(1000, len(x)), normalize=True)
    for rows, real in ((x, True), (y, False)):
        for start in range(0, len(rows), 1024):
            metric.update(torch.from_numpy(rows[start:start + 1024]), real=real)
    return float(metric.compute()[0])


def ours_manifolds(x: np.ndarray, y: np.ndarray) -> float:
    from medisyn.evaluation import manifolds
    found = manifolds.manifolds(x[:MANIFOLDS_N], y[:MANIFOLDS_N])
    return float(found.precision.mean() + found.recall.mean() + found.density.mean() + found.coverage.mean())


def whole_manifolds(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.spatial.distance import cdist
    x, y = x[:MANIFOLDS_N], y[:MANIFOLDS_N]
    rx, ry = (np.partition(cdist(z, z), 5, axis=1)[:, 5] for z in (x, y))
    d = cdist(x, y)
    return float((d < rx[:, None]).any(0).mean() + (d < ry[None]).any(1).mean() + (d < rx[:, None]).sum(0).mean() / 5
                 + (d.min(1) < rx).mean())


CONTESTS: dict[str, dict[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "Frechet distance": {"ours": ours_fd, "torchmetrics": torchmetrics_fd, "scipy sqrtm": scipy_fd},
    "kernel distance": {"ours": ours_kd, "torchmetrics": torchmetrics_kd},
    "precision + recall + density + coverage": {"ours": ours_manifolds, "whole matrices": whole_manifolds},
}


def alone(contest: str, who: str, n: int, dims: int) -> None:
    """One function in this process: a JSON line with value, seconds and MB beyond the arrays and the imports."""
    import warnings
    warnings.simplefilter("ignore")
    measure = CONTESTS[contest][who]
    small = arrays(64, 16)
    measure(*small)                                             # imports and threads, before the clock
    x, y = arrays(n, dims)
    before = resident()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    value = measure(x, y)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"value": value, "seconds": seconds, "cpu_seconds": busy,
                      "mb": max(peak - before, 0) / 1024 if peak > base else max(base - before, 0) / 1024}))


def resident() -> float:
    """Memory of this process now, in KB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4000, help="images a side")
    parser.add_argument("--dims", type=int, default=256, help="features an image")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        return alone(*asked.alone, asked.n, asked.dims)
    print(f"{asked.n:,} images a side, {asked.dims:,} features (manifolds: at most {MANIFOLDS_N:,} images)")
    for contest, sides in CONTESTS.items():
        found = {}
        for who in sides:
            size = ["--n", str(asked.n), "--dims", str(asked.dims)]
            done = subprocess.run([sys.executable, __file__, "--alone", contest, who, *size],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{contest:<40} {who:<15} did not run: {done.stderr.strip().splitlines()[-1][:90]}")
                continue
            found[who] = json.loads(done.stdout)
            row, mine = found[who], found.get("ours")
            line = f"{contest:<40} {who:<15} {row['value']:10.4f} {row['cpu_seconds']:8.2f} s CPU {row['mb']:8.0f} MB"
            if who != "ours" and mine:
                line += (f"   ours takes {mine['cpu_seconds'] / row['cpu_seconds']:.2f} of its time, "
                         f"{mine['mb'] / max(row['mb'], 0.1):.2f} of its memory")
            print(line, flush=True)


if __name__ == "__main__":
    main()
