"""Sharpening the decoder: the encoder is frozen, and an adversary demands texture where L1 averages.

A patch discriminator with the hinge loss (Lim and Ye 2017, arXiv:1705.02894) and feature matching (Wang et
al. 2018, arXiv:1711.11585, eq. 4). Latents stay what they were, so a denoiser may be trained meanwhile. The cheapest
texture is one that repeats with the decoder's own cells, a grid: it has a loss of its own.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medisyn.models.layers import ConvBlock
from medisyn.models.vae import FACTOR, Vae, deeper
from medisyn.training import batches, device
from medisyn.training.autoencoder import (
    gates,
    psnr,
    reconstruct,
    reconstruction_loss,
    side_by_side,
    spectrum_loss,
    spread,
    whole,
)
from medisyn.training.batches import Pixels
from medisyn.training.ema import Ema
from medisyn.training.run import Plan, Stage, Trainee, average, average_gradients, learning_rate, my_share, train

ASSURED = 0.15   # of the hinge loss at which a critic tells nothing apart: so much less, and it is heard in full


class DecoderSettings(BaseModel):
    """The [decoder] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_images: int = 16_000              # 0 leaves the decoder as the autoencoder's training left it
    blocks: tuple[int, int, int] | None = None  # at 1/2, 1/4, 1/8 of the side; None: as many as before
    batch: int = 8
    learning_rate: float = 3e-4
    discriminator_rate: float = 1.0     # its learning rate, as a multiple: one that is fooled at every step teaches nothing
    adversarial: float = 0.4            # gradient of the hinge loss at the last layer, as a share of the others'
    matching: float = 5.0               # weight of feature matching
    late: float = 0.05                  # share of n_images before the adversary has a say
    further: bool = False               # with `start`: train the decoder of that model on, instead of keeping it
    grid: float = 0.0                   # weight of what repeats with the latent's cells in the error
    spectrum: float = 0.0               # weight of the L1 distance of log-spectra
    latent_noise: float = 0.05          # std added to the latent: a denoiser's latents are not exact either
    latent_noise_most: float = 0.0      # where larger: each image's std is uniform between the two
    discriminator: int = 32             # its first layer's channels
    discriminator_detail: bool = False  # it is shown the finest detail by itself, too
    log_images: int = 2_000
    save_seconds: float = 120.0


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches as real (positive) or decoded. Isola et al. 2017, arXiv:1611.07004."""

    def __init__(self, channels: int, detail: bool = False):
        super().__init__()
        self.detail = detail
        sizes = (6 if detail else 3, channels, 2 * channels, 4 * channels)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.last = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4 * channels, 1, 3, padding=1))

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """image (B, 3, H, W) -> scores (B, 1, H/8, W/8) and the features of each layer."""
        features = []
        if self.detail:
            image = torch.cat((image, 4 * finest(image)), 1)
        for layer in self.layers:
            image = F.leaky_relu(layer(image), 0.2)
            features.append(image)
        return self.last(image), features

    def scored(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, in half precision where the device has it; the spectral norms are found in full precision first."""
        with nn.utils.parametrize.cached():
            for layer in (*self.layers, self.last):
                _ = layer.weight   # what is looked up here is what the convolutions find
            with device.half(image.device):
                scores, features = self(image)
        return scores.float(), [feature.float() for feature in features]


def balance(faithful: Tensor, fooling: Tensor, last: Tensor) -> Tensor:
    """The weight at which both losses pull equally hard at the last layer. Esser et al. 2021, arXiv:2012.09841, eq. 7."""
    a, b = (average(torch.autograd.grad(loss, last, retain_graph=True)[0]).norm() for loss in (faithful, fooling))
    return (a / (b + 1e-4)).clamp(0, 1e3).detach()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge: real scores above 1, made ones below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def assurance(real: Tensor, made: Tensor) -> Tensor:
    """How far a critic is heard, in [0, 1]: not at all where it tells nothing apart, since `balance` would make any noise loud."""
    return ((1 - discriminator_loss(real, made) / 2) / ASSURED).clamp(0, 1)


def fit(stage: Stage, vae: Vae, pixels: Pixels, image_size: int, seed: int, settings: DecoderSettings,
        resume: bool = True, array: Tensor | None = None) -> Vae | None:
    """Train the decoder of `vae` further; None when it was stopped before its end.

    array: the squares where they lie on the device that trains (`resident.squares`), None: read from disk, on the CPU.
    """
    from medisyn.training import resident
    where = torch.device("cpu") if array is None else array.device
    device.settle(where)
    torch.manual_seed(seed)
    if settings.blocks:
        vae = deeper(vae, settings.blocks)
    layout = device.layout(where)
    vae = vae.to(where, memory_format=layout).requires_grad_(False).train()
    vae.decoder.requires_grad_(True)
    critic = PatchDiscriminator(settings.discriminator, settings.discriminator_detail).to(where, memory_format=layout)
    ema = Ema(vae, 0.05)
    own, others = list(vae.decoder.parameters()), list(critic.parameters())
    optimizers = {"decoder": device.adamw(own, settings.learning_rate, where, betas=(0.5, 0.99), weight_decay=0.0),
                  "critic": device.adamw(others, settings.learning_rate, where, betas=(0.5, 0.99), weight_decay=0.0)}
    device.compile_blocks(where, vae, ConvBlock, dynamic=True)
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    rows = pixels.of_split("train")
    held_out = spread(pixels, pixels.of_split("val"), 4 if array is None else 8)
    p = batches.weights([pixels.records[r] for r in rows])
    share = my_share(settings.batch)

    def step(i: int) -> dict[str, Tensor]:
        rng = batches.generator(seed, "decoder", i)
        chosen = rows[batches.order(p, settings.batch, seed + 1, i)]
        mine = chosen[share]
        image = whole(pixels, mine, image_size) if array is None else resident.whole(array, mine, image_size)
        image = turned(image, int(rng.integers(8))).contiguous(memory_format=layout)
        with torch.no_grad(), device.half(where):
            latent = vae.moments(image)[0].float()
        noise = torch.randn((settings.batch, *latent.shape[1:]), generator=device.generator(seed, i, where), device=where)
        most = max(settings.latent_noise, settings.latent_noise_most)
        std = torch.from_numpy(rng.uniform(settings.latent_noise, most, (settings.batch, 1, 1, 1)).astype(np.float32)).to(where)
        opinion = i >= settings.late * plan.steps
        critic.requires_grad_(False)
        with device.half(where):
            made = vae.decode_raw(latent + std[share] * vae.latent_std * noise[share])
        made = made.float()
        (real_scores, real_features), (scores, features) = critic.scored(image), critic.scored(made)
        matching = sum(F.l1_loss(a, b) for a, b in zip(features, real_features, strict=True)) / len(features)
        closeness = reconstruction_loss(made, image)
        repeating = grid_loss(made, image)
        fooling = -scores.mean()
        faithful = closeness + opinion * settings.matching * matching + settings.grid * repeating
        if settings.spectrum:
            faithful = faithful + settings.spectrum * spectrum_loss(made, image)
        weight = 0.0
        if opinion:
            heard = average(assurance(real_scores, scores.detach()))
            weight = settings.adversarial * heard * balance(faithful, fooling, vae.decoder[-2].weight)
        optimizers["decoder"].zero_grad()
        (faithful + weight * fooling).backward()
        average_gradients(own)
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        critic.requires_grad_(True)
        optimizers["critic"].zero_grad()
        judged = discriminator_loss(critic.scored(image)[0], critic.scored(made.detach())[0])
        judged.backward()
        average_gradients(others)
        for name, times in (("decoder", 1.0), ("critic", settings.discriminator_rate)):
            for group in optimizers[name].param_groups:
                group["lr"] = learning_rate(times * settings.learning_rate, i, plan.steps, 50, 0.4)
            optimizers[name].step()
        ema.update(vae, i)
        return {"closeness": closeness.detach(), "matching": matching.detach(), "critic": judged.detach(),
                "grid": repeating.detach()}

    def draw() -> Image.Image:
        with device.eager(where):
            image, made = reconstruct(ema.network, pixels, held_out[:12], image_size)
        return side_by_side(image, made)

    def validate() -> dict[str, float]:
        with device.eager(where):
            found = gates(ema.network, pixels, held_out, image_size) if array is not None else {}
            image, made = reconstruct(ema.network, pixels, held_out[:48], image_size)
        return {"psnr_db": float(psnr(made, image).mean())} | found | {"sharpness": sharpness(made, image),
                                                                              "grid": float(grid_loss(made, image))}

    trainee = Trainee(step, {"vae": vae, "critic": critic, "ema": ema.network}, optimizers, draw, validate)
    if not train(stage, plan, trainee, resume):
        return None
    return ema.network


def turned(image: Tensor, which: int) -> Tensor:
    """One of the eight orientations of a square: (B, 3, H, H) -> same."""
    image = torch.rot90(image, which % 4, (2, 3))
    return (image.flip(3) if which >= 4 else image).contiguous(memory_format=torch.channels_last)


def finest(image: Tensor) -> Tensor:
    """What averaging pairs of pixels takes away: (B, C, H, W) -> same."""
    return image - F.interpolate(F.avg_pool2d(image, 2), scale_factor=2, mode="bilinear", align_corners=False)


def sharpness(made: Tensor, image: Tensor) -> float:
    """Energy of the finest detail, made over real: 1 is as sharp as the original, less is blurred."""
    energy, real = (finest(x).square().mean((1, 2, 3)) for x in (made, image))
    return float(np.median((energy / real.clamp_min(1e-8)).numpy()))


def grid_loss(made: Tensor, image: Tensor, period: int = FACTOR, repeats: int = 4) -> Tensor:
    """How much of the error's finest detail repeats from cell to cell of the latent: a scalar, 0 where nothing does.

    In windows of repeats x repeats cells it is averaged over the cells; what is left, less its mean, is a pattern of that
    period (and of its halves and quarters). Texture that lies differently in each cell averages out. Both (B, 3, H, W), H and
    W at least one window.
    """
    b, c, height, width = made.shape
    rows, columns = height // (period * repeats), width // (period * repeats)
    error = finest(made - image)[..., :rows * period * repeats, :columns * period * repeats]
    pattern = error.reshape(b, c, rows, repeats, period, columns, repeats, period).mean((3, 6))
    return (pattern - pattern.mean((3, 5), keepdim=True)).abs().mean()
