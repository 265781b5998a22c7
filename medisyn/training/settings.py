"""Settings of a whole training: a table a stage, each defined beside its owner."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from medisyn.training import batches
from medisyn.training.adversary import DecoderSettings
from medisyn.training.autoencoder import VaeSettings
from medisyn.training.diffusion import DitSettings
from medisyn.training.latents import LatentSettings
from medisyn.training.recogniser import RecogniserSettings
from medisyn.training.text import TextSettings


class DataSettings(BaseModel):
    """The [data] table: what to train on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    collections: tuple[str, ...]        # folders made by `medisyn ingest`; relative ones count from where you stand
    packed_side: int = 144              # pixels a side of the packed squares, a little more than image_size
    image_types: tuple[str, ...] = ()   # only these, for a specialist; (): all that the collections hold


class ModelSettings(BaseModel):
    """The [model] table: how the model is called and sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "medisyn-xs"
    licence: str = "CC-BY-4.0"          # of the weights
    steps: int = 16
    guidance: float = 2.0
    sampler: str = "multistep"
    shift: float = 1.0                  # of the sampling times, towards noise
    guidance_from: float = Field(0.0, ge=0, le=1)   # times, 0 noise to 1 image, between which it is guided
    guidance_until: float = Field(1.0, ge=0, le=1)
    # Image types that are guided from another time.
    guidance_since: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], AfterValidator(batches.known_types)] = {}
    guidance_along: float = Field(1.0, ge=0, le=1)  # share kept of its component parallel to the predicted data
    texture: float = Field(0.0, ge=0)   # std of noise added to the latent before it is decoded


class Recipe(BaseModel):
    """A whole training, from collections to a model folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(128, multiple_of=32)   # pixels a side; styles are told apart on 4 x 4 cells of the latent
    seed: int = 1
    start: str | None = None                       # a model folder whose denoiser is trained further; None: from scratch
    threads: int | None = None                     # torch threads a process; None: torch's own choice
    device: str = "cpu"                            # "cpu", "cuda", or "auto": a GPU where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of a CPU's products; "auto": fp32. A GPU's are bf16 over fp32 weights
    compiled: bool = False                         # whether a CPU compiles the denoiser's blocks, as a GPU does; needs g++
    parallel: Literal["data", "sharded"] = "data"  # several processes: each holds the whole denoiser, or a shard of it
    resident: bool = False                         # squares, latents and captions lie on the device; nothing is loaded at a step
    data: DataSettings
    model: ModelSettings = ModelSettings()
    text: TextSettings = TextSettings()
    vae: VaeSettings = VaeSettings()
    latents: LatentSettings = LatentSettings()
    decoder: DecoderSettings = DecoderSettings()
    dit: DitSettings = DitSettings()
    recogniser: RecogniserSettings = RecogniserSettings()

    @model_validator(mode="after")
    def fits_the_squares(self) -> Self:
        """Nothing can be cut from the packed squares that is larger than they are."""
        for name, side in (("image_size", self.image_size), ("vae.crop", self.vae.crop)):
            if side > self.data.packed_side:
                raise ValueError(f"{name} is {side} pixels, the packed squares are {self.data.packed_side}; "
                                 "raise data.packed_side or lower it")
        if not self.resident and (self.dit.first_side or self.vae.features):
            raise ValueError("dit.first_side and vae.features need resident = true")
        if self.start and self.dit.first_side:
            raise ValueError("start goes on from a finished model; take dit.first_side out of the recipe")
        return self
