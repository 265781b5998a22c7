"""A studio for tests: a maker that draws squares, a server in a thread, a worker in a process (`python tests/studio.py`)."""

import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql
from PIL import Image

from medisyn.data import images, prompts, records
from medisyn.data.provenance import Drawn, Guarded, Provenance
from medisyn.data.records import Record
from medisyn.web import database, worker
from medisyn.web.queue import Outcome
from medisyn.web.settings import KEEP_ALIVE, Settings

BASE = "http://127.0.0.1:8000"
POSTGRES = os.environ.get("MEDISYN_TEST_POSTGRES")
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(
    not POSTGRES, reason="MEDISYN_TEST_POSTGRES names no PostgreSQL database"))]


def database_of(kind: str) -> str:
    """The address of a database of DATABASES; "": SQLite in a folder of one's own. The one of PostgreSQL is emptied."""
    if kind == "sqlite":
        return ""
    address = own_database(POSTGRES)
    engine = database.connect(address)
    database.META.drop_all(engine)
    database.META.create_all(engine)
    engine.dispose()
    return address


def own_database(address: str) -> str:
    """The address of this process's own database on that server, made where it is not there; alone, of the one that is named."""
    process = os.environ.get("PYTEST_XDIST_WORKER")
    if not process:
        return address
    url = sql.make_url(address)
    name = f"{url.database}_{process}"
    engine = database.connect(address).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as server:
        if not server.scalar(sql.text("select 1 from pg_database where datname = :name"), {"name": name}):
            server.execute(sql.text(f'create database "{name}"'))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


def squares(folder: Path, seconds: float = 0.0) -> worker.Make:
    """A maker of 16 x 16 squares, each in `seconds`; a prompt with "refuse" is refused, one with "break" breaks."""
    def make(orders: Sequence[tuple[str, int]], steps: int | None, guidance: float | None,
             stopped: worker.Stopped) -> Iterator[Outcome]:
        for prompt, seed in orders:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                if stopped():
                    raise worker.Cancelled
                time.sleep(0.005)
            if "break" in prompt:
                raise ValueError(f"cannot draw {prompt!r}")
            if "refuse" in prompt:
                yield Outcome(None, f"seed {seed} was refused")
                continue
            yield Outcome(drawn(prompt, seed, steps or 16, guidance or 3.0))

    def drawn(prompt: str, seed: int, steps: int, guidance: float) -> Record:
        name = hashlib.sha256(f"{prompt}/{seed}/{steps}/{guidance}".encode()).hexdigest()[:16]
        u = prompts.understand(prompt)
        how = Provenance(prompt, prompt, seed, steps, guidance, "euler", None, "sha256:0", "squares", "0",
                         Guarded("passed", -1.0, 1.5, 0, name, "0"), Drawn(True, 0.1, 0, name))
        record = Record(name, f"images/{name}.png", u.image_type or "unknown", specialty=u.specialty, findings=dict(u.findings),
                        text=prompt, provenance=how)
        known = {r.id for r in records.read(folder)} if (folder / "metadata.jsonl").is_file() else set()
        images.write_png(np.full((1, 16, 16), seed % 20 / 10 - 1, np.float32), folder / record.file_name, how)
        if name not in known:
            with (folder / "metadata.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(records.as_line(record))
        return record
    return make


def until(wanted: Callable[[], bool], seconds: float = 15.0) -> float:
    """Wait for something, and fail where it does not come; how long it took."""
    began = time.monotonic()
    while not wanted():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - began


def settings(folder: Path, **more: object) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    return Settings(folder, **more)


@contextlib.contextmanager
def working(told: Settings, seconds: float = 0.0) -> Iterator[None]:
    """A worker in a thread of this process."""
    stopped = threading.Event()
    engine = database.connect(told.url)
    thread = threading.Thread(target=worker.work, args=(engine, squares(told.folder, seconds), stopped))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(10)
        engine.dispose()


@contextlib.contextmanager
def live(told: Settings, seconds: float = 0.0, keeping: Callable | None = None) -> Iterator[str]:
    """A server in a thread, with a worker of squares, or of one's own keeping: its address."""
    import uvicorn

    from medisyn.web.app import create
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keeping = keeping or (lambda s: working(s, seconds))
    server = uvicorn.Server(uvicorn.Config(create(told, keeping), port=port, log_level="error", lifespan="on",
                                           timeout_graceful_shutdown=1, timeout_keep_alive=KEEP_ALIVE))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def shrunk(folder: Path, names: str) -> None:
    """Screenshots with 256 colours each: they stay in the repository's history for ever."""
    for path in folder.glob(names):
        with Image.open(path) as opened:
            small = opened.convert("RGB").quantize(256, dither=Image.Dither.NONE) if opened.mode != "P" else None
        if small is not None:
            small.save(path, optimize=True)


def finished(told: Settings) -> None:
    """Make all that waits."""
    engine = database.connect(told.url)
    worker.work(engine, squares(told.folder), threading.Event(), until_empty=True)
    engine.dispose()


def main() -> None:
    """As `medisyn.web.worker`, with squares of 0.1 s; as a server where a folder and a port are given."""
    if len(sys.argv) == 1:
        return worker.main(lambda model, folder, backend: squares(folder, 0.1))
    import uvicorn

    from medisyn.web import app
    told = Settings(Path(sys.argv[1]))
    uvicorn.run(app.create(told, lambda s: app.worker(s, (sys.executable, __file__))), port=int(sys.argv[2]), log_level="error")


if __name__ == "__main__":
    main()
