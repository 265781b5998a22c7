"""Precision: what bf16, the compiler and OpenVINO gain on a CPU, beside torch in full precision.

    python benchmarks/precision.py -o OUTDIR [--recipe recipes/medisyn-s-cpu.toml]

The recipe's networks with random weights on random inputs: training steps of its denoiser (at the sides that it trains at) and of
its autoencoder, encoding, and one call of the denoiser and of the decoder by each backend. Ways take turns within one process
of one thread, so that a busy machine slows them alike; the first turn, which compiles, does not count.
"""

import argparse
import contextlib
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F
from intervals import table, write

from medisyn import recipe
from medisyn.models import backends, layers
from medisyn.models.dit import Dit, DitBlock, DitConfig
from medisyn.models.layers import ConvBlock
from medisyn.models.vae import FACTOR, Vae, VaeConfig
from medisyn.training import device, resident
from medisyn.training.settings import Recipe

CPU = torch.device("cpu")
STYLES = 64        # a number of style clusters; it changes no speed
PIXELS = 2**20     # of a training batch of the denoiser, which is fewer images where they are larger
Way = Callable[[], object]


def turns(ways: dict[str, tuple[Way, int]], rounds: int) -> dict[str, list[float]]:
    """Images a second of each way (what it does, images in it) in each round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(rounds + 1):
        for name, (way, images) in ways.items():
            started = time.perf_counter()
            way()
            if k:
                found[name].append(images / (time.perf_counter() - started))
    return found


def denoiser(settings: Recipe, side: int) -> Dit:
    torch.manual_seed(0)
    d, cells = settings.dit, side // FACTOR
    return Dit(DitConfig(settings.vae.latent_channels, cells, d.width, d.heads, d.depth, d.stem, settings.text.width,
                         settings.text.n_tokens, STYLES))


def told(network: Dit, n: int) -> tuple[torch.Tensor, ...]:
    c = network.config
    return (torch.randn(n, c.latent_channels, c.latent_size, c.latent_size), torch.rand(n),
            torch.randn(n, c.n_tokens, c.text_width), torch.randn(n, c.text_width), torch.zeros(n, dtype=torch.long))


def torch_s(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Attention by torch's own kernel, which full precision takes."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keep)


def training(settings: Recipe, side: int) -> dict[str, tuple[Way, int]]:
    """Training steps of the denoiser, without what is done once a batch (optimizer, averages)."""
    n, plain = max(1, PIXELS // side**2), denoiser(settings, side)
    quick, given, more = copy.deepcopy(plain), told(plain, n), told(plain, 4 * n)
    device.quicken("bf16", True)
    device.settle(CPU)
    device.compile_blocks(CPU, quick, DitBlock, ConvBlock)

    def step(network: Dit, precision: str, fused: bool = False, given: tuple[torch.Tensor, ...] = given) -> Way:
        def way() -> None:
            device.quicken(precision)
            kernel = mock.patch.object(layers, "attended", torch_s) if fused else contextlib.nullcontext()
            with kernel, device.half(CPU):
                made = network(*given)
            made.float().square().mean().backward()
            network.zero_grad()
        return way
    return {"fp32": (step(plain, "fp32"), n), "bf16, torch's fused attention": (step(plain, "bf16", True), n),
            "bf16": (step(plain, "bf16"), n), "bf16, blocks compiled": (step(quick, "bf16"), n),
            "bf16, blocks compiled, four times as many at once": (step(quick, "bf16", given=more), 4 * n)}


def autoencoder(settings: Recipe) -> Vae:
    torch.manual_seed(0)
    v = settings.vae
    return Vae(VaeConfig(v.latent_channels, v.widths, v.encoder_blocks, v.decoder_blocks))


def rebuilding(settings: Recipe, side: int = 128, n: int = 8) -> dict[str, tuple[Way, int]]:
    """Training steps of the autoencoder: there and back, on images of `side` pixels."""
    def step(precision: str, layout: torch.memory_format) -> Way:
        vae = autoencoder(settings).to(memory_format=layout)
        image = torch.rand(n, 3, side, side).contiguous(memory_format=layout)

        def way() -> None:
            device.quicken(precision)
            with device.half(CPU):
                made = vae.decode_raw(vae.moments(image)[0])
            (made.float() - image).abs().mean().backward()
            vae.zero_grad()
        return way
    return {"fp32": (step("fp32", torch.channels_last), n), "bf16, channels last": (step("bf16", torch.channels_last), n),
            "bf16": (step("bf16", torch.contiguous_format), n)}


def encoding(settings: Recipe, n: int = 64) -> dict[str, tuple[Way, int]]:
    """Encoding images of the recipe's size without gradients, all at once and a few at once."""
    vae = autoencoder(settings).eval().requires_grad_(False)
    image = torch.rand(n, 3, settings.image_size, settings.image_size)

    def encode(precision: str, part: int, layout: torch.memory_format) -> Way:
        def way() -> None:
            device.quicken(precision)
            with torch.no_grad(), device.half(CPU):
                for k in range(0, n, part):
                    vae.encoder(image[k:k + part].contiguous(memory_format=layout))
        return way
    few = resident.AT_ONCE
    return {f"fp32, {n} at once": (encode("fp32", n, torch.contiguous_format), n),
            f"bf16, {n} at once": (encode("bf16", n, torch.contiguous_format), n),
            f"bf16, {few} at once": (encode("bf16", few, torch.contiguous_format), n),
            f"bf16, {few} at once, channels last": (encode("bf16", few, torch.channels_last), n)}


def calls(settings: Recipe) -> dict[str, dict[str, tuple[Way, int]]]:
    """One call of the denoiser and of the decoder by each backend that is there."""
    network, vae = denoiser(settings, settings.image_size).eval().requires_grad_(False), autoencoder(settings).eval()
    model = SimpleNamespace(dit=network, vae=vae.requires_grad_(False), digest="random")
    given, found = told(network, 1), {"a call of the denoiser": {}, "a call of the decoder": {}}
    for name in backends.BACKENDS:
        try:
            computed = backends.of(model, name)
        except ValueError as error:   # it is not installed, or the CPU has no such units
            print(f"precision: {name} is left out: {error}")
            continue

        def velocity(computed: backends.Backend = computed) -> None:
            with torch.no_grad():
                computed.velocity(*given, None)

        def decode(computed: backends.Backend = computed) -> None:
            with torch.no_grad():
                computed.decode(given[0])
        for what, way in zip(found, (velocity, decode), strict=True):
            found[what][name] = (way, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/medisyn-s-cpu.toml"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    settings = recipe.read(args.recipe, [])
    torch.set_num_threads(1)
    sides = [side for side in (settings.dit.first_side, settings.image_size) if side]
    parts: dict[str, Callable[[], dict]] = {
        f"a training step of the denoiser, {max(1, PIXELS // side**2)} images of {side} pixels": partial(training, settings, side)
        for side in sides}
    parts |= {"a training step of the autoencoder on 8 crops of 128 pixels": partial(rebuilding, settings),
              f"encoding images of {settings.image_size} pixels": partial(encoding, settings)}
    rows = []

    def measured(what: str, ways: dict[str, tuple[Way, int]], rounds: int) -> None:
        print(f"precision: {what}", flush=True)
        rates = turns(ways, rounds)
        first = next(iter(rates))
        for name, found in rates.items():
            ratios = [a / b for a, b in zip(found, rates[first], strict=True)]
            rows.append({"what": what, "way": name, "images_per_second": statistics.median(found),
                         "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]})
    for what, made in parts.items():
        measured(what, made(), args.rounds)
    device.quicken()
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, XDG_CACHE_HOME=cache):
        for what, ways in calls(settings).items():
            measured(f"{what} at {settings.image_size} pixels", ways, 5 * args.rounds)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [(r["what"], r["way"], f"{r['images_per_second']:.1f}",
              f"{r['ratio']:.2f} ({r['ratio_range'][0]:.2f} to {r['ratio_range'][1]:.2f})") for r in rows]
    about = f"The networks of {args.recipe.name}, random weights, one thread, {args.rounds} rounds in turns"
    write(args.out, "precision", {"about": about, "load": os.getloadavg()[0], "rows": rows}, f"# Precision\n\n{about}.\n\n" + table(
        ("what", "way", "images/s", "times as fast as the first (least to most)"), lines))
    print((args.out / "precision.md").read_text())


if __name__ == "__main__":
    main()
