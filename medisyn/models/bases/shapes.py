"""A base of shapes alone: its networks as their configs describe them, on torch's meta device, which holds no numbers.

To count what a training would take, before anything is allocated. Its functions give tensors that have shapes and nothing else.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medisyn.models.bases.base import Base
from medisyn.models.bases.disk import first_line, quietly
from medisyn.models.bases.families import FAMILIES
from medisyn.models.bases.folder import UNUSED
from medisyn.models.bases.own import of_model
from medisyn.models.bases.text import ENCODERS, PROJECTION, token_width, with_text
from medisyn.models.checkpoint import OPTIONAL, PARTS, Card, Model, settings_from


def shapes(source: str | Path, text_encoder: str | Path | None = None) -> Base:
    """The shapes of a folder's base, or of one that reads through another text encoder's folder; no weight is read.

    FileNotFoundError where it is no folder, no model, or a hub id that has not been fetched; ValueError where its family is
    unknown or a config is damaged.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = cached(str(source))
    if (folder / "medisyn.json").is_file() and not (folder / "base.json").is_file():
        return own_shapes(str(source), folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"its base {source} is no model: it should hold model_index.json or medisyn.json")
    parts = json.loads(index.read_text(encoding="utf-8"))
    kind = parts.get("_class_name")
    if kind not in FAMILIES:
        raise ValueError(f"its base's pipeline class {kind!r} is of no family known here; known: {', '.join(FAMILIES)}")
    try:
        with quietly():
            pipe = pipeline(folder, kind, parts)
            networks = {name: part.to("meta").eval().requires_grad_(False) for name, part in pipe.components.items()
                        if isinstance(part, nn.Module)}
            base = FAMILIES[kind](str(source), pipe, networks)
            if text_encoder:
                return reading(base, text_encoder)
            if (folder / PROJECTION).is_dir():   # it was taught so
                told = json.loads((folder / PROJECTION / "config.json").read_text(encoding="utf-8"))
                return with_text(base, networks["text_encoder"], pipe.tokenizer, linear(told["in_features"], told["out_features"]))
            return base
    except ImportError:         # of diffusers or transformers themselves
        raise
    except Exception as error:  # which raise anything
        raise ValueError(f"the configs of its base {source} are damaged or incomplete ({first_line(error)})") from None


def cached(source: str) -> Path:
    """The folder of a hub id that was fetched before; nothing is fetched."""
    try:
        from huggingface_hub import snapshot_download
        return Path(snapshot_download(source, local_files_only=True))
    except Exception:  # the hub's client raises anything
        raise FileNotFoundError(f"its base {source} is no folder here, nor a hub id that was fetched before, so that the sizes of "
                                "its networks are not known; fetch it and name its folder") from None


def own_shapes(source: str, folder: Path) -> Base:
    """Those of a MediSyn model folder."""
    from tokenizers import Tokenizer

    def settings(kind: type, path: Path) -> Any:
        return settings_from(kind, json.loads(path.read_text(encoding="utf-8")), path)
    with torch.device("meta"):
        networks = {name: kind(settings(config, folder / name / "config.json")).eval().requires_grad_(False)
                    for name, (_, kind, config) in PARTS.items() if name not in OPTIONAL}
    model = Model(settings(Card, folder / "medisyn.json"), networks["vae"], networks["transformer"], networks["text_encoder"],
                  Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")), [], "")
    return of_model(source, model)


def pipeline(folder: Path, kind: str, parts: dict[str, Any]) -> Any:
    """diffusers' pipeline of a folder: tokenizers and scheduler as they are, networks on the meta device."""
    import diffusers
    import transformers
    rooms = {"diffusers": diffusers, "transformers": transformers}
    components: dict[str, Any] = {}
    for name, part in parts.items():
        if not isinstance(part, list):
            if not name.startswith("_"):
                components[name] = part          # a setting of the pipeline itself
        elif part[0] not in rooms or name in UNUSED:
            components[name] = None
        else:
            components[name] = component(getattr(rooms[part[0]], part[1]), folder / name)
    if "safety_checker" in parts:
        components["requires_safety_checker"] = False
    return getattr(diffusers, kind)(**components)


def component(kind: type, folder: Path) -> Any:
    """One part of a pipeline, a network on the meta device."""
    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(folder, local_files_only=True)
    if hasattr(kind, "load_config"):             # diffusers'
        config = kind.load_config(folder, local_files_only=True)
        with torch.device("meta"):
            return kind.from_config(config)
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return kind(config)


def reading(base: Base, source: str | Path) -> Base:
    """The base as it reads through another text encoder, a folder of transformers."""
    import transformers
    config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    kind = getattr(transformers, ENCODERS.get(config.model_type, "AutoModel"))
    with torch.device("meta"):
        encoder = (kind.from_config if kind is transformers.AutoModel else kind)(config)
    return with_text(base, encoder.eval().requires_grad_(False), tokenizer, linear(config.hidden_size, token_width(base)))


def linear(width: int, out: int) -> nn.Linear:
    return nn.Linear(width, out, device="meta").requires_grad_(False)
