"""The worker: the one process that owns the model, and makes what the queue asks for.

It holds a lock on the studio's folder, so there is never a second one, and the lock falls with the process: what
another left half done goes back in line when this one starts. It reads its settings from stdin, and ends when stdin does,
that is when the server is no more, however that ended.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from medisyn.web import database, queue
from medisyn.web.queue import Job, Outcome
from medisyn.web.settings import Settings

Stopped = Callable[[], bool]
Make = Callable[[Sequence[tuple[str, int]], int | None, float | None, Stopped], Iterator[Outcome]]
# (prompt, seed) each, steps, guidance, stopped -> an outcome each, in order; its image lies in the collection by then
IDLE = 0.2        # seconds between looks at an empty queue
GLANCE = 0.1      # seconds between looks at whether a job is still wanted
LONGEST = 400     # characters of what went wrong
NICENESS = 10     # pages come before images


class Cancelled(Exception):
    """Nobody waits for this image any more."""


def opened(model: Path, folder: Path, backend: str = "torch") -> Make:
    """A model folder as a maker that writes into the collection `folder`; backend: what computes it."""
    import medisyn
    from medisyn import making, synthesizer
    from medisyn.evaluation import guard as guards
    maker = medisyn.load(model, backend)
    home = model / "guard"
    accept, index = (guards.load(home), guards.digest(home)) if (home / "guard.json").is_file() else (None, None)

    def make(orders: Sequence[tuple[str, int]], steps: int | None, guidance: float | None, stopped: Stopped) -> Iterator[Outcome]:
        def step() -> None:
            if stopped():
                raise Cancelled
        plans = {}
        for prompt in dict.fromkeys(prompt for prompt, _ in orders):
            step()
            plans[prompt] = maker.plan(prompt)
        made = making.make_all(maker, plans, [(prompt, 1, seed) for prompt, seed in orders], folder, steps, guidance,
                                    accept, True, index)
        maker.painter.hooks.append(step)  # before each step: an end within one of them
        try:
            for one in making.write(made, folder):
                yield Outcome(None, one.reason) if isinstance(one, synthesizer.Refused) else Outcome(one.record)
        finally:
            made.close()
            maker.painter.hooks.remove(step)
    return make


def run(engine: database.sql.Engine, job: Job, make: Make, stopped: Stopped) -> None:
    """Make what is missing of a job; an end that was asked for comes within a step, and what is made stays."""
    unwanted = threading.Event()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(GLANCE):
            if stopped() or not queue.wanted(engine, job.id):
                return unwanted.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    error = None
    making = make([(prompt, seed) for _, prompt, seed in job.wanted], job.steps, job.guidance, unwanted.is_set)
    try:
        for (position, prompt, seed), outcome in zip(job.wanted, making, strict=True):
            queue.keep(engine, job, position, prompt, seed, outcome)
            if unwanted.is_set():
                break
    except Cancelled:
        pass
    except database.sql.exc.DBAPIError:  # not the job's fault: this worker ends, the next one goes on with the job
        raise
    except Exception as failure:  # whatever a job does, the next one is served
        traceback.print_exc()
        said = f"{failure}" if isinstance(failure, (ValueError, OSError)) else f"{type(failure).__name__}: {failure}"
        error = said.partition("\n")[0][:LONGEST]
    finally:
        making.close()
        over.set()
        watcher.join()
    if not stopped():  # else it goes back in line when the next worker starts
        queue.finish(engine, job.id, error)


def work(engine: database.sql.Engine, make: Make, stopped: threading.Event, until_empty: bool = False) -> None:
    """Serve the queue until stopped, or until it is empty."""
    while not stopped.is_set():
        job = queue.claim(engine)
        if job is not None:
            run(engine, job, make, stopped.is_set)
        elif until_empty:
            return
        else:
            stopped.wait(IDLE)


def mend(folder: Path) -> None:
    """Cut off a last metadata line that was not written to its end; its image is made again."""
    path = folder / "metadata.jsonl"
    if not path.is_file():
        return
    with path.open("rb+") as opened_file:
        content = opened_file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            opened_file.truncate(whole)


def locked(folder: Path) -> IO | None:
    """The folder's lock, held while the file is open; None where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    held = (folder / "worker.lock").open("a+")
    try:
        if sys.platform == "win32":
            import msvcrt
            msvcrt.locking(held.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        return None
    return held


def serve(settings: Settings, stopped: threading.Event, opening: Callable[[Path, Path, str], Make] = opened) -> None:
    """Wait for the lock, open the model, serve the queue."""
    while (lock := locked(settings.folder)) is None:
        if stopped.wait(0.5):
            return
    with lock:
        engine = database.connect(settings.url)
        try:
            mend(settings.folder)
            queue.reclaim(engine)
            work(engine, opening(settings.model, settings.folder, settings.backend), stopped)
        finally:
            engine.dispose()


def as_text(settings: Settings) -> str:
    """What a worker must know, as JSON."""
    return json.dumps({"folder": str(settings.folder), "model": str(settings.model), "database": settings.database,
                       "backend": settings.backend})


def main(opening: Callable[[Path, Path, str], Make] = opened) -> None:
    """A process of its own: settings in the first line of stdin, the end when stdin ends or on a signal."""
    told = json.loads(sys.stdin.readline())
    settings = Settings(Path(told["folder"]), Path(told["model"]), told["database"], backend=told["backend"])
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGINT, lambda *_: stopped.set())

    def watch() -> None:
        while os.read(0, 1024):
            pass
        stopped.set()
    threading.Thread(target=watch, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    serve(settings, stopped, opening)


if __name__ == "__main__":
    main()
