"""Sheets: many pictures at a glance, each row under its caption."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, PAPER, MUTED = (236, 236, 236), (18, 20, 23), (150, 156, 163)
GAP = 6


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], tile: int = 128, title: str | None = None,
          columns: int | None = None, across: int = 1) -> Image.Image:
    """Rows of pictures, each over its caption, on dark paper: (caption, pictures) from top to bottom.

    tile: side of a picture in pixels. columns: pictures in a line; None: as many as the longest row has.
    across: rows side by side, filled column by column.
    """
    if across > 1:
        each = -(-len(rows) // across)
        return beside([sheet(rows[i:i + each], tile, None, columns or max((len(p) for _, p in rows), default=1))
                       for i in range(0, max(len(rows), 1), max(each, 1))], title)
    columns = columns or max((len(pictures) for _, pictures in rows), default=1)
    small, large = font(13), font(18)
    width = GAP + columns * (tile + GAP)
    laid = []                                                   # (top of the pictures, caption lines, pictures)
    y = GAP + (30 if title else 0)
    for caption, pictures in rows:
        words = wrapped(caption, small, width - 2 * GAP)
        lines = max(1, -(-len(pictures) // columns))
        laid.append((y, words, pictures))
        y += lines * (tile + GAP) + len(words) * 17 + 10
    paper = Image.new("RGB", (width, y + GAP), PAPER)
    pen = ImageDraw.Draw(paper)
    if title:
        pen.text((GAP, GAP), title, INK, large)
    for top, words, pictures in laid:
        for i, picture in enumerate(pictures):
            place = (GAP + i % columns * (tile + GAP), top + i // columns * (tile + GAP))
            paper.paste(fitted(picture, tile), place)
        below = top + max(1, -(-len(pictures) // columns)) * (tile + GAP)
        for k, line in enumerate(words):
            pen.text((GAP, below + 17 * k), line, MUTED, small)
    return paper


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface that comes with matplotlib, since Pillow's own lacks accents; Pillow's where matplotlib is not."""
    found = find_spec("matplotlib")
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if found and found.origin else None
    return ImageFont.truetype(path, size) if path and path.is_file() else ImageFont.load_default(size)


def beside(papers: Sequence[Image.Image], title: str | None) -> Image.Image:
    """Sheets side by side under one title."""
    top = 30 if title else 0
    whole = Image.new("RGB", (sum(p.width for p in papers), top + max(p.height for p in papers)), PAPER)
    if title:
        ImageDraw.Draw(whole).text((GAP, GAP), title, INK, font(18))
    x = 0
    for paper in papers:
        whole.paste(paper, (x, top))
        x += paper.width
    return whole


def fitted(picture: Image.Image, tile: int) -> Image.Image:
    """A picture within a tile x tile square, aspect kept, the rest black."""
    scale = tile / max(picture.size)
    small = picture.convert("RGB").resize([max(1, round(n * scale)) for n in picture.size], Image.Resampling.LANCZOS)
    square = Image.new("RGB", (tile, tile))
    square.paste(small, ((tile - small.width) // 2, (tile - small.height) // 2))
    return square


def wrapped(text: str, font: ImageFont.ImageFont, width: int) -> list[str]:
    """A text in lines that fit `width` pixels; at least one line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
