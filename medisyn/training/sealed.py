"""Sealed: tensors in a file that appears whole or not at all, and that tells when a bit of it has changed.

safetensors notices a file that was cut short; what a disk or a cable does to the numbers inside it does not. So the SHA-256 of all
that is meant (names, types, shapes, bytes, notes) stands in the file's own header, and is computed again before anything is used.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

SEAL = "sha256"                                       # in the header
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", -1)}   # no room, or none left of what this user may take


class Damaged(ValueError):
    """What was written is not what is there."""


class Full(OSError):
    """The disk has no room for what should be written."""


def write(tensors: dict[str, Tensor], path: Path, notes: dict[str, str]) -> None:
    """Write a file; it is on the disk, not only on its way there, when it gets its name. Full where there is no room."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    draft = path.with_suffix(".part")
    sealed = notes | {SEAL: digest_of(tensors, notes)}

    def fill() -> None:
        save_file({name: value.clone() for name, value in tensors.items()}, draft, metadata=sealed)  # none shares memory
        flush(draft)
        os.replace(draft, path)
        flush(path.parent)
    making_room(fill, draft, sum(value.nbytes for value in tensors.values()))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and notes of a file; Damaged where they are not those that were written."""
    try:
        with safe_open(path, "pt") as opened:
            notes = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise Damaged(str(error)) from None
    said = notes.pop(SEAL, None)  # None: written before there were seals
    if said is not None and said != digest_of(tensors, notes):
        raise Damaged("its numbers are not those that were written: their SHA-256 differs")
    return tensors, notes


def digest_of(tensors: dict[str, Tensor], notes: dict[str, str]) -> str:
    """SHA-256 over tensors and notes, whatever their order."""
    import torch
    told = hashlib.sha256(repr(sorted(notes.items())).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        told.update(f"\0{name} {value.dtype} {tuple(value.shape)}\0".encode())
        told.update(value.reshape(-1).view(torch.uint8).numpy())
    return told.hexdigest()


def flush(path: Path) -> None:
    """Have a file, or a folder's list of names, written to the disk now."""
    if os.name == "nt" and path.is_dir():  # where folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def making_room(fill: Callable[[], None], draft: Path, size: int) -> None:
    """Write by `fill`; whatever goes wrong, the draft does not stay, and a full disk is told in a sentence. size: bytes."""
    try:
        fill()
    except BaseException as error:
        remove(draft)
        if is_full(error):
            raise Full(told_full(draft.parent, size)) from None
        raise


def told_full(folder: Path, size: int) -> str:
    free = shutil.disk_usage(folder).free
    return f"{folder} has {free / 2**20:,.0f} MB free, a checkpoint needs {max(size, 1) / 2**20:,.0f} MB"


def is_full(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that the disk is full."""
    if isinstance(error, Full) or (isinstance(error, OSError) and error.errno in FULL):
        return True
    said = re.search(r"os error (\d+)", str(error))
    return "No space left on device" in str(error) or (said is not None and int(said[1]) in FULL)


def remove(path: Path) -> None:
    """A file or a folder, gone."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
