"""A base: what every family of pretrained text-to-image networks gives us, whatever is inside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Told = dict[str, Tensor]  # what a network is told of B sentences: every value's first dimension is B


@dataclass(frozen=True)
class Base:
    """Networks in memory and the functions that use them.

    The functions look the networks up in `networks` at each call, so that one put there in place of another (an
    average of weights, a compiled one) is used and saved from then on. All are float32, in evaluation mode and
    frozen when they come from disk: who trains one thaws it.
    """

    family: str                          # "sd", "sdxl", "sd3", "flux", "sana", "pixart", "medisyn"
    source: str                          # folder or hub id it was read from
    networks: dict[str, nn.Module]       # by diffusers' folder names: "unet" or "transformer", "vae", "text_encoder", ...
    denoiser: str                        # which of them predicts
    prediction: str                      # what it predicts: "epsilon", "v_prediction", "sample" or "flow" (noise - data)
    sigmas: Tensor | None                # (T,) increasing noise-over-signal of the training steps; None for flow
    image_size: int                      # pixels a side it was made for
    factor: int                          # pixels a latent cell, each side
    latent_channels: int
    shift: Callable[[int], float]        # image side in pixels -> shift of the flow times; 1.0 for discrete steps
    schedule: Callable[[int, int], Tensor]  # (steps, image side) -> (steps + 1,) falling to 0, as the folder's scheduler
                                         # spaces them: noise-over-signal, or for flow the share of noise in [0, 1]
    unit_start: bool                     # sampling starts with unit variance (DDIM), not with sigma times noise (Euler)
    read: Callable[[list[str]], Told]    # differentiable; "" is what the family's pipeline feeds without negative prompt
    predict: Callable[[Tensor, Tensor, Told], Tensor]  # (x (B, c, h, w) scaled as the network wants it, timestep (B,) in
                                         # [0, T) or for flow [0, 1000], told) -> prediction (B, c, h, w)
    encode: Callable[[Tensor], tuple[Tensor, Tensor]]  # images (B, 3 or 1, H, W) in [-1, 1] -> mean, std (B, c, h, w)
    decode: Callable[[Tensor], Tensor]   # latent (B, c, h, w) -> images (B, 3, H, W), about [-1, 1], not clamped
    save: Callable[[Path], None]         # the whole as a folder that the family's own pipeline class opens
    digest: str                          # "sha256:..." over the files it was read from
    pipeline: Any                        # diffusers' own pipeline; None for "medisyn"


def to_channels(image: Tensor, channels: int) -> Tensor:
    """(B, C, H, W) with another number of channels: gray is repeated, colours are averaged. No value is rounded."""
    if image.shape[1] == channels:
        return image
    return image.mean(1, keepdim=True).expand(-1, channels, -1, -1)


def kl_encoder(networks: dict[str, nn.Module]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Images -> mean and std of an AutoencoderKL's latent, scaled and shifted as its denoiser expects."""
    def encode(image: Tensor) -> tuple[Tensor, Tensor]:
        vae = networks["vae"]
        found = vae.encode(to_channels(image, vae.config.in_channels)).latent_dist
        offset, scale = latent_scaling(vae, found.mean)
        return (found.mean - offset) * scale, found.std * scale
    return encode


def kl_decoder(networks: dict[str, nn.Module]) -> Callable[[Tensor], Tensor]:
    """A scaled latent -> images of three channels."""
    def decode(latent: Tensor) -> Tensor:
        vae = networks["vae"]
        offset, scale = latent_scaling(vae, latent)
        return to_channels(vae.decode(latent / scale + offset, return_dict=False)[0], 3)
    return decode


def latent_scaling(vae: nn.Module, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """The offset and the factor of a latent: (latent - offset) * factor; one a channel where the config has them."""
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is None or std is None:
        return getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor
    mean, std = (torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1) for values in (mean, std))
    return mean, vae.config.scaling_factor / std


def where(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
