"""Watch: training ends before the network knows its training images better than unseen ones.

Two signs are followed. The losses of fixed training and held-out images, noises and times, as multiples of what they were at
the beginning: where the held-out one has fallen by less, there is a gap, (held_out / held_out_before) / (train / train_before) - 1.
And the nearest-neighbour ratio of images made meanwhile (`nearness`): 1 where they lie to the training images as unseen ones do;
it speaks of memorising where it is small and the images lie nearer to the training images than unseen ones do.
The weights kept are those of the lowest held-out loss seen while neither said that the network memorises. Where all training images
come from few patients, a gap opens at once, by what these patients share, while the held-out loss still falls: a watch that is not
strict lets it. All of it is part of a checkpoint.
"""

import copy

import torch
from torch import nn

from medisyn.training.nearness import Near

UNKNOWN = -1.0     # a sign that was not measured; no gap and no ratio reaches it
LEAST_RATIO = 0.9  # nearest-neighbour ratio under which images made lie too near to the training images


class Watch(nn.Module):
    """What has been seen so far, and a copy of the best weights."""

    def __init__(self, network: nn.Module, gap: float, patience: int, strict: bool = True):
        """strict: a gap counts whatever the held-out loss does; else only where that one falls no longer."""
        super().__init__()
        self.gap, self.patience, self.strict = gap, patience, strict
        self.best = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("before", torch.zeros(2, dtype=torch.float64))    # train, held out; 0: nothing held out
        self.register_buffer("lowest", torch.tensor(float("inf"), dtype=torch.float64))
        self.register_buffer("best_at", torch.zeros((), dtype=torch.int64))    # images
        self.register_buffer("lagging", torch.zeros((), dtype=torch.int64))    # intervals in a row
        unknown = torch.full((3,), UNKNOWN, dtype=torch.float64)
        self.register_buffer("last", unknown.clone())   # gap, nearest-neighbour ratio and distance of the weights kept
        self.register_buffer("seen", unknown.clone())   # of the newest

    def begin(self, train: float, held_out: float | None, kept: bool = True) -> None:
        """The losses to compare with; None where there is no held-out image. kept: these weights may be the best."""
        if held_out is not None:
            self.before.copy_(torch.tensor([train, held_out], dtype=torch.float64))
            if kept:
                self.lowest.fill_(held_out)

    def begun(self) -> bool:
        return bool(self.before[1])

    def see(self, train: float, held_out: float | None, average: nn.Module, n_images: int, near: Near | None = None,
            newest: bool = False) -> dict[str, float]:
        """Take note of an interval; the signs as a row of the log.

        near: None where it was not measured. newest: these weights are better than all before, whatever their held-out
        loss, as where the network has learnt to guide itself meanwhile.
        """
        row = {} if near is None else {"nearest_ratio": near.ratio, "nearest_distance": near.distance}
        if held_out is None:
            gap, better = UNKNOWN, True
        else:
            before = self.before.tolist()
            gap = (held_out / before[1]) / (train / before[0]) - 1
            row["gap"] = gap
            better = newest or held_out < float(self.lowest)
        lags = held_out is not None and gap > self.gap and (self.strict or not better)
        memorises = lags or (near is not None and near.ratio < LEAST_RATIO and near.distance < 1)
        self.lagging.copy_(self.lagging + 1 if memorises else torch.zeros_like(self.lagging))
        signs = (gap, UNKNOWN, UNKNOWN) if near is None else (gap, near.ratio, near.distance)
        self.seen.copy_(torch.tensor(signs, dtype=torch.float64))
        if better and not memorises:
            take(self.best, average)
            self.best_at.fill_(n_images)
            self.last.copy_(self.seen)
            if held_out is not None:
                self.lowest.fill_(held_out)
        return row

    def enough(self) -> bool:
        """Whether to go on would be to memorise."""
        return int(self.lagging) >= self.patience

    def told(self) -> str:
        """In a sentence, for people."""
        if not self.begun() and not self.enough():
            return "no held-out image was given, so no loss could stop it from memorising: the last weights are kept"
        reason = "all images were seen"
        if self.enough():
            lags = self.begun() and float(self.seen[0]) > self.gap
            reason = (f"held-out loss lagged behind by more than {self.gap:.0%}" if lags else
                      f"images made lay too near to training images (ratio {float(self.seen[1]):.2f}, at least {LEAST_RATIO})")
        at = int(self.best_at)
        if not at:
            return f"{reason}; no weights were better on held-out images than those it began from, which are kept"
        told = f" (held-out loss {float(self.lowest):.4g})" if self.begun() else ""
        return f"{reason}; the weights after {at:,} images are kept{told}"

    def published(self) -> dict[str, float | int | str | None]:
        """The signs of the weights that are kept, for the model's card; None where one was not measured."""
        gap, ratio, distance = (None if value == UNKNOWN else round(value, 4) for value in self.last.tolist())
        return {"gap": gap, "most_gap": self.gap, "nearest_ratio": ratio, "nearest_distance": distance, "least_ratio": LEAST_RATIO,
                "after_images": int(self.best_at), "told": self.told()}


@torch.no_grad()
def take(mine: nn.Module, theirs: nn.Module) -> None:
    """Copy another network's weights of the same shapes, one by one: shards know no copy of many at once."""
    for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        own.copy_(other)
