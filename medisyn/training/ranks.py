"""Ranks: the processes that train together, and what they tell each other.

They are started by `torchrun` or `accelerate launch`, which say so in RANK, WORLD_SIZE and MASTER_ADDR; a process that was started
alone is the only rank. Every rank draws the whole batch and trains on its share of it, so the order of images is one for any
number of them.
"""

import os
import sys

import torch
from torch import Tensor

PARENT = os.getppid()   # who launched this process


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def join_ranks() -> None:
    """Under `torchrun` or `accelerate launch`, meet the other processes; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        if torch.cuda.is_available():  # a GPU a process; what lies on the CPU is agreed on by gloo
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def leave() -> None:
    """The end of one of several processes whose work is done: all have come this far, and this one is gone.

    It does not wait for the interpreter to take everything apart: gloo's threads, still running then, abort it now and then, and
    the launcher takes a finished training for a failed one. Alone, nothing happens.
    """
    if world() > 1:
        wait()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def alone_by_mistake() -> bool:
    """Whether `accelerate launch --cpu --num_processes N` started this: without MPI it starts one process of N."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ and \
        "WORLD_SIZE" not in os.environ


def orphaned() -> bool:
    """Whether the launcher of several ranks is gone, killed without a word: nobody would ever end them."""
    return world() > 1 and os.getppid() != PARENT


def wait() -> None:
    """Until every rank has come this far."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def any_rank(said: bool) -> bool:
    """Whether any rank says so: all of them hear the same."""
    if world() == 1:
        return said
    asked = torch.tensor([float(said)])
    torch.distributed.all_reduce(asked)
    return bool(asked > 0)


def my_share(batch: int) -> slice:
    """The positions of the global batch that this rank trains on; the order is one for any number of ranks."""
    if batch % world():
        raise ValueError(f"a batch of {batch} cannot be shared by {world()} processes; choose a multiple")
    each = batch // world()
    return slice(rank() * each, (rank() + 1) * each)


def average(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks."""
    if world() == 1:
        return value
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return value / world()


def averaged(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of the global batch: each rank knows those of its share."""
    return dict(zip(losses, average(torch.stack(list(losses.values()))), strict=True))


def average_gradients(parameters: list[Tensor]) -> None:
    """The mean gradient over all ranks, in one message; those of shards have been averaged on the way back already."""
    if world() == 1:
        return
    from torch.distributed.tensor import DTensor
    parameters = [p for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]  # the same ones on every rank
    if not parameters:
        return
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    torch.distributed.all_reduce(flat)
    flat /= world()
    offset = 0
    for p in parameters:
        p.grad.copy_(flat[offset:offset + p.numel()].view_as(p))
        offset += p.numel()
