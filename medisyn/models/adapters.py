"""Adapters: what was taught to a base, as small files beside it: low-rank updates and new words.

    pytorch_lora_weights.safetensors    low-rank updates of every network, as diffusers' `load_lora_weights` reads them
    learned_embeds.safetensors          {network}|{word}: the embedding of a new word (D,)
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medisyn.models.bases import Base

LORA = "pytorch_lora_weights.safetensors"
TOKENS = "learned_embeds.safetensors"


def load(base: Base, folder: Path) -> list[str]:
    """Put what lies in a folder into the base's networks, as part of their weights; the new words."""
    words = load_words(base, folder / TOKENS) if (folder / TOKENS).is_file() else []
    if (folder / LORA).is_file():
        load_lora(base, folder / LORA)
    return words


def save(base: Base, words: Iterable[str], folder: Path) -> None:
    """Write what was taught."""
    save_lora(base, folder)
    save_words(base, words, folder)


def readers(base: Base) -> list[str]:
    """The networks that read sentences."""
    return [name for name in base.networks if name.startswith("text_encoder")]


def tokenizers(base: Base) -> dict[str, object]:
    """The tokenizer of each network that reads sentences."""
    if base.pipeline is None:
        return {}
    found = {name: getattr(base.pipeline, name.replace("text_encoder", "tokenizer"), None) for name in readers(base)}
    return {name: tokenizer for name, tokenizer in found.items() if tokenizer is not None}


@torch.no_grad()
def added(tokenizer: object, network: nn.Module, words: Mapping[str, str]) -> list[int]:
    """Rows of the embedding that new words have got, each begun as the mean of the words it is like."""
    likes = {word: tokenizer(like, add_special_tokens=False).input_ids for word, like in words.items()}
    for word in words:
        if word in tokenizer.get_vocab() or tokenizer.add_tokens(word) != 1:
            raise ValueError(f"method.tokens: {word!r} is in the tokenizer already; choose another word, such as \"<{word}-2>\"")
    if len(tokenizer) > len(network.get_input_embeddings().weight):  # some tables have rows to spare
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = network.get_input_embeddings().weight
    rows = [tokenizer.convert_tokens_to_ids(word) for word in words]
    for row, like in zip(rows, likes.values(), strict=True):
        table[row] = table[like].mean(0)
    return rows


def save_lora(base: Base, folder: Path) -> Path:
    """The low-rank updates of all networks as diffusers' `load_lora_weights` reads them."""
    from peft.utils import get_peft_model_state_dict
    adapted = {name: network for name, network in base.networks.items() if hasattr(network, "peft_config")}
    state = {f"{name}.{key}": value.detach().cpu().contiguous() for name, network in adapted.items()
             for key, value in get_peft_model_state_dict(network).items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(state, Path(folder) / LORA, metadata={"format": "pt"})
    return Path(folder) / LORA


def load_lora(base: Base, file: Path) -> None:
    """Put low-rank updates from such a file into the networks, as part of their weights."""
    state = load_file(file)
    for name in {key.partition(".")[0] for key in state}:
        network = base.networks[name]
        with torch.no_grad():
            for key in [k for k in state if k.startswith(f"{name}.") and k.endswith(".lora_A.weight")]:
                layer = network.get_submodule(key[len(name) + 1:-len(".lora_A.weight")])
                layer.weight += state[key.replace("lora_A", "lora_B")].float() @ state[key].float()


def save_words(base: Base, words: Iterable[str], folder: Path) -> Path | None:
    """The new words' embeddings, {network}|{word}: (D,)."""
    words = list(words)
    rows = {f"{name}|{word}": base.networks[name].get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(word)]
            for name, tokenizer in tokenizers(base).items() for word in words}
    if not rows:
        return None
    save_file({key: row.detach().cpu().clone() for key, row in rows.items()}, Path(folder) / TOKENS)
    return Path(folder) / TOKENS


@torch.no_grad()
def load_words(base: Base, file: Path) -> list[str]:
    """Add the words of such a file to tokenizers and text encoders; returns them."""
    state = load_file(file)
    words = list(dict.fromkeys(key.partition("|")[2] for key in state))
    for name, tokenizer in tokenizers(base).items():
        rows = added(tokenizer, base.networks[name], dict.fromkeys(words, "a"))
        for word, row in zip(words, rows, strict=True):
            base.networks[name].get_input_embeddings().weight[row] = state[f"{name}|{word}"]
    return words
