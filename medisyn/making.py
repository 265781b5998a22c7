"""Making: the images of many prompts become a collection, in order, none of them twice."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from medisyn.data import images, records, sheets
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.synthesizer import Accept, Plan, Refused, Synthesizer, Synthetic, name_of

SMALL, LARGE = 128, 192   # pixels a side of a picture on an overview
ROUNDING = 5e-4           # share of an image's values that rounding may move by a level; from AVX2 to AVX-512 it moves 8e-5
Many = Callable[[Sequence[tuple[Plan, Provenance]]], Iterator[Synthetic | Refused]]


def write(made: Iterable[Synthetic | Refused], folder: Path) -> Iterator[Synthetic | Refused]:
    """Write images and their metadata lines as they come, and pass on all; an image already there is replaced.

    A seed of which nothing may be kept is a line of refused.jsonl: the report counts them.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    known = {r.id: r for r in records.read(folder)} if (folder / "metadata.jsonl").is_file() else {}
    outdated = False
    with (folder / "metadata.jsonl").open("a", encoding="utf-8") as lines:
        for one in made:
            if isinstance(one, Refused):
                note_refused(one, folder / "refused.jsonl")
                yield one
                continue
            if not one.there:
                images.write_png(one.image, folder / one.record.file_name, one.record.provenance)
            if one.record.id not in known:
                lines.write(records.as_line(one.record))
                lines.flush()
            outdated |= known.get(one.record.id, one.record) != one.record
            known[one.record.id] = one.record
            yield one
    if outdated:
        records.write(known.values(), folder)


def note_refused(one: Refused, file: Path) -> None:
    """A line for what was refused; the last one of a prompt and seed counts."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"prompt": one.how.prompt, "seed": one.how.seed, "tries": len(one.verdicts), "reason": one.reason,
                                "guard": one.verdicts[0].guard}, ensure_ascii=False) + "\n")


def contact_sheet(folder: Path, name: str = "contact-sheet.png", title: str | None = None, each: int = 12) -> Path:
    """Draw a collection: a row a prompt, the prompt below it, at most `each` images of one prompt."""
    by_prompt: dict[str, list[Record]] = {}
    for record in records.read(folder):
        by_prompt.setdefault(record.text or record.image_type, []).append(record)
    rows = [(text, [images.decode(Path(folder) / r.file_name) for r in mine[:each]]) for text, mine in by_prompt.items()]
    out = io.BytesIO()
    columns = max(3, min(8, max(len(p) for _, p in rows)))
    tile = min(LARGE, max(SMALL, *(max(picture.size) for _, pictures in rows for picture in pictures)))
    sheets.sheet(rows, tile, title, columns, across=2 if len(rows) > 6 and columns < 7 else 1).save(out, "PNG")
    path = Path(folder) / name
    path.write_bytes(out.getvalue())
    return path


def read_prompts(path: Path, n: int, seed: int) -> list[tuple[str, int, int]]:
    """A CSV with a column `prompt` and, where wanted, `n` and `seed`: (prompt, n, seed) a row; n and seed fill gaps."""
    with Path(path).open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    if not rows or "prompt" not in rows[0]:
        raise ValueError(f"{path}: expected a CSV with a column prompt (and n, seed where wanted), "
                         f"found {', '.join(rows[0]) if rows else 'no rows'}")
    for number, row in enumerate(rows, 2):
        if None in row:
            raise ValueError(f"{path} row {number}: more cells than columns, behind {row['prompt']!r}; "
                             "put a prompt that holds a comma in double quotes")
    try:
        return [(row["prompt"], int(row.get("n") or n), int(row.get("seed") or seed)) for row in rows]
    except ValueError as error:
        raise ValueError(f"{path}: n and seed are whole numbers ({error})") from None


def make_all(maker: Synthesizer, plans: dict[str, Plan], asked: Iterable[tuple[str, int, int]], folder: Path,
             steps: int | None = None, guidance: float | None = None, accept: Accept | None = None, block: bool = True,
             guard: str | None = None, many: Many | None = None) -> Iterator[Synthetic | Refused]:
    """The images of many prompts, one by one; those that a folder already holds are passed on, not made again.

    guard: the digest of the guard behind `accept`: an image that another guard saw, or none, is made again.
    many: who makes what is missing, in any order; None: `maker`, in this process.
    """
    folder = Path(folder)
    there = {asked_id(r): r for r in records.read(folder)} if (folder / "metadata.jsonl").is_file() else {}
    wanted = [(plans[prompt], maker.settings(plans[prompt], seed + k, steps, guidance))
              for prompt, n, seed in asked for k in range(n)]

    def known(how: Provenance) -> Record | None:
        record = there.get(name_of(how))
        if record is None or not (folder / record.file_name).is_file():
            return None
        made = record.provenance
        said, same = made.guard, made.drawn is not None or dataclasses.replace(made, guard=None) == how
        if accept is None:
            return record if same and (said is None or said.blocked == 0) else None
        return record if said and said.guard == guard and (said.verdict == "passed" or not block) and (block or same) else None

    found = [known(how) for _, how in wanted]
    missing = [one for one, record in zip(wanted, found, strict=True) if record is None]
    made = many(missing) if many else maker.many(missing, accept, block)
    for record in found:
        yield next(made) if record is None else Synthetic(images.read(folder / record.file_name), record, there=True)


def put_in_order(folder: Path, asked: Sequence[str]) -> None:
    """Lines whose images came in any order, in that of the ids that were asked for, behind those that were there before."""
    known, place = list(records.read(folder)), {name: k for k, name in enumerate(asked)}
    in_order = sorted(known, key=lambda record: place.get(asked_id(record), -1))
    if in_order != known:
        records.write(in_order, folder)


def asked_id(record: Record) -> str:
    """The id of what was asked for: another than the record's where it was drawn again."""
    made = record.provenance
    said = made and (made.guard or made.drawn)  # the guard stands outside: it asks the recogniser
    return said.asked if said else record.id


def compare(maker: Synthesizer, file: Path, made: Provenance) -> dict:
    """Make a PNG's image again: whether it is the same, whether it is but for rounding, as another CPU or another version of torch
    does it, the share of values that differ, the largest difference in levels of 255."""
    again = np.asarray(images.to_picture(maker.remake(made).image), np.int16)
    there = np.asarray(images.decode(file), np.int16)
    if again.ndim != there.ndim:  # a colour picture that happens to be gray all over
        again, there = (a if a.ndim == 3 else np.repeat(a[..., None], 3, 2) for a in (again, there))
    if again.shape != there.shape:
        return {"same": False, "rounding": False, "differing": 1.0, "largest": 255}
    gap = np.abs(again - there)
    differing, largest = float((gap > 0).mean()), int(gap.max())
    rounding = 0 < differing <= ROUNDING and largest == 1
    return {"same": not largest, "rounding": rounding, "differing": differing, "largest": largest}
