"""The overview of a collection: one HTML page of what is in it and what is wrong with it, nothing loaded from elsewhere."""

import base64
import html
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from medisyn.data import census, pictures, sheets, vocabulary
from medisyn.data.census import AGES, Census, Kind
from medisyn.data.records import SPLITS

TILE, COLUMNS = 112, 8           # of a contact sheet: pixels, pictures in a line
MOST_PROBLEMS, MOST_ROWS = 100, 60
MOST_GROUPS, MOST_COPIES = 6, 8  # of near-identical pictures shown: groups, pictures each
WARNING = ("This page shows images of patients. Treat it like the data itself, or draw it again without them "
           "(--no-real-images).")
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --muted: #5b6570; --line: #d9dee3; --mark: #0b6bcb;
  --soft: #f4f6f8; --bad: #b3261e; --ok: #1d7a3d }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #14171a; --muted: #9aa4ae; --line: #31373d;
  --mark: #6cb2ff; --soft: #1c2125; --bad: #ff8a80; --ok: #7fd49a } }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.7rem; margin: 0 0 .3rem }
h2 { margin: 2.4rem 0 .3rem; border-top: 1px solid var(--line); padding-top: 1.4rem }
h3 { margin: 1.6rem 0 .3rem; font-size: 1.05rem }
p { margin: .4rem 0 }
a { color: var(--mark) }
nav a { margin-right: 1rem }
.muted { color: var(--muted) }
.real { color: var(--bad); font-weight: 600 }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .93rem; margin: .6rem 0 }
th, td { text-align: left; padding: .32rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--muted); font-weight: 600 }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.bar { width: 22%; min-width: 6rem }
td.bar i { display: inline-block; height: .7em; background: var(--mark) }
td.bar i + i { background: var(--muted); opacity: .45 }
details { margin: .4rem 0 }
summary { cursor: pointer; padding: .25rem 0 }
ul.findings { list-style: none; padding: 0 }
ul.findings li { padding: .45rem .8rem; margin: .35rem 0; border-left: 4px solid var(--ok); background: var(--soft) }
ul.findings li.grave { border-color: var(--bad) }
figure { margin: 1rem 0 }
figure img { max-width: 100%; height: auto; border-radius: 4px }
figcaption { color: var(--muted); font-size: .9rem }
"""


def write(collection: Path, page: Path, problems: Sequence[str], seed: int = 0, real_images: bool = True) -> Path:
    """Write the page of a collection, whole or not at all.

    problems      what `check.check` said of it
    seed          of the records and prompts that are sampled
    real_images   whether images of patients may be shown; synthetic ones always are
    """
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    draft = page.with_name(f"{page.name}.part")
    draft.write_text(drawn(Path(collection), census.census(collection, seed), problems, real_images), encoding="utf-8")
    os.replace(draft, page)
    return page


def drawn(collection: Path, held: Census, problems: Sequence[str], real_images: bool) -> str:
    """The page as HTML."""
    looked_at = [record for kind in held.kinds.values() for record in kind.sample if real_images or record.synthetic]
    copies = [names[:MOST_COPIES] for names in held.copies[:MOST_GROUPS]] if real_images else []
    shown = pictures.chosen(collection, {record.id for record in looked_at} | {name for names in copies for name in names})
    title = text(f"Collection {collection.resolve().name}")
    patients = any(record.id in shown and not record.synthetic for record in looked_at) or any(
        name in shown for names in copies for name in names)
    parts = {"problems": wrong(problems), "images": types(held), "findings": findings(held), "people": people(held),
             "prompts": said(held), "origin": origin(held), "quarantine": quarantine(held), "copies": copied(held, copies, shown),
             "pictures": "".join(sheet(name, kind, shown) for name, kind in held.kinds.items())}
    sections = "".join(f'<h2 id="{name}">{name.capitalize()}</h2>{part}' for name, part in parts.items())
    return "\n".join((
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>",
        f'<p class="muted">{held.n:,} images, {held.synthetic:,} of them synthetic, of {held.people:,} patients (or groups, or '
        "single images where none is named). Ingest reduces the risk that a patient is recognised; it does not remove it.</p>",
        f'<p class="real">{WARNING}</p>' if patients else '<p class="muted">No image of a patient is shown on this page.</p>',
        f'<nav>{"".join(f"""<a href="#{name}">{name}</a>""" for name in parts)}</nav>{sections}</main></body></html>', ""))


def text(words: object) -> str:
    return html.escape(str(words))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; whole numbers stand right, with commas."""
    def cell(value: object) -> str:
        if isinstance(value, int):
            return f"<td class=n>{value:,}</td>"
        return f"<td class=bar>{value}</td>" if isinstance(value, Bar) else f"<td>{text(value)}</td>"
    rows = list(rows)
    numbers = [bool(rows) and isinstance(value, int) for value in (rows[0] if rows else heads)]
    head = "".join(f"<th{' class=n' if number else ''}>{text(word)}</th>" for word, number in zip(heads, numbers, strict=True))
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


class Bar(str):
    """The HTML of a bar: the one kind of cell that is not escaped."""


def bar(*shares: float) -> Bar:
    """A bar of one or two shares of 1."""
    return Bar("".join(f'<i style="width:{100 * min(max(share, 0), 1):.1f}%"></i>' for share in shares))


def more(rows: Sequence, most: int, what: str) -> str:
    return f"<p class=muted>and {len(rows) - most:,} more {what}</p>" if len(rows) > most else ""


# The parts

def wrong(problems: Sequence[str]) -> str:
    """What `check` found; each problem a line."""
    if not problems:
        return '<ul class="findings"><li>Nothing is wrong: every image is there, every word known, nobody in two splits.</li></ul>'
    listed = "".join(f'<li class="grave">{text(problem)}</li>' for problem in problems[:MOST_PROBLEMS])
    return f'<p>{len(problems):,} problems.</p><ul class="findings">{listed}</ul>{more(problems, MOST_PROBLEMS, "problems")}'


def types(held: Census) -> str:
    most = max((kind.n for kind in held.kinds.values()), default=1)
    rows = [(vocabulary.label(name), kind.n, bar(kind.n / most), *(kind.split[split] for split in SPLITS), kind.synthetic)
            for name, kind in held.kinds.items()]
    deep = "".join(f"<li>{n:,} images: {text(how)}</li>" for how, n in list(held.readings.items())[:MOST_ROWS])
    return (table(("image type", "images", "", *SPLITS, "synthetic"), rows)
            + (f"<details><summary>How deeper pixels became 8 bits</summary><ul>{deep}</ul></details>" if deep else ""))


def findings(held: Census) -> str:
    """A fold for each image type: its findings, and in how many images each is present, absent or unknown."""
    folds = []
    for name, kind in held.kinds.items():
        known = kind.present + kind.absent
        rows = [(vocabulary.label(finding), kind.present[finding], kind.absent[finding], kind.n - n,
                 bar(kind.present[finding] / kind.n, kind.absent[finding] / kind.n))
                for finding, n in sorted(known.items(), key=lambda pair: (-kind.present[pair[0]], pair[0]))]
        folds.append(f"<details{' open' if len(held.kinds) == 1 else ''}><summary>{text(vocabulary.label(name))}: {len(known):,} "
                     f"findings</summary>{table(('finding', 'present', 'absent', 'unknown', 'present, absent'), rows)}</details>")
    return "<p class=muted>Unknown: nobody looked, or nobody wrote it down.</p>" + "".join(folds)


def people(held: Census) -> str:
    sexes = [(vocabulary.label(name), kind.sex["female"], kind.sex["male"], kind.sex[None],
              bar(kind.sex["female"] / kind.n, kind.sex["male"] / kind.n)) for name, kind in held.kinds.items()]
    ages: Counter = sum((kind.age for kind in held.kinds.values()), Counter())
    most = max((ages[band] for band in AGES), default=0) or 1
    bands = [(band, ages[band], bar(ages[band] / most)) for band in AGES]
    return ("<h3>Sex</h3>" + table(("image type", "female", "male", "unknown", "female, male"), sexes) + "<h3>Age</h3>"
            + table(("years", "images", ""), [*bands, ("unknown", ages[None], bar(0))]))


def said(held: Census) -> str:
    return ("<p class=muted>How training would put some records into words; each time other words.</p>"
            + table(("record", "prompt"), [(record.id, prompt) for record, prompt in held.said]))


def origin(held: Census) -> str:
    """Images by source and licence."""
    rows = [(source or "not stated", licence or "not stated", n) for (source, licence), n in held.origins.items()]
    unstated = sum(n for (_, licence), n in held.origins.items() if not licence)
    note = f'<p class="real">The licence of {unstated:,} images is not stated: ask before you pass them on.</p>' if unstated else ""
    return note + table(("source", "licence", "images"), rows[:MOST_ROWS]) + more(rows, MOST_ROWS, "sources and licences")


def quarantine(held: Census) -> str:
    rows = [(source or "not stated", reason, n) for (source, reason), n in held.quarantine.items()]
    if not rows:
        return "<p>No file was kept out.</p>"
    return (f"<p>{sum(held.quarantine.values()):,} files were kept out.</p>"
            + table(("source", "reason", "files"), rows[:MOST_ROWS]) + more(rows, MOST_ROWS, "reasons"))


def copied(held: Census, copies: Sequence[Sequence[str]], shown: dict[str, Image.Image]) -> str:
    """Groups of near-identical pictures; those that stand in two splits are among the problems above."""
    if not held.compared:
        return "<p>No ledger of an ingest lies beside the images, so they were not compared.</p>"
    n = sum(map(len, held.copies))
    sources = sum(len({name.rpartition("/")[0] for name in names}) > 1 for names in held.copies)
    rows = [(f"{len(held.copies[i])} pictures: {names[0]} ...", [shown[name] for name in names if name in shown])
            for i, names in enumerate(copies)]
    rows = [row for row in rows if row[1]]
    return (f"<p>{held.compared:,} pictures were compared, also mirrored and turned by right angles: {n:,} stand in "
            f"{len(held.copies):,} groups of near-identical ones, {sources:,} of them across sources. Pictures of one group share "
            "a split, or are listed under problems.</p>"
            + (figure(sheets.sheet(rows, TILE, columns=MOST_COPIES), "The largest groups",
                      "Holds images of patients.") if rows else ""))


def sheet(name: str, kind: Kind, shown: dict[str, Image.Image]) -> str:
    """A contact sheet of an image type."""
    found = [(record, shown[record.id]) for record in kind.sample if record.id in shown]
    label = vocabulary.label(name)
    if not found:
        return f"<h3>{text(label)}</h3><p class=muted>no picture shown</p>"
    real = sum(not record.synthetic for record, _ in found)
    paper = sheets.sheet([("", [picture for _, picture in found])], TILE, columns=COLUMNS)
    return (f"<h3>{text(label)}</h3>"
            + figure(paper, f"{len(found)} of {kind.n:,}, drawn at random", f"Holds {real} images of patients." if real else ""))


def figure(picture: Image.Image, caption: str, real: str = "") -> str:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    warning = f' <span class="real">{text(real)}</span>' if real else ""
    return (f'<figure><img alt="{text(caption)}" src="data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}">'
            f"<figcaption>{text(caption)}.{warning}</figcaption></figure>")
