"""Training the recogniser on real images: image type, and the findings that are known of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from medisyn.data.records import Record
from medisyn.data.vocabulary import IMAGE_TYPES, closed
from medisyn.models.recogniser import Recogniser, RecogniserConfig
from medisyn.training import batches, device
from medisyn.training.autoencoder import to_tensor
from medisyn.training.batches import Pixels
from medisyn.training.ema import Ema
from medisyn.training.micro import Micro, accumulate
from medisyn.training.run import Plan, Stage, Trainee, average_gradients, learning_rate, my_share, train

SEEN = 20    # training images that must show a finding, and as many that must lack it
ENOUGH = 10  # held-out images of each kind for a limit


class RecogniserSettings(BaseModel):
    """The [recogniser] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_images: int = 0                   # 0: the model gets none, and takes the first image that it draws
    side: int = 64
    stem: int = 1
    widths: tuple[int, int, int] = (32, 64, 128)
    batch: int = 32
    learning_rate: float = 1e-3
    blur: float = 0.7                   # share of images that are blurred: generated ones are softer than real ones
    log_images: int = 5_000
    save_seconds: float = 120.0


def facts_of(record: Record) -> dict[str, bool]:
    return closed(record.findings, record.image_type, record.view)


def questions(known: Sequence[Record]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The image types of some records, and the findings that are present in SEEN of them and absent in as many."""
    states = Counter((f"{r.image_type}/{name}", present) for r in known for name, present in facts_of(r).items())
    names = sorted({name for name, _ in states})
    return (tuple(sorted({r.image_type for r in known})),
            tuple(name for name in names if min(states[name, True], states[name, False]) >= SEEN))


def truth(known: Sequence[Record], config: RecogniserConfig) -> tuple[Tensor, Tensor]:
    """Image types: int64 (N,). Findings: float32 (N, F), 1 present, 0 absent, nan unknown."""
    kinds = torch.tensor([config.image_types.index(r.image_type) for r in known])
    states = torch.full((len(known), len(config.findings)), float("nan"))
    place = {name: k for k, name in enumerate(config.findings)}
    for row, record in enumerate(known):
        for name, present in facts_of(record).items():
            if (column := place.get(f"{record.image_type}/{name}")) is not None:
                states[row, column] = float(present)
    return kinds, states


def augmented(pixels: Pixels, rows: np.ndarray, size: int, settings: RecogniserSettings, rng: np.random.Generator) -> Tensor:
    """Whole images, cropped, mirrored or turned as their type allows, darker or lighter, many blurred: (B, 3, size, size)."""
    out = np.empty((len(rows), size, size, 3), np.uint8)
    for k, row in enumerate(rows):
        side = pixels.array.shape[1]
        extent = int(side * rng.uniform(0.85, 1.0))
        top, left = rng.integers(0, side - extent + 1, 2)
        patch = np.asarray(pixels.array[row, top:top + extent, left:left + extent])
        small = int(size / rng.uniform(1, 2.5)) if rng.random() < settings.blur else size
        picture = Image.fromarray(patch).resize((small, small), Image.Resampling.LANCZOS)
        patch = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
        symmetry = IMAGE_TYPES[pixels.records[row].image_type].symmetry
        if symmetry != "none" and rng.random() < 0.5:
            patch = patch[:, ::-1]
        out[k] = np.rot90(patch, int(rng.integers(4))) if symmetry == "dihedral" else patch
    image = to_tensor(out)
    shape = (len(rows), 1, 1, 1)
    gain, shift = (torch.from_numpy(rng.uniform(a, b, shape).astype(np.float32)) for a, b in ((0.85, 1.15), (-0.1, 0.1)))
    return (image * gain + shift).clamp(-1, 1)


def loss(logits: tuple[Tensor, Tensor], kinds: Tensor, states: Tensor, rarity: Tensor, counted: Tensor | None = None) -> Tensor:
    """Cross-entropy of the type, and of each finding that is known, averaged over those.

    rarity: (F,) how much more a present finding counts than an absent one. counted: how many known findings the average is
    over; None: those of these images. A part of a batch has its share of the batch's, so that parts average to the whole.
    """
    types, findings = logits
    known = torch.isfinite(states)
    each = F.binary_cross_entropy_with_logits(findings, states.nan_to_num(), reduction="none", pos_weight=rarity)
    return F.cross_entropy(types, kinds) + (each * known).sum() / (known.sum().clamp_min(1) if counted is None else counted)


def fit(stage: Stage, pixels: Pixels, seed: int, settings: RecogniserSettings,
        resume: bool = True) -> Recogniser | None:
    """Train a recogniser on the train split; None when it was stopped before its end."""
    torch.manual_seed(seed)
    rows, held_out = pixels.of_split("train"), pixels.of_split("val")
    types, findings = questions([pixels.records[r] for r in rows])
    config = RecogniserConfig(types, findings, settings.side, settings.widths, stem=settings.stem)
    where = torch.device("cpu")   # on all machines: it is small
    layout = device.layout(where)
    network = Recogniser(config).to(memory_format=layout)
    ema = Ema(network, 0.05)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=1e-2)
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    p = batches.weights([pixels.records[r] for r in rows])
    share = my_share(settings.batch)
    states = truth([pixels.records[r] for r in rows], config)[1]
    rarity = ((states == 0).sum(0) / (states == 1).sum(0).clamp_min(1)).clamp(0.1, 10)
    micro = Micro()

    def step(i: int) -> dict[str, Tensor]:
        rng = batches.generator(seed, "recogniser", i)
        chosen = rows[batches.order(p, settings.batch, seed + 2, i)]
        image = augmented(pixels, chosen, settings.side, settings, rng)[share]
        kinds, states = truth([pixels.records[r] for r in chosen[share]], config)
        known = torch.isfinite(states).sum().clamp_min(1)

        def losses(part: slice) -> dict[str, Tensor]:
            mine = known * ((part.stop - part.start) / len(image))
            with device.half(where):
                types, findings = network(image[part].contiguous(memory_format=layout))
            return {"loss": loss((types.float(), findings.float()), kinds[part], states[part], rarity, mine)}
        found = accumulate(network.parameters(), len(image), losses, micro, lambda text: stage.message(f"{stage.name}: {text}"))
        average_gradients(list(network.parameters()))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.learning_rate, i, plan.steps, 50, 0.5)
        optimizer.step()
        ema.update(network, i)
        return found

    def validate() -> dict[str, float]:
        return accuracy(ema.network, pixels, held_out[[pixels.records[r].image_type in types for r in held_out]], settings.side)

    trainee = Trainee(step, {"recogniser": network, "ema": ema.network}, {"adamw": optimizer}, None, validate, micro=micro)
    return ema.network if train(stage, plan, trainee, resume) else None


def best_limit(logits: np.ndarray, present: np.ndarray) -> float:
    """The logit between the two kinds of images that tells them apart best: the middle of the best balanced accuracies.

    logits float (N,), present bool (N,). 0 where either kind has fewer than ENOUGH images.
    """
    if min(present.sum(), (~present).sum()) < ENOUGH:
        return 0.0
    tried = np.unique(logits)
    tried = np.concatenate([[tried[0] - 1], (tried[1:] + tried[:-1]) / 2, [tried[-1] + 1]])
    balanced = np.array([((logits[present] > t).mean() + (logits[~present] <= t).mean()) / 2 for t in tried])
    return float(np.median(tried[balanced >= balanced.max() - 0.01]))


@torch.no_grad()
def calibrated(network: Recogniser, pixels: Pixels, rows: np.ndarray) -> Recogniser:
    """The same network, with the limits that tell each finding apart best on held-out images."""
    rows = np.array([r for r in rows if pixels.records[r].image_type in network.config.image_types], np.int64)
    if not len(rows) or not network.config.findings:
        return network
    states = truth([pixels.records[r] for r in rows], network.config)[1].numpy()
    logits = np.concatenate([network(squares(pixels, rows[k:k + 64], network.config.side))[1].numpy()
                             for k in range(0, len(rows), 64)])
    limits = [best_limit(logits[known, k], states[known, k] == 1)
              for k, known in enumerate(np.isfinite(states).T)]
    network.config = replace(network.config, limits=tuple(round(limit, 3) for limit in limits))
    return network


def squares(pixels: Pixels, rows: np.ndarray, side: int) -> Tensor:
    """Packed images as the network sees them: (N, 3, side, side)."""
    return to_tensor(np.stack([np.asarray(Image.fromarray(pixels.array[r]).resize((side, side), Image.Resampling.LANCZOS))
                               for r in rows]))


@torch.no_grad()
def accuracy(network: Recogniser, pixels: Pixels, rows: np.ndarray, side: int) -> dict[str, float]:
    """Shares of held-out images whose type, and of known findings whose state, is recognised."""
    if not len(rows):
        return {}
    right, known, correct = 0, 0, 0
    limits = torch.tensor(network.config.limits or [0.0] * len(network.config.findings))
    for start in range(0, len(rows), 64):
        part = rows[start:start + 64]
        kinds, states = truth([pixels.records[r] for r in part], network.config)
        types, findings = network(squares(pixels, part, side))
        right += int((types.argmax(1) == kinds).sum())
        known += int(torch.isfinite(states).sum())
        correct += int(((findings > limits).float() == states).sum())
    return {"held_out_types": right / len(rows)} | ({"held_out_findings": correct / known} if known else {})
