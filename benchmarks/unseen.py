"""Unseen: the real images that figures on synthetic ones are compared with.

They are of the test split; an image type that has none there is measured on its validation split. Images that lie on
top of a training image, plain or mirrored, are left out whatever their split says: public datasets hold some twice.
"""

import numpy as np

from medisyn.training.batches import Pixels

THUMB = 32       # pixels a side of a thumbnail
SAME = 0.05      # between thumbnails, at most so far: one image, re-encoded or mirrored; other images lie beyond 0.09
SPLITS = ("train", "val", "test")
NONE = "no unseen real images"


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """32 x 32 colour averages, each image shifted to mean 0 and scaled to length 1: float32 (N, 3072)."""
    n, cell = len(pixels), pixels.shape[1] // THUMB
    small = pixels.reshape(n, THUMB, cell, THUMB, cell, 3).mean((2, 4), dtype=np.float32).reshape(n, -1)
    small -= small.mean(1, keepdims=True)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean: float32 (len(a), len(b))."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def to_nearest(made: np.ndarray, train: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distance, row) of the nearest training image, plain or mirrored, of each row."""
    both = np.minimum(distances(made, train), distances(made, mirrored))
    return both.min(1), both.argmin(1)


def rows_of(pixels: Pixels, image_type: str, split: str) -> np.ndarray:
    return np.array([i for i in pixels.of_split(split) if pixels.records[i].image_type == image_type], np.int64)


def kept(pixels: Pixels, image_type: str, split: str) -> tuple[np.ndarray, int]:
    """(the rows of a split that are no training image, how many were left out)."""
    train, rows = rows_of(pixels, image_type, "train"), rows_of(pixels, image_type, split)
    if not len(train) or not len(rows):
        return rows, 0
    squares = np.asarray(pixels.array[train])
    distance = to_nearest(thumbnails(pixels.array[rows]), thumbnails(squares), thumbnails(squares[:, :, ::-1]))[0]
    return rows[distance > SAME], int((distance <= SAME).sum())


def unseen(pixels: Pixels, image_type: str) -> tuple[np.ndarray, str | None]:
    """(rows, which split and what was left out: "test", "val", "test, 67 doubles left out", None)."""
    for split in ("test", "val"):
        rows, doubles = kept(pixels, image_type, split)
        if len(rows):
            return rows, f"{split}, {doubles} doubles left out" if doubles else split
    return np.zeros(0, np.int64), None
