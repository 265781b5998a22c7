"""A vision transformer's image tower, as open_clip writes one with timm's names: weights in, embedding out.

Dosovitskiy et al. 2021, arXiv:2010.11929, eq. 1 to 4, with a linear head. open_clip itself needs torchvision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # of timm's layer norms
HEAD = 64       # channels of an attention head in every ViT from Ti to H of timm


def heads_of(state: dict[str, Tensor]) -> int:
    """Attention heads: they are not written down, but have 64 channels each in timm's sizes."""
    return max(1, state["trunk.norm.weight"].shape[0] // HEAD)


def embed(state: dict[str, Tensor], image: Tensor, heads: int) -> Tensor:
    """image: float32 (B, 3, H, W), standardised -> embedding: float32 (B, D)."""
    patches = F.conv2d(image, state["trunk.patch_embed.proj.weight"], state["trunk.patch_embed.proj.bias"],
                       stride=state["trunk.patch_embed.proj.weight"].shape[-1])
    tokens = patches.flatten(2).transpose(1, 2)                                     # (B, L, C)
    first = state["trunk.cls_token"].expand(len(tokens), -1, -1)
    tokens = torch.cat((first, tokens), 1) + state["trunk.pos_embed"]
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("trunk.blocks."))
    for i in range(depth):
        tokens = block({k.removeprefix(f"trunk.blocks.{i}."): v for k, v in state.items()
                        if k.startswith(f"trunk.blocks.{i}.")}, tokens, heads)
    pooled = norm(tokens, state["trunk.norm.weight"], state["trunk.norm.bias"])[:, 0]
    return F.linear(pooled, state["head.proj.weight"], state.get("head.proj.bias"))


def block(part: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """Attention, then a small network, each beside a shortcut: (B, L, C) -> same."""
    b, n, c = tokens.shape
    x = norm(tokens, part["norm1.weight"], part["norm1.bias"])
    qkv = F.linear(x, part["attn.qkv.weight"], part["attn.qkv.bias"]).view(b, n, 3, heads, c // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)                                            # (B, heads, L, C / heads)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
    tokens = tokens + F.linear(mixed, part["attn.proj.weight"], part["attn.proj.bias"])
    x = norm(tokens, part["norm2.weight"], part["norm2.bias"])
    x = F.gelu(F.linear(x, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
    return tokens + F.linear(x, part["mlp.fc2.weight"], part["mlp.fc2.bias"])


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPSILON)
