"""A base from a folder or from the hub: which family it is, refused where it is damaged or a pickle."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from medisyn.models.bases.base import Base
from medisyn.models.bases.disk import count, digest, first_line, quietly, refuse_pickles
from medisyn.models.bases.families import FAMILIES
from medisyn.models.bases.own import own
from medisyn.models.bases.text import PROJECTION, load_projection, with_text

UNUSED = ("safety_checker", "image_encoder", "feature_extractor")  # components that no prompt needs


def load(source: str | Path) -> Base:
    """A base from a folder, or from a hub id such as "owner/name"; float32, frozen, on the CPU.

    Raises FileNotFoundError where there is no such folder or no model in it, ValueError where its family is
    unknown, or its weights are pickles, damaged or missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = fetched(str(source))
    if (folder / "medisyn.json").is_file() and not (folder / "base.json").is_file():  # that one rests on a base
        return own(str(source), folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{folder} is no model: it should hold model_index.json beside unet/ or transformer/, vae/ "
                                "and text_encoder/, as diffusers' save_pretrained writes them")
    parts = json.loads(index.read_text(encoding="utf-8"))
    kind = parts.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{index}: the pipeline class {kind!r} is of no family known here; "
                         f"known: {', '.join(FAMILIES)}, and MediSyn's own")
    pipe = opened(folder, kind, parts)
    networks = {name: part.float().eval().requires_grad_(False) for name, part in pipe.components.items()
                if isinstance(part, nn.Module)}
    base = FAMILIES[kind](str(source), pipe, networks)
    if (folder / PROJECTION).is_dir():
        refuse_pickles(folder / PROJECTION)
        base = with_text(base, networks["text_encoder"], pipe.tokenizer, load_projection(folder / PROJECTION))
    return replace(base, digest=digest(folder))


def fetched(source: str) -> Path:
    """The folder of a hub id, downloaded by diffusers where it is not in its cache; never a pickle."""
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise FileNotFoundError(f"{source} is no folder, nor a hub id such as owner/name")
    from diffusers import DiffusionPipeline
    try:
        return Path(DiffusionPipeline.download(source, use_safetensors=True))
    except Exception as error:  # the hub's client raises anything
        raise FileNotFoundError(f"{source} is no folder here, and the hub gives no safetensors of that name "
                                f"({first_line(error)})") from None


def opened(folder: Path, kind: str, parts: dict[str, Any]) -> Any:
    """diffusers' pipeline of a folder, its weights checked before anything reads them."""
    variant = None
    for name, part in parts.items():
        if isinstance(part, list) and part[0] is not None and name not in UNUSED and (folder / name).is_dir():
            weights = refuse_pickles(folder / name)
            if weights and all(".fp16." in path.name for path in weights):
                variant = "fp16"
    more: dict[str, Any] = {name: None for name, part in parts.items() if name in UNUSED or part == [None, None]}
    if "safety_checker" in parts:
        more["requires_safety_checker"] = False
    import diffusers
    try:
        with quietly():
            pipe = getattr(diffusers, kind).from_pretrained(folder, use_safetensors=True, variant=variant,
                                                            local_files_only=True, **more)
    except Exception as error:  # diffusers, transformers and safetensors raise anything
        raise ValueError(f"{folder} is damaged or incomplete ({first_line(error)}); fetch it again") from None
    refuse_incomplete(folder, pipe)
    return pipe


def refuse_incomplete(folder: Path, pipe: Any) -> None:
    """diffusers and transformers fill weights that are missing with random ones; here they are an error."""
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            wanted, found = sum(weight.numel() for weight in part.parameters()), count(folder / name)
            if found < wanted:
                raise ValueError(f"{folder / name} holds {found:,} weights where its config.json asks for {wanted:,}; "
                                 "fetch it again")
