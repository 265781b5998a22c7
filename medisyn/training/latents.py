"""Latents: every training image seen through the autoencoder once, in several variants.

What may be turned or mirrored is the vocabulary's to say (`symmetry`): a mirrored image swaps the words
left and right with it, a chest X-ray is never mirrored. Crop and gamma are told to the denoiser as
`geometry`, so that sampling, where all of it is 0, gives the whole frame at its own brightness.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from scipy.cluster.vq import kmeans2, vq

from medisyn.data import vocabulary
from medisyn.data.records import Record
from medisyn.models.vae import Vae, VaeConfig
from medisyn.training import batches
from medisyn.training.autoencoder import to_tensor
from medisyn.training.batches import Pixels
from medisyn.training.run import write_json

SMALLEST_CROP, LARGEST_GAMMA = 0.92, 0.05


class LatentSettings(BaseModel):
    """The [latents] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    each_type: int = 3000               # latents wanted of an image type; decides its number of variants
    most_variants: int = 8
    least_variants: int = 2
    images_a_style: int = 120           # an image type has one style cluster for so many images ...
    most_styles: int = 16               # ... and never more than this


@dataclasses.dataclass(frozen=True)
class Latents:
    """Variants of the packed images, memory-mapped. M variants, the images' own order within a split."""

    latent: np.ndarray      # float16 (M, c, h, w), zero mean and unit variance a channel
    row: np.ndarray         # int64 (M,): which packed image
    mirrored: np.ndarray    # bool (M,): left and right have changed sides
    geometry: np.ndarray    # float32 (M, 4): crop extent, row, column, gamma; 0 is the whole frame
    style: np.ndarray       # int64 (M,): cluster within the image type, numbered over all types
    n_styles: int


def variants_of(n: int, settings: LatentSettings) -> int:
    """How many variants each of n images of one type gets."""
    return max(settings.least_variants, min(settings.most_variants, math.ceil(settings.each_type / n)))


def mirror_words(record: Record) -> Record:
    """The record of a mirrored image: left is right."""
    other = {"left": "right", "right": "left"}.get(record.laterality or "")
    return dataclasses.replace(record, laterality=other) if other else record


def vary(square: np.ndarray, symmetry: str, rng: np.random.Generator, side: int) -> tuple[np.ndarray, bool, list[float]]:
    """One random variant of a uint8 (S, S, 3) image at side x side, whether it is mirrored, and its geometry."""
    extent, gamma = rng.uniform(SMALLEST_CROP, 1.0), rng.uniform(-LARGEST_GAMMA, LARGEST_GAMMA)
    slack = 1 - extent
    row, column = rng.uniform(0, slack), rng.uniform(0, slack)
    n = len(square)
    box = (column * n, row * n, (column + extent) * n, (row + extent) * n)
    small = np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS, box=box))
    small = np.rint(255 * (small / 255.0) ** math.exp(gamma)).astype(np.uint8)
    centre = [(2 * row - slack) / (1 - SMALLEST_CROP), (2 * column - slack) / (1 - SMALLEST_CROP)]
    mirrored = symmetry != "none" and bool(rng.random() < 0.5)
    if symmetry == "dihedral":
        small = np.rot90(small, int(rng.integers(4)))
        centre = [0.0, 0.0]  # the turn has moved it; an off-centre crop of texture needs no telling
    if mirrored:
        small, centre[1] = small[:, ::-1], -centre[1]
    return small, mirrored, [slack / (1 - SMALLEST_CROP), *centre, gamma / LARGEST_GAMMA]


@torch.no_grad()
def encode(vae: Vae, pixels: Pixels, folder: Path, image_size: int, seed: int, settings: LatentSettings,
           progress: Callable[[int, int], None] = lambda done, total: None) -> tuple[Latents, VaeConfig]:
    """Encode all variants; returns them with the autoencoder's settings completed by the latents' scale."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    per_type = Counter(r.image_type for r in pixels.records if r.split == "train")
    plan = [(row, k) for row, r in enumerate(pixels.records)
            for k in range(variants_of(per_type[r.image_type], settings) if r.split == "train" else 1)]
    cells = image_size // 8
    shape = (len(plan), vae.config.latent_channels, cells, cells)
    raw, done = opened(folder, shape)
    mirrored, geometry = np.zeros(len(plan), bool), np.zeros((len(plan), 4), np.float32)
    for start in range(0, len(plan), 32):
        squares = []
        for m in range(start, min(start + 32, len(plan))):
            row, k = plan[m]
            square = np.asarray(pixels.array[row])
            if k == 0:
                squares.append(np.asarray(Image.fromarray(square).resize((image_size,) * 2, Image.Resampling.LANCZOS)))
                continue
            symmetry = vocabulary.IMAGE_TYPES[pixels.records[row].image_type].symmetry
            small, mirrored[m], geometry[m] = vary(square, symmetry, batches.generator(seed, "variants", m), image_size)
            squares.append(small)
        if start >= done:
            raw[start:start + len(squares)] = vae.moments(to_tensor(np.stack(squares)))[0].numpy().astype(np.float16)
            if start % 4096 == 0:
                raw.flush()
                write_json(folder / "progress.json", {"shape": shape, "done": start})
        progress(start + len(squares), len(plan))
    rows = np.array([row for row, _ in plan], np.int64)
    train = np.array([pixels.records[row].split == "train" for row in rows])
    sample = raw[np.flatnonzero(train)[::max(1, train.sum() // 4000)]].astype(np.float32)
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    latent = np.lib.format.open_memmap(folder / "latents.npy", "w+", np.float16, shape)
    for start in range(0, len(plan), 1024):
        block = raw[start:start + 1024].astype(np.float32)
        latent[start:start + 1024] = ((block - mean[:, None, None]) / std[:, None, None]).astype(np.float16)
    latent.flush()
    types = np.array([pixels.records[row].image_type for row in rows])
    style, n_styles = cluster(latent, types, train, seed, settings)
    np.savez(folder / "index.npz", row=rows, mirrored=mirrored, geometry=geometry, style=style, n_styles=n_styles)
    config = dataclasses.replace(vae.config, latent_mean=tuple(map(float, mean)), latent_std=tuple(map(float, std)))
    for name in ("raw.npy", "progress.json"):
        (folder / name).unlink(missing_ok=True)
    return load(folder), config


def opened(folder: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The array to encode into, and how many of its rows an interrupted start has left there."""
    marker, path = folder / "progress.json", folder / "raw.npy"
    if marker.is_file() and path.is_file():
        left = json.loads(marker.read_text())
        if left["shape"] == list(shape):
            return np.load(path, mmap_mode="r+"), left["done"]
    return np.lib.format.open_memmap(path, "w+", np.float16, shape), 0


def load(folder: Path) -> Latents:
    with np.load(Path(folder) / "index.npz") as opened_index:
        index = dict(opened_index)
    return Latents(np.load(Path(folder) / "latents.npy", mmap_mode="r"), index["row"], index["mirrored"],
                   index["geometry"], index["style"], int(index["n_styles"]))


def cluster(latent: np.ndarray, types: np.ndarray, train: np.ndarray, seed: int,
            settings: LatentSettings) -> tuple[np.ndarray, int]:
    """Style clusters within each image type: k-means on latents pooled to 4 x 4 cells.

    A denoiser told the cluster learns faster from little data: arXiv:2403.00570.
    """
    style, total = np.zeros(len(types), np.int64), 0
    for image_type in sorted(set(types)):
        mine = np.flatnonzero(types == image_type)
        block = np.asarray(latent[mine], np.float32)
        n, c, h, w = block.shape
        features = block.reshape(n, c, 4, h // 4, 4, w // 4).mean((3, 5)).reshape(n, -1)
        k = max(1, min(settings.most_styles, int(train[mine].sum()) // settings.images_a_style))
        centres = kmeans2(features[train[mine]], k, minit="++", seed=seed)[0]
        style[mine] = total + vq(features, centres)[0]
        total += k
    return style, total
