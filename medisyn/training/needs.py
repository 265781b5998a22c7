"""Needs: the memory that a recipe trains in, counted on shapes alone, before anything is allocated.

16 bytes a weight (the weight, its gradient, two moments of the optimizer), 4 more for each moving average and for the best
weights kept, and what autograd keeps of a batch between the forward and the backward pass: the networks are built on torch's
meta device, and the bytes of every tensor that is saved are added up. A GPU keeps 0.7 of that, in bf16: counted in the same
way under autocast, 0.61 of the autoencoder's and 0.66 of the denoiser's.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medisyn.data import facts
from medisyn.evaluation.eye import Eye, EyeConfig
from medisyn.models.dit import Dit, DitConfig
from medisyn.models.text import TextConfig, TextEncoder
from medisyn.models.vae import Vae, VaeConfig
from medisyn.training.adversary import PatchDiscriminator
from medisyn.training.eye import EyeRecipe
from medisyn.training.settings import Recipe

BYTES_A_WEIGHT, BYTES_AN_AVERAGE = 16, 4
MARGIN, TORCH = 1.25, 0.6 * 2**30   # the allocator's gaps and work space; torch itself and its libraries, bytes


@dataclass(frozen=True)
class Step:
    """One network and what a training step does with it."""

    network: nn.Module
    forward: Callable[[int], Tensor]   # for so many images
    batch: int                         # images that pass at once
    n_images: int                      # of the whole training
    averages: int = 1                  # moving averages of the weights, and the copy of the best ones that is kept


SHARE = {"cpu": 1.0, "cuda": 0.7}      # of the activations in full precision
HALF = ("vae", "decoder", "dit", "dit-first", "recogniser")   # what `precision = "bf16"` computes so on a CPU


@dataclass(frozen=True)
class Need:
    """What one stage takes."""

    stage: str
    weights: int
    states: int                        # bytes: weights, gradients, optimizer, moving averages
    an_image: int                      # bytes that autograd keeps of one image of the batch
    batch: int                         # images that pass at once
    share: float | None = None         # of `an_image` that is kept; None: SHARE of the device
    least: int = 0                     # bytes beside the states at any batch
    more: str = ""                     # about its weights, for people

    def total(self, where: str = "cpu", batch: int | None = None) -> float:
        """Bytes at a batch, None the recipe's, with what is lost to gaps and to torch itself."""
        return MARGIN * (self.states + max(self.least, (batch or self.batch) * self.kept(where))) + TORCH

    def largest(self, memory: float, where: str = "cpu") -> int:
        """The largest batch that fits so many bytes, a power of two; 0: none."""
        free = (memory - TORCH) / MARGIN - self.states
        room = int(free / max(self.kept(where), 1)) if free >= self.least else 0
        return 1 << (room.bit_length() - 1) if room > 0 else 0

    def kept(self, where: str) -> float:
        """Bytes of one image on a device."""
        return self.an_image * (SHARE[where] if self.share is None else self.share)


def steps(recipe: Recipe) -> dict[str, Step]:
    """The networks that a generator's recipe trains, on the device that is torch's default at the time."""
    t, d, size = recipe.text, recipe.dit, recipe.image_size // 8
    text = TextEncoder(TextConfig(t.vocabulary_size, 64, t.width, t.heads, t.layers, t.n_tokens, tuple(facts.names())))
    vae = Vae(VaeConfig(recipe.vae.latent_channels, recipe.vae.widths, recipe.vae.encoder_blocks, recipe.vae.decoder_blocks))
    shape = DitConfig(recipe.vae.latent_channels, size, d.width, d.heads, d.depth, d.stem, t.width, t.n_tokens, guided=d.guided)
    dit = Dit(shape)

    def read(n: int) -> Tensor:
        pieces = torch.zeros(2 * n, 32, dtype=torch.long, device=text.queries.device)   # each in two wordings
        return text(pieces, pieces == 0)[2]

    def rebuild(n: int) -> Tensor:
        image = torch.zeros(n, 3, recipe.vae.crop, recipe.vae.crop, device=vae.latent_mean.device)
        return vae.decode_raw(vae.moments(image)[0])

    sharper = Vae(dataclasses.replace(vae.config, decoder_blocks=recipe.decoder.blocks or vae.config.decoder_blocks))
    critic = PatchDiscriminator(recipe.decoder.discriminator, recipe.decoder.discriminator_detail)

    def sharpen(n: int) -> Tensor:
        latent = torch.zeros(n, recipe.vae.latent_channels, size, size, device=vae.latent_mean.device)
        return critic(sharper.decode_raw(latent))[0]

    found = {"text": Step(text, read, t.batch, t.n_images, 0), "vae": Step(vae, rebuild, recipe.vae.batch, recipe.vae.n_images),
             "decoder": Step(nn.ModuleList([sharper, critic]), sharpen, recipe.decoder.batch, recipe.decoder.n_images),
             "dit": Step(dit, lambda n: moved(dit, n), d.micro or d.batch, d.n_images,
                         4 if d.guided and d.teacher == "frozen" else 3)}
    if d.first_side:
        small = Dit(dataclasses.replace(shape, latent_size=d.first_side // 8, position_size=size))
        first = d.first()
        found["dit-first"] = Step(small, lambda n: moved(small, n), first.micro or first.batch, first.n_images, 3)
    return found


def moved(dit: Dit, n: int) -> Tensor:
    """The velocities of n empty latents."""
    shape, where = dit.config, dit.last.weight.device
    return dit(torch.zeros(n, shape.latent_channels, shape.latent_size, shape.latent_size, device=where),
               torch.full((n,), 0.5, device=where), torch.zeros(n, shape.n_tokens, shape.text_width, device=where),
               torch.zeros(n, shape.text_width, device=where))


def eye_steps(recipe: EyeRecipe) -> dict[str, Step]:
    """The network that an eye's recipe trains; the directions of its instances, a few hundred weights an image, are not in it."""
    eye = Eye(EyeConfig(recipe.eye.side, recipe.eye.widths))

    def look(n: int) -> Tensor:
        where = next(eye.parameters()).device
        return sum(eye(torch.zeros(n, 3, side, side, device=where)).sum() for side in recipe.eye.views)
    return {"eye": Step(eye, look, recipe.eye.batch, recipe.eye.n_images)}


KINDS: dict[type, Callable[..., dict[str, Step]]] = {Recipe: steps, EyeRecipe: eye_steps}


def needs(recipe: object) -> list[Need]:
    """What each stage of a recipe takes, the one that takes most last; ValueError for a kind of recipe that cannot be counted."""
    if type(recipe) not in KINDS:
        raise ValueError(f"expected a recipe of a generator or an eye, found {type(recipe).__name__}")
    with torch.device("meta"):
        found = KINDS[type(recipe)](recipe)
        kept = {"text", "vae"} | (set() if recipe.decoder.further else {"decoder"}) if getattr(recipe, "start", None) else set()
        share = SHARE["cuda"] if getattr(recipe, "precision", "") == "bf16" else None
        return sorted((need_of(name, step, share if name in HALF else None) for name, step in found.items()
                       if step.n_images and name not in kept), key=lambda n: n.total())


def need_of(name: str, step: Step, share: float | None = None) -> Need:
    """One stage's need; share: as of `Need`."""
    weights = sum(p.numel() for p in step.network.parameters())
    states = weights * (BYTES_A_WEIGHT + BYTES_AN_AVERAGE * step.averages)
    return Need(name, weights, states, saved(step.network, lambda: step.forward(2)) // 2, step.batch, share)


def saved(network: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of a forward pass, the network's own weights aside."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)   # held, so that no other takes its place
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    del out
    return sum(size for size, _ in kept.values())
