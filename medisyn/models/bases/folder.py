"""A base from disk or from the hub: which family it is, refused where it is damaged or a pickle."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medisyn.models.bases import unets
from medisyn.models.bases.base import Base
from medisyn.models.checkpoint import refuse_pickle

FAMILIES: dict[str, Callable[[str, Any, dict[str, nn.Module]], Base]] = {  # diffusers' pipeline class: family
    "StableDiffusionPipeline": unets.sd,
    "StableDiffusionXLPipeline": unets.sdxl,
}
UNUSED = ("safety_checker", "image_encoder", "feature_extractor")  # components that no prompt needs
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
READ = (".safetensors", ".json", ".txt", ".model")                 # what a base is made of


def load(source: str | Path) -> Base:
    """A base from a folder, or from a hub id such as "owner/name"; float32, frozen, on the CPU.

    Raises FileNotFoundError where there is no such folder or no model in it, ValueError where its family is
    unknown, its weights are pickles, damaged or missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = fetched(str(source))
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{folder} is no model: it should hold model_index.json beside unet/ or transformer/, vae/ "
                                "and text_encoder/, as diffusers' save_pretrained writes them")
    kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{index}: the pipeline class {kind!r} is of no family known here; "
                         f"known: {', '.join(FAMILIES)}, and MediSyn's own")
    pipe = opened(folder, kind)
    networks = {name: part.float().eval().requires_grad_(False) for name, part in pipe.components.items()
                if isinstance(part, nn.Module) and name not in UNUSED}
    return replace(FAMILIES[kind](str(source), pipe, networks), digest=digest(folder))


def fetched(source: str) -> Path:
    """The folder of a hub id, downloaded by diffusers where it is not in its cache; never a pickle."""
    from diffusers import DiffusionPipeline
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith("."):
        raise FileNotFoundError(f"{source} is no folder, nor a hub id such as owner/name")
    try:
        return Path(DiffusionPipeline.download(source, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{source} is no folder here, and the hub gives no safetensors of that name "
                                f"({first_line(error)})") from None


def opened(folder: Path, kind: str) -> Any:
    """diffusers' pipeline of a folder, weights checked before anything reads them."""
    import diffusers
    parts = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    variant = None
    for name, part in parts.items():
        if not isinstance(part, list) or part[0] is None or name in UNUSED or not (folder / name).is_dir():
            continue
        weights = sorted((folder / name).glob("*.safetensors"))
        pickles = [p for p in (folder / name).iterdir() if p.suffix in PICKLES]
        if pickles and not weights:
            raise ValueError(f"{pickles[0]} is a pickle; MediSyn never loads pickles, convert it with diffusers' "
                             "save_pretrained(safe_serialization=True) where you trust it")
        for path in weights:
            refuse_pickle(path)
        if weights and all(".fp16." in path.name for path in weights):
            variant = "fp16"
    absent = {name: None for name in UNUSED if name in parts and name != "feature_extractor"}
    more = {"requires_safety_checker": False} if "safety_checker" in parts else {}
    try:
        return getattr(diffusers, kind).from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True,
                                                        variant=variant, local_files_only=True, **absent, **more)
    except Exception as error:  # diffusers, transformers and safetensors raise anything
        raise ValueError(f"{folder} is damaged or incomplete ({first_line(error)}); fetch it again") from None


def digest(folder: Path) -> str:
    """sha256 over names and contents of the files that a base was read from."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in READ):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
