"""The P-net: a small network whose features say what L1 cannot, trained on the training images themselves.

It learns to tell image types and classes apart and to know two views of one image again (SimCLR, Chen et al. 2020,
arXiv:2002.05709, eq. 1); in-domain features serve medical images better than VGG's (arXiv:2212.01577). Used by
the autoencoder's loss alone, never by a judge.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medisyn.data.records import Record
from medisyn.training import batches, device, resident
from medisyn.training.run import Plan, Stage, Trainee, average_gradients, learning_rate, my_share, train

WIDTHS = (48, 96, 192, 256)  # channels at 1/2, 1/4, 1/8, 1/16 of the side: 2.3 M weights


class PNet(nn.Module):
    """image (B, 3, H, W) in [-1, 1] -> features at four scales; heads for the class and for views of one image."""

    def __init__(self, n_classes: int, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.scales = nn.ModuleList()
        for before, width in zip((3, *widths[:-1]), widths, strict=True):
            self.scales.append(nn.Sequential(
                nn.Conv2d(before, width, 4, 2, 1), nn.GroupNorm(8, width), nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()))
        self.classes = nn.Linear(widths[-1], n_classes)
        self.views = nn.Sequential(nn.Linear(widths[-1], 128), nn.SiLU(), nn.Linear(128, 64))

    def forward(self, image: Tensor) -> list[Tensor]:
        found = []
        for scale in self.scales:
            image = scale(image)
            found.append(image)
        return found


def distance(features: list[Tensor], others: list[Tensor]) -> Tensor:
    """Mean squared distance of features of unit length, averaged over scales: a scalar. After arXiv:1801.03924, eq. 1."""
    gaps = [(F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
            for a, b in zip(features, others, strict=True)]
    return torch.stack(gaps).mean()


def view_loss(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """NT-Xent: first, second (B, D); row i of both shows one image, all other rows other images."""
    unit = F.normalize(torch.cat((first, second)).float(), dim=1)
    n = len(first)
    logits = (unit @ unit.T / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool, device=unit.device), -1e4)
    return F.cross_entropy(logits, torch.arange(2 * n, device=unit.device).roll(n))


def classes_of(known: list[Record]) -> np.ndarray:
    """The number of each record's class: int64 (N,)."""
    names = [batches.class_of(r) for r in known]
    numbers = {name: k for k, name in enumerate(sorted(set(names), key=str))}
    return np.array([numbers[name] for name in names], np.int64)


def fit(stage: Stage, array: Tensor, known: list[Record], seed: int, n_images: int, batch: int, crop: int,
        resume: bool = True) -> PNet | None:
    """Train on the squares of `array`, uint8 (N, S, S, 3); None when it was stopped before its end."""
    where = array.device
    device.settle(where)
    torch.manual_seed(seed)
    classes = classes_of(known)
    network = PNet(int(classes.max()) + 1).to(where, memory_format=torch.channels_last)
    optimizer = device.adamw(network.parameters(), 1e-3, where, betas=(0.9, 0.99), weight_decay=1e-2)
    plan = Plan(n_images, batch, seed, max(batch, n_images // 4), 60.0)
    rows = np.flatnonzero([r.split == "train" for r in known])
    p = batches.weights([known[r] for r in rows])
    share = my_share(batch)

    def step(i: int) -> dict[str, Tensor]:
        chosen, rng = rows[batches.order(p, batch, seed + 2, i)], batches.generator(seed, "views", i)
        views = torch.cat([resident.crops(array, chosen, crop, rng)[share] for _ in range(2)])
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (2 * batch, 1, 1, 1)).astype(np.float32)).to(where)
        views = (views * torch.cat([part[share] for part in gain.split(batch)])).clamp(-1, 1)
        with device.half(where):
            pooled = network(views)[-1].mean((2, 3))
            told, seen = network.classes(pooled), network.views(pooled)
        labels = torch.from_numpy(np.tile(classes[chosen][share], 2)).to(where)
        named, alike = F.cross_entropy(told.float(), labels), view_loss(*seen.chunk(2))
        optimizer.zero_grad()
        (named + 0.5 * alike).backward()
        average_gradients(list(network.parameters()))
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(1e-3, i, plan.steps, 50, 0.5)
        optimizer.step()
        return {"classes": named.detach(), "views": alike.detach()}

    if not train(stage, plan, Trainee(step, {"pnet": network}, {"adamw": optimizer}), resume):
        return None
    return network.eval().requires_grad_(False)
