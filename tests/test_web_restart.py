"""Killed in the middle: after kill -9 of the server and its worker a job is finished, nothing is lost, nothing doubled."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import studio

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
if sys.platform == "win32":
    pytest.skip("kills process groups as POSIX does", allow_module_level=True)
from medisyn.data import records  # noqa: E402

HERE = Path(studio.__file__)


@contextlib.contextmanager
def server(folder: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE), str(folder), str(port)], env=environment, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            studio.until(lambda: answers(client), 60)
            yield process, client
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False


def test_a_job_survives_the_death_of_server_and_worker(tmp_path, environment):
    with server(tmp_path, environment) as (process, client):
        name = client.post("/api/v1/jobs", json={"prompts": [{"prompt": "chest X-ray with pneumonia", "n": 25}]}).json()["id"]
        waiting = client.post("/api/v1/jobs", json={"prompts": [{"prompt": "dermoscopy of a melanoma", "n": 2}]}).json()["id"]
        studio.until(lambda: client.get(f"/api/v1/jobs/{name}").json()["done"] > 3, 60)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    before = [line for line in (tmp_path / "metadata.jsonl").read_text().splitlines() if line.endswith("}")]
    assert 3 < len(before) < 25
    with server(tmp_path, environment) as (_, client):
        told = client.get(f"/api/v1/jobs/{name}").json()
        assert told["state"] in ("queued", "running") and told["done"] > 3
        studio.until(lambda: client.get(f"/api/v1/jobs/{waiting}").json()["state"] == "done", 60)
        told = client.get(f"/api/v1/jobs/{name}").json()
        assert (told["state"], told["done"]) == ("done", 25)
        found = client.get("/api/v1/images", params={"job": name, "limit": 100}).json()
        assert sorted(one["seed"] for one in found["images"]) == list(range(25))
    ids = [record.id for record in records.read(tmp_path)]
    assert len(ids) == len(set(ids)) == 27
    assert {path.stem for path in (tmp_path / "images").glob("*.png")} == set(ids)
    after = (tmp_path / "metadata.jsonl").read_text().splitlines()
    assert after[:len(before)] == before
