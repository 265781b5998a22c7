"""Phantoms: drawn pictures with known facts, for tests that must not need a patient's image."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from medisyn.data import records
from medisyn.data.records import Record

TINY = """
image_size = 32
seed = 3
threads = 1
[data]
collections = ["{collection}"]
packed_side = 36
[model]
name = "phantom"
steps = 4
[text]
vocabulary_size = 400
corpus = 400
width = 32
heads = 2
layers = 1
n_tokens = 2
n_images = 96
batch = 16
log_images = 48
[vae]
latent_channels = 4
widths = [32, 32, 32]
encoder_blocks = [0, 0, 1]
decoder_blocks = [0, 0, 1]
n_images = 96
batch = 8
crop = 32
log_images = 48
[latents]
each_type = 40
images_a_style = 10
[decoder]
n_images = 24
batch = 4
discriminator = 4
log_images = 12
[dit]
width = 32
heads = 2
depth = 2
stem = 16
n_images = 96
batch = 8
warmup = 2
watched = 8
log_images = 48
"""


def chest(rng: np.random.Generator, sick: bool) -> Image.Image:
    """Two dark ovals on gray; a bright disc in one of them when sick."""
    picture = Image.new("L", (64, 64), 150)
    pen = ImageDraw.Draw(picture)
    shift = int(rng.integers(-3, 4))
    pen.ellipse((8, 12 + shift, 28, 54 + shift), fill=30)
    pen.ellipse((36, 12 + shift, 56, 54 + shift), fill=30)
    if sick:
        pen.ellipse((14, 30 + shift, 24, 40 + shift), fill=220)
    return picture


def mole(rng: np.random.Generator, sick: bool) -> Image.Image:
    """A brown disc on skin; jagged and dark when sick."""
    picture = Image.new("RGB", (64, 64), (225, 180, 160))
    pen = ImageDraw.Draw(picture)
    x, y = rng.integers(20, 30, 2)
    pen.ellipse((x - 10, y - 10, x + 14, y + 14), fill=(40, 20, 15) if sick else (150, 90, 60))
    return picture


def collection(folder: Path, n: int = 24, seed: int = 0, val: int = 3) -> Path:
    """A collection of n chest phantoms and n mole phantoms, half of them sick, some of each in `val`."""
    rng = np.random.default_rng(seed)
    found = []
    for image_type, specialty, finding, draw in (("chest_xray", "radiology", "pneumonia", chest),
                                                 ("dermoscopy", "dermatology", "melanoma", mole)):
        for i in range(n):
            name = f"{image_type}-{i:03d}"
            path = folder / "images" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(rng, i % 2 == 0).save(path)
            found.append(Record(name, f"images/{name}.png", image_type, specialty, findings={finding: i % 2 == 0},
                                patient=name, source="phantom", licence="CC0-1.0", split="val" if i < val else "train"))
    records.write(found, folder)
    return folder


def recipe(folder: Path, at: Path) -> Path:
    """A recipe that trains all stages on a collection in seconds."""
    path = folder / "tiny.toml"
    path.write_text(TINY.format(collection=at), encoding="utf-8")
    return path
