"""MediSyn turns a clinical sentence into a medical image."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Record", "Synthesizer", "describe", "load", "understand"]

if TYPE_CHECKING:
    from medisyn.data.prompts import describe, understand
    from medisyn.data.records import Record
    from medisyn.synthesizer import Synthesizer

HOMES = {"Record": "medisyn.data.records", "Synthesizer": "medisyn.synthesizer",
         "describe": "medisyn.data.prompts", "understand": "medisyn.data.prompts"}


def load(model: str | None = None, backend: str = "torch") -> "Synthesizer":
    """A model folder, a model that ships by its name, or the one that ships as the default, ready to `generate`.

    backend: "torch", or with the extra `openvino` "openvino" and "openvino-bf16" (`medisyn.models.backends`).

    >>> medisyn.load().generate("chest X-ray with pneumonia", n=4, seed=7)   # doctest: +SKIP
    """
    from medisyn import synthesizer
    return synthesizer.load(model, __version__, backend)


def __getattr__(name: str) -> object:
    if name in HOMES:
        import importlib
        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f"module 'medisyn' has no attribute {name!r}")
