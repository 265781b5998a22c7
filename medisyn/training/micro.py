"""Micro-batches: a share of a batch passes through a network in parts, and its gradient is that of the whole.

Where memory does not suffice the parts are halved, and the same step is done again; the effective batch stays what the recipe
says. A step that uses it looks like this:

    micro = Micro(settings.micro)                          # None: the whole share at once, until memory says otherwise
    share = my_share(settings.batch)

    def step(i):
        batch = feed(i)                                    # this rank's share, all random numbers of it drawn: n images
        def losses(part):                                  # part: a slice of 0 ... n
            predicted = network(batch.x[part], batch.t[part])
            return {"loss": (predicted - batch.v[part]).square().mean()}
        found = accumulate(parameters, n, losses, micro)   # gradients are there, of a mean over all n
        average_gradients(parameters)                      # over the ranks
        clip, optimizer.step(), ema.update(...)
        return found

    Trainee(step, ..., micro=micro)                        # a resumed run then passes as many at once as the stopped one

Three rules. Every loss is a mean over the slice (a loss that compares the images of a batch with each other is none). What is
random is drawn for the whole share before `losses` is called, or follows from (seed, step, position), since after a failure it is
called again. And it leaves nothing behind but its result: tensors of a failed part must be free to go.
"""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Losses = Callable[[slice], dict[str, Tensor]]   # positions of the share -> scalars, each a mean over them; "loss" is learnt from
SAID = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass
class Micro:
    """How many images pass through a network at once; it only ever gets smaller."""

    size: int | None = None      # None: all of the share
    recovers: bool = True        # False where ranks wait for each other inside a network (shards): one cannot go back alone

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"a micro-batch should hold at least 1 image, found {self.size}")


def accumulate(parameters: Iterable[Tensor], n: int, losses: Losses, micro: Micro,
               message: Callable[[str], None] = lambda text: None) -> dict[str, Tensor]:
    """Gradients of the mean loss of n images, which pass in parts of `micro.size`; the means of all named losses.

    The gradients of `parameters` are cleared first. Where memory does not suffice, micro.size is halved for this step and all
    that follow, `message` is told in a sentence, and the step is done again. RuntimeError where one image is too many.
    """
    parameters = list(parameters)
    while True:
        for p in parameters:
            p.grad = None
        found = attempt(n, losses, min(micro.size or n, n))
        if found is not None:
            return found
        for p in parameters:
            p.grad = None
        release()
        now = min(micro.size or n, n)
        if not micro.recovers:
            raise RuntimeError(f"memory does not suffice for {now} images at once, and where a network is sharded no process "
                               "can go back alone: lower the recipe's batch, or use more processes")
        if now == 1:
            raise RuntimeError("memory does not suffice for one image at a time; use smaller images or a smaller network, free "
                               "memory, or shard the network over several processes")
        micro.size = now // 2
        message(f"memory does not suffice for {now} images at once: from here on {micro.size} pass at a time; the batch stays {n}")


def attempt(n: int, losses: Losses, size: int) -> dict[str, Tensor] | None:
    """One try; None where memory did not suffice. What it held is free once it has returned."""
    sums: dict[str, Tensor] = {}
    try:
        for first in range(0, n, size):
            part = slice(first, min(first + size, n))
            share = (part.stop - part.start) / n
            each = losses(part)
            (each["loss"] * share).backward()
            for name, value in each.items():
                sums[name] = value.detach() * share + sums[name] if name in sums else value.detach() * share
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_memory(error):
            raise
        return None
    return sums


def is_memory(error: BaseException) -> bool:
    """Whether an error, of whatever device, says that there is no memory left."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(said in str(error) for said in SAID)


def release() -> None:
    """Give back what a failed try held: a traceback's frames, and a GPU's cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
