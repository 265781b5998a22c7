"""Training the eye without labels: every image is a class of its own, to be told from all others in any view.

Parametric instance discrimination (Dosovitskiy et al. 2014, arXiv:1406.6909), which of all self-supervision
suits a few hundred images best (Cao et al. 2022, arXiv:2201.10728). The eye judges, so it learns on patients
whom no generator was trained on: the `val` split, another seed, another loss.
"""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medisyn.evaluation.eye import Eye, EyeConfig, save, to_tensor
from medisyn.training import batches
from medisyn.training.batches import Pixels
from medisyn.training.ema import Ema
from medisyn.training.run import (
    Plan,
    Stage,
    Trainee,
    average_gradients,
    join_ranks,
    learning_rate,
    my_share,
    rank,
    say,
    train,
    wait,
)

TURNABLE = ("histopathology", "blood_smear", "dermoscopy", "skin_photograph")  # no way is up


class EyeSettings(BaseModel):
    """The [eye] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = 128                                 # pixels a side of what it looks at
    widths: tuple[int, ...] = (32, 64, 96, 160)
    views: tuple[int, ...] = (96, 64)               # sides of the crops of one image in a step
    n_images: int = 18_000                          # to train on, each in all views
    batch: int = 64
    learning_rate: float = 2e-3
    decay: float = 0.5                             # share of the training, at its end, in which the rate falls to 0
    temperature: float = 0.07                       # of the cosine between features and an image's own direction
    smoothing: float = 0.1                          # of the labels: neighbours of one patient are hardly told apart
    smallest: float = 0.25                          # share of the area that a crop shows at least
    log_images: int = 2_000
    save_seconds: float = 60.0


class EyeRecipe(BaseModel):
    """A recipe of `kind = "eye"`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = "eye"
    seed: int = 4242
    threads: int | None = None                      # torch threads; None: torch's own choice
    collections: tuple[str, ...]                    # openly licensed ones, made by `medisyn ingest`
    splits: tuple[str, ...] = ("val",)              # never the generator's
    eye: EyeSettings = EyeSettings()


class Instances(nn.Module):
    """A direction for every image of the training set: features (B, D) -> logits (B, n)."""

    def __init__(self, dims: int, n: int, temperature: float):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(n, dims) / dims**0.5)
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1) @ F.normalize(self.directions, dim=1).T / self.temperature


def run(recipe: EyeRecipe, folder: Path, resume: bool = True) -> Path | None:
    """Train an eye in a run folder; RUN/model, or None where a signal stopped it."""
    join_ranks()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    homes = [Path(c).expanduser().absolute() for c in recipe.collections]
    if rank() == 0:
        batches.pack(homes, Path(folder) / "pixels", recipe.eye.side, recipe.splits)
    wait()
    pixels, stage = Pixels(Path(folder) / "pixels"), Stage(folder, "eye")
    say(f"eye: {len(pixels.records):,} images of {len({r.patient for r in pixels.records}):,} patients")
    eye = fit(stage, pixels, recipe.seed, recipe.eye, resume)
    if eye is None:
        return None
    if rank() == 0:
        save(eye, Path(folder) / "model")
        stage.finish({"n_images": recipe.eye.n_images})
    return Path(folder) / "model"


def outlook(recipe: EyeRecipe) -> list[str]:
    """What a recipe would train."""
    eye = Eye(EyeConfig(recipe.eye.side, recipe.eye.widths))
    return [f"eye   {sum(p.numel() for p in eye.parameters()) / 1e6:6.2f} M weights, {eye.config.dims} features, "
            f"{recipe.eye.n_images:,} images of {', '.join(recipe.collections)}:{','.join(recipe.splits)}"]


def fit(stage: Stage, pixels: Pixels, seed: int, settings: EyeSettings, resume: bool = True) -> Eye | None:
    """Train an eye; None when it was stopped before its end."""
    torch.manual_seed(seed)
    eye = Eye(EyeConfig(settings.side, settings.widths)).to(memory_format=torch.channels_last)
    head = Instances(eye.config.dims, len(pixels.records), settings.temperature)
    ema = Ema(eye, 0.05)
    parameters = [*eye.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.05)
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    p = batches.weights(pixels.records)
    share = my_share(settings.batch)

    def step(i: int) -> dict[str, Tensor]:
        rows = batches.order(p, settings.batch, seed, i)
        rng = batches.generator(seed, "views", i)
        losses, right = [], []
        for side in settings.views:
            image = views(pixels, rows, side, settings.smallest, rng)[share]
            truth = torch.from_numpy(rows[share])
            logits = head(eye(image))
            losses.append(F.cross_entropy(logits, truth, label_smoothing=settings.smoothing))
            right.append((logits.argmax(1) == truth).float().mean())
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.learning_rate, i, plan.steps, 50, settings.decay)
        optimizer.step()
        ema.update(eye, i)
        return {"loss": loss.detach(), "recognised": torch.stack(right).mean()}

    trainee = Trainee(step, {"eye": eye, "head": head, "ema": ema.network}, {"adamw": optimizer})
    return ema.network if train(stage, plan, trainee, resume) else None


def views(pixels: Pixels, rows: np.ndarray, side: int, smallest: float, rng: np.random.Generator) -> Tensor:
    """Each image as a random crop, turned, with other tones and some damage: float32 (B, 3, side, side) in [-1, 1]."""
    squares = np.stack([pixels.array[r] for r in rows])
    turnable = np.array([pixels.records[r].image_type in TURNABLE for r in rows])
    for k in np.flatnonzero(rng.random(len(rows)) < 0.25):
        squares[k] = compressed(squares[k], int(rng.integers(30, 90)))
    image = F.grid_sample(to_tensor(squares), F.affine_grid(frames(turnable, smallest, rng), (len(rows), 3, side, side),
                                                            align_corners=False),
                          padding_mode="reflection", align_corners=False)
    return damaged(toned(image, rng), rng)


def compressed(square: np.ndarray, quality: int) -> np.ndarray:
    """A square as JPEG leaves it."""
    out = io.BytesIO()
    Image.fromarray(square).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def frames(turnable: np.ndarray, smallest: float, rng: np.random.Generator) -> Tensor:
    """Where each crop lies: float32 (B, 2, 3) for affine_grid.

    Mirrored one time in two, so that a mirrored copy is a near neighbour; turned by quarters where no way is up,
    by up to 10 degrees elsewhere; at most a quarter longer than wide.
    """
    n = len(turnable)
    area, ratio = rng.uniform(smallest, 1, n), np.exp(rng.uniform(-0.22, 0.22, n))
    half = np.minimum(np.stack((np.sqrt(area * ratio), np.sqrt(area / ratio)), 1), 1)      # (B, 2), half a side; the image spans 2
    centre = rng.uniform(-1, 1, (n, 2)) * (1 - half)
    angle = rng.uniform(-0.175, 0.175, n) + np.where(turnable, rng.integers(4, size=n) * np.pi / 2, 0)
    mirrored = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack((np.stack((cos * half[:, 0] * mirrored, -sin * half[:, 1]), 1),
                     np.stack((sin * half[:, 0] * mirrored, cos * half[:, 1]), 1)), 1)       # (B, 2, 2)
    return torch.from_numpy(np.concatenate((turn, centre[:, :, None]), 2)).float()


def toned(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Another gamma, contrast, brightness and, where there is colour, another balance of it."""
    n = len(image)

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).float().view(n, -1, 1, 1)
    colour = torch.ones(n, 3, 1, 1)
    coloured = (image[:, 0] != image[:, 2]).flatten(1).any(1)
    colour[coloured] = each(np.exp(rng.uniform(-0.15, 0.15, (n, 3))))[coloured]
    unit = ((image.clamp(-1, 1) + 1) / 2).clamp_min(1e-4) ** each(np.exp(rng.uniform(-0.4, 0.4, n)))
    return (unit * colour * 2 - 1) * each(rng.uniform(0.6, 1.3, n)) + each(rng.uniform(-0.2, 0.2, n))


def damaged(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Some noise in one of three, a slight blur in one of five: softness must remain visible to the eye."""
    n = len(image)
    blurred = torch.from_numpy(rng.random(n) < 0.2)
    tall = F.pad(image, (1, 1, 1, 1), mode="reflect")
    wide = tall[:, :, :-2] + 2 * tall[:, :, 1:-1] + tall[:, :, 2:]
    soft = (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 16
    image = torch.where(blurred.view(-1, 1, 1, 1), soft, image)
    strength = torch.from_numpy(rng.uniform(0, 0.1, n) * (rng.random(n) < 0.33)).float().view(-1, 1, 1, 1)
    noise = torch.from_numpy(rng.standard_normal((n, 1, *image.shape[2:]), dtype=np.float32))
    return (image + strength * noise).clamp(-1, 1).contiguous(memory_format=torch.channels_last)
