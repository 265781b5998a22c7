"""Begin: a run goes on from a model folder; its words and its autoencoder are kept, its denoiser is trained further.

The new run finds style clusters of its own among its images. Where they are not the model's own, each begins as that one of
the model's clusters under which the model explains its images best.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medisyn import flow
from medisyn.data import prompts
from medisyn.data.completion import STYLES
from medisyn.data.records import Record
from medisyn.models import checkpoint
from medisyn.models.checkpoint import Model
from medisyn.models.dit import Dit
from medisyn.training import device
from medisyn.training.diffusion import DitSettings, Reader
from medisyn.training.latents import Latents
from medisyn.training.ranks import average, rank, world

EXAMPLES = 4      # images that a cluster is tried on
TOGETHER = 16     # images that pass through the network at once: they stay in a core's cache
TIMES = (0.5,)


def kept_of(model: Model, denoiser: bool = False) -> dict[str, torch.nn.Module]:
    """The networks of a model that a new run takes over as they are, by the stage that would have made them."""
    kept = {"text": model.text, "vae": model.vae, "decoder": model.vae} | ({"dit": model.dit} if denoiser else {})
    return kept | ({"recogniser": model.recogniser} if model.recogniser is not None else {})


def sources_of(folder: str) -> list[dict]:
    """The rows of the training images that a model folder names; none where it does not say."""
    path = Path(folder).expanduser() / "training_data.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def together(now: list[dict], before: list[dict]) -> list[dict]:
    """A run's sources of training images and those of the model it began from; of one source the row that counts more images."""
    rows = {row["source"]: row for row in now}
    for row in before:
        if row["source"] not in rows or row["n_images"] > rows[row["source"]]["n_images"]:
            rows[row["source"]] = row
    return list(rows.values())


def words(model: Path, stage: Path) -> None:
    """The model's word pieces, where the stage `text` leaves its own."""
    shutil.copyfile(Path(model) / "tokenizer" / "tokenizer.json", stage / "tokenizer.json")


def shaped(settings: DitSettings, model: Model) -> DitSettings:
    """The settings with the width, heads, depth and stem of the model's denoiser."""
    config = model.dit.config
    return settings.model_copy(update={"width": config.width, "heads": config.heads, "depth": config.depth, "stem": config.stem})


def styles_by_type(support: list) -> dict[str, list[int]]:
    """The style clusters of each image type of a model."""
    found: dict[str, set[int]] = defaultdict(set)
    for row in support:
        found[row[0]] |= {int(style) for style in row[STYLES]}
    return {image_type: sorted(styles) for image_type, styles in found.items()}


@torch.no_grad()
def losses(dit: Dit, data: Tensor, tokens: Tensor, pooled: Tensor, styles: list[int], seed: int) -> Tensor:
    """Mean flow loss of n images under each of k style clusters: (k,). data (n, c, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(data.shape, generator=generator)
    n, k = len(data), len(styles)
    given = torch.tensor(styles).repeat_interleave(n)
    many = [value.repeat(k, *[1] * (value.ndim - 1)) for value in (data, noise, tokens, pooled)]
    total = torch.zeros(k)
    for t in TIMES:
        each = []
        for clean, its_noise, *told in zip(*(value.split(TOGETHER) for value in (*many, given)), strict=True):
            with device.half(clean.device):
                each.append(flow.loss(lambda x, at, told=told: dit(x, at, *told).float(), clean, its_noise,
                                      torch.full((len(clean),), t)))
        total += torch.cat(each).reshape(k, n).mean(1)
    return total


def denoiser(model: Model, read: Reader, latents: Latents, known: list[Record], seed: int,
             progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Tensor]:
    """The model's denoiser as weights to begin from, with an embedding for each of the new run's style clusters.

    Ranks share the clusters; a recipe's `precision` counts.
    """
    state = {name: value.clone() for name, value in model.dit.state_dict().items()}
    old, per_type = state["style.weight"], styles_by_type(model.support)
    new = old[-1:].repeat(latents.n_styles + 1, 1)  # a cluster of an image type that is new to the model: as if none were given
    rows = np.array([known[r].split == "train" for r in latents.row])
    chosen = torch.zeros(latents.n_styles, dtype=torch.float64)   # of the model's clusters, counted from 1; 0: none
    for style in range(rank(), latents.n_styles, world()):
        members = np.flatnonzero((latents.style == style) & rows)[:200]
        members = members[np.linspace(0, len(members) - 1, min(EXAMPLES, len(members))).astype(int)]
        candidates = per_type.get(known[latents.row[members[0]]].image_type, []) if len(members) else []
        if candidates:
            data = torch.from_numpy(np.stack([latents.latent[m] for m in members]).astype(np.float32))
            tokens, pooled = read([prompts.canonical(known[latents.row[m]]) for m in members])
            chosen[style] = 1 + candidates[int(losses(model.dit, data, tokens, pooled, candidates, seed).argmin())]
        progress(min(style + world(), latents.n_styles), latents.n_styles)
    for style, best in enumerate((average(chosen) * world()).round().long()):
        if best:
            new[style] = old[best - 1]
    return state | {"style.weight": new}


def opened(folder: str) -> Model:
    """The model folder that a recipe's `start` names."""
    return checkpoint.load(Path(folder).expanduser())
