"""Panels: images side by side, where people would rather look than read."""

from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import sheets, vocabulary
from medisyn.evaluation.looking import Looked
from medisyn.evaluation.sets import Images, Sets

SIDE = 128


def pictures(images: Images, rows: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(p) for p in images.pixels(rows, SIDE)]


def called(image_type: str) -> str:
    """An image type in a clinician's words."""
    return vocabulary.label(image_type) if image_type in vocabulary.IMAGE_TYPES else image_type or "unlabelled"


def nearest(sets: Sets, looked: Looked, out: Path, each: int = 8) -> str:
    """Synthetic images over their likeliest training images, by image type; the file's name below `out`. Shows patients."""
    kinds = np.array([r.image_type for r in sets.synthetic.records])
    score, row = looked.score["synthetic"], looked.row["synthetic"]
    panels = []
    for kind in np.unique(kinds):
        mine = np.flatnonzero((kinds == kind) & (row >= 0))
        mine = mine[np.argsort(-score[mine], kind="stable")][:each]
        if len(mine):
            flagged = int(looked.called["synthetic"][kinds == kind].sum())
            told = ", ".join(f"{s:.2f}" for s in score[mine])
            judged = f"{called(kind)}: synthetic; {flagged} of {int((kinds == kind).sum())} called copies"
            panels.append((judged, pictures(sets.synthetic, mine)))
            panels.append((f"training images most like them: {told}", pictures(sets.train, row[mine])))
    panels = panels or [("no synthetic image could be compared", [])]
    return saved(sheets.sheet(panels, tile=SIDE, columns=each), out, "nearest.png")


def by_prompt(images: Images, out: Path, each: int = 8, prompts: int = 24) -> str:
    """The first images of each prompt, of as many image types as there are; the file's name below `out`."""
    rows: dict[tuple[str, str], list[int]] = {}
    for k, record in enumerate(images.records):
        rows.setdefault((record.image_type, record.text or ""), []).append(k)
    per_type: dict[str, int] = {}
    chosen = []
    most = max(1, prompts // max(1, len({kind for kind, _ in rows})))
    for (kind, text), mine in sorted(rows.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1])):
        per_type[kind] = per_type.get(kind, 0) + 1
        if per_type[kind] <= most:
            chosen.append((text or called(kind), pictures(images, np.array(mine[:each]))))
    return saved(sheets.sheet(chosen, tile=SIDE, columns=each), out, "by-prompt.png")


def saved(sheet: Image.Image, out: Path, name: str) -> str:
    folder = Path(out) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / name)
    return f"pictures/{name}"
