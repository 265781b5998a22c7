"""Provenance: how a synthetic image came to be.

A provenance is complete when the image can be made again from it, bit for bit, on the same
hardware. `tests/test_synthesizer.py` holds that promise, `medisyn verify` uses it.
"""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Provenance:
    prompt: str       # the sentence, as it was typed
    read_as: str      # the sentence the network read: the prompt, or its facts in plain words
    seed: int         # of this one image
    steps: int        # sampling steps
    guidance: float   # 1 follows the prompt plainly
    sampler: str      # a name in medisyn.samplers.SAMPLERS
    style: int | None  # cluster of training images it was drawn from; None where it left that open
    model: str        # "sha256:..." over the model folder's weights and settings
    model_name: str   # for people: "medisyn-xs"
    version: str      # medisyn's

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict) -> "Provenance":
        """Read back what `as_dict` wrote; a missing field is a ValueError that names it."""
        names = [f.name for f in fields(cls)]
        missing = [name for name in names if name not in row]
        if missing:
            raise ValueError(f"a provenance needs {', '.join(names)}; this one lacks {', '.join(missing)}; "
                             "it was not written by medisyn, or was edited")
        return cls(**{name: row[name] for name in names})
