"""Samplers: integrate a velocity from noise (t = 0) to data (t = 1).

A sampler is a function `(velocity, noise, times) -> data`; `times` is an increasing
(steps + 1,) tensor from 0 to 1. A new sampler is a new function and one line in SAMPLERS.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from medisyn import flow
from medisyn.flow import Velocity

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


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun, "multistep": multistep}


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


def guided(conditional: Velocity, unconditional: Velocity, guidance: float, since: float | Tensor = 0.0, until: float = 1.0,
           along: float = 1.0, pair: Callable = in_turn) -> Velocity:
    """Classifier-free guidance, as `further` does it: 1 follows the prompt plainly, more follows it harder.

    since, until: the times between which it is guided, `since` for all images or (B,); outside, one call a step is enough
    (Kynkaanniemi et al. 2024, arXiv:2404.07724). pair: how the two calls of a step are made, as `in_turn` or `Cores.pair`.
    """
    if guidance == 1:
        return conditional

    def both(x: Tensor, t: Tensor) -> Tensor:
        inside = (since <= t) & (t <= until)
        if not inside.any():
            return conditional(x, t)
        told, plain = pair(lambda: conditional(x, t), lambda: unconditional(x, t))
        return torch.where(inside.view(-1, 1, 1, 1), further(told, plain, x, t, guidance, along), told)
    return both


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
