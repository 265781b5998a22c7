"""Everything on the device: squares, latents and read captions, so that a step waits for no disk, decoder or loader.

What a step draws is a function of (seed, step) as ever: rows, variants, captions and crops are drawn on the CPU, a few
numbers an image, and gathered where the data lie.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medisyn import flow
from medisyn.data import prompts, vocabulary
from medisyn.data.records import Record
from medisyn.models.vae import Vae, VaeConfig
from medisyn.training import batches, device
from medisyn.training.batches import Pixels
from medisyn.training.diffusion import Batch, DitSettings, Feed, Reader
from medisyn.training.latents import (
    Latents,
    LatentSettings,
    Variation,
    cluster,
    draw_variation,
    load,
    mirror_words,
    normalised,
    planned,
    scale_of,
)
from medisyn.training.run import my_share, rank, wait, world

AT_ONCE = 4          # images that a CPU encodes at once: more do not fit its caches, and take three times as long each
CAPTION_PIECES = 64  # word pieces of a caption that are kept: what the text encoder reads


# ---- squares ---------------------------------------------------------------------------------------------------------

def squares(pixels: Pixels, where: torch.device) -> Tensor:
    """All packed squares on the device: uint8 (N, S, S, 3)."""
    array = torch.empty(pixels.array.shape, dtype=torch.uint8, device=where)
    for start in range(0, len(array), 1024):
        array[start:start + 1024] = torch.from_numpy(np.array(pixels.array[start:start + 1024]))
    return array


def to_image(patches: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1], channels last in memory."""
    return (patches.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def crops(array: Tensor, rows: np.ndarray, size: int, rng: np.random.Generator) -> Tensor:
    """Random squares in random orientations: (B, 3, size, size) in [-1, 1]; one in two is twice as large and halved.

    Where the squares are not twice as large, all are taken as they are.
    """
    side, n = array.shape[1], len(rows)
    halved = n // 2 if side >= 2 * size else 0
    parts = [F.avg_pool2d(patches(array, rows[:halved], 2 * size, rng), 2)] if halved else []
    image = torch.cat([*parts, patches(array, rows[halved:], size, rng)])
    transposed = torch.from_numpy(rng.random(n) < 0.5).to(array.device).view(-1, 1, 1, 1)
    return torch.where(transposed, image.transpose(2, 3), image).contiguous(memory_format=torch.channels_last)


def patches(array: Tensor, rows: np.ndarray, extent: int, rng: np.random.Generator) -> Tensor:
    """Squares of `extent` pixels at random places, flipped at random: (B, 3, extent, extent)."""
    corners, flipped = rng.integers(0, array.shape[1] - extent + 1, (2, len(rows))), rng.random((2, len(rows))) < 0.5
    corners, flipped, rows = (torch.from_numpy(x).to(array.device) for x in (corners, flipped, rows))  # little enough not to wait
    along = torch.arange(extent, device=array.device)
    ys, xs = corners[:, :, None] + torch.where(flipped[:, :, None], along.flip(0), along)
    return to_image(array[rows[:, None, None], ys[:, :, None], xs[:, None, :]])


def whole(array: Tensor, rows: np.ndarray, size: int) -> Tensor:
    """The images at size x size: (B, 3, size, size) in [-1, 1]; the squares' side is a multiple of size, or resampled."""
    image = to_image(array[torch.from_numpy(rows).to(array.device)])
    return image if image.shape[2] == size else smaller(image, size)


def smaller(image: Tensor, size: int) -> Tensor:
    """An image antialiased to size x size."""
    if image.shape[2] % size == 0:
        return F.avg_pool2d(image, image.shape[2] // size)
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


# ---- captions --------------------------------------------------------------------------------------------------------

def write_captions(path: Path, known: list[Record], tokenizer: object, seed: int, each: int, drop: float) -> Path:
    """`each` wordings of every training image as word pieces, and as many of its mirror image where that has other words.

    The wordings of an image depend on seed and its id alone, so they may be made before and elsewhere.
    """
    from medisyn.models.text import plain
    texts, ids = [], []
    for record in known:
        for mirrored in (False, True) if mirrors(record) else (False,):
            rng = batches.generator(seed, f"captions of {record.id}", int(mirrored))
            worded = mirror_words(record) if mirrored else record
            texts += [prompts.describe(worded, rng, drop=drop) for _ in range(each)]
            ids.append(f"{record.id}~" if mirrored else record.id)
    pieces = np.zeros((len(texts), CAPTION_PIECES), np.uint16)
    for i, encoding in enumerate(tokenizer.encode_batch([plain(text) for text in texts])):
        kept = encoding.ids[:CAPTION_PIECES]
        pieces[i, :len(kept)] = kept
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, pieces=pieces[:, :max(1, int((pieces > 0).sum(1).max(initial=1)))], ids=np.array(ids), each=each)
    return Path(path)


def mirrors(record: Record) -> bool:
    """Whether the record's image may be mirrored and is then told in other words."""
    return vocabulary.IMAGE_TYPES[record.image_type].symmetry != "none" and mirror_words(record) != record


class Captions:
    """Read captions on the device: `tokens` (K + 1, n, D), `pooled` (K + 1, D); the last row says nothing."""

    def __init__(self, path: Path, known: list[Record], read: Reader, where: torch.device):
        with np.load(path) as opened:
            pieces, ids, self.each = opened["pieces"].astype(np.int64), opened["ids"].tolist(), int(opened["each"])
        config, n = read.encoder.config, len(pieces)
        self.tokens = torch.empty(n + 1, config.n_tokens, config.width, dtype=torch.float16, device=where)
        self.pooled = torch.empty(n + 1, config.width, dtype=torch.float16, device=where)
        tokens, pooled = (torch.from_numpy(found) for found in read_all(path, pieces, read, where))
        self.tokens[:n], self.pooled[:n] = tokens, pooled
        tokens, pooled = read([""])
        self.tokens[-1], self.pooled[-1] = tokens[0].half(), pooled[0].half()
        place = {name: k * self.each for k, name in enumerate(ids)}
        missing = [r.id for r in known if r.split == "train" and r.id not in place]
        if missing:
            raise ValueError(f"{path} holds no captions of {missing[0]} and {len(missing) - 1} more; delete it to have it made")
        self.first = np.array([[place.get(r.id, 0), place.get(f"{r.id}~", place.get(r.id, 0))] for r in known])


@torch.no_grad()
def read_all(path: Path, pieces: np.ndarray, read: Reader, where: torch.device, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """The captions of a file as the text encoder reads them: float16 (K, n, D) and (K, D).

    Short ones are read with short ones, by all processes together, and what was read is kept beside the file under a name that
    follows from it and from the encoder: on a CPU that is minutes, which nobody waits for twice.
    """
    config = read.encoder.config
    home = path.with_name(f"{path.stem}-{follows(path.read_bytes(), read.encoder)}")
    order = np.argsort((pieces > 0).sum(1), kind="stable")

    def fill(mine: slice, tokens: np.ndarray, pooled: np.ndarray) -> None:
        rows = order[mine]
        longest = max(1, int((pieces[rows] > 0).sum(1).max()))
        batch = torch.from_numpy(pieces[rows, :longest]).to(where)
        seen, _, summed = read.encoder(batch, batch > 0)
        tokens[rows], pooled[rows] = seen.half().cpu().numpy(), summed.half().cpu().numpy()
    shapes = {home.with_suffix(".tokens.npy"): (len(pieces), config.n_tokens, config.width),
              home.with_suffix(".pooled.npy"): (len(pieces), config.width)}
    return tuple(in_shares(shapes, home.with_suffix(".done.npy"), len(pieces), block, fill))


# ---- work that processes share -----------------------------------------------------------------------------------------

def follows(told: bytes, network: nn.Module) -> str:
    """A name for what follows from some bytes and a network's weights: 12 hex digits."""
    digest = hashlib.sha256(told)
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def in_shares(shapes: dict[Path, tuple[int, ...]], marker: Path, n: int, block: int, fill: Callable[..., None],
              progress: Callable[[int, int], None] = lambda done, total: None) -> list[np.ndarray]:
    """Arrays of n rows on disk, float16, that all processes of this machine fill together: each every so many-th block.

    fill: rows, the arrays -> fills those rows of each. marker: a file that says which blocks are done, so that an interrupted
    start goes on; its name has to follow from what the rows follow from. Where one of the files is missing, all begin anew.
    """
    wanted = shapes | {marker: (-(-n // block),)}
    if rank() == 0 and not all(path.is_file() and np.load(path, mmap_mode="r").shape == shape for path, shape in wanted.items()):
        for path, shape in wanted.items():
            np.lib.format.open_memmap(path, "w+", np.float16, shape)   # all 0
    wait()
    *held, done = (np.load(path, mmap_mode="r+") for path in wanted)
    for number in range(rank(), len(done), world()):
        mine = slice(number * block, min((number + 1) * block, n))
        if not done[number]:
            fill(mine, *held)
            done[number] = 1
        progress(mine.stop, n)
    for array in (*held, done):
        array.flush()
    wait()
    return held


# ---- latents ---------------------------------------------------------------------------------------------------------

def varied(image: Tensor, how: list[Variation | None]) -> Tensor:
    """Each image (B, 3, S, S) in [-1, 1] in its variation, same size; None leaves it as it is."""
    where, size = image.device, image.shape[2]
    plain = Variation(1.0, 0.0, 0.0, 0.0, -1, False)
    told = [v or plain for v in how]
    theta = torch.zeros(len(told), 2, 3)
    for k, v in enumerate(told):
        theta[k, 0, 0] = theta[k, 1, 1] = v.extent
        theta[k, 0, 2], theta[k, 1, 2] = 2 * v.column + v.extent - 1, 2 * v.row + v.extent - 1
    grid = F.affine_grid(theta.to(where), (len(told), 3, size, size), align_corners=False)
    made = F.grid_sample(image.contiguous(), grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(-1, 1)
    exponent = torch.tensor([v.gamma for v in told], device=where).exp().view(-1, 1, 1, 1)
    made = ((made + 1) / 2).clamp_min(1e-6) ** exponent * 2 - 1
    for turns in (1, 2, 3):
        mine = torch.tensor([v.turns == turns for v in told], device=where)
        made = torch.where(mine.view(-1, 1, 1, 1), torch.rot90(made, turns, (2, 3)), made)
    mirrored = torch.tensor([v.mirrored for v in told], device=where).view(-1, 1, 1, 1)
    untouched = torch.tensor([v is None for v in how], device=where).view(-1, 1, 1, 1)
    return torch.where(untouched, image, torch.where(mirrored, made.flip(3), made))


@torch.no_grad()
def encode(vae: Vae, pixels: Pixels, array: Tensor, folder: Path, image_size: int, first_side: int, seed: int,
           settings: LatentSettings, progress: Callable[[int, int], None] = lambda done, total: None,
           block: int = 128, keep_scale: bool = False) -> tuple[Latents, VaeConfig]:
    """All variants at image_size and, where first_side is not 0, the same ones at that side, with the encoder's features.

    Where the folder holds `before.npz`, the index of an earlier encoding of the same images, its scale and its styles stay.
    keep_scale: the autoencoder has a scale already, which a denoiser has learnt with.
    Several processes encode a share each; rank 0 puts them together, the others return what it wrote. Blocks that an
    interrupted start has encoded are not encoded again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    where, plan, c = array.device, planned(pixels, settings), vae.config.latent_channels
    vae, part = vae.to(where, memory_format=torch.channels_last), AT_ONCE if where.type == "cpu" else block
    symmetry = [vocabulary.IMAGE_TYPES[r.image_type].symmetry for r in pixels.records]
    how = [draw_variation(symmetry[row], batches.generator(seed, "variants", m)) if k else None for m, (row, k) in enumerate(plan)]
    rows = np.array([row for row, _ in plan], np.int64)
    sides = [side for side in (image_size, first_side) if side]
    shapes = {folder / f"raw-{side}.npy": (len(plan), c, side // 8, side // 8) for side in sides}
    if first_side:
        shapes[folder / "features.npy"] = (len(plan), vae.config.widths[2], first_side // 16, first_side // 16)

    def fill(mine: slice, *arrays: np.ndarray) -> None:
        image = varied(whole(array, rows[mine], image_size), how[mine])
        for first in range(mine.start, mine.stop, part):
            some = slice(first, min(first + part, mine.stop))
            for side, latent in zip(sides, arrays, strict=False):
                small = image[first - mine.start:some.stop - mine.start]
                small = (small if side == image_size else smaller(small, side)).contiguous(memory_format=torch.channels_last)
                with device.half(where):
                    seen = vae.encoder[:-1](small)
                    mean = vae.encoder[-1](seen).chunk(2, 1)[0]
                latent[some] = mean.half().cpu().numpy()
                if side == first_side:
                    arrays[-1][some] = F.avg_pool2d(seen.float(), 2).half().cpu().numpy()
    marker = folder / f"encoded-{follows(f'{seed} {settings}'.encode(), vae)}.npy"
    raw = dict(zip(sides, in_shares(shapes, marker, len(plan), block, fill, progress), strict=False))
    if rank() == 0:
        scale = (vae.config.latent_mean, vae.config.latent_std) if keep_scale else None
        together(raw, pixels, rows, how, folder, image_size, first_side, seed, settings, scale)
    wait()
    with np.load(folder / "index.npz") as index:
        mean, std = index["mean"], index["std"]
    return load(folder), dataclasses.replace(vae.config, latent_mean=tuple(map(float, mean)), latent_std=tuple(map(float, std)))


def together(raw: dict[int, np.ndarray], pixels: Pixels, rows: np.ndarray, how: list[Variation | None], folder: Path,
             image_size: int, first_side: int, seed: int, settings: LatentSettings,
             scale: tuple[Sequence[float], Sequence[float]] | None = None) -> None:
    """The encoded latents (by side) with their scale taken out, and the index of what they are. scale: mean and deviation that
    are known, each of c channels; None: these images' own."""
    train = np.array([pixels.records[row].split == "train" for row in rows])
    before = folder / "before.npz"
    if before.is_file():
        with np.load(before) as opened:
            kept = dict(opened)
        if not np.array_equal(kept["row"], rows):
            raise ValueError(f"{before} is the index of other images; delete it, or take the images of the earlier run")
        mean, std, style, n_styles = kept["mean"], kept["std"], kept["style"], int(kept["n_styles"])
    else:
        mean, std = (np.array(part, np.float32) for part in scale) if scale else scale_of(raw[image_size], train)
    latent = normalised(raw[image_size], mean, std, folder / "latents.npy")
    if first_side:
        normalised(raw[first_side], mean, std, folder / "first.npy")
    if not before.is_file():
        style, n_styles = cluster(latent, np.array([pixels.records[row].image_type for row in rows]), train, seed, settings)
    geometry = np.array([v.geometry if v else [0.0] * 4 for v in how], np.float32)
    np.savez_compressed(folder / "index.npz", row=rows, mirrored=np.array([bool(v and v.mirrored) for v in how]), geometry=geometry,
                        style=style, n_styles=n_styles, mean=mean, std=std)
    for path in (*folder.glob("raw-*.npy"), *folder.glob("encoded-*.npy")):
        path.unlink()


def first_stretch(folder: Path) -> tuple[Latents, np.ndarray]:
    """The latents of smaller images that `encode` wrote, and the encoder's features of them."""
    latent, features = (np.load(Path(folder) / name, mmap_mode="r") for name in ("first.npy", "features.npy"))
    return dataclasses.replace(load(folder), latent=latent), features


# ---- the denoiser's batches ------------------------------------------------------------------------------------------

def feed(latents: Latents, known: list[Record], captions: Captions, seed: int, settings: DitSettings, where: torch.device,
         features: np.ndarray | None = None) -> Feed:
    """Batches gathered on the device; `features`: float16 (M, F, h/2, w/2) beside the latents, or None."""
    held = torch.from_numpy(np.array(latents.latent)).to(where)
    seen = None if features is None else torch.from_numpy(np.array(features)).to(where)
    geometry = torch.from_numpy(latents.geometry).to(where)
    rows = np.flatnonzero([r.split == "train" for r in known])
    p = batches.weights([known[r] for r in rows], often=settings.often)
    by_row = np.argsort(latents.row, kind="stable")
    start = np.searchsorted(latents.row[by_row], np.arange(len(known)))
    count = np.bincount(latents.row, minlength=len(known))
    share = my_share(settings.batch)

    def draw(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each image: its variant, its caption, its style; the whole batch."""
        mine = rows[batches.order(p, settings.batch, seed, i)]
        rng = batches.generator(seed, "captions", i)
        chosen = by_row[start[mine] + (rng.random(len(mine)) * count[mine]).astype(np.int64)]
        caption = captions.first[mine, latents.mirrored[chosen].astype(int)] + rng.integers(0, captions.each, len(mine))
        caption = np.where(rng.random(len(mine)) < settings.drop_text, len(captions.tokens) - 1, caption)
        return chosen, caption, np.where(rng.random(len(mine)) < settings.drop_style, latents.n_styles, latents.style[chosen])

    def batch(i: int) -> Batch:
        chosen, caption, style = (torch.from_numpy(drawn[share]).to(where, non_blocking=True) for drawn in draw(i))
        generator = device.generator(seed, i, where)
        t = torch.sigmoid(torch.randn(settings.batch, generator=generator, device=where))
        t = flow.shifted(t, settings.shift)[share]
        noise = torch.randn((settings.batch, *held.shape[1:]), generator=generator, device=where)[share]
        told = (caption < len(captions.tokens) - 1) | (style < latents.n_styles)
        return Batch(held[chosen].float(), noise, t, captions.tokens[caption].float(), captions.pooled[caption].float(), style,
                     geometry[chosen], told, None if seen is None else seen[chosen])
    return batch
