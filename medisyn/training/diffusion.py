"""Training the denoiser on latents and captions, with the autoencoder and the text encoder frozen.

Where the batches come from is a function: `from_disk` reads latents and words captions as it goes, `resident.feed`
holds everything on the device. Towards the end the network may learn to guide itself (model guidance, Tang et al.
2025, arXiv:2502.12154): its target becomes v + w (v(c) - v(nothing)) with both terms from its own moving average, or from
what that was when guidance began, and w is told to it, so that sampling with guidance 1 + w takes one call a step.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medisyn import flow
from medisyn.data import prompts
from medisyn.data.records import Record
from medisyn.models.dit import Dit, DitBlock, DitConfig
from medisyn.models.layers import ConvBlock
from medisyn.models.text import TextEncoder, to_pieces
from medisyn.training import batches, device, sharded
from medisyn.training.ema import Ema
from medisyn.training.latents import Latents, mirror_words
from medisyn.training.micro import Micro, accumulate
from medisyn.training.nearness import Near
from medisyn.training.run import Plan, Stage, Trainee, average_gradients, learning_rate, my_share, train
from medisyn.training.watch import Watch, take

EMA_WIDTHS = (0.05, 0.10)
UNGUIDED = 0.25  # share of images that learn w = 0: they hold the teacher to the data, whose plain velocity it must give
WATCHED_TIMES = (0.2, 0.5, 0.8)  # where train and held-out loss are compared


class DitSettings(BaseModel):
    """The [dit] table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 192
    heads: int = 3
    depth: int = 8
    stem: int = 64
    n_images: int = 300_000             # 0, with `start`: the denoiser is that model's
    batch: int = 64
    micro: int | None = Field(None, ge=1)   # images that pass through the network at once; None: as many as memory takes
    learning_rate: float = 1e-3         # of vectors, embeddings, convolutions (AdamW)
    matrix_learning_rate: float = 2e-3  # of the blocks' matrices (Muon, matched to AdamW's step size)
    warmup: int = 200                   # steps
    decay_share: float = 0.25           # of the steps, at the end, over which the rates fall to 0
    drop_text: float = 0.12             # share of images shown without any text: what guidance subtracts
    drop_fact: float = 0.25             # share of facts left out of a caption
    drop_style: float = 0.3             # share of images shown without their style cluster
    # Image types that are drawn so many times as often as their number has it.
    often: Annotated[dict[str, Annotated[float, Field(gt=0)]], AfterValidator(batches.known_types)] = {}
    direction: float = 0.25             # weight of 1 - cos(predicted, true velocity)
    shift: float = 1.0                  # of the training times, towards noise
    decay: bool = True                  # False: another stretch follows, so the rates stay up
    watched: int = 96                   # images a side on which train and held-out loss are followed
    nearest: int = Field(48, ge=0)      # images made at every interval for the nearest-neighbour ratio; 0: it is not followed
    gap: float = 0.03                   # the training ends before held-out loss lags behind by more than this
    patience: int = 2                   # intervals that it may, or that the ratio may lie under 0.9
    strict: bool = True                 # also where held-out loss itself still falls; else a gap counts only where it does not
    first_side: int = 0                 # pixels a side of a first stretch on smaller images; 0: none
    first_images: int = 0               # images of that stretch, beyond n_images
    first_batch: int = 0
    first_micro: int | None = Field(None, ge=1)
    captions: int = 12                  # wordings of each training image, read beforehand where all is resident
    align: float = 0.0                  # weight of aligning a block with the autoencoder's features, in the first stretch
    align_block: int = 4                # which block, counted from 1
    align_until: float = 1.0            # share of the first stretch after which alignment ends
    guided: float = 0.0                 # largest w of model guidance; 0: sampling takes two calls a step
    guided_share: float = 0.2           # of the steps, at the end, in which the network learns to guide itself
    guided_least: float = 0.5           # share of the guidance of two calls that one must give; under it the model takes two
    teacher: Literal["average", "frozen"] = "average"   # of guidance: the moving average, or what that was when guidance began
    log_images: int = 20_000
    save_seconds: float = 120.0

    def first(self) -> "DitSettings":
        """The settings of the first stretch."""
        return self.model_copy(update={"n_images": self.first_images, "batch": self.first_batch or self.batch,
                                       "micro": self.first_micro or self.micro, "decay": False,
                                       "guided_share": 0.0, "shift": 1.0, "first_side": 0, "nearest": 0,
                                       "gap": float("inf")})


@dataclass(frozen=True)
class Reader:
    """A frozen text encoder with its word pieces: sentences in, tokens out."""

    encoder: TextEncoder
    tokenizer: object

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """tokens (B, n, D) and pooled (B, D) of B sentences; "" is the sentence that says nothing."""
        where = self.encoder.queries.device
        pieces, mask = to_pieces(self.tokenizer, texts, self.encoder.config.max_length)
        tokens, _, pooled = self.encoder(pieces.to(where), mask.to(where))
        return tokens, pooled


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step: B images, all on one device."""

    data: Tensor                        # (B, c, h, w) latents
    noise: Tensor                       # (B, c, h, w)
    t: Tensor                           # (B,)
    tokens: Tensor                      # (B, n, Dt)
    pooled: Tensor                      # (B, Dt)
    style: Tensor                       # (B,) int64
    geometry: Tensor                    # (B, 4)
    told: Tensor                        # (B,) bool: it has words or a style, so that guidance means something
    features: Tensor | None = None      # (B, F, h/2, w/2), of the autoencoder

    def part(self, keep: slice) -> "Batch":
        """Some of the images."""
        return Batch(*(None if value is None else value[keep] for value in vars(self).values()))


Feed = Callable[[int], Batch]           # the step's number -> its batch


def split_optimizers(dit: Dit, settings: DitSettings, *more: nn.Module, where: torch.device | None = None,
                     matrices_apart: bool = True) -> dict[str, torch.optim.Optimizer]:
    """Muon for the blocks' matrices (Jordan et al. 2024; scaled as in arXiv:2502.16982), AdamW for the rest.

    matrices_apart: False gives all to AdamW, as for shards, on which Muon is not defined.
    """
    matrices = [p for name, p in dit.blocks.named_parameters() if matrices_apart and p.ndim == 2 and not name.endswith("shift")]
    chosen = {id(p) for p in matrices}
    rest = [p for network in (dit, *more) for p in network.parameters() if id(p) not in chosen]
    adamw = device.adamw(rest, settings.learning_rate, where or torch.device("cpu"), betas=(0.9, 0.99), weight_decay=0.0)
    if not matrices_apart:
        return {"adamw": adamw}
    return {"muon": torch.optim.Muon(matrices, settings.matrix_learning_rate, weight_decay=0.0, momentum=0.95,
                                     adjust_lr_fn="match_rms_adamw"), "adamw": adamw}


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


def fixed(latents: Latents, rows: np.ndarray, where: torch.device) -> tuple[Tensor, Tensor]:
    """The first variant of each packed image, (n, c, h, w), and its style cluster, (n,)."""
    first = {int(r): m for m, r in reversed(list(enumerate(latents.row)))}
    data = np.stack([latents.latent[first[int(r)]] for r in rows]).astype(np.float32)
    return torch.from_numpy(data).to(where), torch.from_numpy(np.array([latents.style[first[int(r)]] for r in rows])).to(where)


@torch.no_grad()
def watched_loss(dit: Dit, read: Reader, latents: Latents, known: list[Record], rows: np.ndarray, seed: int) -> float:
    """Flow loss of fixed images, noises and times: comparable over training and between splits."""
    where = dit.last.weight.device
    data, style = fixed(latents, rows, where)
    tokens, pooled = read([prompts.canonical(known[r]) for r in rows])
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for t in WATCHED_TIMES:
        noise = torch.randn(data.shape, generator=generator).to(where)
        with device.half(where):
            losses.append(flow.loss(lambda x, at: dit(x, at, tokens, pooled, style).float(), data, noise,
                                    torch.full((len(rows),), t, device=where)).mean())
    return float(torch.stack(losses).mean())


def from_disk(latents: Latents, known: list[Record], rows: np.ndarray, read: Reader, seed: int, settings: DitSettings,
              where: torch.device) -> Feed:
    """Batches whose latents are read from disk and whose captions are worded and encoded at each step."""
    p = batches.weights([known[r] for r in rows], often=settings.often)
    variants = by_row(latents)
    share = my_share(settings.batch)

    def feed(i: int) -> Batch:
        rng = batches.generator(seed, "captions", i)
        chosen, texts, styles = batch_of(latents, known, variants, rows[batches.order(p, settings.batch, seed, i)],
                                         rng, settings)
        generator = device.generator(seed, i)
        t = flow.draw_times(settings.batch, shift=settings.shift, generator=generator)[share]
        noise = torch.randn((settings.batch, *latents.latent.shape[1:]), generator=generator)[share]
        data = torch.from_numpy(latents.latent[np.sort(chosen[share])].astype(np.float32))
        data = data[torch.from_numpy(np.argsort(np.argsort(chosen[share])))]
        tokens, pooled = read(texts[share])
        told = torch.tensor([bool(text) for text in texts[share]]) | torch.from_numpy(styles[share] != latents.n_styles)
        drawn = (data, noise, t, torch.from_numpy(styles[share]), torch.from_numpy(latents.geometry[chosen[share]]), told)
        data, noise, t, style, geometry, told = (x.to(where) for x in drawn)
        return Batch(data, noise, t, tokens, pooled, style, geometry, told)
    return feed


def guided_target(teacher: Dit, batch: Batch, x: Tensor, v: Tensor, w: Tensor, nothing: tuple[Tensor, Tensor],
                  frozen: bool = False) -> Tensor:
    """v + w (v(c) - v(nothing)), both of them the teacher's: arXiv:2502.12154, eq. 9; w: (B,), 0 where nothing is told.

    frozen: v is the teacher's v(c) as well, for w > 0: what two calls of it give, without the noise of single images. Meng et al.
    2023, arXiv:2210.03142, eq. 3.
    """
    none = torch.full_like(batch.style, teacher.config.n_styles)
    with torch.no_grad():
        told = teacher(x, batch.t, batch.tokens, batch.pooled, batch.style, batch.geometry).float()
        untold = teacher(x, batch.t, nothing[0].expand_as(batch.tokens), nothing[1].expand_as(batch.pooled), none, batch.geometry)
        w = w.view(-1, 1, 1, 1)
        return (torch.where(w > 0, told, v) if frozen else v) + w * (told - untold.float())


def aligner(width: int, features: int) -> nn.Module:
    """From a block's tokens to the autoencoder's features; used in training only."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, features))


def alignment_loss(told: Tensor, features: Tensor) -> Tensor:
    """1 - cosine, a scalar; told (B, hw, F), features (B, F, h, w). After SRA 2, arXiv:2601.17830: no network from outside."""
    return (1 - F.cosine_similarity(told.float(), features.flatten(2).transpose(1, 2).float(), dim=-1)).mean()


def fit(stage: Stage, latents: Latents, known: list[Record], read: Reader, seed: int, settings: DitSettings,
        draw: Callable[[Dit], Image.Image] | None = None, resume: bool = True, where: torch.device | None = None,
        feed: Feed | None = None, position_size: int = 0, features: int = 0,
        start: dict[str, Tensor] | None = None, shards: bool = False, before: tuple[float, float] | None = None,
        near: Callable[[Dit], Near | None] | None = None) -> tuple[Watch, Dit, DitConfig] | None:
    """Train a denoiser until the images are seen or memorising begins; what was seen, the best moving average and its shape,
    or None when it was stopped before its end.

    feed: None reads from disk. position_size: cells a side that positions are counted on, 0 the latents' own.
    features: channels of `Batch.features`, 0 where there are none. start: weights to begin from, None at random.
    before: train and held-out loss that the gap counts from, where a stretch before this one began it; None: this one's first.
    shards: every process holds a part of the network and of its averages; all weights then learn by AdamW.
    near: looks at what a network draws; None: its nearest-neighbour ratio is not followed.
    """
    where = where or torch.device("cpu")
    device.settle(where)
    torch.manual_seed(seed)
    config = DitConfig(latents.latent.shape[1], latents.latent.shape[2], settings.width, settings.heads, settings.depth,
                       settings.stem, read.encoder.config.width, read.encoder.config.n_tokens, latents.n_styles,
                       position_size=position_size, guided=settings.guided)
    dit = Dit(config)
    if start is not None:
        missing, unknown = dit.load_state_dict(start, strict=False)
        if unknown or [name for name in missing if not name.startswith("guidance.")]:
            raise ValueError(f"the weights to begin from are of another network: {', '.join([*unknown, *missing][:3])} do not fit")
    dit = dit.to(where)
    read = replace(read, encoder=read.encoder.to(where))
    emas = {f"ema_{width:.2f}": Ema(dit, width) for width in EMA_WIDTHS}
    average = emas[f"ema_{EMA_WIDTHS[0]:.2f}"].network
    frozen = bool(settings.guided and settings.guided_share) and settings.teacher == "frozen"
    teacher = copy.deepcopy(average) if frozen else average
    seen = Watch(average, settings.gap, settings.patience, settings.strict)
    project = aligner(settings.width, features).to(where) if settings.align and features else None
    more = [project] if project is not None else []
    flops = device.flops(lambda: dit(*blank(config, where))) / 2 if where.type == "cuda" else 0.0
    device.compile_blocks(where, dit, DitBlock, ConvBlock)
    device.compile_blocks(where, teacher, DitBlock, ConvBlock)
    if shards:
        stage.message(f"{stage.name}: sharded over the processes; AdamW trains all weights, as Muon is not defined on shards")
        for network in (dit, seen.best, *(ema.network for ema in emas.values()), *([teacher] if frozen else [])):
            sharded.shard(network, DitBlock, methods=("look",))
        for network in more:
            sharded.shard(network)
    optimizers = split_optimizers(dit, settings, *more, where=where, matrices_apart=not shards)
    trained = [p for network in (dit, *more) for p in network.parameters()]
    peaks = {"muon": settings.matrix_learning_rate, "adamw": settings.learning_rate}
    plan = Plan(settings.n_images, settings.batch, seed, settings.log_images, settings.save_seconds)
    is_train = np.array([r.split == "train" for r in known])
    rows, held_out = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    feed = feed or from_disk(latents, known, rows, read, seed, settings, where)
    share = my_share(settings.batch)
    watch = {"train": watched_rows(rows, known, settings.watched), "held_out": watched_rows(held_out, known, settings.watched)}
    nothing = read([""])
    guided_from = plan.steps * (1 - settings.guided_share) if settings.guided and settings.guided_share else plan.steps
    falling = settings.decay_share if settings.decay else 0.0
    aligned_until = plan.steps * settings.align_until if project is not None else 0
    micro = Micro(settings.micro, recovers=not shards)

    def step(i: int) -> dict[str, Tensor]:
        whole, w = feed(i), None
        if i >= guided_from:
            w = torch.rand(settings.batch, generator=device.generator(seed + 1, i, where), device=where)[share]
            w = settings.guided * ((w - UNGUIDED) / (1 - UNGUIDED)).clamp_min(0) * whole.told
            if frozen and i < guided_from + 1:
                take(teacher, average)

        def losses(keep: slice) -> dict[str, Tensor]:
            batch, mine = whole.part(keep), None if w is None else w[keep]
            v, x = batch.data - batch.noise, flow.interpolate(batch.noise, batch.data, batch.t)
            told = (batch.tokens, batch.pooled, batch.style, batch.geometry)
            with device.half(where):
                if mine is not None:
                    v = guided_target(teacher, batch, x, v, mine, nothing, frozen)
                predicted, block = dit.look(x, batch.t, *told, mine, settings.align_block if i < aligned_until else 0)
                aligned = alignment_loss(project(block), batch.features) if i < aligned_until else None
            predicted = predicted.float()
            mse = (predicted - v).square().mean()
            loss = mse + settings.direction * direction_loss(predicted, v).mean()
            if aligned is None:
                return {"loss": loss, "mse": mse}
            return {"loss": loss + settings.align * aligned, "mse": mse, "aligned": aligned}
        found = accumulate(trained, len(whole.t), losses, micro, lambda text: stage.message(f"{stage.name}: {text}"))
        average_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for name, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(peaks[name], i, plan.steps, settings.warmup, falling)
            optimizer.step()
        for ema in emas.values():
            ema.update(dit, i)
        return {"loss": found["mse"]} | {name: value for name, value in found.items() if name == "aligned"}

    def validate() -> dict[str, float]:
        found = {}
        with device.eager(where):
            for name, ema in emas.items():
                for side, side_rows in watch.items():
                    if len(side_rows):
                        found[f"{side}_{name}"] = watched_loss(ema.network, read, latents, known, side_rows, seed)
            best = min(emas, key=lambda name: found.get(f"held_out_{name}", 0.0))
            shown = near(emas[best].network) if near else None
        losses = found[f"train_{best}"], found.get(f"held_out_{best}")
        if not seen.begun():  # a network from scratch has memorised nothing yet
            seen.begin(*(before or losses), kept=False)
        return found | seen.see(*losses, emas[best].network, trainee.done_steps * settings.batch, shown,
                                newest=trainee.done_steps > guided_from)

    def picture() -> Image.Image:
        with device.eager(where):
            return draw(average)

    modules: dict[str, nn.Module] = {"dit": dit} | {name: ema.network for name, ema in emas.items()} | {"watch": seen}
    if project is not None:
        modules["aligner"] = project
    if frozen:
        modules["teacher"] = teacher
    trainee = Trainee(step, modules, optimizers, picture if draw else None, validate, flops=flops, peak=device.peak(where),
                      enough=seen.enough, micro=micro, sharded=shards)
    if not train(stage, plan, trainee, resume):
        return None
    return seen, joined(seen.best, config) if shards else seen.best, config


def joined(network: Dit, config: DitConfig) -> Dit:
    """A sharded network in one piece, on rank 0; on the others one without its weights."""
    state, plain = sharded.whole(network), Dit(config).eval().requires_grad_(False)
    plain.load_state_dict(state, strict=bool(state))
    return plain


def blank(config: DitConfig, where: torch.device, n: int = 2) -> tuple[Tensor, ...]:
    """Inputs of n images, for counting and timing."""
    side = config.latent_size
    return (torch.randn(n, config.latent_channels, side, side, device=where), torch.rand(n, device=where),
            torch.randn(n, config.n_tokens, config.text_width, device=where), torch.randn(n, config.text_width, device=where))


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
