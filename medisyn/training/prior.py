"""Prior: images of what the base could do before, made by itself, so that it does not forget (DreamBooth, arXiv:2208.12242, 3.2).

They stay latents: nothing is decoded. What is asked for follows from the base's own record of its training where it has one
(a MediSyn model), else from the image types that it is to learn.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medisyn import samplers, velocities
from medisyn.data import prompts, vocabulary
from medisyn.data.completion import COUNT, STYLES
from medisyn.data.records import Record
from medisyn.data.understanding import SLOTS
from medisyn.models.bases import Base
from medisyn.training import batches
from medisyn.training.cache import Cache, Entry, Plan, Progress, begun, put, read_all, whole

BATCH = 4   # sampled together


def asked(base: Base, known: Sequence[Record], n: int, seed: int) -> list[tuple[str, int]]:
    """n sentences, each with a style cluster, -1 for none."""
    rng = batches.generator(seed, "prior", 0)
    table = Path(base.source) / "support.json"
    if base.family == "medisyn" and table.is_file():
        return of_support(json.loads(table.read_text(encoding="utf-8")), n, rng)
    labels = sorted({vocabulary.IMAGE_TYPES[r.image_type].label for r in known})
    return [(labels[k % len(labels)], -1) for k in range(n)]


def of_support(support: list[list], n: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Sentences of the combinations that a MediSyn model was trained on, image types by the root of their number."""
    types = sorted({row[0] for row in support})
    total = np.array([sum(row[COUNT] for row in support if row[0] == name) for name in types]) ** 0.5
    found = []
    for name in rng.choice(types, n, p=total / total.sum()):
        rows = [row for row in support if row[0] == name]
        counts = np.array([row[COUNT] for row in rows], float)
        row = rows[int(rng.choice(len(rows), p=counts / counts.sum()))]
        facts = {slot: has for slot, has in zip(SLOTS, row, strict=False) if has}
        findings = dict.fromkeys(row[5], True) | dict.fromkeys(row[6], False)
        styles = sorted((int(style), count) for style, count in row[STYLES].items())
        weight = np.array([count for _, count in styles], float)
        style = styles[int(rng.choice(len(styles), p=weight / weight.sum()))][0] if styles else -1
        found.append((prompts.canonical(Record("", "", **facts, findings=findings)), style))
    return found


def plan(base: Base, known: Sequence[Record], side: int, n: int, steps: int, guidance: float, seed: int) -> tuple[Plan, list[int]]:
    """What is to be made, and each one's style cluster."""
    wanted = asked(base, known, n, seed)
    texts = list(dict.fromkeys(["", *(text for text, _ in wanted)]))
    entries = tuple(Entry(k, 0, (side, side), None, (texts.index(text),)) for k, (text, _) in enumerate(wanted))
    key = hashlib.sha256(json.dumps([base.digest, wanted, side, steps, guidance, seed]).encode()).hexdigest()
    return Plan(entries, tuple(texts), key), [style for _, style in wanted]


@torch.no_grad()
def fill(folder: Path, what: Plan, styles: list[int], base: Base, steps: int, guidance: float, seed: int, shard: int,
         where: torch.device, progress: Progress = lambda done, total: None) -> Cache:
    """Make what is not there yet, by the base as it is; a latent depends on its own number alone."""
    folder = begun(folder, what)
    for number, group in enumerate(what.shards(shard)):
        path = folder / f"latents-{number:05d}.safetensors"
        if not whole(path):
            found = [made(base, what, group[k:k + BATCH], styles, steps, guidance, seed, where)
                     for k in range(0, len(group), BATCH)]
            put(path, {"latent": torch.cat(found), "style": torch.tensor([styles[e] for e in group])})
        progress(group[-1] + 1, len(what.entries))
    read_all(folder, what, base, shard)
    return Cache(folder, what, shard)


def made(base: Base, what: Plan, group: list[int], styles: list[int], steps: int, guidance: float, seed: int,
         where: torch.device) -> Tensor:
    """Latents of entries, sampled: float16 (n, c, h, w)."""
    height, width = what.entries[group[0]].size
    told = base.read([what.texts[what.entries[e].texts[0]] for e in group])
    nothing = base.read([""] * len(group))
    if base.family == "medisyn":
        none = base.networks["transformer"].config.n_styles
        told["style"] = torch.tensor([none if styles[e] < 0 else styles[e] for e in group], device=where)
    times = velocities.times(base, steps, height).to(where)
    noise = samplers.seeded_noise([seed * 1_000_003 + e for e in group],
                                  (base.latent_channels, height // base.factor, width // base.factor)).to(where)
    drive = samplers.guided(velocities.velocity(base, told), velocities.velocity(base, nothing), guidance)
    return samplers.multistep(drive, velocities.start(base, noise, times), times).half().cpu().contiguous()
