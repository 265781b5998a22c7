"""Rectified flow: straight lines from noise to data.

    x_t = (1 - t) * noise + t * data        t = 0 is noise, t = 1 is data
    v   = dx_t / dt = data - noise          what the network learns to predict

This is the only file that knows which end of time is noise. Liu et al. 2022,
arXiv:2209.03003; the logit-normal density of t and its shift are from Esser et al. 2024,
arXiv:2403.03206, section 3.1 and equation 23.

Shapes: data, noise, x_t, v are (B, C, h, w) latents; t is (B,).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> v


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """The point x_t on the line from `noise` to `data`."""
    return noise.lerp(data, t.view(-1, 1, 1, 1))


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise (shift > 1), where larger images need more steps; the ends stay."""
    return t / (shift - (shift - 1) * t)


def draw_times(n: int, mean: float = 0.0, std: float = 1.0, shift: float = 1.0,
               generator: torch.Generator | None = None) -> Tensor:
    """Logit-normal training times in (0, 1): most steps fall where learning is hardest."""
    return shifted(torch.sigmoid(mean + std * torch.randn(n, generator=generator)), shift)


def times(steps: int, shift: float = 1.0) -> Tensor:
    """The (steps + 1,) increasing times of a sampler, from 0 to 1."""
    return shifted(torch.linspace(0, 1, steps + 1), shift)


def loss(velocity: Velocity, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity, per image: (B,)."""
    predicted = velocity(interpolate(noise, data, t), t)
    return (predicted - (data - noise)).square().flatten(1).mean(1)


def end(x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The data that a straight line from x_t along v arrives at."""
    return x + (1 - t.view(-1, 1, 1, 1)) * v
