"""Buckets: images of different aspects in batches of equal size, so that nothing wide is cut to a square.

Sides are multiples of a step that the network can halve; all buckets have about the same area, as in SDXL (arXiv:2307.01952, 2.3).
"""

import math

import numpy as np

WIDEST = 2.0   # height to width, or width to height


def sizes(side: int, step: int) -> list[tuple[int, int]]:
    """The (height, width) in pixels of every bucket, from the tallest to the widest; each an area of at most side * side.

    ValueError where `side` is no multiple of `step`.
    """
    if side % step:
        raise ValueError(f"images of {side} pixels do not fit this base, whose sides are multiples of {step}; "
                         f"set image_size to {max(step, round(side / step) * step)}")
    found = {(side, side)}
    for height in range(step, int(side * math.sqrt(WIDEST)) + 1, step):
        width = side * side // height // step * step
        if width and max(height, width) <= WIDEST * min(height, width):
            found |= {(height, width), (width, height)}
    return sorted(found, key=lambda size: size[1] / size[0])


def nearest(height: int, width: int, among: list[tuple[int, int]]) -> int:
    """The index of the bucket whose aspect is the nearest to an image's, as a ratio; the first of two that are as near."""
    aspect = math.log(width / height)
    return int(np.argmin([abs(math.log(w / h) - aspect) for h, w in among]))
