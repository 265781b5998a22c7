"""Another text encoder for a base: any encoder of transformers, with a learnt projection to what the denoiser reads.

For BERT-like encoders (BiomedCLIP's text tower, BioLORD), CLIP's text towers and T5. The projection begins orthogonal,
at the strength of the tokens that the denoiser knew, and says nothing until it is trained.
"""

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medisyn.models.bases.base import Base, Told, where
from medisyn.models.bases.disk import first_line, quietly, refuse_pickles
from medisyn.models.bases.families import FAMILIES
from medisyn.models.checkpoint import put_json

SINGLE = ("sd", "pixart", "sana")    # families that read through one encoder
LENGTH = 128                         # word pieces read of a sentence at most
PROJECTION = "projection"             # its folder, and its name among the networks
PROBES = ["chest X-ray with pneumonia", "brain MRI, axial view", "fundus photograph without diabetic retinopathy"]
ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel", "clip": "CLIPTextModel"}


def replace_text(base: Base, source: str | Path) -> Base:
    """The same base reading through the encoder of `source`, a folder of transformers or a hub id.

    networks["projection"] is an nn.Linear, and what must be trained first; `base` itself stays as it is.
    Raises ValueError where the family reads through several encoders, or none can be read from the source.
    """
    if base.family not in SINGLE:
        raise ValueError(f"a base of family {base.family!r} reads through encoders of its own; another text encoder fits "
                         f"only {', '.join(SINGLE)}")
    encoder, tokenizer = encoder_from(source)
    projection = nn.Linear(encoder.config.hidden_size, token_width(base)).eval().requires_grad_(False)
    with torch.no_grad():
        nn.init.orthogonal_(projection.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(projection.bias)
        plain = projected(PROBES, encoder, tokenizer, projection)
        known = base.read(PROBES)
        projection.weight *= strength(known["tokens"], known.get("mask")) / strength(plain["tokens"], plain["mask"])
    mark = hashlib.sha256(f"{base.digest} {fingerprint(encoder)}".encode()).hexdigest()
    return replace(with_text(base, encoder, tokenizer, projection), digest=f"sha256:{mark}")


def with_text(base: Base, encoder: nn.Module, tokenizer: Any, projection: nn.Linear) -> Base:
    """The base as its family builds it, reading and saving through another encoder."""
    pipe = copy.copy(base.pipeline)
    pipe.register_modules(text_encoder=encoder, tokenizer=tokenizer)
    networks = base.networks | {"text_encoder": encoder, PROJECTION: projection}
    built = FAMILIES[type(pipe).__name__](base.source, pipe, networks)

    def read(texts: list[str]) -> Told:
        told = projected(texts, networks["text_encoder"], tokenizer, networks[PROJECTION])
        return told if base.family != "sd" else {"tokens": told["tokens"]}

    def save(folder: Path) -> None:
        built.save(folder)
        save_projection(Path(folder) / PROJECTION, networks[PROJECTION])

    return replace(built, read=read, save=save, digest=base.digest)


def projected(texts: list[str], encoder: nn.Module, tokenizer: Any, projection: nn.Module) -> Told:
    """tokens (B, L, width), zero behind a sentence's end, and mask (B, L)."""
    length = min(tokenizer.model_max_length, LENGTH, getattr(encoder.config, "max_position_embeddings", None) or LENGTH)
    pieces = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids, mask = (pieces[name].to(where(encoder)) for name in ("input_ids", "attention_mask"))
    hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return {"tokens": projection(hidden) * mask[..., None], "mask": mask}


def encoder_from(source: str | Path) -> tuple[nn.Module, Any]:
    """An encoder and its tokenizer, float32, frozen; never a pickle, never code from the folder."""
    import transformers
    local = Path(source).is_dir()
    if local:
        refuse_pickles(Path(source))
    try:
        with quietly():
            config = transformers.AutoConfig.from_pretrained(source, local_files_only=local)
            kind = getattr(transformers, ENCODERS.get(config.model_type, "AutoModel"))
            encoder = kind.from_pretrained(source, local_files_only=local, use_safetensors=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=local)
    except Exception as error:  # transformers raises anything
        raise ValueError(f"{source} holds no text encoder of transformers with safetensors and a tokenizer "
                         f"({first_line(error)})") from None
    if encoder.config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    if tokenizer.pad_token is None:
        raise ValueError(f"the tokenizer of {source} has no padding token; give it one and save it again")
    return encoder.float().eval().requires_grad_(False), tokenizer


def token_width(base: Base) -> int:
    config = base.networks[base.denoiser].config
    return config.cross_attention_dim if base.family == "sd" else config.caption_channels


def strength(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Root mean square of the tokens that are read."""
    return (tokens if mask is None else tokens[mask.bool()]).square().mean().sqrt()


def fingerprint(network: nn.Module) -> str:
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def save_projection(folder: Path, projection: nn.Linear) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    put_json(folder / "config.json", {"in_features": projection.in_features, "out_features": projection.out_features})
    state = {name: value.detach().cpu().contiguous() for name, value in projection.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def load_projection(folder: Path) -> nn.Linear:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    projection = nn.Linear(settings["in_features"], settings["out_features"])
    projection.load_state_dict(load_file(folder / "model.safetensors"))
    return projection.float().eval().requires_grad_(False)
