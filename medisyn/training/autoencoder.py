"""Training the autoencoder: crops in, crops out, then a last stretch on whole images.

Loss: L1 + gradient L1 (Sobel) + multi-scale L1 + a whisper of KL. Half of the batches decode a latent
resampled to another size against the image resampled alike (EQ-VAE, arXiv:2502.09509), which makes
latents that a denoiser learns several times faster.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from medisyn.data import vocabulary
from medisyn.models.layers import ConvBlock
from medisyn.models.vae import FACTOR, Vae, VaeConfig, gray, resized
from medisyn.training import batches, device
from medisyn.training.batches import Pixels
from medisyn.training.ema import Ema
from medisyn.training.micro import Micro, accumulate
from medisyn.training.run import Plan, Stage, Trainee, average_gradients, learning_rate, my_share, train


class VaeSettings(BaseModel):
    """The [vae] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_channels: int = 8
    widths: tuple[int, int, int] = (32, 64, 128)
    encoder_blocks: tuple[int, int, int] = (0, 1, 2)
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    n_images: int = 300_000             # crops to train on
    batch: int = 32
    crop: int = 64                      # pixels; a multiple of 16
    whole_share: float = 0.15           # of n_images, at the end, on whole images (same number of pixels a step)
    learning_rate: float = 1e-3
    kl: float = 1e-6
    equivariance: float = 0.5           # share of steps that decode a resampled latent
    latent_noise: float = 0.05          # std added before decoding, in units of the latent
    similarity: float = 0.0             # weight of 1 - SSIM at three scales
    spectrum: float = 0.0               # weight of the L1 distance of log-spectra
    features: float = 0.0               # weight of the distance of P-net features; 0: no P-net is trained
    features_images: int = 100_000      # images the P-net is trained on
    log_images: int = 10_000
    save_seconds: float = 120.0


def reconstruction_loss(made: Tensor, image: Tensor) -> Tensor:
    """L1 at three scales + L1 of Sobel gradients; both (B, 3, H, W). A scalar."""
    total = F.l1_loss(made, image) + 0.5 * F.l1_loss(sobel(made), sobel(image))
    for scale in (2, 4):
        total = total + 0.25 * F.l1_loss(F.avg_pool2d(made, scale), F.avg_pool2d(image, scale))
    return total


def sobel(image: Tensor) -> Tensor:
    """Horizontal and vertical gradients: (B, 3, H, W) -> (B, 6, H-2, W-2)."""
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
    weight = torch.stack((kernel, kernel.T)).unsqueeze(1).repeat(image.shape[1], 1, 1, 1).to(image.device)
    return F.conv2d(image, weight, groups=image.shape[1])


def crops(pixels: Pixels, rows: np.ndarray, size: int, rng: np.random.Generator) -> Tensor:
    """Random squares of the images, turned and mirrored at random: float32 (B, 3, size, size) in [-1, 1].

    One in two is taken larger and reduced. The autoencoder learns texture, not anatomy: any of the
    eight orientations will do, whatever the image type.
    """
    side = pixels.array.shape[1]
    out = np.empty((len(rows), size, size, 3), np.uint8)
    for k, row in enumerate(rows):
        extent = int(rng.integers(size, min(side, 2 * size) + 1)) if rng.random() < 0.5 else size
        top, left = rng.integers(0, side - extent + 1, 2)
        patch = pixels.array[row, top:top + extent, left:left + extent]
        if extent != size:
            patch = np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.LANCZOS))
        patch = np.rot90(patch, int(rng.integers(4)))
        out[k] = patch[:, ::-1] if rng.random() < 0.5 else patch
    return to_tensor(out)


def to_tensor(squares: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1], channels last in memory."""
    image = torch.from_numpy(np.ascontiguousarray(squares)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return image.contiguous(memory_format=torch.channels_last)


def whole(pixels: Pixels, rows: np.ndarray, size: int) -> Tensor:
    """The images as they are generated later: (B, 3, size, size)."""
    squares = [np.asarray(Image.fromarray(pixels.array[r]).resize((size, size), Image.Resampling.LANCZOS)) for r in rows]
    return to_tensor(np.stack(squares))


def ssim(made: Tensor, image: Tensor) -> Tensor:
    """Structural similarity in uniform 7 x 7 windows, a value an image, 1 at best. Wang et al. 2004, eq. 13; both
    (B, 3, H, W) in [-1, 1]."""
    a, b = (made + 1) / 2, (image + 1) / 2
    mean_a, mean_b = F.avg_pool2d(a, 7, 1), F.avg_pool2d(b, 7, 1)
    unbiased = 49 / 48
    var_a = unbiased * (F.avg_pool2d(a * a, 7, 1) - mean_a**2)
    var_b = unbiased * (F.avg_pool2d(b * b, 7, 1) - mean_b**2)
    both = unbiased * (F.avg_pool2d(a * b, 7, 1) - mean_a * mean_b)
    alike = (2 * mean_a * mean_b + 0.01**2) * (2 * both + 0.03**2)
    return (alike / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))).flatten(1).mean(1)


def similarity_loss(made: Tensor, image: Tensor) -> Tensor:
    """1 - SSIM, averaged over up to three scales: a scalar."""
    losses = []
    for _ in range(3):
        if image.shape[-1] < 8:
            break
        losses.append(1 - ssim(made, image).mean())
        made, image = F.avg_pool2d(made, 2), F.avg_pool2d(image, 2)
    return torch.stack(losses).mean()


def spectrum_loss(made: Tensor, image: Tensor, patch: int = 32) -> Tensor:
    """L1 distance of the log-spectra of 32 x 32 patches: how much texture there is, wherever it lies. A scalar."""
    def spectrum(x: Tensor) -> Tensor:
        cells = x.unfold(2, patch, patch).unfold(3, patch, patch)
        return torch.log(torch.fft.rfft2(cells, norm="ortho").abs() + 0.01)
    return F.l1_loss(spectrum(made), spectrum(image)) if image.shape[-1] >= patch else made.sum() * 0


def step_loss(vae: Vae, image: Tensor, settings: VaeSettings, rng: np.random.Generator, noise: Tensor,
              features: Callable[[Tensor], list[Tensor]] | None = None, halves: bool = False) -> dict:
    """One batch's losses. rng decides the resampling; noise: (B, c, h, w), of the latent's shape.

    features: the P-net, or None. halves: resample to one half or three quarters alone, for a compiler's sake.
    """
    where = image.device
    with device.half(where):
        mean, logvar = vae.moments(image)
    mean, logvar = mean.float(), logvar.float()
    std = torch.exp(0.5 * logvar)
    latent = mean + noise * (std + settings.latent_noise)
    target = image
    cells = latent.shape[-1]
    if rng.random() < settings.equivariance and cells >= 8:
        smaller = (cells // 2, cells * 3 // 4)[int(rng.integers(2))] if halves else int(rng.integers(cells // 2, cells))
        latent, target = resized(latent, smaller), resized(image, smaller * FACTOR)
    with device.half(where):
        made = vae.decode_raw(latent)
    loss = faithful = reconstruction_loss(made.float(), target)
    if settings.similarity:
        loss = loss + settings.similarity * similarity_loss(made.float(), target)
    if settings.spectrum:
        loss = loss + settings.spectrum * spectrum_loss(made.float(), target)
    if features is not None:
        from medisyn.training.pnet import distance
        with device.half(where):
            real, ours = features(target), features(made)
        loss = loss + settings.features * distance(ours, real)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {"loss": loss + settings.kl * kl, "reconstruction": faithful, "kl": kl}


@torch.no_grad()
def reconstruct(vae: Vae, pixels: Pixels, rows: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Images and their reconstructions, both (B, 3, size, size) in [-1, 1]; gray image types stay gray."""
    image = whole(pixels, rows, size)
    where = vae.latent_mean.device
    made = vae.decode(vae.encode(image.to(where))).clamp(-1, 1).cpu()
    return image, torch.where(torch.from_numpy(are_gray(pixels, rows)).view(-1, 1, 1, 1), gray(made), made)


def are_gray(pixels: Pixels, rows: np.ndarray) -> np.ndarray:
    """Which of the rows are of a gray image type: bool (n,)."""
    return np.array([vocabulary.IMAGE_TYPES[pixels.records[r].image_type].gray for r in rows], bool)


GATES = {"psnr_gray_db": 32.0, "psnr_colour_db": 28.0, "ssim": 0.90}  # what held-out images must reach


def gates(vae: Vae, pixels: Pixels, rows: np.ndarray, size: int) -> dict[str, float]:
    """The figures of GATES on some rows, medians over images, computed some images at a time."""
    values, alike = [], []
    for start in range(0, len(rows), 32):
        image, made = reconstruct(vae, pixels, rows[start:start + 32], size)
        values.append(psnr(made, image))
        alike.append(ssim(made, image))
    decibel, is_gray = torch.cat(values), torch.from_numpy(are_gray(pixels, rows))
    found = {"psnr_db": float(decibel.mean()), "ssim": float(torch.cat(alike).median())}
    for name, chosen in (("psnr_gray_db", is_gray), ("psnr_colour_db", ~is_gray)):
        found |= {name: float(decibel[chosen].median())} if chosen.any() else {}
    return found


def report(found: dict[str, float]) -> str:
    """Which gates were passed, in a sentence."""
    return ", ".join(f"{name} {found[name]:.4g} ({'passes' if found[name] >= wanted else 'FAILS'}, at least {wanted:g})"
                     for name, wanted in GATES.items() if name in found)


def psnr(made: Tensor, image: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, a value an image; both (B, 3, H, W) in [-1, 1]."""
    return -10 * torch.log10((made - image).div(2).square().flatten(1).mean(1).clamp_min(1e-10))


def fit(stage: Stage, pixels: Pixels, image_size: int, seed: int, settings: VaeSettings, resume: bool = True,
        array: Tensor | None = None, features: Callable[[Tensor], list[Tensor]] | None = None) -> Vae | None:
    """Train an autoencoder; None when it was stopped before its end.

    array: the squares where they lie on the device that trains (`resident.squares`), None: read from disk, on the CPU.
    features: the P-net, where settings.features asks for it.
    """
    from medisyn.training import resident
    where = torch.device("cpu") if array is None else array.device
    device.settle(where)
    torch.manual_seed(seed)
    config = VaeConfig(settings.latent_channels, settings.widths, settings.encoder_blocks, settings.decoder_blocks)
    layout = device.layout(where)
    vae = Vae(config).to(where, memory_format=layout)
    ema = Ema(vae, 0.05)
    optimizer = device.adamw(vae.parameters(), settings.learning_rate, where, betas=(0.9, 0.99), weight_decay=1e-4)
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    rows = pixels.of_split("train")
    held_out = spread(pixels, pixels.of_split("val"), 4 if array is None else 8)
    p = batches.weights([pixels.records[r] for r in rows])
    whole_from = int(plan.steps * (1 - settings.whole_share))
    share = my_share(settings.batch)
    fewer = max(1, settings.batch * settings.crop**2 // image_size**2)  # whole images a step
    share_of_whole = my_share(fewer)
    flops = device.flops(lambda: vae.decode_raw(vae.moments(torch.zeros(2, 3, settings.crop, settings.crop, device=where))[0])
                         ) / 2 if where.type == "cuda" else 0.0
    micro = Micro()
    device.compile_blocks(where, vae, ConvBlock, dynamic=True)  # crops, whole images and resampled latents: one compilation

    def step(i: int) -> dict[str, Tensor]:
        chosen = rows[batches.order(p, settings.batch, seed, i)]
        rng = batches.generator(seed, "crops", i)
        if array is None:
            image, n, mine = crops(pixels, chosen, settings.crop, rng)[share], settings.batch, share
        elif i < whole_from:
            image, n, mine = resident.crops(array, chosen, settings.crop, rng)[share], settings.batch, share
        if i >= whole_from:
            n, mine = fewer, share_of_whole
            image = whole(pixels, chosen[:fewer][mine], image_size) if array is None else \
                resident.whole(array, chosen[:fewer][mine], image_size)
        shape = (n, settings.latent_channels, image.shape[2] // FACTOR, image.shape[3] // FACTOR)
        noise = torch.randn(shape, generator=device.generator(seed, i, where), device=where)[mine]

        def losses(part: slice) -> dict[str, Tensor]:  # all parts are resampled alike
            mine = image[part].contiguous(memory_format=layout)
            return step_loss(vae, mine, settings, copy.deepcopy(rng), noise[part], features, halves=array is not None)
        found = accumulate(vae.parameters(), len(image), losses, micro, lambda text: stage.message(f"{stage.name}: {text}"))
        average_gradients(list(vae.parameters()))
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.learning_rate, i, plan.steps, 100, 0.5)
        optimizer.step()
        ema.update(vae, i)
        return found

    def draw() -> Image.Image:
        with device.eager(where):
            image, made = reconstruct(ema.network, pixels, held_out[:12], image_size)
        return side_by_side(image, made)

    def validate() -> dict[str, float]:
        with device.eager(where):
            if array is not None:
                return gates(ema.network, pixels, held_out, image_size)
            image, made = reconstruct(ema.network, pixels, held_out, image_size)
        return {"psnr_db": float(psnr(made, image).mean())}

    trainee = Trainee(step, {"vae": vae, "ema": ema.network}, {"adamw": optimizer}, draw, validate, flops=flops,
                      peak=device.peak(where), micro=micro)
    if not train(stage, plan, trainee, resume):
        return None
    return ema.network


def spread(pixels: Pixels, rows: np.ndarray, each: int) -> np.ndarray:
    """The first `each` rows of every image type, types in turns: what a picture can show."""
    by_type: dict[str, list[int]] = {}
    for r in rows:
        by_type.setdefault(pixels.records[r].image_type, []).append(int(r))
    return np.array([mine[k] for k in range(each) for mine in by_type.values() if k < len(mine)], np.int64)


def side_by_side(image: Tensor, made: Tensor) -> Image.Image:
    """Originals above, reconstructions below."""
    both = torch.cat([torch.cat(list(half), 2) for half in (image, made)], 1)
    return Image.fromarray(((both + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())
