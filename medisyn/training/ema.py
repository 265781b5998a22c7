"""Moving averages of weights, with a memory that grows with training.

The power-function profile of Karras et al. 2024, arXiv:2312.02696, eq. 7 and 121: after step i the
average keeps beta = (1 - 1 / (i + 1)) ** (gamma + 1) of itself, so that its width stays a fixed
share of the training so far, however long that is.
"""

import copy

import numpy as np
import torch
from torch import nn


def gamma_of(width: float) -> float:
    """The exponent whose profile has the relative standard deviation `width`, in (0, 0.28)."""
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots.real.max())


class Ema:
    """A second copy of a network, following the first. `width` 0.05 to 0.15: share of training it averages."""

    def __init__(self, network: nn.Module, width: float):
        self.gamma = gamma_of(width)
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Step counts from 0; at step 0 the average is the network itself."""
        beta = (1 - 1 / (step + 1)) ** (self.gamma + 1)
        ours, theirs = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - beta)
        for mine, new in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(new)
