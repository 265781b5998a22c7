"""Runs compared: settings that differ, losses at equal numbers of images, final figures, one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medisyn.training.runs import PLAIN, Run, Seen, flat

if TYPE_CHECKING:
    from PIL import Image

POINTS = 6   # numbers of images at which losses are set side by side
WIDTH = 1400   # pixels of the picture
INKS = ("#4c9be8", "#f2a541", "#67c587", "#d96c75", "#b18be0", "#c9c9c9")


def labels(runs: Sequence[Run]) -> list[str]:
    """What to call each run: its folder's name, or its path where two have the same."""
    names = [run.folder.absolute().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def differing(runs: Sequence[Run]) -> dict[str, list]:
    """Dotted keys that two recipes or more have, with values that are not all equal -> the value in each run, None: it has none.

    What one recipe alone has belongs to its kind, and is no difference of choice.
    """
    flats = [flat(run.settings) for run in runs]
    keys = dict.fromkeys(key for settings in flats for key in settings)
    return {key: [settings.get(key) for settings in flats] for key in keys
            if key != "kind" and sum(key in settings for settings in flats) >= 2
            and any(settings.get(key) != flats[0].get(key) or (key in settings) != (key in flats[0]) for settings in flats)}


def shared(runs: Sequence[Run]) -> list[str]:
    """Stages that at least two of the runs have logged, in the first one's order."""
    held = [{s.name for s in run.stages if s.rows} for run in runs]
    return [name for name in dict.fromkeys(s.name for run in runs for s in run.stages) if sum(name in own for own in held) >= 2]


def stage(run: Run, name: str) -> Seen | None:
    """A stage of a run by its name."""
    return next((s for s in run.stages if s.name == name and s.rows), None)


def figures(runs: Sequence[Run], name: str) -> list[str]:
    """The figures of a stage that at least two runs have logged."""
    held = [{key for row in s.rows for key in row} if (s := stage(run, name)) else set() for run in runs]
    keys = dict.fromkeys(key for run in runs if (s := stage(run, name)) for row in s.rows for key in row)
    return [key for key in keys if key not in PLAIN and sum(key in own for own in held) >= 2]


def points(seen: Seen | None, name: str) -> list[tuple[int, float]]:
    """A figure of a stage over images."""
    return [(row["n_images"], row[name]) for row in seen.rows if name in row] if seen else []


def at(curve: list[tuple[int, float]], n: int) -> float | None:
    """A curve at n images, between two of its points on the straight line; None where it does not reach."""
    for (a, before), (b, after) in zip(curve, curve[1:], strict=False):
        if a <= n <= b:
            return before + (after - before) * (n - a) / (b - a)
    return curve[0][1] if curve and curve[0][0] == n else None


def equal_images(curves: Sequence[list[tuple[int, float]]]) -> list[int]:
    """Numbers of images that the coarsest log holds and every curve reaches; the last is the last that all reach."""
    curves = [curve for curve in curves if curve]
    first, last = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if last < first:
        return []
    coarsest = min(curves, key=lambda c: sum(first <= n <= last for n, _ in c))
    inside = [n for n, _ in coarsest if first <= n <= last]
    step = max(1, -(-len(inside) // (POINTS - 1)))
    return sorted({*inside[::step], last})


def compare(runs: Sequence[Run]) -> dict:
    """All of it, for programs and for people."""
    losses: dict[str, dict[str, list[dict]]] = {}
    for name in shared(runs):
        for key in figures(runs, name):
            curves = [points(stage(run, name), key) for run in runs]
            losses.setdefault(name, {})[key] = [{"n_images": n, "values": [at(curve, n) for curve in curves]}
                                                for n in equal_images(curves)]
    final = {name: [dict(s.last) if (s := stage(run, name)) else None for run in runs]
             for name in dict.fromkeys(s.name for run in runs for s in run.stages if s.rows)}
    return {"runs": labels(runs), "folders": [str(run.folder) for run in runs], "kinds": [run.kind for run in runs],
            "settings": differing(runs), "equal_images": losses, "final": final}


def table(found: dict) -> list[str]:
    """A comparison for people: columns are runs."""
    heads = found["runs"]
    kinds = [("kind", found["kinds"])] if len(set(found["kinds"])) > 1 else []
    rows = [*kinds, *((key, ["-" if value is None else str(value) for value in values])
                      for key, values in found["settings"].items())]
    blocks = [[("settings that differ", heads), *(rows or [("none", [""] * len(heads))])]]
    for name, by_key in found["equal_images"].items():
        for key, lines in by_key.items():
            blocks.append([(f"{name}: {key} at", heads), *((f"{line['n_images']:,} images", [number(v) for v in line["values"]])
                                                        for line in lines or [])])
            if not lines:
                blocks[-1].append(("no number of images in common", [""] * len(heads)))
    for name, lasts in found["final"].items():
        keys = dict.fromkeys(key for last in lasts if last for key in last)
        blocks.append([(f"{name}: newest", heads), *((key, [number((last or {}).get(key)) for last in lasts]) for key in keys)])
    first = max(len(label) for block in blocks for label, _ in block)
    wide = [max(len(cells[k]) for block in blocks for _, cells in block) for k in range(len(heads))]
    lines = []
    for block in blocks:
        lines += [f"{label:<{first}}  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, wide, strict=True))
                  for label, cells in block]
        lines.append("")
    return [line.rstrip() for line in lines[:-1]]


def number(value: float | None) -> str:
    """A number in few digits."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def picture(runs: Sequence[Run], path: Path) -> Path:
    """The curves of what runs share, over each other, above their newest sample sheets, side by side."""
    from PIL import Image

    from medisyn.data import sheets
    names = labels(runs)
    papers = [curves(runs, names)] if shared(runs) else []
    for name in dict.fromkeys(s.name for run in runs for s in run.stages):
        shown = [(label, run.folder / name / "samples.png") for label, run in zip(names, runs, strict=True)]
        held = [(label, opened) for label, sample in shown if (opened := picture_of(sample)) is not None]
        if held:
            papers.append(sheets.beside([captioned(image, f"{label}: {name}", WIDTH // len(held)) for label, image in held], None))
    if not papers:
        raise ValueError("there is nothing to draw: no two of these runs share a logged stage, and none has a picture")
    whole = Image.new("RGB", (max(p.width for p in papers), sum(p.height for p in papers)), sheets.PAPER)
    y = 0
    for paper in papers:
        whole.paste(paper, (0, y))
        y += paper.height
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    whole.save(path)
    return Path(path)


def captioned(image: Image.Image, words: str, width: int) -> Image.Image:
    """A picture on paper so wide, reduced where it is wider, its words above it."""
    from PIL import Image, ImageDraw

    from medisyn.data import sheets
    inner = min(width - 2 * sheets.GAP, image.width)
    small = image.resize((inner, max(1, round(image.height * inner / image.width))), Image.Resampling.LANCZOS)
    paper = Image.new("RGB", (width, small.height + 30 + sheets.GAP), sheets.PAPER)
    paper.paste(small, (sheets.GAP, 30))
    ImageDraw.Draw(paper).text((sheets.GAP, 8), words, sheets.INK, sheets.font(13))
    return paper


def picture_of(path: Path) -> Image.Image | None:
    """A picture in memory; None where there is none, or it was being written."""
    from PIL import Image
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except OSError:
        return None


def curves(runs: Sequence[Run], names: Sequence[str]) -> Image.Image:
    """A panel a figure that runs share, four beside each other."""
    import io

    from matplotlib.figure import Figure
    from PIL import Image
    panels = [(name, key) for name in shared(runs) for key in figures(runs, name)]
    across = min(4, len(panels))
    figure = Figure(figsize=(WIDTH / 110, 2.9 * -(-len(panels) // across)), layout="constrained", facecolor="#121417")
    for index, (name, key) in enumerate(panels):
        axis = figure.add_subplot(-(-len(panels) // across), across, index + 1, facecolor="#1a1d21")
        for number, (label, run) in enumerate(zip(names, runs, strict=True)):   # a thinner line each, so that equal ones show
            curve = points(stage(run, name), key)
            axis.plot([n / 1000 for n, _ in curve], [v for _, v in curve], lw=max(1.0, 3.0 - 0.8 * number),
                      color=INKS[number % len(INKS)], label=label, marker="o" if len(curve) < 3 else None, ms=3)
        axis.set_title(f"{name}: {key}", fontsize=9, color="#ececec")
        axis.set_xlabel("thousand images", fontsize=8, color="#969ca3")
        axis.tick_params(labelsize=7, colors="#969ca3")
        axis.grid(alpha=0.2)
        if index == 0:
            axis.legend(fontsize=8, labelcolor="#ececec", facecolor="#1a1d21", edgecolor="#40454b")
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return Image.open(out).convert("RGB")
