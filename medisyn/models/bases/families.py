"""Which function makes a base of which of diffusers' pipeline classes: a new family is a function and a line here."""

from collections.abc import Callable
from typing import Any

from torch import nn

from medisyn.models.bases import dits, unets
from medisyn.models.bases.base import Base

FAMILIES: dict[str, Callable[[str, Any, dict[str, nn.Module]], Base]] = {  # (source, pipeline, networks) -> base
    "StableDiffusionPipeline": unets.sd,
    "StableDiffusionXLPipeline": unets.sdxl,
    "StableDiffusion3Pipeline": dits.sd3,
    "FluxPipeline": dits.flux,
    "SanaPipeline": dits.sana,
    "PixArtAlphaPipeline": dits.pixart,
    "PixArtSigmaPipeline": dits.pixart,
}
