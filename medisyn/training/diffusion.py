"""Training the denoiser on latents and captions, with the autoencoder and the text encoder frozen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medisyn import flow
from medisyn.data import prompts
from medisyn.data.records import Record
from medisyn.models.dit import Dit, DitConfig
from medisyn.models.text import TextEncoder, to_pieces
from medisyn.training import batches
from medisyn.training.ema import Ema
from medisyn.training.latents import Latents, mirror_words
from medisyn.training.run import Plan, Stage, Trainee, average_gradients, learning_rate, my_share, train

EMA_WIDTHS = (0.05, 0.10)
WATCHED_TIMES = (0.2, 0.5, 0.8)  # where train and held-out loss are compared


class DitSettings(BaseModel):
    """The [dit] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 192
    heads: int = 3
    depth: int = 8
    stem: int = 64
    n_images: int = 300_000
    batch: int = 64
    learning_rate: float = 1e-3         # of vectors, embeddings, convolutions (AdamW)
    matrix_learning_rate: float = 2e-3  # of the blocks' matrices (Muon, matched to AdamW's step size)
    warmup: int = 200                   # steps
    decay_share: float = 0.25           # of the steps, at the end, over which the rates fall to 0
    drop_text: float = 0.12             # share of images shown without any text: what guidance subtracts
    drop_fact: float = 0.25             # share of facts left out of a caption
    drop_style: float = 0.3             # share of images shown without their style cluster
    direction: float = 0.25             # weight of 1 - cos(predicted, true velocity)
    shift: float = 1.0                  # of the training times, towards noise
    watched: int = 96                   # images a side on which train and held-out loss are followed
    log_images: int = 20_000
    save_seconds: float = 120.0


@dataclass(frozen=True)
class Reader:
    """A frozen text encoder with its word pieces: sentences in, tokens out."""

    encoder: TextEncoder
    tokenizer: object

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """tokens (B, n, D) and pooled (B, D) of B sentences; "" is the sentence that says nothing."""
        tokens, _, pooled = self.encoder(*to_pieces(self.tokenizer, texts, self.encoder.config.max_length))
        return tokens, pooled


def split_optimizers(dit: Dit, settings: DitSettings) -> dict[str, torch.optim.Optimizer]:
    """Muon for the blocks' matrices (Jordan et al. 2024; scaled as in arXiv:2502.16982), AdamW for the rest."""
    matrices = [p for name, p in dit.blocks.named_parameters() if p.ndim == 2 and not name.endswith("shift")]
    chosen = {id(p) for p in matrices}
    rest = [p for p in dit.parameters() if id(p) not in chosen]
    return {"muon": torch.optim.Muon(matrices, settings.matrix_learning_rate, weight_decay=0.0, momentum=0.95,
                                     adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(rest, settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)}


def batch_of(latents: Latents, known: list[Record], variants: dict[int, np.ndarray], rows: np.ndarray,
             rng: np.random.Generator, settings: DitSettings) -> tuple[np.ndarray, list[str], np.ndarray]:
    """For each packed image: a variant (B,), a caption, and its style (B,), some of them withheld."""
    chosen, texts, styles = [], [], []
    for row in rows:
        own = variants[int(row)]
        m = int(own[rng.integers(len(own))])
        record = mirror_words(known[row]) if latents.mirrored[m] else known[row]
        text = prompts.describe(record, rng, drop=settings.drop_fact)
        texts.append("" if rng.random() < settings.drop_text else text)
        styles.append(latents.n_styles if rng.random() < settings.drop_style else int(latents.style[m]))
        chosen.append(m)
    return np.array(chosen), texts, np.array(styles)


def direction_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """1 - cosine of the angle between velocities, per image: (B,). FasterDiT, arXiv:2410.10356."""
    return 1 - F.cosine_similarity(predicted.flatten(1), true.flatten(1))


@torch.no_grad()
def watched_loss(dit: Dit, read: Reader, latents: Latents, known: list[Record], rows: np.ndarray, seed: int) -> float:
    """Flow loss of fixed images, noises and times: comparable over training and between splits."""
    first = {int(r): m for m, r in reversed(list(enumerate(latents.row)))}
    data = torch.from_numpy(np.stack([latents.latent[first[int(r)]] for r in rows]).astype(np.float32))
    style = torch.from_numpy(np.array([latents.style[first[int(r)]] for r in rows]))
    tokens, pooled = read([prompts.canonical(known[r]) for r in rows])
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for t in WATCHED_TIMES:
        noise = torch.randn(data.shape, generator=generator)
        losses.append(flow.loss(lambda x, at: dit(x, at, tokens, pooled, style), data, noise,
                                torch.full((len(rows),), t)).mean())
    return float(torch.stack(losses).mean())


def fit(stage: Stage, latents: Latents, known: list[Record], read: Reader, seed: int, settings: DitSettings,
        draw: Callable[[Dit], Image.Image] | None = None, resume: bool = True) -> tuple[dict[str, nn.Module], DitConfig] | None:
    """Train a denoiser; returns its moving averages by name, or None when it was stopped before its end."""
    torch.manual_seed(seed)
    config = DitConfig(latents.latent.shape[1], latents.latent.shape[2], settings.width, settings.heads, settings.depth,
                       settings.stem, read.encoder.config.width, read.encoder.config.n_tokens, latents.n_styles)
    dit = Dit(config)
    emas = {f"ema_{width:.2f}": Ema(dit, width) for width in EMA_WIDTHS}
    optimizers = split_optimizers(dit, settings)
    peaks = {"muon": settings.matrix_learning_rate, "adamw": settings.learning_rate}
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    is_train = np.array([r.split == "train" for r in known])
    rows, held_out = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    p = batches.weights([known[r] for r in rows])
    variants = by_row(latents)
    share = my_share(settings.batch)
    watch = {"train": watched_rows(rows, known, settings.watched), "held_out": watched_rows(held_out, known, settings.watched)}

    def step(i: int) -> dict[str, Tensor]:
        rng = batches.generator(seed, "captions", i)
        chosen, texts, styles = batch_of(latents, known, variants, rows[batches.order(p, settings.batch, seed, i)],
                                         rng, settings)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        t = flow.draw_times(settings.batch, shift=settings.shift, generator=generator)[share]
        noise = torch.randn((settings.batch, *latents.latent.shape[1:]), generator=generator)[share]
        data = torch.from_numpy(latents.latent[np.sort(chosen[share])].astype(np.float32))
        data = data[torch.from_numpy(np.argsort(np.argsort(chosen[share])))]
        tokens, pooled = read(texts[share])
        style, geometry = torch.from_numpy(styles[share]), torch.from_numpy(latents.geometry[chosen[share]])
        predicted = dit(flow.interpolate(noise, data, t), t, tokens, pooled, style, geometry)
        mse = (predicted - (data - noise)).square().mean()
        angle = direction_loss(predicted, data - noise).mean()
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        (mse + settings.direction * angle).backward()
        average_gradients(list(dit.parameters()))
        torch.nn.utils.clip_grad_norm_(dit.parameters(), 1.0)
        for name, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(peaks[name], i, plan.steps, settings.warmup, settings.decay_share)
            optimizer.step()
        for ema in emas.values():
            ema.update(dit, i)
        return {"loss": mse.detach()}

    def validate() -> dict[str, float]:
        found = {}
        for name, ema in emas.items():
            for side, side_rows in watch.items():
                if len(side_rows):
                    found[f"{side}_{name}"] = watched_loss(ema.network, read, latents, known, side_rows, seed)
        return found

    modules: dict[str, nn.Module] = {"dit": dit} | {name: ema.network for name, ema in emas.items()}
    picture = None if draw is None else lambda: draw(emas[f"ema_{EMA_WIDTHS[0]:.2f}"].network)
    if not train(stage, plan, Trainee(step, modules, optimizers, picture, validate), resume):
        return None
    return {name: ema.network for name, ema in emas.items()}, config


def by_row(latents: Latents) -> dict[int, np.ndarray]:
    """The variants of each packed image."""
    found: dict[int, list[int]] = {}
    for m, row in enumerate(latents.row):
        found.setdefault(int(row), []).append(m)
    return {row: np.array(own) for row, own in found.items()}


def watched_rows(rows: np.ndarray, known: list[Record], n: int) -> np.ndarray:
    """About n of the rows, image types in turns."""
    by_type: dict[str, list[int]] = {}
    for r in rows:
        by_type.setdefault(known[r].image_type, []).append(int(r))
    longest = max(map(len, by_type.values()), default=0)
    turns = [mine[k] for k in range(longest) for mine in by_type.values() if k < len(mine)]
    return np.array(turns[:n], np.int64)
