"""Layers: the parts that the autoencoder, the text encoder and the denoiser are built from."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBlock(nn.Module):
    """Two 3x3 convolutions around a skip: GroupNorm, SiLU, conv, twice. (B, C, H, W) -> same."""

    def __init__(self, channels: int):
        super().__init__()
        groups = math.gcd(channels, 32)
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Down(nn.Module):
    """Halve height and width, pixels into channels, then mix: (B, C, H, W) -> (B, D, H/2, W/2)."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.mix = nn.Conv2d(4 * channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.pixel_unshuffle(x, 2))


class Up(nn.Module):
    """Double height and width, channels into pixels: (B, C, H, W) -> (B, D, 2H, 2W)."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.mix = nn.Conv2d(channels, 4 * out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.mix(x), 2)


class SwiGLU(nn.Module):
    """Gated feed-forward layer. Shazeer 2020, arXiv:2002.05202. (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Attention(nn.Module):
    """Self-attention with normalised queries and keys (Dehghani et al. 2023, arXiv:2302.05442).

    x: (B, L, D); rotary: (L, head_dim / 2) complex-as-two-planes or None; mask: (B, L), True where
    a token is real, or None. `first_value` mixes the first block's values in: value residual
    learning, Zhou et al. 2024, arXiv:2410.17897. Returns (B, L, D) and this block's values.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(self.head_dim, eps=1e-6), nn.RMSNorm(self.head_dim, eps=1e-6)
        self.value_mix = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None,
                first_value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        b, length, _ = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q.float()), self.k_norm(k.float())  # in full precision, under autocast too
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        if first_value is not None:
            v = v.lerp(first_value, torch.sigmoid(self.value_mix).to(v.dtype))  # half precision under autocast
        keep = None if mask is None else mask[:, None, None, :]
        mixed = attended(q, k, v, keep)                                      # (B, heads, L, head_dim)
        return self.out(mixed.transpose(1, 2).reshape(b, length, -1)), v


def attended(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v, all (B, heads, L, head_dim); keep: (B, 1, 1, L), True where a key is real, or None.

    A CPU that trains in bf16 has the products spelt out: its fused kernel walks backwards several times as slowly.
    """
    if not (q.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    likeness = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).float()
    if keep is not None:
        likeness = likeness.masked_fill(~keep, float("-inf"))
    return torch.matmul(likeness.softmax(-1), v)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of channels by their position's angle. Su et al. 2021, arXiv:2104.09864, eq. 34."""
    cos, sin = rotary
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def rotary_1d(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """cos and sin, each (L, head_dim / 2), of a sequence's positions."""
    rates = base ** (-torch.arange(head_dim // 2, dtype=torch.float32) / (head_dim // 2))
    angles = torch.outer(torch.arange(length, dtype=torch.float32), rates)
    return angles.cos(), angles.sin()


def rotary_2d(height: int, width: int, head_dim: int, prefix: int = 0,
              base: float = 100.0, pitch: float = 1.0) -> tuple[Tensor, Tensor]:
    """Axial positions of a grid in reading order: half the pairs turn with the row, half with the column.

    `prefix` unturned tokens (text) come first. `pitch`: cells of the grid that positions are counted on for one of
    this grid's, centre on centre: 2 lays an 8 x 8 grid over a 16 x 16 one. cos and sin, each (prefix + H W, head_dim / 2).
    """
    quarter = head_dim // 4
    rates = base ** (-torch.arange(quarter, dtype=torch.float32) / quarter)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = ((place + 0.5) * pitch - 0.5 for place in (rows, columns))
    angles = torch.cat((rows.reshape(-1, 1) * rates, columns.reshape(-1, 1) * rates), 1)
    angles = torch.cat((torch.zeros(prefix, angles.shape[1]), angles))
    return angles.cos(), angles.sin()


def wave_embedding(t: Tensor, width: int, base: float = 1_000.0) -> Tensor:
    """Cosines and sines of a scalar at geometric rates: (B,) -> (B, width)."""
    rates = base ** (torch.arange(width // 2, dtype=torch.float32, device=t.device) / (width // 2 - 1))
    angles = t.float()[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), 1)
