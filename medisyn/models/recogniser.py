"""The recogniser: what an image shows, so that the synthesizer can look at what it made.

It was trained beside the denoiser, on the same images: it helps to choose among images and must never judge them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medisyn.models.layers import ConvBlock, Down

SURE = 0.9  # probability of the image type from which it counts as recognised: below, other networks see other types

@dataclass(frozen=True)
class RecogniserConfig:
    image_types: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()       # "image_type/finding", of those seen both present and absent
    side: int = 64                       # pixels at which it looks
    widths: tuple[int, int, int] = (32, 64, 128)
    limits: tuple[float, ...] = ()       # the logit from which each finding counts as seen, by held-out images; (): 0
    stem: int = 1                        # its first layer's stride: with 2, twice the pixels cost about the same


class Recogniser(nn.Module):
    """image (B, 3, H, W) in [-1, 1] -> logits of the image type (B, T) and of each finding's presence (B, F)."""

    def __init__(self, config: RecogniserConfig):
        super().__init__()
        self.config = config
        (a, b, c), stem = config.widths, config.stem
        first = nn.Conv2d(3, a, 3, padding=1) if stem == 1 else nn.Conv2d(3, a, 2 * stem, stem, stem // 2)
        self.trunk = nn.Sequential(first, ConvBlock(a), Down(a, b), ConvBlock(b), ConvBlock(b),
                                   Down(b, c), ConvBlock(c), ConvBlock(c), nn.GroupNorm(32, c), nn.SiLU())
        self.types = nn.Linear(2 * c, len(config.image_types))
        self.findings = nn.Linear(2 * c, len(config.findings)) if config.findings else nn.Identity()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        small = F.interpolate(image, size=(self.config.side, self.config.side), mode="bilinear", antialias=True)
        seen = self.trunk(small)
        pooled = torch.cat((seen.mean((2, 3)), seen.amax((2, 3))), 1)    # (B, 2 c)
        return self.types(pooled), self.findings(pooled)[:, :len(self.config.findings)]


def doubt(recogniser: Recogniser, image: Tensor, image_type: str, findings: dict[str, bool]) -> tuple[bool, float]:
    """Whether an image (3, H, W) is surely of its type and each finding is what it should be; -log of their probabilities.

    Findings that the recogniser never learnt for this image type, and an unknown type, say nothing.
    """
    config = recogniser.config
    if image_type not in config.image_types:
        return True, 0.0
    with torch.no_grad():
        types, states = recogniser(image[None])
    kind = config.image_types.index(image_type)
    total = -float(types[0].log_softmax(0)[kind])
    right = total <= -math.log(SURE)
    for name, present in findings.items():
        if f"{image_type}/{name}" in config.findings:
            column = config.findings.index(f"{image_type}/{name}")
            limit = config.limits[column] if config.limits else 0.0
            logit = (float(states[0, column]) - limit) * (1 if present else -1)
            right &= logit > 0
            total -= float(F.logsigmoid(torch.tensor(logit)))
    return right, total
