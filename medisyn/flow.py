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


# Diffusion models of the variance-preserving kind (Ho et al. 2020, arXiv:2006.11239) walk the same lines in other
# clothes: x = alpha * data + sigma * noise with alpha^2 + sigma^2 = 1. At noise-over-signal s, data / noise shares
# are those of the line at t = 1 / (1 + s); only the length of x differs.


def ratio(t: Tensor) -> Tensor:
    """Noise over signal at t: (1 - t) / t."""
    return (1 - t) / t


def time_of(ratio: Tensor) -> Tensor:
    """The t of a noise-over-signal: 1 / (1 + ratio)."""
    return 1 / (1 + ratio)


def length(t: Tensor) -> Tensor:
    """sqrt(t^2 + (1 - t)^2): what x_t is divided by to be variance-preserving."""
    return (t.square() + (1 - t).square()).sqrt()


def preserving(x: Tensor, t: Tensor) -> Tensor:
    """x_t as a variance-preserving network wants it."""
    return x / length(t).view(-1, 1, 1, 1)


def from_noise(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The velocity at x_t of a network that predicts the noise (epsilon); t > 0."""
    return (x - noise) / t.view(-1, 1, 1, 1)


def from_data(x: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """The velocity at x_t of a network that predicts the data (sample); t < 1."""
    return (data - x) / (1 - t).view(-1, 1, 1, 1)


def from_v(x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The velocity at x_t of a network that predicts v = alpha noise - sigma data, Salimans and Ho 2022, arXiv:2202.00512."""
    scale = length(t)
    return (((2 * t - 1) / scale).view(-1, 1, 1, 1) * x - v) / scale.view(-1, 1, 1, 1)


def noise_share(t: Tensor) -> Tensor:
    """1 - t: how much of x_t is noise, what published flow models call sigma."""
    return 1 - t


def step_of(t: Tensor, ratios: Tensor) -> Tensor:
    """The fractional index of t in an increasing table (T,) of noise-over-signal, linear in its logarithm, as
    Karras et al. 2022's denoisers are served; within [0, T - 1], whole where t is in the table."""
    table = ratios.to(t).log()
    sought = ratio(t).log().clamp(table[0], table[-1])
    high = torch.searchsorted(table, sought).clamp(1, len(table) - 1)
    low = high - 1
    index = low + (sought - table[low]) / (table[high] - table[low])
    whole = index.round()
    return torch.where((index - whole).abs() < 1e-3, whole, index)
