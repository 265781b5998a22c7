"""Tasks for the engines' tests: a function must lie in a module that other processes can import."""

import os
import signal
import time


def square(number: int) -> int:
    return number * number


def deadly(number: int) -> int:
    """The square; but 13 ends the process that works on it, as a decoder that crashes does."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def clumsy(task: tuple[int, str]) -> int:
    """The square; but the first process that works on 13 dies: a marker file remembers."""
    number, marker = task
    if number == 13 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def slow(number: int) -> int:
    time.sleep(60 if number == 3 else 0)
    return number


def failing(number: int) -> int:
    raise ZeroDivisionError(number)


def where(number: int) -> tuple[int, str]:
    """The square, and the machine of the cluster that found it."""
    import ray
    time.sleep(0.05)
    return number * number, ray.get_runtime_context().get_node_id()
