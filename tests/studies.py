"""Small reader studies on phantoms: real images with every cue that a study must take away, and synthetic ones."""

from pathlib import Path

import numpy as np
import phantoms
from PIL import Image, PngImagePlugin

from medisyn.data import images, records
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.reader_study import drawing
from medisyn.reader_study.design import Study

KINDS = (("chest_xray", "pneumonia", phantoms.chest), ("dermoscopy", "melanoma", phantoms.mole))


def real(folder: Path, n: int = 20) -> Path:
    """n of each image type: 96 x 80 pixels, with metadata, half of them sick, in the split `test`."""
    return collection(folder, n, False)


def synthetic(folder: Path, n: int = 20) -> Path:
    """n of each image type: 64 x 64 pixels, with provenance, half of them sick."""
    return collection(folder, n, True)


def collection(folder: Path, n: int, made: bool) -> Path:
    rng, found = np.random.default_rng(made), []
    (folder / "images").mkdir(parents=True)
    for image_type, finding, draw in KINDS:
        for k in range(n):
            name, sick = f"{image_type}-{k:03d}", k % 2 == 0
            picture, notes = draw(rng, sick), PngImagePlugin.PngInfo()
            how = Provenance(name, name, k, 4, 3.0, "euler", None, "sha256:0", "phantom", "0") if made else None
            path = folder / "images" / f"{name}.png"
            if made:
                path.write_bytes(images.png_bytes(picture.convert("RGB"), how))
            else:
                notes.add_text("Device", "scanner 7")
                picture.resize((96, 80)).save(path, pnginfo=notes)
            found.append(Record(("made/" if made else "real/") + name, f"images/{name}.png", image_type, findings={finding: sick},
                                patient=None if made else name, split="train" if made else "test", provenance=how,
                                age_years=None if made else 50.0, text=f"a {image_type}"))
    records.write(found, folder)
    return folder


def study(folder: Path, design: str = "real-or-synthetic", *, n: int = 20, **plan) -> Study:
    """A study of phantoms in folder / "study"."""
    if not (folder / "real").exists():
        real(folder / "real", n)
        synthetic(folder / "made", n)
    return drawing.new(drawing.Plan(design, **{"cases": 40, "readers": 2} | plan), folder / "real", folder / "made",
                       folder / f"study-{len(list(folder.iterdir()))}")


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture
