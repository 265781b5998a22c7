"""Settings of a fine-tuning: a recipe of kind "finetune" teaches a pretrained base a group's own images."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medisyn.training.settings import DataSettings, ModelSettings


class FewSettings(DataSettings):
    """The [data] table: what to teach."""

    n: int | None = Field(None, ge=2)     # training images taken at random; None: all


class TokenSettings(BaseModel):
    """A table [method.tokens."<word>"]: a new word for a finding that no vocabulary has, as in DreamBooth (arXiv:2208.12242)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str                          # said of the records whose `findings` have this true
    begins_as: str = "abnormal"           # words that the text encoder knows, whose mean the new one begins as


class MethodSettings(BaseModel):
    """The [method] table: which weights learn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Literal["lora", "full"] = "lora"
    rank: int = Field(64, ge=1)           # of each low-rank update; alpha is the same, so that its scale is 1
    frozen: Literal["auto", "float32", "bfloat16"] = "auto"  # what does not learn is held in; auto: bfloat16 on a GPU
    text: bool = False                    # the text encoders learn too; their sentences are then read at each step
    tokens: dict[str, TokenSettings] = {}  # new words, each an embedding that learns
    prior_images: int = 0                 # images of what the base could do before, made by itself, so that it does not forget
    prior_share: float = Field(0.25, ge=0, lt=1)  # of each batch
    min_snr: float | None = 5.0           # gamma of arXiv:2303.09556 for epsilon and v predictions; None: off
    drop_text: float = Field(0.1, ge=0, le=1)     # share of images shown without a sentence: what guidance subtracts


class CacheSettings(BaseModel):
    """The [cache] table: latents and sentences, computed once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variants: int = Field(4, ge=1)        # latents of each training image: cropped, toned, mirrored where its type allows it
    captions: int = Field(3, ge=1)        # wordings of each variant
    drop_fact: float = 0.25               # share of facts left out of a wording
    buckets: bool = False                 # keep each image's aspect, in sizes of equal area; False: central squares
    shard: int = Field(256, ge=1)         # rows a file
    batch: int = Field(4, ge=1)           # images encoded together


class TuneSettings(BaseModel):
    """The [tune] table: how long and how fast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_images: int = 40_000
    batch: int = 8                        # images a step, over all processes
    micro: int | None = None              # images that pass through the network together; None: the whole share
    learning_rate: float = 1e-4
    warmup: int = 50                      # steps
    decay_share: float = 0.25             # of the steps, at the end, over which the rate falls to 0
    weight_decay: float = 0.01
    clip: float = 1.0                     # of the gradient's norm
    ema_width: float = 0.1                # of the moving average, as a share of the training so far
    checkpointing: bool = False           # spend time, save memory: activations are computed twice
    watched: int = 64                     # images a side on which train and held-out loss are followed
    nearest: int = Field(24, ge=0)        # images made at every interval for the nearest-neighbour ratio; 0: it is not followed
    gap: float = 0.03                     # the training ends before held-out loss lags behind by more than this
    strict: bool = False                  # also where held-out loss itself still falls, as it does with few patients
    patience: int = 2                     # intervals that it may, or that the ratio may lie under 0.9
    log_images: int = 2_000
    save_seconds: float = 120.0


class FinetuneRecipe(BaseModel):
    """From a pretrained base and collections to a model folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["finetune"]
    base: str                                      # a folder (diffusers' layout, or a MediSyn model), or a hub id
    text_encoder: str | None = None                # a transformers folder that reads the sentences instead of the base's own
    image_size: int | None = None                  # pixels a side; None: the base's own
    seed: int = 1
    threads: int | None = None                     # torch threads a process; None: torch's own choice
    device: str = "cpu"                            # "cpu", "cuda", or "auto": a GPU where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of a CPU's products; "auto": fp32. A GPU's are bf16 over fp32 weights
    compiled: bool = False                         # whether a CPU compiles the denoiser's blocks, as a GPU does; needs g++
    parallel: Literal["data", "sharded"] = "data"  # several processes: each holds all weights, or a shard of them
    data: FewSettings
    model: ModelSettings = ModelSettings(name="finetuned", licence="other", steps=25, guidance=3.0, sampler="multistep")
    method: MethodSettings = MethodSettings()
    cache: CacheSettings = CacheSettings()
    tune: TuneSettings = TuneSettings()

    @model_validator(mode="after")
    def goes_together(self) -> Self:
        """What one setting asks for, another must allow."""
        if self.method.prior_share * self.tune.batch < 1 and self.method.prior_images:
            share, batch = self.method.prior_share, self.tune.batch
            raise ValueError(f"method.prior_share is {share} of a batch of {batch}, less than one image; raise one of them")
        return self
