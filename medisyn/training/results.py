"""Results: what a stage left in a run folder, written once and opened again."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from medisyn.models import checkpoint
from medisyn.models.text import TextConfig, TextEncoder
from medisyn.models.vae import Vae, VaeConfig
from medisyn.training.diffusion import Reader
from medisyn.training.run import Stage, rank


def keep(stage: Stage, network: torch.nn.Module, config: object, **facts: object) -> None:
    """A stage's result, in full precision, beside its checkpoints; facts are noted with it."""
    if rank() == 0:
        save_file({k: v.contiguous().clone() for k, v in network.state_dict().items()}, stage.folder / "network.safetensors")
        stage.finish({"config": dataclasses.asdict(config), **facts})


def kept(folder: Path, kind: type, config: type) -> torch.nn.Module:
    """The network that `keep` wrote; ValueError when the stage has not been finished."""
    marker = folder / "done.json"
    if not marker.is_file():
        raise ValueError(f"stage {folder.name} is not finished in {folder.parent}; run it first, "
                         "or leave --stages out to run all in order")
    settings = checkpoint.settings_from(config, json.loads(marker.read_text())["config"], marker)
    network = kind(settings)
    network.load_state_dict(load_file(folder / "network.safetensors"))
    return network.eval().requires_grad_(False)


def reader(folder: Path) -> Reader:
    from tokenizers import Tokenizer
    return Reader(kept(folder / "text", TextEncoder, TextConfig), Tokenizer.from_file(str(folder / "text" / "tokenizer.json")))


def scaled_vae(folder: Path, sharpened: bool = True) -> Vae:
    """The autoencoder with the scale of its latents, and with the sharpened decoder where there is one."""
    if sharpened and (folder / "decoder" / "done.json").is_file():
        return kept(folder / "decoder", Vae, VaeConfig)
    marker = folder / "latents" / "done.json"
    config = checkpoint.settings_from(VaeConfig, json.loads(marker.read_text())["config"], marker)
    scaled = Vae(config).eval().requires_grad_(False)
    scaled.load_state_dict(kept(folder / "vae", Vae, VaeConfig).state_dict())
    return scaled
