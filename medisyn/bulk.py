"""Bulk: many images by many processes, of this machine or of a cluster whose machines see the same files.

Each process opens the model once and makes image after image on one thread, with the recogniser and the guard at hand, so that
it gives the pixels that one process gives. What is made comes back to the one that asked, which alone writes. A process or a
machine that dies loses and doubles nothing: what it had in hand is made again elsewhere (`data/engine.py`).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

import medisyn
from medisyn import shipped, synthesizer
from medisyn.cores import CORES
from medisyn.data import engine
from medisyn.data.provenance import Provenance
from medisyn.making import Many
from medisyn.synthesizer import Plan, Refused, Synthetic

TOGETHER = 8            # images that take as long as a process takes to open a model
IMAGE_SECONDS = 3600    # of the clock for one image with all its draws, then its process ends
Make = Callable[[Plan, Provenance], Synthetic | Refused]


@dataclass(frozen=True)
class Opening:
    """What a process opens before it makes images."""

    model: str | None        # the model's folder, absolute: it has the same name on all machines; or as `shipped.folder` takes it
    digest: str              # of the model
    guard: str | None        # digest of the guard's index in that folder; None: no guard
    block: bool = True       # whether what the guard refuses is drawn again, or only flagged
    backend: str = "torch"   # what computes it


@functools.lru_cache(maxsize=1)
def opened(opening: Opening) -> Make:
    """The function that makes images, once a process. ValueError where this machine has another model or guard."""
    maker = medisyn.load(opening.model, opening.backend)
    home = shipped.folder(opening.model)
    if maker.model.digest != opening.digest:
        raise ValueError(f"{home} is {opening.digest[:19]}... where the images were asked for, and {maker.model.digest[:19]}... on "
                         "a machine that should make them; give all machines the same model under the same name")
    if opening.guard is None:
        return maker.draw
    from medisyn.evaluation import guard
    if guard.digest(home / "guard") != opening.guard:
        raise ValueError(f"the guard in {home} differs between the machines; give all of them the same one")
    return synthesizer.guarded(maker, guard.load(home / "guard"), opening.block)


def paint(task: tuple[Opening, Plan, Provenance]) -> Synthetic | Refused:
    """What a process does for one image."""
    opening, plan, how = task
    torch.set_num_threads(1)
    with CORES.working(alone=False):   # the other cores are other processes'
        return opened(opening)(plan, how)


def many(opening: Opening, run_on: str, address: str | None = None, order: list[str] | None = None,
         workers: int | None = None) -> Many:
    """Who makes images for `making.make_all`: they come in any order, each once. RuntimeError at the end where some were lost.

    run_on: an engine of `data.engine.ENGINES`. address: of a Ray cluster. order: is told the ids in the order in which they were
    asked for. workers: processes; None: one a processor.
    """
    def make(wanted: Sequence[tuple[Plan, Provenance]]) -> Iterator[Synthetic | Refused]:
        tasks, lost = [(opening, plan, how) for plan, how in wanted], []
        if order is not None:
            order.extend(synthesizer.name_of(how) for _, how in wanted)
        for (_, _, how), one in engine.map(paint, tasks, run_on, address, workers, TOGETHER, IMAGE_SECONDS) if tasks else ():
            if isinstance(one, engine.Lost):
                lost.append(how)
            else:
                yield one
        if lost:
            raise RuntimeError(f"{len(lost)} of {len(tasks)} images were not made, the first of them seed {lost[0].seed} of "
                               f"{lost[0].prompt!r}: the process that made it ended each time, for want of memory or after "
                               f"{IMAGE_SECONDS} seconds; all others are written, the same command tries these again")
    return make
