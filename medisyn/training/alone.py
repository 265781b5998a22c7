"""Alone: one training at a time in a folder, since two would spoil each other's checkpoints.

The hold is the system's own lock on the folder: it ends with the process, however that ends, and leaves no file behind.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from medisyn.training.ranks import any_rank, rank

PATIENCE = 30.0   # seconds for a training that is just ending


@contextlib.contextmanager
def within(folder: Path, name: str, message: Callable[[str], None]) -> Iterator[None]:
    """Hold a stage's folder, for all ranks. ValueError where another training holds it, and goes on for PATIENCE seconds."""
    handle = locked(folder) if rank() == 0 else None
    if rank() == 0 and handle is None:
        message(f"{name}: another process trains in {folder}; waiting for its end")
        until = time.monotonic() + PATIENCE
        while handle is None and time.monotonic() < until:
            time.sleep(0.2)
            handle = locked(folder)
    if any_rank(rank() == 0 and handle is None):
        raise ValueError(f"{name}: another process trains in {folder}; end it first, or use another run folder")
    try:
        yield
    finally:
        if handle is not None and handle >= 0:
            os.close(handle)


def locked(folder: Path) -> int | None:
    """A handle that holds a folder until it is closed or its process ends; None where another has it, -1 where nobody can."""
    try:
        import fcntl
        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # a file system without locks
        os.close(handle)
        return -1
    return handle
