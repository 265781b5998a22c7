"""Adapt: which weights of a base learn, in one module that can be averaged, saved and put back.

Low-rank updates (Hu et al. 2021, arXiv:2106.09685) are peft's; alpha equals the rank, so that their scale is 1 and the
files that diffusers reads need no word of it.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from medisyn.models.adapters import added, readers, tokenizers
from medisyn.models.bases import Base
from medisyn.training.finetune_settings import MethodSettings, TokenSettings

PLACES = ("attn", "attention", ".ff.", "feed_forward")   # where a low-rank update goes: linear layers within these


class Tuned(nn.Module):
    """The weights that learn, by network and name. They stay the networks' own tensors: to change these is to change those."""

    def __init__(self, learning: Mapping[str, nn.Parameter], held: Collection[str] = ()):
        super().__init__()
        self.held = {name.replace(".", "|") for name in held}   # tables of which a few rows learn: nothing decays there
        self.weights = nn.ParameterDict({name.replace(".", "|"): weight for name, weight in learning.items()})

    def groups(self, decay: float) -> list[dict]:
        """For an optimizer: what decays, and what does not."""
        decayed, held = ([w for name, w in self.weights.items() if (name in self.held) == still] for still in (False, True))
        return [{"params": decayed, "weight_decay": decay}] + ([{"params": held, "weight_decay": 0.0}] if held else [])

    def found_again(self, base: Base) -> "Tuned":
        """The same names in the base's networks as they are now: to shard a network is to put other tensors there."""
        learning = {}
        for key in self.weights:
            name, _, rest = key.partition("|")
            learning[f"{name}.{rest.replace('|', '.')}"] = base.networks[name].get_parameter(rest.replace("|", "."))
        return Tuned(learning, [name.replace("|", ".") for name in self.held])

    @torch.no_grad()
    def take(self, other: "Tuned") -> None:
        """Become a copy of another one of the same shape."""
        for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):  # shards know no copy of many at once
            mine.copy_(theirs)


@contextlib.contextmanager
def as_if(tuned: Tuned, other: Tuned) -> Iterator[None]:
    """For a while the networks have the weights of `other`, such as their moving average."""
    kept = [weight.detach().clone() for weight in tuned.parameters()]
    tuned.take(other)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(tuned.parameters(), kept, strict=True):
                weight.copy_(before)


def thaw(base: Base, method: MethodSettings, seed: int) -> Tuned:
    """Let the weights learn that the method names, and no other; low-rank updates and new words are put into the networks.

    ValueError where the base has no means for what is asked.
    """
    torch.manual_seed(seed)
    names = [base.denoiser] + (readers(base) if method.text else [])
    if method.train == "lora":
        for name in names:
            adapter(base.networks[name], method.rank)
    learning: dict[str, nn.Parameter] = {}
    for name in names:
        for key, weight in base.networks[name].named_parameters():
            if method.train == "full" or "lora_" in key:
                learning[f"{name}.{key}"] = weight
    for projection in [name for name in base.networks if name == "projection"]:  # of a text encoder put in place of the base's own
        learning |= {f"{projection}.{key}": weight for key, weight in base.networks[projection].named_parameters()}
    tables = new_words(base, method.tokens)
    learning |= tables
    for weight in learning.values():
        weight.requires_grad_(True)
    return Tuned(learning, [] if method.text and method.train == "full" else list(tables))


def can_spare(base: Base) -> bool:
    """Whether the denoiser can compute activations twice instead of keeping them."""
    return hasattr(base.networks[base.denoiser], "enable_gradient_checkpointing")


def spare(base: Base) -> None:
    """Let it do so; ValueError where it cannot."""
    network = base.networks[base.denoiser]
    if not can_spare(base):
        raise ValueError(f"tune.checkpointing: {type(network).__name__} knows only how to keep its activations; leave it out")
    network.enable_gradient_checkpointing()


def adapter(network: nn.Module, rank: int) -> None:
    """Put a low-rank update beside each linear layer of attention and feed-forward; it begins as nothing."""
    from peft import LoraConfig, inject_adapter_in_model
    chosen = [name for name, part in network.named_modules()
              if isinstance(part, nn.Linear) and any(place in f".{name.lower()}." for place in PLACES)]
    if not chosen:
        raise ValueError(f"{type(network).__name__} has no attention whose layers could be adapted; set method.train = \"full\"")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=chosen, init_lora_weights="gaussian"), network)


def merged(network: nn.Module) -> nn.Module:
    """Low-rank updates become part of the weights, and the network is again of the form that it had."""
    for name, part in list(network.named_modules()):
        if hasattr(part, "base_layer"):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, part.get_base_layer())
    for extra in ("peft_config", "_hf_peft_config_loaded"):
        network.__dict__.pop(extra, None)
    return network


# ---- new words -------------------------------------------------------------------------------------------------------

def new_words(base: Base, tokens: Mapping[str, TokenSettings]) -> dict[str, nn.Parameter]:
    """Add words to every tokenizer; the embeddings of which the new rows learn, the gradient of all others held at 0."""
    if not tokens:
        return {}
    found = {}
    if not tokenizers(base):
        raise ValueError(f"method.tokens: {base.source} reads by word pieces of its own, to which none can be added; "
                         "use a word of the vocabulary")
    for name, tokenizer in tokenizers(base).items():
        rows = added(tokenizer, base.networks[name], {word: how.begins_as for word, how in tokens.items()})
        weight = base.networks[name].get_input_embeddings().weight
        weight.requires_grad_(True).register_hook(only(rows, len(weight)))
        found[f"{name}.{name_of(base.networks[name], weight)}"] = weight
    return found


def only(rows: list[int], n: int):
    """A hook that lets the gradient of these rows pass."""
    keep = torch.zeros(n, 1)
    keep[rows] = 1
    return lambda gradient: gradient * keep.to(gradient)


def name_of(network: nn.Module, weight: Tensor) -> str:
    return next(name for name, own in network.named_parameters() if own is weight)
