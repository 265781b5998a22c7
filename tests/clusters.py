"""A Ray cluster of two machines, played by two processes of this one, with little memory for objects."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def two_machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """(the cluster, the machine of it that a test may end)."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster
    tests = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tests}{os.pathsep}{tests.parent}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"num_cpus": 1, "object_store_memory": 2**27}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        other = cluster.add_node(**small)
        cluster.wait_for_nodes()
        yield cluster, other
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()
