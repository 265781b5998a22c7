"""Painters: what a synthesizer needs of a model, whether it is MediSyn's own or rests on a pretrained base.

A painter knows how a sentence is best put to its network and how a provenance becomes pixels. Every image is computed
alone, on as many threads as the caller allows; a guided step of MediSyn's own models calls its network twice, side by side where a
core is idle (`cores.py`).
"""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medisyn import flow, samplers, velocities
from medisyn.cores import CORES, cores
from medisyn.data import facts, prompts
from medisyn.data.provenance import Provenance
from medisyn.data.understanding import Understanding
from medisyn.models import adapters, backends, bases, checkpoint, solver
from medisyn.models.backends import Backend
from medisyn.models.bases import Base
from medisyn.models.checkpoint import Card, Model
from medisyn.models.solver import Solver
from medisyn.models.text import to_pieces

BASE = "base.json"   # in a model folder that rests on a base: which one, and what was taught


@dataclass(frozen=True)
class Painter:
    """The functions of one model."""

    paint: Callable[[Provenance, int], Tensor]           # how, the seed of its noise -> image (3, H, W) in [-1, 1]
    phrase: Callable[[str, Understanding, str], str]     # prompt, what the grammar found, its plain sentence -> what to read
    told: Callable[[Understanding, str], str] = lambda understood, plain: plain  # plain sentence -> that with the new words wanted
    words: tuple[str, ...] = ()                          # new ones that the model was taught
    most_guidance: float | None = None                   # None: as much as one likes, two calls a step
    hooks: list[Callable[[], None]] = field(default_factory=list)   # called before each step; what one raises ends the image


@dataclass(frozen=True)
class Rested:
    """A model that rests on a pretrained base; the fields of `checkpoint.Model` that a synthesizer reads."""

    card: Card
    base: Base
    support: list
    digest: str
    words: tuple[str, ...] = ()      # that were added to the base's tokenizer
    recogniser: None = None
    solvers: dict = field(default_factory=dict)   # none: its sampler is its scheduler's


def hooked(drive: flow.Velocity, hooks: list[Callable[[], None]]) -> flow.Velocity:
    """The same velocity, before which all hooks are called."""
    if isinstance(drive, samplers.Guided):
        return dataclasses.replace(drive, told=hooked(drive.told, hooks))

    def call(x: Tensor, t: Tensor) -> Tensor:
        for hook in hooks:
            hook()
        return drive(x, t)
    return call


# ---- MediSyn's own models ---------------------------------------------------------------------------------------------

@torch.no_grad()
def read(model: Model, texts: list[str]) -> tuple[Tensor, Tensor]:
    """What the text encoder makes of B sentences: tokens (B, n, D) and pooled (B, D)."""
    tokens, _, pooled = model.text(*to_pieces(model.tokenizer, texts, model.text.config.max_length))
    return tokens, pooled


def begun(model: Model, computed: Backend, how: Provenance, seed: int) -> tuple[Tensor, flow.Velocity]:
    """What an image is integrated from and along: its noise (1, c, h, w) and the guided velocity, by the model's own settings."""
    card, dit = model.card, model.dit
    tokens, pooled = read(model, [how.read_as, ""])
    none = dit.config.n_styles
    style = torch.tensor([none if how.style is None else how.style, none])

    def velocity(row: int) -> flow.Velocity:
        keep = slice(row, row + 1)
        return torch.no_grad()(lambda x, t: computed.velocity(x, t, tokens[keep], pooled[keep], style[keep], None))

    since = card.guidance_from
    if card.guidance_since:
        since = card.guidance_since.get(prompts.understand(how.prompt, model.support).image_type, since)

    def drive(x: Tensor, t: Tensor) -> Tensor:   # of a denoiser that adds the guidance itself: one call a step
        w = torch.tensor([how.guidance - 1 if since <= float(t[0]) <= card.guidance_until else 0.0])
        return computed.velocity(x, t, tokens[:1], pooled[:1], style[:1], w)

    noise = samplers.seeded_noise([seed], (dit.config.latent_channels, dit.config.latent_size, dit.config.latent_size))
    if dit.config.guided:
        return noise, drive
    told, nothing = velocity(0), velocity(1)
    return noise, samplers.guided(told, nothing, how.guidance, since, card.guidance_until, card.guidance_along, CORES.pair)


def solver_of(model: Model | Rested, steps: int, name: str = solver.KIND) -> Solver:
    """The coefficients fitted for so many steps, by their name or whichever there are. ValueError where there are none."""
    found = model.solvers.get(steps)
    if found and name in (solver.KIND, found.name):
        return found
    known = ", ".join(f"{model.solvers[n].name} for {n}" for n in sorted(model.solvers)) or "none"
    raise ValueError(f"the sampler {name!r} expects its coefficients for {steps} steps in the model folder, found {known}; take "
                     f"another sampler, or fit one with `medisyn solver MODEL --steps {steps}`")


def sampler_of(model: Model | Rested, steps: int) -> str:
    """What a model takes so many steps with unless asked otherwise: coefficients fitted for them where it has any, else its own
    sampler."""
    return model.solvers[steps].name if steps in model.solvers else model.card.sampler


def own(model: Model, backend: str = backends.DEFAULT) -> Painter:
    """The painter of a model folder that `medisyn train` made from nothing; backend: a name in `backends.BACKENDS`."""
    computed = backends.of(model, backend, min(2, cores()))   # two calls of a guided step, or of two images
    hooks: list[Callable[[], None]] = []

    @torch.no_grad()
    def alike(prompt: str, understood: Understanding) -> bool:
        """Whether the text encoder finds in the prompt the facts that the grammar found, and adds none."""
        if understood.not_understood:
            return False
        names = model.text.config.facts
        wanted = facts.states(understood, names)
        seen = model.text.read(read(model, [prompt])[1])[0].argmax(-1).numpy()
        said = np.array([name != understood.anatomy for name in names])  # an anatomy may follow from the image type, unsaid
        missed = said & (wanted != facts.UNSTATED) & (wanted != seen)
        invented = (seen == facts.PRESENT) & (wanted != facts.PRESENT)
        return not (missed | invented).any()

    @torch.no_grad()
    def paint(how: Provenance, seed: int) -> Tensor:
        card = model.card
        noise, drive = begun(model, computed, how, seed)
        drive = hooked(drive, hooks)
        with CORES.working():
            if how.sampler.startswith(solver.KIND):
                latent = samplers.fitted(drive, noise, solver_of(model, how.steps, how.sampler))
            else:
                latent = samplers.SAMPLERS[how.sampler](drive, noise, flow.times(how.steps, card.shift))
            latent = samplers.textured(latent, [seed], card.texture)
            return computed.decode(latent).clamp(-1, 1)[0]

    guided = model.dit.config.guided
    return Painter(paint, lambda prompt, understood, plain: prompt if alike(prompt, understood) else plain,
                   most_guidance=1 + guided if guided else None, hooks=hooks)


# ---- models that rest on a base -----------------------------------------------------------------------------------------

def rested(folder: Path) -> Rested:
    """A model folder with a base.json, or a base as it comes: a diffusers folder or a hub id, of which nothing is counted."""
    folder = Path(folder)
    marker = folder / BASE
    if not marker.is_file():
        base = bases.load(folder)
        card = Card(folder.name, base.image_size, 30, 5.0, "multistep", "other", 0)
        return Rested(card, base, [], base.digest)
    told = json.loads(marker.read_text(encoding="utf-8"))
    written = folder / "medisyn.json"
    card = checkpoint.settings_from(Card, json.loads(written.read_text(encoding="utf-8")), written)
    support = json.loads((folder / "support.json").read_text(encoding="utf-8"))
    if told["adapters"]:
        base = bases.load(told["source"])
        if base.digest != told["digest"]:
            raise ValueError(f"{folder} rests on {told['source']}, whose files have changed since it was taught (they were "
                             f"{told['digest'][:19]}..., they are {base.digest[:19]}...); put the same ones back")
        words = adapters.load(base, folder)
    else:
        base, words = bases.load(folder), told["words"]
    return Rested(card, base, support, digest_of(folder, base.digest), tuple(words))


def digest_of(folder: Path, base: str) -> str:
    """sha256 over the base, wherever it lies, and over all in the folder that an image depends on."""
    told = hashlib.sha256(base.encode())
    for name in ("medisyn.json", "support.json", adapters.LORA, adapters.TOKENS):
        told.update((folder / name).read_bytes() if (folder / name).is_file() else b"\0")
    return f"sha256:{told.hexdigest()}"


def of_base(model: Rested, backend: str = backends.DEFAULT) -> Painter:
    """The painter of a base, whatever its family: two calls a step where guidance is not 1. Only torch computes it."""
    if backend != backends.DEFAULT:
        raise ValueError(f"backend {backend} expects one of MediSyn's own models, {model.card.name} rests on a pretrained base; "
                         f"take {backends.DEFAULT}")
    base, side = model.base, model.card.image_size
    hooks: list[Callable[[], None]] = []
    one_by_one = threading.Lock()   # tokenizers keep the padding of a call in themselves: two threads would mix theirs up

    def told_words(understood: Understanding, plain: str) -> str:
        new = [word for word in model.words if understood.taught.get(word)]
        return ", ".join([plain.rstrip("."), *new]) if new else plain

    def phrase(prompt: str, understood: Understanding, plain: str) -> str:
        """A base that was taught reads the plain sentence, and the new words that are wanted; one as it comes reads the prompt."""
        return told_words(understood, plain) if model.support else prompt

    @torch.no_grad()
    def paint(how: Provenance, seed: int) -> Tensor:
        with one_by_one:
            told, nothing = base.read([how.read_as]), None if how.guidance == 1 else base.read([""])
        drive = velocities.velocity(base, told)
        if nothing is not None:
            drive = samplers.guided(drive, velocities.velocity(base, nothing), how.guidance)
        times = velocities.times(base, how.steps, side)
        noise = samplers.seeded_noise([seed], (base.latent_channels, side // base.factor, side // base.factor))
        latent = samplers.SAMPLERS[how.sampler](hooked(drive, hooks), velocities.start(base, noise, times), times)
        return base.decode(latent).clamp(-1, 1)[0]

    return Painter(paint, phrase, told_words, model.words, hooks=hooks)


def of(model: Model | Rested, backend: str = backends.DEFAULT) -> Painter:
    """The painter of a model."""
    return PAINTERS[type(model)](model, backend)


PAINTERS: dict[type, Callable] = {Model: own, Rested: of_base}


def load(folder: Path) -> Model | Rested:
    """A model folder, or a base, in memory."""
    folder = Path(folder)
    if (folder / "medisyn.json").is_file() and not (folder / BASE).is_file():
        return checkpoint.load(folder)
    if (folder / BASE).is_file() or (folder / "model_index.json").is_file():
        return rested(folder)
    return checkpoint.load(folder)   # whose error says what a model folder holds

