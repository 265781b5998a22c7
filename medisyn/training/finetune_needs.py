"""Needs of a fine-tuning: the memory it takes, counted on the shapes of the base's folder before any weight is read.

Frozen weights take 4 or 2 bytes (`frozen`); one that learns 24: itself, its gradient, two moments of the optimizer, the moving
average and the best weights so far. What passes through the networks is counted as it comes and goes (`live`), in float32; in bf16
it is 0.7 of that: counted in the same way under autocast, 0.58 to 0.64 of Stable Diffusion's with its widths divided by 8.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from medisyn.models import bases
from medisyn.models.adapters import readers
from medisyn.models.bases import Base
from medisyn.training import adapt, frozen
from medisyn.training.adapt import Tuned
from medisyn.training.finetune_settings import FinetuneRecipe
from medisyn.training.live import Live, most
from medisyn.training.needs import SHARE, Need

BYTES_LEARNING = 20      # of a weight that learns, beside itself
BYTES_CAST = 2           # of a weight in float32 that autocast has rounded, kept until the way back


def needs(recipe: FinetuneRecipe, where: str) -> list[Need]:
    """What the stages take on a device, "cpu" or "cuda", in one process; the one that takes most last.

    FileNotFoundError and ValueError where the base's folder is not there or not to be counted.
    """
    base = bases.shapes(recipe.base, recipe.text_encoder)
    if recipe.tune.checkpointing:
        adapt.spare(base)
    return counted(recipe, base, adapt.thaw(base, recipe.method, recipe.seed), where)


def counted(recipe: FinetuneRecipe, base: Base, tuned: Tuned, where: str) -> list[Need]:
    """The same of a base of shapes alone, in which the weights learn that are to; previews are decoded one by one."""
    side, learning = recipe.image_size or base.image_size, list(tuned.parameters())
    reads = recipe.method.text or bool(recipe.method.tokens) or "projection" in base.networks
    an_image, encoded, decoded = (total // 2 for total in image_bytes(base, learning, side, 2, reads))
    held = frozen.kind(recipe.method.frozen, where)
    in_half = where == "cuda" or held != torch.float32      # the step, under autocast
    opened = size(base)
    frozen.hold(base, learning, [base.denoiser, *readers(base)], held)
    cached = size(base)
    frozen.hold(base, learning, ["vae"], held)
    stepped = [w for name in [base.denoiser, *(readers(base) if reads else [])] for w in base.networks[name].parameters()]
    cast = BYTES_CAST * sum(w.numel() for w in stepped if w.ndim > 1 and w.dtype == torch.float32) if in_half else 0
    learn = sum(weight.numel() for weight in learning)
    weights = sum(p.numel() for network in base.networks.values() for p in network.parameters())
    more = f" of which {learn / 1e6:.2f} M learn, the others held in {str(held).removeprefix('torch.')}"
    share = SHARE["cuda"] if in_half else 1.0
    found = [Need("cache", weights, cached, encoded, recipe.cache.batch, 1.0, more=more),
             Need("tune", weights, size(base) + BYTES_LEARNING * learn + cast, an_image, recipe.tune.micro or recipe.tune.batch,
                  share, decoded, more)]
    if where == "cpu" and held != torch.float32:
        found.append(Need("opening", weights, opened, 0, 1, more=more))   # files are read in float32
    return sorted(found, key=lambda need: need.total(where))


def image_bytes(base: Base, learning: list[Tensor], side: int, n: int, reads: bool) -> tuple[int, int, int]:
    """The most bytes alive in a training step, while images become latents and while latents become images, of n at once.

    Gradients of the weights that learn are not in it, whose bytes are those of the weights whatever n is.
    """
    beside = [w for network in base.networks.values() for w in (*network.parameters(), *network.buffers())]
    cells, texts = side // base.factor, [""] * n
    latent, image = (torch.zeros(n, *shape, device="meta") for shape in ((base.latent_channels, cells, cells), (3, side, side)))
    t = torch.full((n,), 500.0, device="meta")
    with torch.no_grad(), Live():
        told = base.read(texts)
    beside += [latent, image, t, *told.values()]

    def step() -> None:
        base.predict(latent, t, base.read(texts) if reads else told).square().mean().backward()
    hooks = [weight.register_post_accumulate_grad_hook(dropped) for weight in learning]
    stepped = most(step, beside)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        return stepped, most(lambda: base.encode(image), beside), most(lambda: base.decode(latent), beside)


def dropped(weight: Tensor) -> None:
    weight.grad = None


def size(base: Base) -> int:
    """Bytes of all weights and buffers as they are held."""
    return sum(w.nbytes for network in base.networks.values() for w in (*network.parameters(), *network.buffers()))


# ---- where it does not fit ---------------------------------------------------------------------------------------------

Change = dict[str, object]                                       # "table.key" of a recipe -> value
KEYS = {"tune": "tune.micro", "cache": "cache.batch"}            # how many images a stage passes at once


def instead(recipe: FinetuneRecipe, where: str, found: list[Need], memory: float) -> list[str]:
    """Settings with which a recipe fits so many bytes, what changes least first; where none does alone, all of them together.

    found: what `needs` says of the recipe as it is.
    """
    plain, others = batches(found, where, memory), list(alternatives(recipe, where))
    fitting = [] if plain is None else [plain]
    for change in others:
        also = batches(needs(applied(recipe, change), where), where, memory)
        if also is not None and "tune.micro" not in also:
            fitting.append(change | also)
    if not fitting:
        change = {key: value for each in others for key, value in each.items()}
        also = batches(needs(applied(recipe, change), where), where, memory)
        fitting = [] if also is None else [change | also]
    return [" and ".join(f"{key}={str(value).lower()}" for key, value in change.items()) for change in fitting]


def alternatives(recipe: FinetuneRecipe, where: str) -> Iterator[Change]:
    """What takes less memory, one change at a time: time for memory first, then coarser weights, then fewer that learn."""
    if not recipe.tune.checkpointing and adapt.can_spare(bases.shapes(recipe.base)):
        yield {"tune.checkpointing": True}
    if frozen.kind(recipe.method.frozen, where) == torch.float32:
        yield {"method.frozen": "bfloat16"}
    if recipe.method.train == "full":
        yield {"method.train": "lora"}
    elif recipe.method.rank >= 8:
        yield {"method.rank": recipe.method.rank // 4}


def applied(recipe: FinetuneRecipe, change: Change) -> FinetuneRecipe:
    """The recipe with settings changed."""
    for key, value in change.items():
        table, _, name = key.partition(".")
        recipe = recipe.model_copy(update={table: getattr(recipe, table).model_copy(update={name: value})})
    return recipe


def batches(found: list[Need], where: str, memory: float) -> Change | None:
    """How many images may pass at once in the stages that would not fit; None where in one of them none may."""
    change: Change = {}
    for need in found:
        if need.total(where) > memory:
            room = need.largest(memory, where)
            if not room:
                return None
            change[KEYS[need.stage]] = room
    return change
