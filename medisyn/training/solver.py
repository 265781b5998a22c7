"""Fits the coefficients of a sampler of few steps to a finished model, by least distances; no network is trained.

A step of `samplers.fitted` is linear in where it stands and in the last velocities, as in bespoke non-stationary solvers (Shaul et
al. 2024, arXiv:2403.01329). They learn all coefficients through the whole sampling by gradients; here the steps are fitted one
after the other: images are taken to a step by the coefficients found so far, and those of the step are the ones that end nearest
to where EXACT times as many steps stand at that time. It takes no gradient, and a system of seven unknowns a step.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medisyn import flow, painters, samplers
from medisyn.cores import CORES, cores
from medisyn.data import vocabulary
from medisyn.flow import Velocity
from medisyn.models import backends
from medisyn.models.solver import HISTORY, Solver, rounded
from medisyn.synthesizer import Synthesizer

EXACT = 6       # steps of the sampler that is imitated, for each of the solver's
HELD = 4        # every fourth image is not learnt from: it tells how near the solver comes
SPREAD = 1.5    # the solver's times are shifted towards noise by so much more than the model's own
ROUNDS = 20     # of Weiszfeld's iteration
LEAST = 0.1     # of the median distance: nearer images count no more
RIDGE = 1e-9    # of the largest square: differences of velocities that lie along each other
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Fit:
    """A solver, and how far images that it was not learnt from end from where the exact steps end, with it and with
    `split_multistep` in as many steps at the model's own times: root mean square over the spread of the exact latents."""

    solver: Solver
    distance: float
    plain_distance: float
    n_held: int


def begun(maker: Synthesizer, n: int) -> list[tuple[Tensor, Velocity]]:
    """n images that a model would make of the names of its image types in turn, each as (noise (1, c, h, w), velocity)."""
    computed = backends.of(maker.model, maker.backend, min(2, cores()))
    plans = [maker.plan(vocabulary.IMAGE_TYPES[kind].label) for kind in maker.image_types]
    hows = [maker.settings(plans[k % len(plans)], k, sampler=maker.model.card.sampler) for k in range(n)]
    return [painters.begun(maker.model, computed, how, how.seed) for how in hows]


def beside(work: Callable[[int], Tensor], n: int, tick: Callable[[], None]) -> list[Tensor]:
    """What n calls give, as many at once as there are cores, one torch thread each."""
    def one(k: int) -> Tensor:
        with torch.no_grad(), CORES.working():
            return work(k)
    pool, made = ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)), []
    try:
        for result in pool.map(one, range(n)):
            made.append(result)
            tick()
    finally:
        pool.shutdown(cancel_futures=True)
    return made


def exact(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Where EXACT times as many steps stand at each of the times: (steps + 1, c, h, w) for one image."""
    within = torch.arange(EXACT) / EXACT
    fine = torch.cat([*(a.lerp(b, within) for a, b in zip(times[:-1], times[1:], strict=True)), times[-1:]])
    passed = []

    def noted(told: Velocity) -> Velocity:
        def call(x: Tensor, t: Tensor) -> Tensor:
            passed.append(x)
            return told(x, t)
        return call
    guided = isinstance(velocity, samplers.Guided)
    end = samplers.split_multistep(replace(velocity, told=noted(velocity.told)) if guided else noted(velocity), noise, fine)
    return torch.cat([*passed[::EXACT], end])


def nearest(columns: list[Tensor], wanted: Tensor) -> list[float]:
    """The weights of columns whose sum lies nearest to `wanted`, all (n, ...): least is the sum over the n of their distances.

    Not of their squares: an image whose way has parted from the exact one says nothing of the step, and would outweigh all others.
    Weiszfeld's iteration: least squares, each image counted by one over its distance. A column of zeros weighs nothing.
    """
    rows, wanted = torch.stack([c.flatten(1).double() for c in columns], 1), wanted.flatten(1).double()
    squares, along, whole = rows @ rows.mT, (rows @ wanted.unsqueeze(2)).squeeze(2), wanted.square().sum(1)
    counts, found = torch.ones(len(wanted), dtype=torch.float64), torch.zeros(len(columns), dtype=torch.float64)
    for _ in range(ROUNDS):
        total = torch.einsum("n,npq->pq", counts, squares)
        ridge = torch.where(total.diagonal() > 0, RIDGE * total.diagonal().max(), 1.0)
        found = torch.linalg.solve(total + torch.diag(ridge), counts @ along)
        left = (whole - 2 * along @ found + torch.einsum("p,npq,q->n", found, squares, found)).clamp_min(0).sqrt()
        counts = 1 / left.clamp_min(LEAST * float(left.median()) + 1e-12)
    return found.tolist()


def fit(images: list[tuple[Tensor, Velocity]], times: Tensor, own_times: Tensor, tick: Tick = lambda done, n: None) -> Fit:
    """Coefficients for steps at `times` (steps + 1,), from images as `begun` gives them; own_times: those of `split_multistep`.

    ValueError for fewer than eight images: some are held out.
    """
    n, steps = len(images), len(times) - 1
    if n < 2 * HELD:
        raise ValueError(f"a solver expects {2 * HELD} images or more to be fitted to, found {n}")
    held = torch.arange(n) % HELD == HELD - 1
    unseen = held.nonzero().flatten().tolist()
    total, done = n + steps * n + len(unseen), [0]

    def counted() -> None:
        done[0] += 1
        tick(done[0], total)
    way = torch.stack(beside(lambda k: exact(images[k][1], images[k][0], times), n, counted), 1)      # (steps + 1, n, c, h, w)
    x, told, more, rows = way[0], [], [], []

    def both(k: int) -> Tensor:
        return torch.cat(samplers.split(images[k][1], x[k:k + 1], times[step].expand(1)))
    for step in range(steps):
        v, added = torch.stack(beside(both, n, counted)).unbind(1)
        told, more = [v, *told][:HISTORY], [added, *more][:HISTORY]
        columns = [x, *told, *more]
        rows.append(nearest([c[~held] for c in columns], way[step + 1][~held]))
        x = samplers.weighed(rows[-1], columns)

    plain = torch.cat(beside(lambda k: samplers.split_multistep(images[unseen[k]][1], images[unseen[k]][0], own_times),
                             len(unseen), counted))
    spread = (way[-1] - way[-1].mean(0)).square().mean().sqrt()

    def distance(ends: Tensor) -> float:
        return float((ends - way[-1][held]).square().flatten(1).mean(1).sqrt().mean() / spread)
    known = [(len(row) - 1) // 2 for row in rows]
    solver = rounded(Solver(tuple(times.tolist()), tuple(row[0] for row in rows),
                            tuple(tuple(row[1:k + 1]) for row, k in zip(rows, known, strict=True)),
                            tuple(tuple(row[k + 1:]) for row, k in zip(rows, known, strict=True))))
    return Fit(solver, distance(x[held]), distance(plain), len(unseen))


def fitted(maker: Synthesizer, steps: int, n: int, shift: float | None = None, tick: Tick = lambda done, total: None) -> Fit:
    """A solver for a model, from n images; shift: of its times towards noise, None: SPREAD times the model's own.

    ValueError for a model that rests on a pretrained base, whose scheduler has times of its own.
    """
    if not maker.scratch:
        raise ValueError(f"a solver expects one of MediSyn's own models, {maker.model.card.name} rests on a pretrained base")
    own = maker.model.card.shift
    return fit(begun(maker, n), flow.times(steps, own * SPREAD if shift is None else shift), flow.times(steps, own), tick)
