"""Jobs as pages and programs see them: how far, how long still, and news while they run."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import lru_cache
from weakref import WeakSet

from starlette.concurrency import run_in_threadpool

from medisyn.web import queue
from medisyn.web.database import OPEN, images, jobs, row, rows, sql

News = tuple[dict, int] | None           # what `news` tells
Look = Callable[[str, int], Awaitable[News]]
LOOK = 0.2        # seconds between looks at a running job
KEEP_ALIVE = 15   # seconds of silence, after which a line without meaning is sent
EACH = 200        # new images told at once
BRIEF = [column for column in jobs.c if column.name != "asked"]  # what changes, without thousands of prompts


def job(engine: sql.Engine, name: str) -> dict | None:
    """One job by its opaque id."""
    one = row(engine, sql.select(*BRIEF).where(jobs.c.id == name))
    return told(engine, [one])[0] if one else None


def latest(engine: sql.Engine, limit: int = 50, open_only: bool = False) -> list[dict]:
    """Jobs, newest first."""
    marks = [jobs.c.state.in_(OPEN)] if open_only else []
    return told(engine, rows(engine, sql.select(*BRIEF).where(*marks).order_by(jobs.c.number.desc()).limit(limit)))


@lru_cache(4_096)
def asked(engine: sql.Engine, name: str) -> tuple[int, str, int]:
    """How many prompts a job has, the first of them, and its seed; they never change."""
    given = row(engine, sql.select(jobs.c.asked).where(jobs.c.id == name))["asked"]
    return len(given), given[0][0], given[0][2]


def told(engine: sql.Engine, found: Sequence[dict]) -> list[dict]:
    """Rows of `jobs` as the API tells them."""
    waiting = any(one["state"] in OPEN for one in found)
    line = [one["number"] for one in rows(engine, sql.select(jobs.c.number).where(jobs.c.state.in_(OPEN)))] if waiting else []
    pace = queue.pace(engine) if waiting else 0.0
    return [as_json(engine, one, line, pace) for one in found]


def as_json(engine: sql.Engine, one: dict, line: Sequence[int], pace: float) -> dict:
    """A job. line: the numbers of all jobs that are open; pace: seconds an image took lately, of any job."""
    is_open = one["state"] in OPEN
    own = queue.pace(engine, one["id"]) if is_open and one["done"] > 2 else pace
    prompts, prompt, seed = asked(engine, one["id"])
    return {"id": one["id"], "state": one["state"], "title": one["title"], "total": one["total"], "done": one["done"],
            "refused": one["refused"], "steps": one["steps"], "guidance": one["guidance"], "error": one["error"],
            "asked_at": one["asked_at"], "begun_at": one["begun_at"], "ended_at": one["ended_at"],
            "prompts": prompts, "prompt": prompt, "seed": seed,
            "seconds_left": round((one["total"] - one["done"]) * own, 1) if is_open else None,
            "jobs_ahead": sum(number < one["number"] for number in line) if is_open else 0}


def news(engine: sql.Engine, name: str, after: int = 0) -> News:
    """A job with its images beyond a number, and the number up to which they are told; None: no such job."""
    one = job(engine, name)  # before the images: where it has ended, all of them are there
    if one is None:
        return None
    more = rows(engine, sql.select(images.c.number, images.c.id, images.c.position, images.c.reason,
                                   images.c.prompt).where(
        images.c.job == name, images.c.number > after).order_by(images.c.number).limit(EACH))
    fresh = [{"id": m["id"] if m["reason"] is None else None, "position": m["position"], "prompt": m["prompt"],
              "reason": m["reason"]} for m in more]
    return one | {"images": fresh}, more[-1]["number"] if more else after


def watched(engine: sql.Engine) -> Look:
    """`news` for many who ask the same at once: looked up once in LOOK seconds, in a thread."""
    seen: dict[tuple[str, int], tuple[float, News]] = {}

    async def look(name: str, after: int) -> News:
        at, held = seen.get((name, after), (0.0, None))
        if time.monotonic() - at < LOOK * 0.8:
            return held
        if len(seen) > 1_000:
            seen.clear()
        if held:
            seen[name, after] = time.monotonic(), held  # while one looks, the others take what there is
        held = await run_in_threadpool(news, engine, name, after)
        seen[name, after] = time.monotonic(), held
        return held
    return look


class Stream:
    """One stream of events that is open; counted in a weak set, so that one which never began is not counted for ever."""


async def events(look: Look, name: str, after: int, stream: Stream, all_open: WeakSet[Stream]) -> AsyncIterator[str]:
    """Server-sent events of a job until it ends; the id of each is the number to go on from after a broken line."""
    try:
        async for line in lines(look, name, after):
            yield line
    finally:
        all_open.discard(stream)


async def lines(look: Look, name: str, after: int) -> AsyncIterator[str]:
    before, silent = None, time.monotonic()
    while True:
        found = await look(name, after)
        if found is None:
            return
        one, after = found
        if before != one | {"seconds_left": None}:
            yield f"id: {after}\nevent: progress\ndata: {json.dumps(one)}\n\n"
            silent = time.monotonic()
        elif time.monotonic() - silent > KEEP_ALIVE:
            yield ": still here\n\n"
            silent = time.monotonic()
        before = one | {"seconds_left": None, "images": []}
        if len(one["images"]) == EACH:
            continue
        if one["state"] not in OPEN:
            yield f"id: {after}\nevent: end\ndata: {json.dumps({'state': one['state']})}\n\n"
            return
        await asyncio.sleep(LOOK)
