"""Train: images a second of our denoiser's training step, beside the eager loop with a DataLoader that one would write first.

    python benchmarks/train.py RUN -o OUTDIR [--set dit.batch=512]

RUN is a run whose stages `text` and `latents` are finished. Both ways train the same network on the same latents and records
with the same optimizers and moving averages; they take turns within one process, so that a busy machine slows them alike.

    ours       latents and read captions lie on the device; blocks compiled and bf16 on a GPU, on a CPU where the recipe
               asks for it; no wait between steps
    plain      a DataLoader reads latents and words captions, the text encoder reads them at each step; nothing is
               compiled (bf16 on a GPU as well, fp32 on a CPU); the loss is fetched at each step
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medisyn import flow, recipe
from medisyn.data import prompts
from medisyn.models.dit import Dit, DitBlock, DitConfig
from medisyn.models.layers import ConvBlock
from medisyn.models.text import to_pieces
from medisyn.training import batches, device, diffusion, latents, resident, stages
from medisyn.training.batches import Pixels
from medisyn.training.ema import Ema
from medisyn.training.settings import Recipe


class Worded(torch.utils.data.Dataset):
    """One training image: a latent, the word pieces of a caption, a style."""

    def __init__(self, found: latents.Latents, known: list, tokenizer: object, length: int):
        self.found, self.known, self.tokenizer, self.length = found, known, tokenizer, length
        self.rows = np.flatnonzero([known[row].split == "train" for row in found.row])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor, int]:
        m, rng = int(self.rows[k]), np.random.default_rng()
        pieces = torch.zeros(self.length, dtype=torch.long)
        ids = to_pieces(self.tokenizer, [prompts.describe(self.known[self.found.row[m]], rng)], self.length)[0][0]
        pieces[:len(ids)] = ids
        return torch.from_numpy(self.found.latent[m].astype(np.float32)), pieces, int(self.found.style[m])


def network(settings: Recipe, read: diffusion.Reader, found: latents.Latents, where: torch.device) -> Dit:
    torch.manual_seed(0)
    d, c = settings.dit, found.latent.shape
    return Dit(DitConfig(c[1], c[2], d.width, d.heads, d.depth, d.stem, read.encoder.config.width, read.encoder.config.n_tokens,
                         found.n_styles)).to(where)


def update(dit: Dit, emas: list[Ema], optimizers: dict, loss: Tensor, i: int) -> None:
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(dit.parameters(), 1.0)
    for optimizer in optimizers.values():
        optimizer.step()
    for ema in emas:
        ema.update(dit, i)


def ours(settings: Recipe, run: Path, dit: Dit, read: diffusion.Reader, found: latents.Latents, known: list,
         where: torch.device) -> Callable[[int], None]:
    captions = stages.captions_of(settings, run, known, read, where)
    feed = resident.feed(found, known, captions, 0, settings.dit, where)
    emas = [Ema(dit, width) for width in diffusion.EMA_WIDTHS]
    optimizers = diffusion.split_optimizers(dit, settings.dit, where=where)
    device.compile_blocks(where, dit, DitBlock, ConvBlock)

    def step(i: int) -> None:
        batch = feed(i)
        with device.half(where):
            made = dit(flow.interpolate(batch.noise, batch.data, batch.t), batch.t, batch.tokens, batch.pooled, batch.style,
                       batch.geometry)
        update(dit, emas, optimizers, (made.float() - (batch.data - batch.noise)).square().mean(), i)
    return step


def plain(settings: Recipe, dit: Dit, read: diffusion.Reader, found: latents.Latents, known: list, where: torch.device,
          workers: int) -> Callable[[int], None]:
    data = Worded(found, known, read.tokenizer, read.encoder.config.max_length)
    p = batches.weights([known[found.row[m]] for m in data.rows])
    sampler = torch.utils.data.WeightedRandomSampler(torch.from_numpy(p), 1000 * settings.dit.batch)
    loader = torch.utils.data.DataLoader(data, settings.dit.batch, sampler=sampler, num_workers=workers, drop_last=True,
                                         pin_memory=where.type == "cuda", persistent_workers=workers > 0)
    emas = [Ema(dit, width) for width in diffusion.EMA_WIDTHS]
    matrices = diffusion.split_optimizers(dit, settings.dit)
    stream = iter(loader)

    def step(i: int) -> None:
        nonlocal stream
        drawn = next(stream, None)
        if drawn is None:
            stream = iter(loader)
            drawn = next(stream)
        latent, pieces, style = (x.to(where, non_blocking=True) for x in drawn)
        with torch.no_grad():
            tokens, _, pooled = read.encoder(pieces, pieces > 0)
        noise, t = torch.randn_like(latent), torch.sigmoid(torch.randn(len(latent), device=where))
        with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
            made = dit(flow.interpolate(noise, latent, t), t, tokens, pooled, style)
        loss = (made.float() - (latent - noise)).square().mean()
        update(dit, emas, matrices, loss, i)
        loss.item()
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/medisyn-s.toml"))
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="a round")
    parser.add_argument("--workers", type=int, default=4, help="of the DataLoader")
    told = parser.parse_args()
    settings = recipe.read(told.recipe, told.changes)
    where = device.pick(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device.quicken(settings.precision, settings.compiled)
    device.settle(where)
    read, found, known = stages.reader(told.run), latents.load(told.run / "latents"), Pixels(told.run / "pixels").records
    read.encoder.to(where)
    first = network(settings, read, found, where)
    second = copy.deepcopy(first)
    told.out.mkdir(parents=True, exist_ok=True)
    shape = diffusion.blank(first.config, where)
    flops = device.flops(lambda: first(*shape)) / 2
    ways = {"ours": ours(settings, told.run, first, read, found, known, where),
            "plain": plain(settings, second, read, found, known, where, told.workers)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(told.rounds + 1):
        for name, step in ways.items():
            begun = time.perf_counter()
            for i in range(told.steps):
                step(turn * told.steps + i)
            if where.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round compiles and fills caches
                rates[name].append(told.steps * settings.dit.batch / (time.perf_counter() - begun))
    ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    peak = device.peak(where)
    result = {"device": torch.cuda.get_device_name() if where.type == "cuda" else "cpu", "torch": torch.__version__,
              "precision": settings.precision, "compiled": settings.compiled, "threads": torch.get_num_threads(),
              "weights": sum(p.numel() for p in first.parameters()), "batch": settings.dit.batch, "flops_an_image": flops,
              "images_per_second": {name: statistics.median(found) for name, found in rates.items()},
              "share_of_peak": {name: statistics.median(found) * flops / peak for name, found in rates.items()} if peak else None,
              "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)], "rounds": told.rounds}
    (told.out / "train.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    share = result["share_of_peak"] or {}
    rows = ["| way | images/s | share of peak |", "|---|---|---|"]
    rows += [f"| {name} | {rate:,.1f} | {f'{share[name]:.1%}' if name in share else 'peak not known'} |"
             for name, rate in result["images_per_second"].items()]
    rows += ["", f"Ratio {result['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f} over {told.rounds} rounds in turns), "
             f"batch {settings.dit.batch}, {result['device']}."]
    (told.out / "train.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
