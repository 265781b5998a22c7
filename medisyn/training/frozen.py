"""Frozen: weights that do not learn are held in half the bytes, and what uses them computes in bf16.

Under autocast a product rounds its weights to bf16 at each use. Those of linear layers and convolutions that are held in bf16 from
the beginning give the same numbers, bit for bit; tables of embeddings are rounded where autocast would not. Norms and biases, a
thousandth of all, stay as they are, and so does all that learns: low-rank updates, new words, whole networks are float32.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from medisyn.models.bases import Base

HELD = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)   # whose weights are rounded


def kind(setting: str, where: str) -> torch.dtype:
    """What `method.frozen` means on a device, "cpu" or "cuda": "auto" is what the device computes in (`device.half`)."""
    return torch.bfloat16 if setting == "bfloat16" or (setting == "auto" and where == "cuda") else torch.float32


def hold(base: Base, learning: Iterable[Tensor], names: Iterable[str], held: torch.dtype) -> Base:
    """The base, in whose networks of these names what does not learn is held in a type; what uses them computes in it.

    The networks are changed in place, what the functions give stays float32. With float32 it is the base as it was.
    """
    if held == torch.float32:
        return base
    kept, changed = {id(weight) for weight in learning}, {}
    for name in names:
        network = base.networks[name]
        rounded = {id(part.weight): part.weight for part in network.modules() if isinstance(part, HELD)}
        for number in rounded.keys() - kept:
            rounded[number].data = rounded[number].data.to(held)
        for weight in (*network.parameters(), *network.buffers()):
            if weight.dtype != held and weight.device.type == "cpu":
                weight.data = weight.data.clone()    # no longer a view of the file, which would stay in memory for its sake
        if rounded.keys() - kept:
            changed |= {use: within(getattr(base, use), base.networks, name, held) for use in uses(base, name)}
    return dataclasses.replace(base, **changed)


def uses(base: Base, name: str) -> tuple[str, ...]:
    """The functions of a base that compute with one of its networks."""
    return ("predict",) if name == base.denoiser else ("encode", "decode") if name == "vae" else ("read",)


def within(function: Callable, networks: dict[str, nn.Module], name: str, held: torch.dtype) -> Callable:
    """A function under autocast, where its network is, whose results are float32."""
    def inside(*given: Any) -> Any:
        with torch.autocast(next(networks[name].parameters()).device.type, held):
            return widened(function(*given))
    return inside


def widened(value: Any) -> Any:
    """Tensors of floating-point numbers, alone or in a dict or a tuple, as float32."""
    if isinstance(value, dict):
        return {name: widened(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(map(widened, value))
    return value.float() if value.is_floating_point() else value
