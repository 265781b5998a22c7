"""MediSyn's own model folder as a base: a flow whose network counts time the other way."""

from pathlib import Path

import torch
from torch import Tensor, nn

from medisyn.models import checkpoint
from medisyn.models.bases.base import Base, Told, to_channels, where
from medisyn.models.checkpoint import Model
from medisyn.models.text import to_pieces
from medisyn.models.vae import FACTOR


def own(source: str, folder: Path) -> Base:
    """The base of a model folder."""
    return of_model(source, checkpoint.load(folder))


def of_model(source: str, model: Model) -> Base:
    """A caller may tell "style" (B,) int64, "geometry" (B, 4) and "guidance" (B,) besides: see `Dit.forward`."""
    networks: dict[str, nn.Module] = {"transformer": model.dit, "vae": model.vae, "text_encoder": model.text}
    card, config = model.card, model.dit.config

    def read(texts: list[str]) -> Told:
        encoder = networks["text_encoder"]
        pieces, mask = to_pieces(model.tokenizer, list(texts), encoder.config.max_length)
        tokens, _, pooled = encoder(pieces.to(where(encoder)), mask.to(where(encoder)))
        return {"tokens": tokens, "pooled": pooled}

    def predict(x: Tensor, timestep: Tensor, told: Told) -> Tensor:
        return -networks["transformer"](x, 1 - timestep / 1000, told["tokens"], told["pooled"], told.get("style"),
                                        told.get("geometry"), told.get("guidance"))

    def encode(image: Tensor) -> tuple[Tensor, Tensor]:
        vae = networks["vae"]
        mean, logvar = vae.moments(to_channels(image, 3))
        return (mean - vae.latent_mean) / vae.latent_std, (logvar / 2).exp() / vae.latent_std

    def schedule(steps: int, side: int) -> Tensor:
        even = torch.linspace(1, 0, steps + 1)
        return card.shift * even / (1 + (card.shift - 1) * even)

    def save(to: Path) -> None:
        checkpoint.save(to, card, networks["vae"], networks["transformer"], networks["text_encoder"], model.tokenizer,
                        model.support, model.recogniser)

    return Base("medisyn", source, networks, "transformer", "flow", None, card.image_size, FACTOR, config.latent_channels,
                shift=lambda side: card.shift, schedule=schedule, unit_start=True, read=read, predict=predict, encode=encode,
                decode=lambda latent: networks["vae"].decode(latent), save=save, digest=model.digest, pipeline=None)
