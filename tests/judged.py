"""Small sets to judge: random scenes as real images, and synthetic sets made to cheat."""

import numpy as np
from PIL import Image

from medisyn.data import records
from medisyn.data.records import Record


def scene(seed: int, dark: bool = False, side: int = 64) -> np.ndarray:
    """uint8 (side, side), a smooth random picture; no two seeds are alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 120 if dark else 256, (7, 7), np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def collection(folder, seeds, split="train", image_type=None, change=lambda pixels: pixels):
    """A collection of scenes, every second one a dark dermoscopy, the others chest X-rays."""
    found = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for k, seed in enumerate(seeds):
        dark = k % 2 == 1
        Image.fromarray(change(scene(seed, dark))).save(folder / "images" / f"{k}.png")
        kind = image_type or ("dermoscopy" if dark else "chest_xray")
        findings = {"melanoma": k % 4 == 1} if kind == "dermoscopy" else {"pneumonia": k % 4 == 0}
        found.append(Record(f"{folder.name}/{k}", f"images/{k}.png", kind, findings=findings, patient=f"{folder.name} {k}",
                            text=f"{kind} {sorted(findings)}", split=split))
    records.write(found, folder)
    return folder
