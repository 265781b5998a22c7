"""Stimuli: every image re-encoded by one path, so that nothing but what it shows tells where it comes from.

Central square, one side in pixels, three channels, PNG with stored (not compressed) rows: all files of a study have the same
number of bytes, no metadata and one date.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import images

DATE = 946_684_800  # 2000-01-01 UTC: of every file


def common_side(paths: Iterable[Path]) -> int:
    """The shortest side of all images, in pixels: what none has to be enlarged for."""
    shortest = None
    for path in paths:
        try:
            with Image.open(path) as opened:
                side = min(opened.size)
        except Exception as error:
            raise ValueError(f"{path}: expected a readable image ({type(error).__name__}); repair or remove it") from None
        shortest = side if shortest is None else min(side, shortest)
    if shortest is None:
        raise ValueError("expected images, found none")
    return shortest


def reduced(shortest: int) -> int:
    """Three quarters of the shortest side, a multiple of 8 where it is large enough: every image loses pixels.

    Were the smallest images shown as they are, they alone would lack the halo that reducing leaves, and readers would
    tell the arms apart by it.
    """
    side = 3 * shortest // 4
    return side // 8 * 8 if side >= 32 else max(side, 1)


def encode(path: Path, side: int) -> bytes:
    """An image file as the PNG that readers see; as long for any image of this side."""
    picture = images.square(images.decode(path), side).convert("RGB")
    return images.png_bytes(Image.fromarray(np.asarray(picture)), compress_level=0)


def write(encoded: bytes, path: Path) -> Path:
    """A stimulus on disk, with the date that all have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)
    os.utime(path, (DATE, DATE))
    return path
