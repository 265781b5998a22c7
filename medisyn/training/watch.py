"""Watch: fine-tuning ends before the network knows its training images better than unseen ones.

The losses of fixed training and held-out images, noises and times are followed as multiples of what they were before the first
step. Where the held-out one has fallen by less, the network begins to memorise: its gap is
(held_out / held_out_before) / (train / train_before) - 1. The weights kept are those of the lowest held-out loss seen while the gap
was small. All of it is part of a checkpoint.
"""

import copy

import torch
from torch import nn

from medisyn.training.adapt import Tuned


class Watch(nn.Module):
    """What has been seen so far, and a copy of the best weights."""

    def __init__(self, tuned: Tuned, gap: float, patience: int):
        super().__init__()
        self.gap, self.patience = gap, patience
        self.best = copy.deepcopy(tuned).requires_grad_(False)
        self.register_buffer("before", torch.zeros(2, dtype=torch.float64))    # train, held out; 0: nothing held out
        self.register_buffer("lowest", torch.tensor(float("inf"), dtype=torch.float64))
        self.register_buffer("best_at", torch.zeros((), dtype=torch.int64))    # images
        self.register_buffer("lagging", torch.zeros((), dtype=torch.int64))    # intervals in a row

    def begin(self, train: float, held_out: float | None) -> None:
        """The losses before the first step; None where there is no held-out image."""
        if held_out is not None:
            self.before.copy_(torch.tensor([train, held_out], dtype=torch.float64))
            self.lowest.fill_(held_out)

    def see(self, train: float, held_out: float | None, average: Tuned, n_images: int) -> dict[str, float]:
        """Take note of an interval; the gap as a row of the log."""
        if held_out is None:
            self.best.take(average)
            self.best_at.fill_(n_images)
            return {}
        before = self.before.tolist()
        gap = (held_out / before[1]) / (train / before[0]) - 1
        self.lagging.copy_(self.lagging + 1 if gap > self.gap else torch.zeros_like(self.lagging))
        if gap <= self.gap and held_out < float(self.lowest):
            self.best.take(average)
            self.best_at.fill_(n_images)
            self.lowest.fill_(held_out)
        return {"gap": gap}

    def enough(self) -> bool:
        """Whether to go on would be to memorise."""
        return int(self.lagging) >= self.patience

    def told(self) -> str:
        """In a sentence, for people."""
        if not self.before[1]:
            return "no held-out image was given, so nothing could stop it from memorising: the last weights are kept"
        reason = f"held-out loss lagged behind by more than {self.gap:.0%}" if self.enough() else "all images were seen"
        at = int(self.best_at)
        if not at:
            return f"{reason}; no weights were better on held-out images than the base's own, which are kept"
        return f"{reason}; the weights after {at:,} images are kept (held-out loss {float(self.lowest):.4g})"
