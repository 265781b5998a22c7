"""Handles: the file that was read last stays open, because the images of one file are read one after the other."""

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPEN: dict[Callable, tuple[tuple, Any]] = {}  # one handle for each way to open a file


def kept(opener: Callable[[Path], Any], path: Path) -> Any:
    """`opener(path)`, or what it gave last time where that was the same, unchanged file; the one before is closed."""
    status = os.stat(path)
    file = (str(path), status.st_size, status.st_mtime_ns)
    if opener in OPEN:
        held, handle = OPEN[opener]
        if held == file:
            return handle
        del OPEN[opener]
        handle.close()
    handle = opener(path)
    OPEN[opener] = file, handle
    return handle


@atexit.register
def close() -> None:
    """Close every handle."""
    while OPEN:
        OPEN.popitem()[1][1].close()
