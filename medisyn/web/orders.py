"""Orders: what can be asked for at once (a prompt, a table of prompts, a balanced set), checked before it waits in line."""

import csv
import io
import itertools
from collections.abc import Sequence

from medisyn.data import prompts, vocabulary
from medisyn.data.records import Record
from medisyn.web.queue import Order
from medisyn.web.settings import Limits

SEEDS = 2**53  # seeds lie below: what JSON and a browser hold exactly


def checked(orders: Sequence[Order], limits: Limits, steps: int | None = None, guidance: float | None = None,
            own_guidance: float = 0.0) -> list[Order]:
    """The orders, or ValueError for the first that is beyond a limit. own_guidance: `guided` of a model's card."""
    total = sum(n for _, n, _ in orders)
    if not 1 <= total <= limits.images:
        raise ValueError(f"a job may hold 1 to {limits.images:,} images, this one asks for {total:,}")
    for prompt, n, seed in orders:
        if not prompt.strip() or len(prompt) > limits.prompt or not printable(prompt):
            raise ValueError(f"a prompt is 1 to {limits.prompt:,} printable characters, found {prompt[:40]!r} ({len(prompt):,})")
        if n < 1 or not 0 <= seed <= SEEDS - n:
            raise ValueError(f"n is 1 or more and a seed lies between 0 and 2^53, found n {n} and seed {seed}")
    if steps is not None and not 1 <= steps <= limits.steps:
        raise ValueError(f"steps lie between 1 and {limits.steps}, found {steps}")
    most = 1 + own_guidance if own_guidance else 20
    if guidance is not None and not (1 if own_guidance else 0) <= guidance <= most:
        raise ValueError(f"guidance lies between {1 if own_guidance else 0} and {most:g} for this model, found {guidance:g}")
    return list(orders)


def printable(text: str) -> bool:
    """Whether a text can be shown and stored: no control character but a line's end, no half of a surrogate pair."""
    return all(c.isprintable() or c in "\n\t" for c in text)


def table(content: bytes, n: int = 1, seed: int = 0, most: int = Limits.images) -> list[Order]:
    """The rows of a CSV with a column prompt, and where wanted n and seed, which fill gaps; ValueError names the row.

    most: rows; a longer table is not read to its end.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected a CSV in UTF-8, byte {error.start} is not") from None
    if "\0" in text:
        raise ValueError("expected a CSV, found a zero byte in it; save the table as CSV, not as a workbook")
    try:
        rows = list(itertools.islice(csv.DictReader(io.StringIO(text)), most + 1))
    except csv.Error as error:
        raise ValueError(f"expected a CSV, found something else ({error})") from None
    if not rows or "prompt" not in rows[0]:
        found = ", ".join(filter(None, rows[0])) if rows else "no rows"
        raise ValueError(f"expected a CSV with a column prompt (and n, seed where wanted), found {found[:80]}")
    if len(rows) > most:
        raise ValueError(f"a table may hold {most:,} rows, this one holds more; cut it into several")
    orders = []
    for number, row in enumerate(rows, 2):
        if None in row:
            raise ValueError(f"row {number}: more cells than columns; put a prompt that holds a comma in double quotes")
        try:
            orders.append(((row["prompt"] or "").strip(), int(row.get("n") or n), int(row.get("seed") or seed)))
        except ValueError:
            found = f"{str(row.get('n'))[:20]!r} and {str(row.get('seed'))[:20]!r}"
            raise ValueError(f"row {number}: n and seed are whole numbers, found {found}") from None
    return orders


def shown_findings(support: Sequence[Sequence], image_type: str) -> dict[str, int]:
    """The findings that training images of a type show, with how many, most first."""
    counted: dict[str, int] = {}
    for row in support:
        if row[0] == image_type:
            for name in row[5]:
                counted[name] = counted.get(name, 0) + row[7]
    return dict(sorted(counted.items(), key=lambda one: -one[1]))


def balanced(support: Sequence[Sequence], image_type: str, each: int, names: Sequence[str] = (), seed: int = 0) -> list[Order]:
    """Equally many images of each finding of an image type: of `names`, or of all that the model was trained on."""
    if image_type not in vocabulary.IMAGE_TYPES:
        raise ValueError(f"unknown image type {image_type[:40]!r}; known are {', '.join(vocabulary.IMAGE_TYPES)}")
    trained = shown_findings(support, image_type)
    if not trained:
        raise ValueError(f"this model was trained on no finding of {vocabulary.label(image_type)}; ask for prompts instead")
    strange = [name for name in names if name not in trained]
    if strange:
        raise ValueError(f"this model was not trained on {strange[0][:40]!r} in {vocabulary.label(image_type)}; "
                         f"it knows {', '.join(trained)}")
    chosen = list(dict.fromkeys(names)) or list(trained)
    return [(sentence(Record(id="", file_name="", image_type=image_type, findings={name: True})), each, seed + k * each)
            for k, name in enumerate(chosen)]


def sentence(record: Record) -> str:
    """A record's facts in plain words; ValueError where a word is unknown or does not fit."""
    problems = vocabulary.check(record)
    if problems:
        raise ValueError(problems[0].partition(": ")[2])
    return prompts.canonical(record)
