"""Review: the quarantined images on one page, for the eyes of whoever may see them, and what was decided of each.

A collection is given away; the names and looks of what was kept out of it are not. They lie in a private folder beside
the key (`deidentify.private`), readable to their owner alone:

    held.jsonl       {"name", "file", "folder", "source", "reason"} of each quarantined image
    released.jsonl   {"name", "source", "reason", "on"} of each that somebody looked at and let pass
    review.html      the page: thumbnails, found text enlarged, reasons, how to release

An image is released by its neutral name; the next run of the same `ingest` takes it in.
"""

import base64
import difflib
import html
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image, ImageDraw

from medisyn.data import burned_in, parts
from medisyn.data.deidentify import owner_only

HELD, RELEASED, PAGE = "held.jsonl", "released.jsonl", "review.html"
THUMBNAIL = 320       # long side in pixels
CLOSE = (480, 96)     # most width and height of an enlarged line of text, in pixels
LINES = 4             # of text shown enlarged, an image
MOST = 1000           # images with thumbnails on one page; the others are listed by name
STYLE = """
:root { color-scheme: dark; --ink: #e8eaed; --paper: #14171a; --muted: #9aa4ae; --line: #31373d; --mark: #6cb2ff; --soft: #1c2125;
  --bad: #ff8a80 }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
main { max-width: 88rem; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.7rem; margin: 0 0 .3rem }
h2 { margin: 2.4rem 0 .3rem; border-top: 1px solid var(--line); padding-top: 1.4rem; font-size: 1.2rem }
.muted { color: var(--muted) }
.real { color: var(--bad); font-weight: 600 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem; margin: 1rem 0 }
.card { background: var(--soft); border-radius: 6px; padding: .8rem; overflow: hidden }
.card img { display: block; max-width: 100%; border-radius: 4px; margin: 0 0 .5rem; background: #000 }
.card label { display: block; cursor: pointer }
.card small { color: var(--muted); overflow-wrap: anywhere }
table { border-collapse: collapse; font-size: .93rem; margin: .6rem 0 }
th, td { text-align: left; padding: .32rem .8rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { font-variant-numeric: tabular-nums; text-align: right }
code, textarea { font: .9em ui-monospace, monospace }
textarea { width: 100%; height: 4.5rem; background: var(--paper); color: var(--ink); border: 1px solid var(--line) }
aside { position: sticky; bottom: 0; background: var(--paper); border-top: 1px solid var(--line); padding: .8rem 0 }
"""
SCRIPT = """
const ticks = [...document.querySelectorAll("input[type=checkbox]")], names = document.querySelector("textarea");
const say = () => { names.value = ticks.filter(t => t.checked).map(t => t.value).join("\\n") };
ticks.forEach(t => t.addEventListener("change", say)); say();
"""
WARNING = ("This page may show and name patients. It is readable to its owner alone and lies outside the collection: "
           "treat it like the raw data, and delete it when the review is done.")


# What is held, and what was decided

def hold(folder: Path, rows: Iterable[dict[str, str]], source: str | None = None, raw: Path | None = None) -> None:
    """Note the quarantined images of a run, in the place of the earlier ones of the same sources.

    folder   of `deidentify.private`
    rows     {"name", "file", "source", "reason"} each: neutral name, address below the raw folder
    source   the source that was read, for a run that quarantines nothing any more
    raw      the folder that the addresses start from; None: the rows say it, or no thumbnail can be drawn
    """
    rows = [({"folder": str(Path(raw).resolve())} if raw is not None else {}) | dict(row) for row in rows]
    again = {row["source"] for row in rows} | ({source} if source else set())
    write(Path(folder) / HELD, [*(row for row in held(folder) if row["source"] not in again), *rows])


def held(folder: Path) -> list[dict[str, str]]:
    """The quarantined images of a collection."""
    return read(Path(folder) / HELD)


def release(folder: Path, names: Iterable[str]) -> list[str]:
    """Let quarantined images pass at the next ingest; ValueError, and nothing is released, where one of them is not held."""
    known, before = {row["name"]: row for row in held(folder)}, read(Path(folder) / RELEASED)
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known and name not in {row["name"] for row in before}:
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(f"no quarantined image is called {name!r}; " + (f"did you mean {near[0]}?" if near else
                             f"{len(known)} are held, and the review page names them"))
    new = [name for name in wanted if name not in {row["name"] for row in before}]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write(Path(folder) / RELEASED, [*before, *({"name": name, "source": known[name]["source"], "reason": known[name]["reason"],
                                                "on": now} for name in new)])
    return new


def retract(folder: Path, names: Iterable[str]) -> None:
    """Take releases back: the next ingest quarantines the images again."""
    gone = set(names)
    write(Path(folder) / RELEASED, [row for row in read(Path(folder) / RELEASED) if row["name"] not in gone])


def released(folder: Path) -> set[str]:
    """The neutral names of the images that were looked at and let pass."""
    return {row["name"] for row in read(Path(folder) / RELEASED)}


def read(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()
    return [json.loads(line) for line in lines if line.strip()]


def write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    sealed(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def sealed(path: Path, text: str) -> None:
    """Write a file for its owner alone, whole or not at all."""
    draft = path.with_name(f"{path.name}.part")
    draft.unlink(missing_ok=True)
    with open(draft, "x", encoding="utf-8", opener=owner_only) as out:
        out.write(text)
    os.replace(draft, path)


# The page

def page(folder: Path, collection: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Draw the page of what is held of a collection; its path, in the private folder."""
    rows, passed = held(folder), released(folder)
    rows = [row for row in rows if row["name"] not in passed]
    counts = Counter(row["reason"] for row in rows)
    cards: dict[str, list[str]] = {}
    for count, row in enumerate(rows):
        cards.setdefault(row["reason"], []).append(card(row, count < MOST))
        if progress:
            progress(count + 1, len(rows))
    table = "".join(f"<tr><td class=n>{n:,}</td><td>{text(reason)}</td></tr>" for reason, n in counts.most_common())
    sections = "".join(f"<h2>{text(reason)} ({n:,})</h2><div class=cards>{''.join(cards[reason])}</div>"
                       for reason, n in counts.most_common())
    command = f"medisyn review {text(collection)} --release-from names.txt"
    sealed(Path(folder) / PAGE, "\n".join((
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">',
        f"<title>Quarantine</title><style>{STYLE}</style></head><body><main><h1>Quarantine of {text(Path(collection).name)}</h1>",
        f"<p class=real>{WARNING}</p><p>{len(rows):,} images wait or could not be read; {len(passed):,} were released before. "
        "Look at each: a name, a date, a number, a hospital, a face? Release only what shows none of them; what stays here stays "
        "out of the collection.</p>",
        f"<table><tr><th>images</th><th>reason</th></tr>{table}</table>" if rows else "<p>Nothing is held.</p>", sections,
        '<aside><label>Ticked images, by name: save them as names.txt, then run<br>'
        f"<code>{command}</code> and the same <code>medisyn ingest</code> again.<textarea readonly></textarea></label></aside>"
        if rows else "", f"</main><script>{SCRIPT}</script></body></html>" if rows else "</main></body></html>", "")))
    return Path(folder) / PAGE


def text(words: object) -> str:
    return html.escape(str(words))


def card(row: dict[str, str], drawn: bool) -> str:
    """One quarantined image: its thumbnail with the found text outlined, that text enlarged, its names, a box to tick."""
    pictures, note = [], "no thumbnail: too many images on one page"
    if drawn:
        try:
            if "folder" not in row:
                raise ValueError("where it lies was not noted")
            picture = parts.open_part(Path(row["folder"]), row["file"]).picture
            pictures, note = looks(picture), f"{picture.width} x {picture.height} pixels"
        except (ValueError, OSError, MemoryError) as error:
            note = f"no thumbnail: {error}"
    tick = f'<input type=checkbox value="{text(row["name"])}"> ' if pictures else ""
    shown = "".join(f'<img alt="" src="data:image/jpeg;base64,{one}">' for one in pictures)
    return (f"<div class=card><label>{shown}{tick}<code>{text(row['name'])}</code></label>"
            f"<small>{text(row['source'])}: {text(row['file'])}<br>{text(note)}</small></div>")


def looks(picture: Image.Image) -> list[str]:
    """A picture reduced, with the found text outlined, and each line of that text as large as it fits; JPEG in base64."""
    boxes = [(box.left, box.top, box.right, box.bottom) for box in burned_in.text_boxes(picture)]
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    drawing, scale = ImageDraw.Draw(small), small.width / picture.width
    for box in boxes:
        left, top, right, bottom = (scale * n for n in box)
        drawing.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=(255, 138, 128))
    close = []
    for left, top, right, bottom in boxes[:LINES]:
        line = picture.convert("RGB").crop((max(0, left - 4), max(0, top - 4), min(picture.width, right + 4),
                                            min(picture.height, bottom + 4)))
        if line.height > 2 * line.width:
            line = line.transpose(Image.Transpose.ROTATE_270)
        grow = min(CLOSE[0] / line.width, CLOSE[1] / line.height, 4)
        close.append(line.resize([max(1, round(n * grow)) for n in line.size], Image.Resampling.BICUBIC))
    return [encoded(one) for one in (small, *close)]


def encoded(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()
