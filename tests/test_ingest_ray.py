"""Ingest on a cluster, through the verb: the same collection as in processes, also where machines die on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import clusters
import numpy as np
import pytest
from PIL import Image

from medisyn.data import ingest, ledger, records

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="processes are killed otherwise there"),
              pytest.mark.filterwarnings("ignore")]  # Ray warns of its own settings
N, SOURCE = 240, "knee_oa_xray"


def knees(folder: Path) -> Path:
    for i in range(N):
        path = folder / f"train/{i % 5}/{9000000 + i // 2}{'LR'[i % 2]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 6), np.uint8))
        coarse.resize((900, 900), Image.Resampling.BICUBIC).save(path, compress_level=1)
    return folder


def verb(raw: Path, out: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "medisyn", "ingest", SOURCE, raw, "-o", out, *words],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def held(out: Path) -> dict[str, bytes]:
    """Everything a collection says: its files without the ledgers."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*"))
            if path.is_file() and ingest.NOTES not in path.parts}


def when_noted(out: Path, n: int, process: subprocess.Popen) -> None:
    """Wait until n images stand in the ledger."""
    path = ledger.path_of(out, SOURCE)
    while process.poll() is None and sum(1 for _ in ledger.rows(path)) < n:
        time.sleep(0.02)


def test_two_machines_one_of_them_killed_and_a_run_killed_give_the_same_collection(tmp_path, monkeypatch):
    raw, whole, on_ray, killed = knees(tmp_path / "raw"), tmp_path / "whole", tmp_path / "ray", tmp_path / "killed"
    assert verb(raw, whole, "--workers", "1").wait() == 0
    assert len(list(records.read(whole))) == N
    with clusters.two_machines(monkeypatch) as (cluster, other):
        words = ("--engine", "ray", "--address", cluster.address, "--workers", "2")
        process = verb(raw, on_ray, *words)
        said, _ = process.communicate()
        assert process.returncode == 0 and held(on_ray) == held(whole), said
        assert "Traceback" not in said and "90000" not in said

        process = verb(raw, killed, *words)             # the run dies
        when_noted(killed, 20, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not (killed / "metadata.jsonl").exists()
        before = len({row["name"] for row in ledger.rows(ledger.path_of(killed, SOURCE))})

        process = verb(raw, killed, *words)             # and a machine dies in the next
        when_noted(killed, before + 20, process)
        assert process.poll() is None
        cluster.remove_node(other, allow_graceful=False)
        said, _ = process.communicate()
        assert process.returncode == 0 and held(killed) == held(whole), said
    names = [row["name"] for row in ledger.rows(ledger.path_of(killed, SOURCE))]
    assert 20 <= before < N and len(set(names)) == N
    assert len(names) <= N + 16                         # in hand when the run was killed: done twice, noted twice, kept once


def test_an_address_where_no_cluster_is_is_one_line(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "raw/train/0").mkdir(parents=True)
    Image.new("L", (30, 30), 7).save(tmp_path / "raw/train/0/9000000L.png")
    process = verb(tmp_path / "raw", tmp_path / "out", "--engine", "ray", "--address", "127.0.0.1:1")
    said, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in said and "cluster" in said, said
