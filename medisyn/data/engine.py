"""The engine: one function over many tasks, in processes of this machine or on a Ray cluster.

Tasks come back in any order, each with its result. A process that dies (a crash in a decoder, too little memory, a
picture that takes longer than TASK_SECONDS) is replaced; what it had in hand is tried again, one task at a time, and
the task that kills again is given back as Lost. So no task is lost without a word, and none can hang a run.
"""

import contextlib
import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any

ENGINES = ("processes", "ray")
CHUNK = 8              # tasks that go to a process together
WORTHWHILE = 16        # a process costs as much time to start as so many images take
TASK_SECONDS = 300     # of the clock for one task, then its process ends
ANSWER_SECONDS = 10    # that a cluster may take to answer
RETRIES = 2            # of a block whose process or machine died on a cluster, which would try for ever; then it is tried here


@dataclass(frozen=True)
class Lost:
    """What comes back for a task whose process died each time."""

    reason: str = "reading it ended the process that read it: its decoder crashed, or it took too much memory or time"


def map(function: Callable[[Any], Any], tasks: Sequence[Any], engine: str = "processes", address: str | None = None,
        workers: int | None = None, worthwhile: int = WORTHWHILE, seconds: int | None = None) -> Iterator[tuple[Any, Any]]:
    """(task, function(task)) for every task, or (task, Lost), in any order.

    function  a function of a module, without side effects that must not happen twice
    engine    "processes" of this machine, or "ray": Ray Data on a cluster whose machines see the same files
    address   of an existing Ray cluster; None starts one on this machine
    workers   processes; None: one a processor (processes), as many as the cluster has (ray)
    worthwhile  tasks that take as long as a process takes to start; half as many go to a process together
    seconds   of the clock for one task; None: TASK_SECONDS
    """
    seconds = seconds or TASK_SECONDS
    if engine not in ENGINES:
        raise ValueError(f"engine should be one of {', '.join(ENGINES)}; found {engine!r}")
    if engine == "ray":
        yield from on_ray(function, tasks, address, workers, worthwhile, seconds)
        return
    workers = min(workers or os.cpu_count() or 1, max(1, len(tasks) // worthwhile))
    if workers == 1:
        for task in tasks:
            yield task, function(task)
        return
    yield from in_processes(function, tasks, workers, max(1, worthwhile // 2), seconds)


def in_processes(function: Callable, tasks: Iterable, workers: int, together: int = CHUNK,
                 seconds: int | None = None) -> Iterator[tuple[Any, Any]]:
    """As `map`, in a pool of processes that is replaced where one of them dies."""
    left = iter(tasks)
    chunks = iter(lambda: tuple(islice(left, together)), ())
    ended = False
    while not ended:
        pending: dict[Future, tuple] = {}
        try:
            with pool(workers) as processes:
                while True:
                    for chunk in chunks:
                        pending[submit(processes, function, chunk, seconds or TASK_SECONDS)] = chunk
                        if len(pending) >= 3 * workers:
                            break
                    if not pending:
                        ended = True
                        break
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        results = future.result()
                        yield from zip(pending.pop(future), results, strict=True)
        except BrokenProcessPool:
            yield from one_by_one(function, [task for chunk in pending.values() for task in chunk], seconds)


def submit(processes: ProcessPoolExecutor, function: Callable, chunk: tuple, seconds: int) -> Future:
    """A future of a chunk; one that already failed where the pool is broken, so that the chunk stays on the list."""
    try:
        return processes.submit(each, function, chunk, seconds)
    except BrokenProcessPool as error:
        failed: Future = Future()
        failed.set_exception(error)
        return failed


def one_by_one(function: Callable, tasks: Sequence, seconds: int | None = None) -> Iterator[tuple[Any, Any]]:
    """As `map`, one task at a time in a process of its own, so that a task that kills is known."""
    left = list(tasks)
    while left:
        try:
            with pool(1) as process:
                while left:
                    (result,) = process.submit(each, function, left[:1], seconds or TASK_SECONDS).result()
                    yield left.pop(0), result
        except BrokenProcessPool:
            yield left.pop(0), Lost()


def pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """A process of a pool ends when the one that started it is killed, instead of waiting for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def each(function: Callable, tasks: Sequence, seconds: int) -> list:
    """What a process does with its chunk: an alarm ends it where one task takes too long."""
    alarm = getattr(signal, "alarm", None)  # not on Windows
    results = []
    for task in tasks:
        if alarm:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            alarm(seconds)
        try:
            results.append(function(task))
        finally:
            if alarm:
                alarm(0)
    return results


def on_ray(function: Callable, tasks: Sequence, address: str | None, workers: int | None, worthwhile: int = WORTHWHILE,
           seconds: int | None = None) -> Iterator[tuple[Any, Any]]:
    """As `map`, through Ray Data; tasks that the cluster failed at are tried once more in processes here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster begun here would tell Ray's makers of itself
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("engine ray needs Ray, which is not installed; pip install medisyn[ray]") from None
    started, seen = not ray.is_initialized(), bytearray(len(tasks))
    if started and address:
        expect_answer(address)
    if started:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False if address is None else None)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it tells of itself between the command's own lines
        context.max_errored_blocks = -1
        numbered = ray.data.from_items([{"number": i, "task": task} for i, task in enumerate(tasks)],
                                       override_num_blocks=max(1, min(len(tasks) // worthwhile, 10_000)))
        strategy = getattr(ray.data, "TaskPoolStrategy", None)
        many = {"compute": strategy(workers)} if strategy else {"concurrency": workers}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of max_retries, for which Ray 2.60 has no other place yet
            done = numbered.map_batches(batch, fn_kwargs={"function": function, "seconds": seconds or TASK_SECONDS},
                                        batch_size=max(1, worthwhile // 2), batch_format="numpy", max_retries=RETRIES, **many)
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster fell; what it has not done is done here
            for row in done.iter_rows():
                if not seen[row["number"]]:
                    seen[row["number"]] = 1
                    yield tasks[row["number"]], row["result"]
    finally:
        if started:
            with contextlib.suppress(Exception):
                ray.shutdown()
    if len(tasks) >= 2 * worthwhile and not any(seen):
        raise ValueError("the Ray cluster finished not one image; its machines should have the same medisyn installed, and see the "
                         "same folders under the same names")
    yield from one_by_one(function, [task for task, there in zip(tasks, seen, strict=True) if not there], seconds)


def expect_answer(address: str) -> None:
    """ValueError where nothing answers at the HOST:PORT of a cluster; Ray itself would wait for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^\[\]]+?)\]?:(\d{1,5})", address)
    if match is None:
        if address in ("auto", "local"):
            return
        raise ValueError(f"address, of a Ray cluster, should be HOST:PORT, ray://HOST:PORT or auto; found {address!r}")
    try:
        socket.create_connection((match[1], int(match[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"expected a Ray cluster at {address}; found none that answers ({type(error).__name__}); "
                         "`ray start --head` starts one") from None


def batch(rows: dict, function: Callable, seconds: int) -> dict:
    """What a machine of the cluster does with a batch."""
    import numpy as np
    results = np.empty(len(rows["task"]), object)
    results[:] = each(function, rows["task"], seconds)
    return {"number": rows["number"], "result": results}
