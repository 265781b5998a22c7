"""Files of pretrained networks: never a pickle, hashed, read without a word."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

from medisyn.models.checkpoint import refuse_pickle

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
READ = (".safetensors", ".json", ".txt", ".model")  # what networks and tokenizers are made of


def refuse_pickles(folder: Path) -> list[Path]:
    """The safetensors of a network's folder, checked by content; an error where it has only pickles."""
    weights = sorted(folder.glob("*.safetensors"))
    pickles = sorted(p for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles and not weights:
        raise ValueError(f"{pickles[0]} is a pickle; MediSyn never loads pickles, convert it with "
                         "save_pretrained(safe_serialization=True) where you trust it")
    for path in weights:
        refuse_pickle(path)
    return weights


def count(folder: Path) -> int:
    """How many numbers the safetensors of a folder hold."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as opened:
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())
    return total


def digest(folder: Path) -> str:
    """sha256 over names and contents of all files that a base may be read from."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in READ
                       and p.relative_to(folder).parts[0] != "guard"):  # a guard only chooses among images
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bars and no advice of diffusers and transformers inside; what the caller had set is set again behind."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs
    before = [(library, library.get_verbosity(), library.is_progress_bar_enabled()) for library in (ours, theirs)]
    for library, _, _ in before:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, shown in before:
            library.set_verbosity(verbosity)
            if shown:
                library.enable_progress_bar()


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(" (")[0].rstrip(".")
