"""Provenance: how a synthetic image came to be.

A provenance is complete when the image can be made again from it, bit for bit, on the same
hardware. `tests/test_synthesizer.py` holds that promise, `medisyn verify` uses it.
"""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Verdict:
    """What a guard says of an image."""

    accepted: bool
    likeness: float   # to the likeliest training image, in spreads of what images of other patients reach
    limit: float      # from which likeness on an image of that type is a copy
    guard: str        # digest of the index, 12 hex digits


@dataclass(frozen=True)
class Guarded:
    """What the guard had to say of an image that was made."""

    verdict: str      # "passed", or "flagged" where it only flags
    likeness: float
    limit: float
    blocked: int      # images of other seeds that were too alike to a training image before this one
    asked: str        # the id that the image would have had from the seed that was asked for
    guard: str        # digest of the index


@dataclass(frozen=True)
class Drawn:
    """What a model's own recogniser had to say of an image that was made."""

    recognised: bool  # whether it saw the image type and the findings that were asked for
    doubt: float      # -log of their probabilities, 0 where it is certain
    draw: int         # images of other seeds that were passed over, or looked at besides
    asked: str        # the id that the image would have had from the seed that was asked for


@dataclass(frozen=True)
class Provenance:
    prompt: str       # the sentence, as it was typed
    read_as: str      # the sentence the network read: the prompt, or its facts in plain words
    seed: int         # of this one image
    steps: int        # sampling steps
    guidance: float   # 1 follows the prompt plainly
    sampler: str      # a name in medisyn.samplers.SAMPLERS, or fitted:HASH, the model's own coefficients
    style: int | None  # cluster of training images it was drawn from; None where it left that open
    model: str        # "sha256:..." over the model folder's weights and settings
    model_name: str   # for people: "medisyn-xs"
    version: str      # medisyn's
    guard: Guarded | None = None  # None: no guard looked at it; what it says decides no pixel
    drawn: Drawn | None = None    # None: no recogniser looked at it; the same holds
    backend: str | None = None    # what computed it, a name in medisyn.models.backends.BACKENDS; None: torch

    def as_dict(self) -> dict:
        """All that is known; where nobody looked at the image, or torch computed it, no word of that, as in files of before
        there was something to say."""
        return {name: value for name, value in asdict(self).items() if name not in OPTIONAL or value}

    @classmethod
    def from_dict(cls, row: dict) -> "Provenance":
        """Read back what `as_dict` wrote; a missing field is a ValueError that names it."""
        names = [f.name for f in fields(cls) if f.name not in OPTIONAL]
        missing = [name for name in names if name not in row]
        if missing:
            raise ValueError(f"a provenance needs {', '.join(names)}; this one lacks {', '.join(missing)}; "
                             "it was not written by medisyn, or was edited")
        return cls(**{name: row[name] for name in names}, backend=row.get("backend"),
                   **{name: kind(**row[name]) for name, kind in LOOKS.items() if row.get(name)})


LOOKS = {"guard": Guarded, "drawn": Drawn}  # what was said of an image after it was made
OPTIONAL = (*LOOKS, "backend")              # no word of them where there is nothing to say
