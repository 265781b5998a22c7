"""Previews: images made by weights that are still being trained, to look at and to measure."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medisyn import flow, samplers
from medisyn.data import images, prompts, sheets, vocabulary
from medisyn.models.dit import Dit
from medisyn.training import autoencoder, device, latents, nearness
from medisyn.training.batches import Pixels
from medisyn.training.nearness import Near, Nearness
from medisyn.training.results import reader, scaled_vae
from medisyn.training.run import say
from medisyn.training.settings import Recipe

STEPS = 12


@torch.no_grad()
def made(recipe: Recipe, folder: Path, pixels: Pixels, dit: Dit, rows: Sequence[int], seed: int = 0) -> Tensor:
    """One image for the sentence and style of each packed image: (n, 3, H, W) in [-1, 1], on the CPU; gray types are gray."""
    where = dit.last.weight.device
    vae, read, encoded = scaled_vae(folder).to(where), reader(folder), latents.load(folder / "latents")
    read = dataclasses.replace(read, encoder=read.encoder.to(where))
    first = {int(row): m for m, row in reversed(list(enumerate(encoded.row)))}
    shape = (dit.config.latent_channels, dit.config.latent_size, dit.config.latent_size)
    times, found = flow.times(STEPS, recipe.model.shift).to(where), []
    for start in range(0, len(rows), 8):
        mine = [int(row) for row in rows[start:start + 8]]
        tokens, pooled = read([prompts.canonical(pixels.records[i]) for i in mine])
        none_tokens, none_pooled = read([""] * len(mine))
        style = torch.tensor([int(encoded.style[first[i]]) for i in mine], device=where)
        none = torch.full_like(style, dit.config.n_styles)
        told, nothing = (quick(dit, *given) for given in ((tokens, pooled, style), (none_tokens, none_pooled, none)))
        card = recipe.model
        since = [card.guidance_since.get(pixels.records[i].image_type, card.guidance_from) for i in mine]
        velocity = samplers.guided(told, nothing, card.guidance, torch.tensor(since, device=where), card.guidance_until,
                                   card.guidance_along)
        seeds = [seed + start + k for k in range(len(mine))]
        noise = samplers.seeded_noise(seeds, shape).to(where)
        latent = samplers.SAMPLERS[card.sampler](velocity, noise, times)
        image = vae.decode(samplers.textured(latent, seeds, recipe.model.texture)).clamp(-1, 1).cpu()
        gray = torch.from_numpy(autoencoder.are_gray(pixels, np.array(mine))).view(-1, 1, 1, 1)
        found.append(torch.where(gray, image.mean(1, keepdim=True).expand_as(image), image))
    return torch.cat(found)


def quick(dit: Dit, *told: Tensor) -> flow.Velocity:
    """A denoiser that was told something, in half precision where the device has it: latents in full precision, as always."""
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        with device.half(x.device):
            return dit(x, t, *told).float()
    return velocity


def sheet(recipe: Recipe, folder: Path, pixels: Pixels, dit: Dit) -> Image.Image:
    """Four images of each image type by the weights as they are: the run folder's sample grid."""
    chosen = [int(i) for i in autoencoder.spread(pixels, pixels.of_split("train"), 4)]
    by_type: dict[str, list[Image.Image]] = {}
    for i, shown in zip(chosen, made(recipe, folder, pixels, dit, chosen), strict=True):
        kind = pixels.records[i].image_type
        shown = shown[:1] if vocabulary.IMAGE_TYPES[kind].gray else shown
        by_type.setdefault(kind, []).append(images.to_picture(shown.numpy()))
    rows = list(by_type.items())
    return sheets.sheet([(f"{a} | {b}", p + q) for (a, p), (b, q) in zip(rows[::2], [*rows[1::2], ("", [])], strict=False)])


def known(folder: Path, pixels: Pixels, seed: int) -> Nearness | None:
    """The run's real images, as `nearness` looks at them; None, and a sentence, where no image type can be compared."""
    sides = [r.split == "train" for r in pixels.records]
    found = nearness.of(lambda rows: pixels.array[rows], [r.image_type for r in pixels.records],
                        [r.patient or r.id for r in pixels.records], sides, seed, folder / "nearness.npz",
                        lambda done, total: say(f"nearness: {done:,} of {total:,}") if done == total else None)
    if found is None:
        say(f"nearness: no image type has {nearness.FEWEST} val images of two patients, no nearest-neighbour ratio is followed")
    return found


def measure(near: Nearness, recipe: Recipe, folder: Path, pixels: Pixels, dit: Dit, n: int, seed: int) -> Near | None:
    """What about n images, made for training images' sentences, show; types in turns."""
    kinds = list(near.known)
    rows = [i for i in pixels.of_split("train") if pixels.records[i].image_type in near.known]
    order = np.random.default_rng(seed).permutation(rows)
    by_type = {kind: [int(i) for i in order if pixels.records[i].image_type == kind] for kind in kinds}
    chosen = [by_type[kind][k] for k in range(-(-n // len(kinds))) for kind in kinds if k < len(by_type[kind])][:n]
    shown = made(recipe, folder, pixels, dit, chosen, seed)
    squares = ((shown + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return near.look(squares, [pixels.records[i].image_type for i in chosen])
