"""From a pipeline and two functions to a base: what all families of diffusers share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medisyn.models.bases.base import Base, Told, kl_decoder, kl_encoder
from medisyn.models.bases.disk import quietly
from medisyn.models.bases.timing import timing

Read = Callable[[list[str]], Told]
Predict = Callable[[Tensor, Tensor, Told], Tensor]


def assemble(family: str, source: str, pipe: Any, networks: dict[str, nn.Module], denoiser: str, read: Read,
             predict: Predict, encode: Callable | None = None, decode: Callable | None = None, even: bool = False) -> Base:
    """A base of what a family tells; encode and decode: None is an AutoencoderKL's; even: see `timing`."""
    settings, factor = networks[denoiser].config, pipe.vae_scale_factor
    patch = 2 if family == "flux" else getattr(settings, "patch_size", 1)
    cells = getattr(settings, "sample_size", None) or pipe.default_sample_size
    time = timing(pipe.scheduler, lambda side: (side // factor // patch)**2, even)
    return Base(family, source, networks, denoiser, time.prediction, time.sigmas,
                image_size=factor * (cells if isinstance(cells, int) else max(cells)), factor=factor,
                latent_channels=settings.in_channels // (4 if family == "flux" else 1),
                shift=time.shift, schedule=time.schedule, unit_start=time.unit_start, read=read, predict=predict,
                encode=encode or kl_encoder(networks), decode=decode or kl_decoder(networks),
                save=lambda folder: save(Path(folder), pipe, networks), digest="", pipeline=pipe)


def reader(encode_prompt: Read, pipe: Any, networks: dict[str, nn.Module]) -> Read:
    """The same, through the text encoders as they are now in `networks`."""
    def read(texts: list[str]) -> Told:
        for name, network in networks.items():
            if name.startswith("text_encoder") and getattr(pipe, name) is not network:
                pipe.register_modules(**{name: network})
        return encode_prompt(list(texts))
    return read


def save(folder: Path, pipe: Any, networks: dict[str, nn.Module]) -> None:
    """diffusers' own folder, safetensors, with the networks as they are now."""
    pipe.register_modules(**{name: network for name, network in networks.items() if name in pipe.components})
    with quietly():
        pipe.save_pretrained(folder, safe_serialization=True)
