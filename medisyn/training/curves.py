"""Curves: a stage's log as a picture."""

import json
from pathlib import Path


def draw(log: Path, picture: Path) -> None:
    """Every figure of a log against images, a panel a figure."""
    from matplotlib.figure import Figure
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    names = [k for k in rows[-1] if k not in ("n_images", "images_per_second", "share_of_peak")]
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for index, name in enumerate(names):
        axis = figure.add_subplot(1, len(names), index + 1)
        points = [(r["n_images"] / 1000, r[name]) for r in rows if name in r]
        axis.plot([x for x, _ in points], [y for _, y in points], lw=1.2)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("thousand images", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
