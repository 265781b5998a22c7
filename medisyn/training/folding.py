"""Folding: whether a denoiser that was to guide itself has learnt to; if not, it is guided by two calls, as others are."""

from collections.abc import Callable

import numpy as np
import torch

from medisyn import flow
from medisyn.data import prompts
from medisyn.data.records import Record
from medisyn.models.dit import Dit, unguided
from medisyn.training import device
from medisyn.training.diffusion import WATCHED_TIMES, Reader, fixed, watched_rows
from medisyn.training.latents import Latents

LOOKED_AT = 32   # images


@torch.no_grad()
def learnt(dit: Dit, read: Reader, latents: Latents, known: list[Record], seed: int) -> float:
    """How much of the guidance of its own two calls a network gives in one: 0 where it does not mind w, 1 where it gives all.

    The component of v(c, w) - v(c, 0) along w (v(c, 0) - v(nothing, 0)), w the largest, over held-out images (training images
    where none is held out), with fixed noises and times.
    """
    seen = sorted(set(map(int, latents.row)))
    rows = watched_rows(np.array([r for r in seen if known[r].split != "train"] or seen), known, LOOKED_AT)
    where, n = dit.last.weight.device, len(rows)
    data, style = fixed(latents, rows, where)
    none = torch.full_like(style, dit.config.n_styles)
    told = [value.to(where) for value in read([prompts.canonical(known[r]) for r in rows])]  # a joined network is back on the CPU
    nothing = [value.to(where).expand(n, *value.shape[1:]) for value in read([""])]
    generator, w, along, whole = torch.Generator().manual_seed(seed), dit.config.guided, 0.0, 0.0
    for t in WATCHED_TIMES:
        at = torch.full((n,), t, device=where)
        x = flow.interpolate(torch.randn(data.shape, generator=generator).to(where), data, at)
        with device.half(where):
            plain, own = (dit(x, at, *told, style, None, torch.full_like(at, how)).float() for how in (0.0, w))
            untold = dit(x, at, *nothing, none).float()
        guidance = w * (plain - untold)
        along, whole = along + float(((own - plain) * guidance).sum()), whole + float(guidance.square().sum())
    return along / max(whole, 1e-12)


def checked(dit: Dit, least: float, share: float, say: Callable[[str], None]) -> Dit:
    """The denoiser, or the same one without its own guidance where that is less than it should be; either is said."""
    if share >= least:
        say(f"dit: one call a step gives {share:.0%} of the guidance of two")
        return dit
    say(f"dit: one call a step gives {share:.0%} of the guidance of two, less than dit.guided_least = {least:g}: the model takes "
        "two calls; a larger dit.guided_share, of more images, teaches it more")
    return unguided(dit)
