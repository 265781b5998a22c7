"""Cores: while fewer images are made than there are processors, an image's two network calls of a guided step run side by side.

An image's pixels may not depend on what else the machine does: each call is one thread's work, whether it has a core of its own
or waits for the other one, so both ways give the same bits (threads that share one call do not: the last digit of a product
depends on how many they are).
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

First = TypeVar("First")
Second = TypeVar("Second")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cores:
    """Counts which of a process's processors are at work. All methods may be called from any thread."""

    def __init__(self):
        self._busy, self._lock = 0, threading.Lock()
        self._helpers: ThreadPoolExecutor | None = None

    @contextmanager
    def working(self, alone: bool = True) -> Iterator[None]:
        """The thread that asks works on one core; not alone: and other processes work on the others."""
        taken = 1 if alone else cores()
        with self._lock:
            self._busy += taken
        try:
            yield
        finally:
            with self._lock:
                self._busy -= taken

    def pair(self, first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
        """What two functions give: side by side where a core is idle, else one after the other. For a thread that is working."""
        with self._lock:
            idle = self._busy < cores()
            if idle:
                self._busy += 1
                self._helpers = self._helpers or ThreadPoolExecutor(cores(), "beside", torch.set_num_threads, (1,))
        if not idle:
            return first(), second()
        try:
            beside = self._helpers.submit(second)
            try:
                one = first()
            finally:
                wait([beside])   # it may hold what the caller lets go
            return one, beside.result()
        finally:
            with self._lock:
                self._busy -= 1


CORES = Cores()   # of this process
