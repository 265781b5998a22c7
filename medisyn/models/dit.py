"""The denoiser: a transformer over latent patches and text tokens that predicts the velocity.

After Peebles and Xie 2023, arXiv:2212.09748, with one shared modulation for all blocks (adaLN-single,
Chen et al. 2023, arXiv:2310.00426), text tokens in front of the image's, and a convolutional stem
whose features skip the trunk, so that the transformer need not carry detail.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medisyn.models.layers import Attention, ConvBlock, SwiGLU, rotary_2d, wave_embedding


@dataclass(frozen=True)
class DitConfig:
    latent_channels: int = 8
    latent_size: int = 16                 # cells a side
    width: int = 192
    heads: int = 3
    depth: int = 8
    stem: int = 64                        # channels of the convolutional stem
    text_width: int = 192
    n_tokens: int = 8                     # text tokens
    n_styles: int = 0                     # style clusters; 0: none
    n_geometry: int = 4                   # crop extent, crop row, crop column, gamma: all 0 when sampling
    position_size: int = 0                # cells a side that positions are counted on; 0: latent_size
    guided: float = 0.0                   # guidance - 1 that the network itself can add, at most; 0: none, call it twice


class DitBlock(nn.Module):
    """Attention and feed-forward, each scaled, shifted and gated by the condition. (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.feed_forward = SwiGLU(width, (8 * width // 3 + 31) // 32 * 32)
        self.shift = nn.Parameter(torch.zeros(6, width))  # this block's own offset to the shared modulation

    def forward(self, x: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor],
                first_value: Tensor | None) -> tuple[Tensor, Tensor]:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.shift).unsqueeze(2).unbind(1)
        mixed, value = self.attention(self.norm1(x) * (1 + scale1) + shift1, rotary, None, first_value)
        x = x + gate1 * mixed
        x = x + gate2 * self.feed_forward(self.norm2(x) * (1 + scale2) + shift2)
        return x, value


class Dit(nn.Module):
    """Velocity of a noised latent, given the time and what the image should show."""

    def __init__(self, config: DitConfig = DitConfig()):
        super().__init__()
        self.config = config
        c, d, stem = config.latent_channels, config.width, config.stem
        self.grid = config.latent_size // 2
        self.stem_in, self.stem_block = nn.Conv2d(c, stem, 3, padding=1), ConvBlock(stem)
        self.patch = nn.Conv2d(stem, d, 2, stride=2)
        self.text = nn.Linear(config.text_width, d)
        self.pooled = nn.Linear(config.text_width, d)
        self.style = nn.Embedding(config.n_styles + 1, d)          # the last one: no style given
        self.geometry = nn.Linear(config.n_geometry, d, bias=False)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        if config.guided:
            self.guidance = nn.Sequential(nn.Linear(1, d), nn.SiLU(), nn.Linear(d, d))
            nn.init.zeros_(self.guidance[-1].weight)
            nn.init.zeros_(self.guidance[-1].bias)
        self.modulation = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList(DitBlock(d, config.heads) for _ in range(config.depth))
        self.final_norm = nn.RMSNorm(d, eps=1e-6, elementwise_affine=False)
        self.final_modulation = nn.Linear(d, 2 * d)
        self.unpatch = nn.Linear(d, 4 * stem)
        self.stem_out, self.last = ConvBlock(stem), nn.Conv2d(stem, c, 3, padding=1)
        cos, sin = rotary_2d(self.grid, self.grid, d // config.heads, prefix=config.n_tokens,
                             pitch=(config.position_size or config.latent_size) / config.latent_size)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        nn.init.normal_(self.style.weight, std=0.02)
        for layer in (self.modulation, self.final_modulation, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor, t: Tensor, tokens: Tensor, pooled: Tensor, style: Tensor | None = None,
                geometry: Tensor | None = None, guidance: Tensor | None = None) -> Tensor:
        """latent (B, c, h, w), t (B,) in [0, 1], tokens (B, n, Dt), pooled (B, Dt), style (B,) int64,
        geometry (B, 4), guidance (B,) in [0, config.guided] -> velocity (B, c, h, w)."""
        return self.look(latent, t, tokens, pooled, style, geometry, guidance)[0]

    def look(self, latent: Tensor, t: Tensor, tokens: Tensor, pooled: Tensor, style: Tensor | None = None,
             geometry: Tensor | None = None, guidance: Tensor | None = None,
             block_seen: int = 0) -> tuple[Tensor, Tensor | None]:
        """The velocity, and what the image's tokens are after block number `block_seen`, counted from 1: (B, hw/4, D)."""
        b = len(latent)
        style = torch.full((b,), self.config.n_styles, device=latent.device) if style is None else style
        condition = self.time(wave_embedding(t, self.config.width)) + self.pooled(pooled) + self.style(style)
        if geometry is not None:
            condition = condition + self.geometry(geometry)
        if self.config.guided:
            guidance = torch.zeros_like(t) if guidance is None else guidance
            condition = condition + self.guidance(guidance[:, None])
        condition = F.silu(condition)                                           # (B, D)
        fine = self.stem_block(self.stem_in(latent))                            # (B, stem, h, w)
        x = torch.cat((self.text(tokens), self.patch(fine).flatten(2).transpose(1, 2)), 1)  # (B, n + hw/4, D)
        modulation = self.modulation(condition).unflatten(1, (6, -1))           # (B, 6, D)
        first_value, seen = None, None
        for number, block in enumerate(self.blocks, 1):
            x, value = block(x, modulation, (self.cos, self.sin), first_value)
            first_value = value if first_value is None else first_value
            seen = x[:, self.config.n_tokens:] if number == block_seen else seen
        shift, scale = self.final_modulation(condition).unsqueeze(1).chunk(2, -1)
        x = self.final_norm(x[:, self.config.n_tokens:]) * (1 + scale) + shift  # (B, hw/4, D)
        coarse = self.unpatch(x).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        fine = fine + F.pixel_shuffle(coarse, 2)                                # (B, stem, h, w)
        return self.last(self.stem_out(fine)), seen                             # (B, c, h, w)


def unguided(dit: Dit) -> Dit:
    """The same denoiser without the means to guide itself: for one that was stopped before it had learnt to."""
    if not dit.config.guided:
        return dit
    plain = Dit(replace(dit.config, guided=0.0)).eval().requires_grad_(False)
    state = {name: value.clone() for name, value in dit.state_dict().items() if not name.startswith("guidance.")}
    with torch.no_grad():
        state["pooled.bias"] += dit.guidance(state["pooled.bias"].new_zeros(1, 1))[0]
    plain.load_state_dict(state)
    return plain
