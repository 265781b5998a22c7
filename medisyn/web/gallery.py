"""The gallery: the index of what was made, filtered and in order, newest first."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from medisyn.data import records
from medisyn.data.records import Record
from medisyn.web.database import findings, images, row, rows, sql

PAGE = 48      # images a page: divisible by 2, 3, 4, 6 and 8 columns
LONGEST = 200  # characters of a filter's word
read = lru_cache(2_048)(records.from_line)  # many look at the same pages; nobody changes a record


@dataclass(frozen=True)
class Filter:
    """What to show; None: all of it."""

    image_type: str | None = None
    finding: str | None = None       # present
    absent: str | None = None        # a finding, absent
    since: str | None = None         # a day, 2026-01-31, included; UTC
    until: str | None = None         # a day, included
    job: str | None = None
    words: str | None = None         # in the prompt

    def as_query(self) -> dict[str, str]:
        """What an address says for it."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name))}


def chosen(wanted: Filter) -> list:
    """A filter as SQL conditions; ValueError where a day is none."""
    marks = [images.c.record.is_not(None)]
    marks += [images.c.image_type == wanted.image_type] if wanted.image_type else []
    for name, present in ((wanted.finding, True), (wanted.absent, False)):
        if name:
            marks.append(sql.exists().where(findings.c.image == images.c.number, findings.c.name == name,
                                            findings.c.present == present))
    marks += [images.c.made_at >= day(wanted.since)] if wanted.since else []
    marks += [images.c.made_at < day(wanted.until) + 86_400] if wanted.until else []
    marks += [images.c.job == wanted.job] if wanted.job else []
    marks += [images.c.prompt.icontains(wanted.words, autoescape=True)] if wanted.words else []
    return marks


def day(text: str) -> float:
    """The beginning of a day, UTC, in seconds since 1970."""
    try:
        return datetime.datetime.combine(datetime.date.fromisoformat(text), datetime.time(), datetime.UTC).timestamp()
    except ValueError:
        raise ValueError(f"expected a day such as 2026-01-31, found {text[:20]!r}") from None


def found(engine: sql.Engine, wanted: Filter, limit: int = PAGE, before: int | None = None) -> list[dict]:
    """The images of a filter, newest first; before: only those that were made before this number."""
    marks = chosen(wanted) + ([images.c.number < before] if before is not None else [])
    return [described(one) for one in
            rows(engine, sql.select(images).where(*marks).order_by(images.c.number.desc()).limit(limit))]


def count(engine: sql.Engine, wanted: Filter) -> int:
    """How many there are."""
    return counted(engine, wanted, newest(engine))


def newest(engine: sql.Engine) -> int:
    """The highest number of any image: images are only ever added, so nothing that was counted changes while it stays."""
    return row(engine, sql.select(sql.func.max(images.c.number).label("n")))["n"] or 0


@lru_cache(256)
def counted(engine: sql.Engine, wanted: Filter, newest: int) -> int:
    return row(engine, sql.select(sql.func.count().label("n")).select_from(images).where(*chosen(wanted)))["n"]


def image(engine: sql.Engine, name: str) -> dict | None:
    """One image by its opaque id."""
    one = row(engine, sql.select(images).where(images.c.id == name, images.c.record.is_not(None)))
    return described(one) if one else None


def these(engine: sql.Engine, names: Sequence[str]) -> list[dict]:
    """Images by their opaque ids, in the order of their making; unknown ids are left out."""
    asked = sql.select(images).where(images.c.id.in_(names), images.c.record.is_not(None)).order_by(images.c.number)
    return [described(one) for one in rows(engine, asked)]


def beside(engine: sql.Engine, one: dict) -> dict[str, str | None]:
    """The ids of the images that were made before and after one."""
    made = images.c.record.is_not(None)
    earlier = row(engine, sql.select(images.c.id).where(made, images.c.number < one["number"]).order_by(
        images.c.number.desc()).limit(1))
    later = row(engine, sql.select(images.c.id).where(made, images.c.number > one["number"]).order_by(images.c.number).limit(1))
    return {"earlier": earlier and earlier["id"], "later": later and later["id"]}


def words(engine: sql.Engine) -> dict[str, list[tuple[str, int]]]:
    """The image types and present findings that there are, with how many images, most first."""
    return words_until(engine, newest(engine))


@lru_cache(16)
def words_until(engine: sql.Engine, newest: int) -> dict[str, list[tuple[str, int]]]:
    kinds = rows(engine, sql.select(images.c.image_type, sql.func.count().label("n")).where(
        images.c.record.is_not(None)).group_by(images.c.image_type).order_by(sql.desc("n")))
    shown = rows(engine, sql.select(findings.c.name, sql.func.count().label("n")).where(
        findings.c.present).group_by(findings.c.name).order_by(sql.desc("n")))
    return {"image_types": [(k["image_type"], k["n"]) for k in kinds], "findings": [(f["name"], f["n"]) for f in shown]}


def described(one: dict) -> dict:
    """A row with its record read."""
    return one | {"record": read(one["line"]) if one["line"] else None}


def as_json(one: dict) -> dict:
    """An image as the API tells it: opaque id, facts, how it was made, what was said of it; no file's name."""
    record: Record = one["record"]
    made = record.provenance
    guard, drawn = made.guard, made.drawn
    return {"id": one["id"], "job": one["job"], "position": one["position"], "prompt": one["prompt"], "seed": one["seed"],
            "made_at": one["made_at"], "url": f"/images/{one['id']}.png", "record": record.id,
            "image_type": record.image_type, "specialty": record.specialty, "anatomy": record.anatomy, "view": record.view,
            "technique": record.technique, "laterality": record.laterality, "findings": record.findings,
            "age_years": record.age_years, "sex": record.sex, "read_as": made.read_as, "steps": made.steps,
            "guidance": made.guidance, "drawn_seed": made.seed, "sampler": made.sampler, "model": made.model_name,
            "guard": guard and {"verdict": guard.verdict, "likeness": guard.likeness, "limit": guard.limit,
                                "distance": round(guard.limit - guard.likeness, 4), "blocked": guard.blocked},
            "recognised": drawn.recognised if drawn else None}


def file_of(folder: Path, one: dict) -> Path | None:
    """Where an image lies; None where somebody took it away. The name comes from the index alone, never from a request."""
    path = folder / one["record"].file_name
    return path if path.is_file() else None
