"""Bases with a UNet: Stable Diffusion 1.x and 2.x (epsilon or v-prediction), and SDXL."""

from typing import Any

import torch
from torch import Tensor, nn

from medisyn.models.bases.base import Base, Told, where
from medisyn.models.bases.parts import assemble, reader


def sd(source: str, pipe: Any, networks: dict[str, nn.Module]) -> Base:
    """Rombach et al. 2022, arXiv:2112.10752."""
    def encode_prompt(texts: list[str]) -> Told:
        return {"tokens": pipe.encode_prompt(texts, where(networks["text_encoder"]), 1, False)[0]}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        return networks["unet"](x, timestep, encoder_hidden_states=told["tokens"], return_dict=False)[0]

    refuse_distilled(source, networks["unet"])
    return assemble("sd", source, pipe, networks, "unet", reader(encode_prompt, pipe, networks), predict)


def sdxl(source: str, pipe: Any, networks: dict[str, nn.Module]) -> Base:
    """Podell et al. 2023, arXiv:2307.01952; a caller may tell "time_ids" (B, 6), else it is told the whole image's."""
    def encode_prompt(texts: list[str]) -> Told:
        tokens, _, pooled, _ = pipe.encode_prompt(texts, device=where(networks["text_encoder_2"]),
                                                  do_classifier_free_guidance=False)
        if pipe.config.force_zeros_for_empty_prompt:
            said = torch.tensor([bool(text) for text in texts], device=tokens.device)
            tokens, pooled = tokens * said[:, None, None], pooled * said[:, None]
        return {"tokens": tokens, "pooled": pooled}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        height, width = (pipe.vae_scale_factor * n for n in x.shape[-2:])
        ids = told.get("time_ids")
        if ids is None:  # original height and width, crop's top and left, target height and width
            ids = x.new_tensor([height, width, 0, 0, height, width]).expand(len(x), -1)
        more = {"text_embeds": told["pooled"], "time_ids": ids}
        return networks["unet"](x, timestep, encoder_hidden_states=told["tokens"], added_cond_kwargs=more,
                                return_dict=False)[0]

    refuse_distilled(source, networks["unet"])
    if "text_encoder" not in networks:
        raise ValueError(f"{source} has no first text encoder, as SDXL's refiner; expected an SDXL base model")
    return assemble("sdxl", source, pipe, networks, "unet", reader(encode_prompt, pipe, networks), predict)


def refuse_distilled(source: str, unet: nn.Module) -> None:
    if unet.config.time_cond_proj_dim is not None:
        raise ValueError(f"{source} was distilled to few steps (time_cond_proj_dim is set) and is no velocity of one time; "
                         "use the model it was distilled from")
