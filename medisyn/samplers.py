"""Samplers: integrate a velocity from noise (t = 0) to data (t = 1).

A sampler is a function `(velocity, noise, times) -> data`; `times` is an increasing
(steps + 1,) tensor from 0 to 1. A new sampler is a new function and one line in SAMPLERS.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medisyn import flow
from medisyn.flow import Velocity
from medisyn.models.solver import HISTORY, Solver

Sampler = Callable[[Velocity, Tensor, Tensor], Tensor]
TEXTURE = 0x7E47  # with the seed of an image: that of the noise it is given for texture


def euler(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """First order: one network call a step."""
    x = noise
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        x = x + (t_next - t) * velocity(x, t.expand(len(x)))
    return x


def heun(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Second order: two network calls a step. Karras et al. 2022, algorithm 1."""
    x = noise
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        v = velocity(x, t.expand(len(x)))
        v_next = velocity(x + (t_next - t) * v, t_next.expand(len(x)))
        x = x + (t_next - t) * (v + v_next) / 2
    return x


def multistep(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Second order at one call a step: Adams-Bashforth on uneven steps, the first step Euler's."""
    x, before, last_step = noise, None, None
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        step = t_next - t
        v = velocity(x, t.expand(len(x)))
        slope = v if before is None else v + (v - before) * step / (2 * last_step)
        x = x + step * slope
        before, last_step = v, step
    return x


def further(told: Tensor, plain: Tensor, x: Tensor, t: Tensor, guidance: float, along: float = 1.0) -> Tensor:
    """The guided velocity of two: Ho and Salimans 2022, eq. 6. All (B, c, h, w), t (B,).

    along: how much is kept of guidance's component parallel to the data that `told` predicts: it makes contrast and colours
    harsher, nothing more like the prompt. It is eta in adaptive projected guidance, Sadat et al. 2024, arXiv:2410.02416; their
    rescaling and momentum are not used. 1 keeps all.
    """
    if along == 1:
        return plain.lerp(told, guidance)
    more, data = told - plain, flow.end(x, told, t)
    stretch = (more * data).sum((1, 2, 3), keepdim=True) / data.square().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return told + (guidance - 1) * (more - (1 - along) * stretch * data)


def in_turn(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What two functions give, one after the other."""
    return first(), second()


@dataclasses.dataclass(frozen=True)
class Guided:
    """A velocity with classifier-free guidance between two times; in `parts` for a sampler that treats them each on its own."""

    told: Velocity                       # by the prompt
    plain: Velocity                      # by no prompt
    guidance: float
    since: float | Tensor                # for all images, or (B,)
    until: float
    along: float
    pair: Callable

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        told, whole, inside = self.parts(x, t)
        return torch.where(inside, whole, told)

    def parts(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity by the prompt, the guided one, and which of them counts: True (B, 1, 1, 1) for the guided one."""
        inside = ((self.since <= t) & (t <= self.until)).view(-1, 1, 1, 1)
        if not inside.any():
            told = self.told(x, t)
            return told, told, inside
        told, plain = self.pair(lambda: self.told(x, t), lambda: self.plain(x, t))
        return told, further(told, plain, x, t, self.guidance, self.along), inside


def guided(conditional: Velocity, unconditional: Velocity, guidance: float, since: float | Tensor = 0.0, until: float = 1.0,
           along: float = 1.0, pair: Callable = in_turn) -> Velocity:
    """Classifier-free guidance, as `further` does it: 1 follows the prompt plainly, more follows it harder.

    since, until: the times between which it is guided, `since` for all images or (B,); outside, one call a step is enough
    (Kynkaanniemi et al. 2024, arXiv:2404.07724). pair: how the two calls of a step are made, as `in_turn` or `Cores.pair`.
    """
    return conditional if guidance == 1 else Guided(conditional, unconditional, guidance, since, until, along, pair)


def split_multistep(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """As `multistep`, but what guidance adds has a history of its own.

    Where guidance begins or ends between two steps the velocity jumps, and a line through both sides of the jump overshoots by half
    of it. So the prompt's velocity is extrapolated over all steps, what guidance adds over guided ones alone.
    """
    if not isinstance(velocity, Guided):
        return multistep(velocity, noise, times)
    x, before, last_step = noise, None, None
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        step = t_next - t
        told, whole, inside = velocity.parts(x, t.expand(len(x)))
        more = torch.where(inside, whole - told, 0.0)
        slope = told + more
        if before is not None:
            bend = told - before[0] + torch.where(inside & before[2], more - before[1], 0.0)
            slope = slope + bend * step / (2 * last_step)
        x = x + step * slope
        before, last_step = (told, more, inside), step
    return x


def split(velocity: Velocity, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity by the prompt and what guidance adds to it, both (B, c, h, w); t (B,)."""
    if not isinstance(velocity, Guided):
        told = velocity(x, t)
        return told, torch.zeros_like(told)
    told, whole, inside = velocity.parts(x, t)
    return told, torch.where(inside, whole - told, 0.0)


def fitted(velocity: Velocity, noise: Tensor, solver: Solver) -> Tensor:
    """A multistep sampler at one call a step whose coefficients were fitted to a model for one number of steps.

    Each step is linear in where it stands and in the last velocities, as in bespoke non-stationary solvers, Shaul et al. 2024,
    arXiv:2403.01329, with a history of its own for what guidance adds.
    """
    x, told, more = noise, [], []
    times = torch.tensor(solver.times, device=noise.device)
    for t, keep, of_told, of_more in zip(times[:-1], solver.keep, solver.told, solver.more, strict=True):
        v, added = split(velocity, x, t.expand(len(x)))
        told, more = [v, *told][:HISTORY], [added, *more][:HISTORY]
        x = weighed([keep, *of_told, *of_more], [x, *told, *more])
    return x


def weighed(weights: Sequence[float], columns: Sequence[Tensor]) -> Tensor:
    """The weighted sum of tensors of one shape."""
    return sum(weight * column for weight, column in zip(weights, columns, strict=True))


# A name stands in the provenance of images that were made with it: what it computes stays.
SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun, "multistep": multistep, "split_multistep": split_multistep}


def seeded_noise(seeds: list[int], shape: tuple[int, ...]) -> Tensor:
    """One generator a seed, drawn on the CPU: an image depends on its own seed alone,
    not on its batch and not on the device. (len(seeds), *shape)."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def textured(latent: Tensor, seeds: list[int], std: float) -> Tensor:
    """A latent (B, c, h, w) with noise of a little std added, which a decoder trained on noisy latents shows as texture.

    As if sampling ended a little before t = 1. It follows from each image's seed and is not the noise that sampling began with.
    """
    if not std:
        return latent
    return latent + std * seeded_noise([seed ^ TEXTURE for seed in seeds], tuple(latent.shape[1:])).to(latent.device)
