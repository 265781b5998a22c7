"""Serve: how long a page takes while a job runs and many look at it.

    python benchmarks/serve.py --model FOLDER -o OUTDIR

A server with its worker on this machine makes images of one long job; clients in a process of their own ask for pages in
turns, each with a pause between two, as people and polling programs do. Server, worker and clients share the processors.
"""

import argparse
import concurrent.futures
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import intervals

from medisyn import shipped

PAGES = ("/", "/gallery", "/jobs", "/api/v1/jobs", "/api/v1/images?limit=12", "/api/v1/understand?prompt=chest%20X-ray")


def ask(address: str, path: str, body: dict | None = None) -> tuple[int, float, bytes]:
    """Status, seconds and body of one request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"} if data else {})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
        return answer.status, time.perf_counter() - began, content


def client(address: str, seconds: float, pause: float, seed: int) -> list[tuple[str, int, float]]:
    """One client until its time is over: (page, status, seconds) each."""
    draw = random.Random(seed)
    time.sleep(draw.random() * pause)
    until, told = time.monotonic() + seconds, []
    while time.monotonic() < until:
        path = draw.choice(PAGES)
        try:
            status, took, _ = ask(address, path)
        except OSError:
            status, took = 0, float("nan")
        told.append((path, status, took))
        time.sleep(pause)
    return told


def clients(address: str, n: int, seconds: float, pause: float) -> list[tuple[str, int, float]]:
    """All clients at once."""
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return [one for mine in pool.map(lambda k: client(address, seconds, pause, k), range(n)) for one in mine]


def served(model: Path, folder: Path, args: argparse.Namespace) -> dict:
    """Start a server, give it a job, let the clients look: what they saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "medisyn", "serve", "--port", str(port), "--model", str(model), "--folder", str(folder)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        waited = time.monotonic()
        while True:
            try:
                ask(address, "/health")
                break
            except OSError:
                if time.monotonic() - waited > 120:
                    raise RuntimeError("the server did not start; `medisyn serve` says why") from None
                time.sleep(0.2)
        job = json.loads(ask(address, "/api/v1/jobs", {"prompts": [{"prompt": "chest X-ray with pneumonia", "n": 2000}]})[2])["id"]
        while not json.loads(ask(address, f"/api/v1/jobs/{job}")[2])["done"]:
            time.sleep(0.2)
        before = json.loads(ask(address, f"/api/v1/jobs/{job}")[2])["done"]
        command = [sys.executable, __file__, "--clients-of", address, "--clients", str(args.clients),
                   "--seconds", str(args.seconds), "--pause", str(args.pause)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        after = json.loads(ask(address, f"/api/v1/jobs/{job}")[2])["done"]
    finally:
        server.terminate()
        server.wait(30)
    return {"answers": told, "images_made": after - before}


def table(answers: list[tuple[str, int, float]]) -> str:
    """A row a page, and all together."""
    rows = []
    for path in (*PAGES, None):
        mine = [a for a in answers if path in (None, a[0])]
        took = sorted(a[2] * 1000 for a in mine if a[1] == 200)
        lost = sum(a[1] != 200 for a in mine)
        if took:
            late = took[int(0.95 * (len(took) - 1))]
            rows.append((path or "all", f"{statistics.median(took):.0f}", f"{late:.0f}", len(took), lost))
    return intervals.table(("page", "median, ms", "95 % within, ms", "answers", "lost"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=shipped.folder())
    parser.add_argument("-o", "--out", type=Path, default=Path("out/serve"))
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two requests of a client")
    parser.add_argument("--clients-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.clients_of:
        return print(json.dumps(clients(args.clients_of, args.clients, args.seconds, args.pause)))
    args.out.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        told = served(args.model, Path(folder), args)
    text = (f"# Pages while a job runs\n\n{args.clients} clients, {args.pause:g} s between two requests of each, "
            f"{args.seconds:g} s; {os.cpu_count()} cores, load average {load:.1f} when it began; "
            f"{told['images_made']} images made meanwhile.\n\n"
            f"{table(told['answers'])}\n")
    found = {"clients": args.clients, "pause": args.pause, "seconds": args.seconds, "load": load, **told}
    intervals.write(args.out, "serve", found, text)
    print(text)


if __name__ == "__main__":
    main()
