"""Bases with a transformer: Stable Diffusion 3 and 3.5, Flux, Sana, PixArt-Alpha and PixArt-Sigma."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from medisyn.models.bases.base import Base, Told, to_channels, where
from medisyn.models.bases.parts import assemble, reader

FLUX_GUIDANCE = 3.5  # what a Flux that was distilled with guidance is told where told has no "guidance" (B,)


def sd3(source: str, pipe: Any, networks: dict[str, nn.Module]) -> Base:
    """Esser et al. 2024, arXiv:2403.03206; a T5 that the folder lacks is told as zeros, as its pipeline does."""
    def encode_prompt(texts: list[str]) -> Told:
        tokens, _, pooled, _ = pipe.encode_prompt(texts, None, None, device=where(networks["text_encoder"]),
                                                  do_classifier_free_guidance=False)
        return {"tokens": tokens, "pooled": pooled}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        return networks["transformer"](x, timestep=timestep, encoder_hidden_states=told["tokens"],
                                       pooled_projections=told["pooled"], return_dict=False)[0]

    return assemble("sd3", source, pipe, networks, "transformer", reader(encode_prompt, pipe, networks), predict)


def flux(source: str, pipe: Any, networks: dict[str, nn.Module]) -> Base:
    """Flux.1: packed 2 x 2 cells, positions and distilled guidance are its own matter."""
    def encode_prompt(texts: list[str]) -> Told:
        tokens, pooled, _ = pipe.encode_prompt(texts, None, device=where(networks["text_encoder"]))
        return {"tokens": tokens, "pooled": pooled}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        network, tokens = networks["transformer"], told["tokens"]
        guidance = None
        if network.config.guidance_embeds:
            guidance = told.get("guidance", x.new_full((len(x),), FLUX_GUIDANCE))
        out = network(packed(x), timestep=timestep / 1000, guidance=guidance, pooled_projections=told["pooled"],
                      encoder_hidden_states=tokens, txt_ids=tokens.new_zeros(tokens.shape[1], 3),
                      img_ids=positions(x), return_dict=False)[0]
        return unpacked(out, *x.shape[-2:])

    return assemble("flux", source, pipe, networks, "transformer", reader(encode_prompt, pipe, networks), predict, even=True)


def packed(x: Tensor) -> Tensor:
    """(B, c, h, w) -> (B, hw/4, 4c): each 2 x 2 cells one token."""
    b, c, h, w = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"Flux reads 2 x 2 latent cells as one; expected even sides, found {h} x {w}")
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpacked(tokens: Tensor, h: int, w: int) -> Tensor:
    """(B, hw/4, 4c) -> (B, c, h, w)."""
    b, _, width = tokens.shape
    return tokens.view(b, h // 2, w // 2, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, width // 4, h, w)


def positions(x: Tensor) -> Tensor:
    """(hw/4, 3): 0, row and column of each token."""
    rows, columns = (torch.arange(n // 2, device=x.device, dtype=x.dtype) for n in x.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    return torch.cat((grid.new_zeros(len(grid), 1), grid), 1)


def sana(source: str, pipe: Any, networks: dict[str, nn.Module]) -> Base:
    """Xie et al. 2024, arXiv:2410.10629; sentences follow its pipeline's own instruction, the empty one stands alone."""
    instruction = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default

    def encode_prompt(texts: list[str]) -> Told:
        device, found = where(networks["text_encoder"]), []
        for said in (True, False):
            some = [text for text in texts if bool(text) == said]
            if some:
                before = instruction if said else None
                found.append(pipe.encode_prompt(some, False, device=device, complex_human_instruction=before))
        order = sorted(range(len(texts)), key=lambda k: not texts[k])
        back = torch.tensor(order, device=device).argsort()
        tokens, mask = (torch.cat([part[k] for part in found])[back] for k in (0, 1))
        return {"tokens": tokens, "mask": mask}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        network = networks["transformer"]
        out = network(x, encoder_hidden_states=told["tokens"], encoder_attention_mask=told["mask"],
                      timestep=timestep * network.config.timestep_scale, return_dict=False)[0]
        return out[:, :x.shape[1]]  # without the learned variance, where there is one

    def encode(image: Tensor) -> tuple[Tensor, Tensor]:
        vae = networks["vae"]
        latent = vae.encode(to_channels(image, vae.config.in_channels), return_dict=False)[0] * vae.config.scaling_factor
        return latent, torch.zeros_like(latent)

    def decode(latent: Tensor) -> Tensor:
        vae = networks["vae"]
        return to_channels(vae.decode(latent / vae.config.scaling_factor, return_dict=False)[0], 3)

    return assemble("sana", source, pipe, networks, "transformer", reader(encode_prompt, pipe, networks), predict, encode, decode)


def pixart(source: str, pipe: Any, networks: dict[str, nn.Module]) -> Base:
    """Chen et al. 2023, arXiv:2310.00426, and 2024, arXiv:2403.04692; sentences are read as they are, not cleaned."""
    def encode_prompt(texts: list[str]) -> Told:
        tokens, mask, _, _ = pipe.encode_prompt(texts, False, device=where(networks["text_encoder"]))
        return {"tokens": tokens, "mask": mask}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        network, more = networks["transformer"], {"resolution": None, "aspect_ratio": None}
        if network.use_additional_conditions:
            height, width = (pipe.vae_scale_factor * n for n in x.shape[-2:])
            more = {"resolution": x.new_tensor([height, width]).expand(len(x), -1),
                    "aspect_ratio": x.new_tensor([height / width]).expand(len(x), -1)}
        out = network(x, encoder_hidden_states=told["tokens"], encoder_attention_mask=told["mask"], timestep=timestep,
                      added_cond_kwargs=more, return_dict=False)[0]
        return out[:, :x.shape[1]]  # without the learned variance

    return assemble("pixart", source, pipe, networks, "transformer", reader(encode_prompt, pipe, networks), predict)
