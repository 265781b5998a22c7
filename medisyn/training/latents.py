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


@dataclasses.dataclass(frozen=True)
class Variation:
    """How a variant differs from its image: first the crop, then the gamma, the turn, the mirror."""

    extent: float                       # side of the crop, share of the square
    row: float                          # of its upper left corner, share of the square
    column: float
    gamma: float                        # logarithm of the exponent
    turns: int                          # quarter turns, counterclockwise
    mirrored: bool

    @property
    def geometry(self) -> list[float]:
        """What the denoiser is told: extent, row, column, gamma, each within [-1, 1]."""
        slack = 1 - self.extent
        centre = [(2 * self.row - slack) / (1 - SMALLEST_CROP), (2 * self.column - slack) / (1 - SMALLEST_CROP)]
        if self.turns >= 0:
            centre = [0.0, 0.0]  # the turn has moved it; an off-centre crop of texture needs no telling
        if self.mirrored:
            centre[1] = -centre[1]
        return [slack / (1 - SMALLEST_CROP), *centre, self.gamma / LARGEST_GAMMA]


def draw_variation(symmetry: str, rng: np.random.Generator) -> Variation:
    """A random variation of an image with the symmetry; turns is -1 where the image is not turned at all."""
    extent, gamma = rng.uniform(SMALLEST_CROP, 1.0), rng.uniform(-LARGEST_GAMMA, LARGEST_GAMMA)
    row, column = rng.uniform(0, 1 - extent), rng.uniform(0, 1 - extent)
    mirrored = symmetry != "none" and bool(rng.random() < 0.5)
    return Variation(extent, row, column, gamma, int(rng.integers(4)) if symmetry == "dihedral" else -1, mirrored)


def vary(square: np.ndarray, symmetry: str, rng: np.random.Generator, side: int) -> tuple[np.ndarray, bool, list[float]]:
    """One random variant of a uint8 (S, S, 3) image at side x side, whether it is mirrored, and its geometry."""
    how, n = draw_variation(symmetry, rng), len(square)
    box = (how.column * n, how.row * n, (how.column + how.extent) * n, (how.row + how.extent) * n)
    small = np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS, box=box))
    small = np.rint(255 * (small / 255.0) ** math.exp(how.gamma)).astype(np.uint8)
    if how.turns > 0:
        small = np.rot90(small, how.turns)
    return small[:, ::-1] if how.mirrored else small, how.mirrored, how.geometry


def planned(pixels: Pixels, settings: LatentSettings) -> list[tuple[int, int]]:
    """(packed image, number of its variant) of every latent; variant 0 is the whole frame, and the only one of val."""
    per_type = Counter(r.image_type for r in pixels.records if r.split == "train")
    return [(row, k) for row, r in enumerate(pixels.records)
            for k in range(variants_of(per_type[r.image_type], settings) if r.split == "train" else 1)]


@torch.no_grad()
def encode(vae: Vae, pixels: Pixels, folder: Path, image_size: int, seed: int, settings: LatentSettings,
           progress: Callable[[int, int], None] = lambda done, total: None,
           keep_scale: bool = False) -> tuple[Latents, VaeConfig]:
    """Encode all variants; returns them with the autoencoder's settings completed by the latents' scale.

    keep_scale: the autoencoder has a scale already, which a denoiser has learnt with.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = planned(pixels, settings)
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
    mean, std = scale_of(raw, train)
    if keep_scale:
        mean, std = np.array(vae.config.latent_mean, np.float32), np.array(vae.config.latent_std, np.float32)
    latent = normalised(raw, mean, std, folder / "latents.npy")
    types = np.array([pixels.records[row].image_type for row in rows])
    style, n_styles = cluster(latent, types, train, seed, settings)
    np.savez(folder / "index.npz", row=rows, mirrored=mirrored, geometry=geometry, style=style, n_styles=n_styles)
    config = dataclasses.replace(vae.config, latent_mean=tuple(map(float, mean)), latent_std=tuple(map(float, std)))
    for name in ("raw.npy", "progress.json"):
        (folder / name).unlink(missing_ok=True)
    return load(folder), config


def scale_of(raw: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over training latents: (c,) both."""
    sample = raw[np.flatnonzero(train)[::max(1, train.sum() // 4000)]].astype(np.float32)
    return sample.mean((0, 2, 3)), sample.std((0, 2, 3))


def normalised(raw: np.ndarray, mean: np.ndarray, std: np.ndarray, path: Path) -> np.ndarray:
    """The latents with zero mean and unit variance a channel, on disk: float16 (M, c, h, w)."""
    latent = np.lib.format.open_memmap(path, "w+", np.float16, raw.shape)
    for start in range(0, len(raw), 1024):
        block = raw[start:start + 1024].astype(np.float32)
        latent[start:start + 1024] = ((block - mean[:, None, None]) / std[:, None, None]).astype(np.float16)
    latent.flush()
    return latent


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
