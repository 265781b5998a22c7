"""The autoencoder: an image becomes a latent eight times smaller a side, and comes back.

Fully convolutional: one set of weights serves every size divisible by 8. After Rombach et al.
2022, arXiv:2112.10752, section 3.1, with pixel-(un)shuffle instead of strided convolutions.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medisyn.models.layers import ConvBlock, Down, Up

FACTOR = 8  # pixels a latent cell, each side


@dataclass(frozen=True)
class VaeConfig:
    latent_channels: int = 8
    widths: tuple[int, int, int] = (32, 96, 192)         # channels at 1/2, 1/4, 1/8 of the side
    encoder_blocks: tuple[int, int, int] = (0, 1, 2)
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    latent_mean: tuple[float, ...] | None = None         # per channel, measured after training;
    latent_std: tuple[float, ...] | None = None          # None: latents are not normalised


class Vae(nn.Module):
    """image (B, 3, H, W) in [-1, 1] <-> latent (B, c, H/8, W/8), zero mean and unit variance a channel."""

    def __init__(self, config: VaeConfig = VaeConfig()):
        super().__init__()
        self.config = config
        w1, w2, w3 = config.widths
        e1, e2, e3 = config.encoder_blocks
        d1, d2, d3 = config.decoder_blocks
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, w1, 3, padding=1), *(ConvBlock(w1) for _ in range(e1)),
            Down(w1, w2), *(ConvBlock(w2) for _ in range(e2)),
            Down(w2, w3), *(ConvBlock(w3) for _ in range(e3)),
            nn.GroupNorm(32, w3), nn.SiLU(), nn.Conv2d(w3, 2 * config.latent_channels, 3, padding=1))
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, w3, 3, padding=1), *(ConvBlock(w3) for _ in range(d3)),
            Up(w3, w2), *(ConvBlock(w2) for _ in range(d2)),
            Up(w2, w1), *(ConvBlock(w1) for _ in range(d1)),
            nn.GroupNorm(min(32, w1), w1), nn.SiLU(), nn.Conv2d(w1, 12, 3, padding=1), nn.PixelShuffle(2))
        mean = torch.tensor(config.latent_mean or [0.0] * config.latent_channels)
        std = torch.tensor(config.latent_std or [1.0] * config.latent_channels)
        self.register_buffer("latent_mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("latent_std", std.view(1, -1, 1, 1), persistent=False)

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent before normalisation, each (B, c, h, w)."""
        mean, logvar = self.encoder(image).chunk(2, 1)
        return mean, logvar.clamp(-20, 4)

    def encode(self, image: Tensor) -> Tensor:
        """The latent's mean, normalised: what the denoiser learns."""
        return (self.moments(image)[0] - self.latent_mean) / self.latent_std

    def decode(self, latent: Tensor) -> Tensor:
        """A normalised latent as an image (B, 3, H, W); values may lie slightly beyond [-1, 1]."""
        return self.decode_raw(latent * self.latent_std + self.latent_mean)

    def decode_raw(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)


def deeper(vae: Vae, decoder_blocks: tuple[int, int, int]) -> Vae:
    """The same autoencoder with more blocks in its decoder, each of which passes its input on until it is trained."""
    if any(new < old for new, old in zip(decoder_blocks, vae.config.decoder_blocks, strict=True)):
        raise ValueError(f"a decoder of {vae.config.decoder_blocks} blocks can only grow; asked for {decoder_blocks}")
    grown = Vae(replace(vae.config, decoder_blocks=tuple(decoder_blocks)))
    grown.encoder.load_state_dict(vae.encoder.state_dict())
    trained = iter(vae.decoder)
    one = next(trained, None)
    for module in grown.decoder:
        if type(module) is type(one):  # else a block that is new
            module.load_state_dict(one.state_dict())
            one = next(trained, None)
    return grown


def gray(image: Tensor) -> Tensor:
    """Average the colour channels, keep three: for image types that are gray. (B, 3, H, W)."""
    return image.mean(1, keepdim=True).expand_as(image)


def resized(latent: Tensor, size: int) -> Tensor:
    """A latent resampled to size x size cells: the transform of EQ-VAE, arXiv:2502.09509."""
    return F.interpolate(latent, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
