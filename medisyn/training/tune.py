"""Tune: the loop that teaches a base, whatever its family, from cached latents and sentences.

The loss is the squared error of the rectified-flow velocity, weighted so that it is the base's own training loss
(`velocities.weight`). What a step sees (entries, sentences, times, noises) is a function of seed and step, so that a run which was
stopped goes on as if it had not been, and any number of processes sees the same batch.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medisyn import flow, velocities
from medisyn.data.records import Record
from medisyn.models.bases import Base, Told
from medisyn.training import batches, device, sharded
from medisyn.training.adapt import Tuned, as_if
from medisyn.training.cache import Cache
from medisyn.training.ema import Ema
from medisyn.training.finetune_settings import MethodSettings, TuneSettings
from medisyn.training.micro import Micro, accumulate
from medisyn.training.nearness import Near
from medisyn.training.run import Plan, Stage, Trainee, average_gradients, learning_rate, my_share, say, train
from medisyn.training.watch import Watch

WATCHED_TIMES = (0.2, 0.5, 0.8)  # where train and held-out loss are compared
BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D", "JointTransformerBlock", "FluxTransformerBlock", "FluxSingleTransformerBlock",
          "SanaTransformerBlock", "DitBlock", "ConvBlock")  # of diffusers and our own: each class is compiled once, on a GPU


@dataclass(frozen=True)
class Lesson:
    """What a base is taught: the group's own images, and where wanted what it could do before."""

    own: Cache
    records: Sequence[Record]
    prior: Cache | None = None
    styles: Tensor | None = None     # int64 (n,) of the prior's latents; -1: none
    read: bool = False               # sentences are read at each step, because the text encoder learns


@dataclass(frozen=True)
class Drawn:
    """One step of all processes together: entries of one size first, then those of the prior."""

    entries: np.ndarray              # (n,) of `Lesson.own`
    texts: np.ndarray                # (n,) of its sentences; 0 says nothing
    prior: np.ndarray                # (m,) of `Lesson.prior`
    prior_texts: np.ndarray          # (m,)


Draw = Callable[[int], Drawn]


def drawing(lesson: Lesson, seed: int, method: MethodSettings, batch: int) -> Draw:
    """Which entries a step sees: image types and what is to be seen by the root of their number, sizes by their share."""
    entries = lesson.own.plan.entries
    chosen = np.array([e for e, entry in enumerate(entries) if lesson.records[entry.row].split == "train"])
    p = batches.weights([lesson.records[entries[e].row] for e in chosen])
    sizes = lesson.own.size[chosen]
    share = np.array([p[sizes == size].sum() for size in range(sizes.max() + 1)])
    m = round(method.prior_share * batch) if lesson.prior is not None else 0

    def draw(i: int) -> Drawn:
        rng = batches.generator(seed, "tune", i)
        mine = sizes == rng.choice(len(share), p=share / share.sum())
        rows = chosen[mine][rng.choice(mine.sum(), batch - m, p=p[mine] / p[mine].sum())]
        texts = np.array([entries[e].texts[rng.integers(len(entries[e].texts))] for e in rows])
        texts[rng.random(batch - m) < method.drop_text] = 0
        if not m:
            return Drawn(rows, texts, np.empty(0, int), np.empty(0, int))
        prior = rng.integers(len(lesson.prior.plan.entries), size=m)
        said = np.array([lesson.prior.plan.entries[e].texts[0] for e in prior])
        said[rng.random(m) < method.drop_text] = 0
        return Drawn(rows, texts, prior, said)
    return draw


def told_of(base: Base, lesson: Lesson, texts: np.ndarray, where: torch.device) -> Told:
    """What the denoiser is told of sentences of the group's own."""
    if lesson.read:
        return base.read([lesson.own.plan.texts[t] for t in texts])
    return {name: value.to(where) for name, value in lesson.own.told(texts).items()}


def own_part(base: Base, lesson: Lesson, drawn: Drawn, keep: slice, where: torch.device) -> tuple[Tensor, Told]:
    """Latents (n, c, h, w) and what is told of them, of a share of the drawn entries."""
    entries, told = drawn.entries[keep], told_of(base, lesson, drawn.texts[keep], where)
    if base.family == "medisyn":  # it is told how a variant was cropped and toned
        how = [lesson.own.plan.entries[e].how for e in entries]
        told["geometry"] = torch.tensor([h.geometry if h else [0.0] * 4 for h in how], device=where)
    return lesson.own.latents(entries).to(where), told


def prior_part(base: Base, lesson: Lesson, drawn: Drawn, keep: slice, where: torch.device) -> tuple[Tensor, Told]:
    """The same of the drawn latents that the base itself made."""
    entries, texts = drawn.prior[keep], drawn.prior_texts[keep]
    told = base.read([lesson.prior.plan.texts[t] for t in texts]) if lesson.read else \
        {name: value.to(where) for name, value in lesson.prior.told(texts).items()}
    if base.family == "medisyn":
        none = base.networks["transformer"].config.n_styles
        style = lesson.styles[torch.from_numpy(entries)]
        told["style"] = torch.where(style < 0, none, style).to(where)
    return lesson.prior.latents(entries).to(where), told


def losses(base: Base, data: Tensor, noise: Tensor, t: Tensor, told: Told, min_snr: float | None) -> Tensor:
    """The base's own loss of each image: (n,)."""
    weight = velocities.weight(base, t, None if base.prediction in ("flow", "sample") else min_snr)
    return weight * flow.loss(lambda x, at: velocities.velocity(base, told)(x, at).float(), data, noise, t)


def step_of(base: Base, lesson: Lesson, tuned: Tuned, ema: Ema, optimizer: torch.optim.Optimizer, micro: Micro, seed: int,
            side: int, method: MethodSettings, settings: TuneSettings, steps: int,
            where: torch.device) -> Callable[[int], dict[str, Tensor]]:
    """The training step: number -> its losses."""
    draw, share, batch = drawing(lesson, seed, method, settings.batch), my_share(settings.batch), settings.batch
    parameters = list(tuned.parameters())
    mine = range(batch)[share]

    def parts(drawn: Drawn, first: int, last: int) -> list[tuple[slice, Tensor, Told]]:
        """Positions of the batch from first to last, in the one or two parts they fall into."""
        n, found = len(drawn.entries), []
        if first < n:
            found.append((slice(first, min(last, n)), *own_part(base, lesson, drawn, slice(first, min(last, n)), where)))
        if last > n:
            start = max(first, n)
            found.append((slice(start, last), *prior_part(base, lesson, drawn, slice(start - n, last - n), where)))
        return found

    def step(i: int) -> dict[str, Tensor]:
        drawn, generator = draw(i), device.generator(seed, i)
        t = velocities.draw_times(base, batch, generator, side)
        seeds = torch.randint(2**62, (batch,), generator=generator).tolist()

        def losses_of(part: slice) -> dict[str, Tensor]:
            positions, found = mine[part], []
            for at, data, told in parts(drawn, positions.start, positions.stop):
                noise = torch.stack([torch.randn(data.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds[at]])
                with device.half(where):
                    found.append(losses(base, data, noise.to(where), t[at].to(where), told, method.min_snr))
            return {"loss": torch.cat(found).mean()}
        found = accumulate(parameters, len(mine), losses_of, micro, say)
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.learning_rate, i, steps, settings.warmup, settings.decay_share)
        optimizer.step()
        ema.update(tuned, i)
        return found
    return step


def watched(lesson: Lesson, n: int) -> dict[str, list[list[int]]]:
    """About n whole frames a side, train and held out, of all sizes and image types in turns; a list a size."""
    found = {}
    for side in ("train", "held_out"):
        by_type: dict[str, list[int]] = {}
        for e, entry in enumerate(lesson.own.plan.entries):
            record = lesson.records[entry.row]
            if entry.variant == 0 and (record.split == "train") == (side == "train"):
                by_type.setdefault(record.image_type, []).append(e)
        each = max(1, n // max(1, len(by_type)))
        spread = {name: np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int) for name, rows in by_type.items()}
        picked = [e for name, rows in by_type.items() for e in np.array(rows)[spread[name]]]
        sizes = sorted({lesson.own.size[e] for e in picked})
        found[side] = [[int(e) for e in picked if lesson.own.size[e] == size] for size in sizes]
    return found


@torch.no_grad()
def watched_loss(base: Base, lesson: Lesson, groups: list[list[int]], seed: int, where: torch.device,
                 at_once: int = 8) -> float | None:
    """The loss of fixed frames, noises and times, each group of one size; None where there are none."""
    total = count = 0
    for group in groups:
        for k in range(0, len(group), at_once):
            entries = group[k:k + at_once]
            data = lesson.own.latents(entries).to(where)
            told = told_of(base, lesson, np.array([lesson.own.plan.entries[e].texts[0] for e in entries]), where)
            for time in WATCHED_TIMES:
                noise = torch.stack([torch.randn(data.shape[1:], generator=device.generator(seed, e)) for e in entries]).to(where)
                found = flow.loss(velocities.velocity(base, told), data, noise, torch.full((len(data),), time, device=where))
                total, count = total + float(found.double().sum()), count + len(data)
    return total / count if count else None


def fit(stage: Stage, base: Base, tuned: Tuned, lesson: Lesson, seed: int, side: int, method: MethodSettings,
        settings: TuneSettings, where: torch.device, resume: bool = True,
        draw: Callable[[], Image.Image] | None = None, shards: bool = False,
        near: Callable[[], Near | None] | None = None) -> tuple[Watch, dict[str, Tensor]] | None:
    """Train until the images are seen or memorising begins; what was seen and the best weights, on rank 0. None: stopped before.

    shards: every process holds a part of the denoiser, of what it learns and of the averages.
    near: looks at what the base draws as it is; None: its nearest-neighbour ratio is not followed.
    """
    device.settle(where)
    network = base.networks[base.denoiser]
    kinds = {type(part) for part in network.modules() if type(part).__name__ in BLOCKS}
    device.compile_blocks(where, network, *kinds)
    if shards:
        sharded.shard(network.to(memory_format=torch.contiguous_format), *kinds)
        tuned = tuned.found_again(base)
    ema, watch = Ema(tuned, settings.ema_width), Watch(tuned, settings.gap, settings.patience, settings.strict)
    optimizer = optimizer_of(tuned, settings, shards)
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    micro = Micro(settings.micro, recovers=not shards)
    groups = watched(lesson, settings.watched)
    if not (resume and stage.checkpoints()):
        watch.begin(*(watched_loss(base, lesson, groups[name], seed, where) for name in ("train", "held_out")))

    def validate() -> dict[str, float]:
        with as_if(tuned, ema.network), evaluating(base):
            train_loss, held_out = (watched_loss(base, lesson, groups[name], seed, where) for name in ("train", "held_out"))
            shown = near() if near else None
        row = watch.see(train_loss, held_out, ema.network, trainee.done_steps * settings.batch, shown)
        return {"train": train_loss} | ({} if held_out is None else {"held_out": held_out}) | row

    def picture() -> Image.Image:
        with as_if(tuned, ema.network), evaluating(base):
            return draw()

    trainee = Trainee(step_of(base, lesson, tuned, ema, optimizer, micro, seed, side, method, settings, plan.steps, where),
                      {"tuned": tuned, "ema": ema.network, "watch": watch}, {"adamw": optimizer}, picture if draw else None,
                      validate, peak=device.peak(where), enough=watch.enough, micro=micro, sharded=shards)
    if not train(stage, plan, trainee, resume):
        return None
    tuned.take(watch.best)
    return watch, sharded.whole(tuned)


def optimizer_of(tuned: Tuned, settings: TuneSettings, shards: bool = False) -> torch.optim.AdamW:
    """AdamW in one kernel, on a CPU too; shards are updated one by one."""
    return torch.optim.AdamW(tuned.groups(settings.weight_decay), settings.learning_rate, betas=(0.9, 0.99), fused=not shards)


@contextlib.contextmanager
def evaluating(base: Base):
    """For a while without gradients and the compiler."""
    with torch.no_grad(), device.eager(next(base.networks[base.denoiser].parameters()).device):
        yield
