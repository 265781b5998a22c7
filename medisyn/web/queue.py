"""The queue: jobs in the database, which outlives every process; each step is one transaction."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from medisyn.data import records
from medisyn.data.records import Record
from medisyn.web.database import OPEN, findings, images, jobs, opaque, row, rows, sql
from medisyn.web.settings import Limits

Order = tuple[str, int, int]   # prompt, number of images, first seed
TRIES = 4                      # times a job is begun without one image coming of it, before it is given up
RECENT = 20                    # images whose pace tells the time left
SLOW = 1.0                     # seconds an image, where nothing was made yet


class Full(Exception):
    """The queue holds as many jobs as it may; `after`: seconds until one of them should be done."""

    def __init__(self, after: int, what: str = "the queue is full"):
        super().__init__(f"{what}; try again in {after} s")
        self.after = after


@dataclass(frozen=True)
class Job:
    """What the worker needs to know of a job."""

    id: str
    wanted: tuple[tuple[int, str, int], ...]   # (position, prompt, seed) of what is not made yet
    steps: int | None
    guidance: float | None


@dataclass(frozen=True)
class Outcome:
    """What came of one position: a record, or the reason why there is none."""

    record: Record | None
    reason: str | None = None


def ask(engine: sql.Engine, limits: Limits, orders: Sequence[Order], title: str, steps: int | None = None,
        guidance: float | None = None) -> str:
    """Put a job at the end of the queue: its id; Full where there is no room. One statement, so nobody slips in between."""
    values = {"id": opaque(), "state": "queued", "title": title, "asked": [list(order) for order in orders],
              "total": sum(n for _, n, _ in orders), "done": 0, "refused": 0, "tries": 0, "steps": steps,
              "guidance": guidance, "asked_at": time.time()}
    waiting = sql.select(sql.func.count()).select_from(jobs).where(jobs.c.state.in_(OPEN)).scalar_subquery()
    chosen = sql.select(*(sql.literal(value, jobs.c[name].type).label(name) for name, value in values.items()))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # there two statements may count at once; SQLite has one writer
            connection.execute(sql.text("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE"))
        connection.execute(jobs.insert().from_select(list(values), chosen.where(waiting < limits.waiting)))
        if connection.execute(sql.select(jobs.c.number).where(jobs.c.id == values["id"])).first():
            return values["id"]
    raise Full(retry_after(engine))


def retry_after(engine: sql.Engine) -> int:
    """Seconds until the first job in line should be done: 1 to 600."""
    first = row(engine, sql.select(jobs).where(jobs.c.state.in_(OPEN)).order_by(jobs.c.number).limit(1))
    return min(600, max(1, round(seconds_left(engine, first)))) if first else 1


def reclaim(engine: sql.Engine) -> None:
    """Back in line with what a worker that is no more left behind; only the worker that holds the lock may call this."""
    with engine.begin() as connection:
        connection.execute(jobs.update().where(jobs.c.state == "cancelling").values(state="cancelled", ended_at=time.time()))
        connection.execute(jobs.update().where(jobs.c.state == "running", jobs.c.tries >= TRIES).values(
            state="failed", ended_at=time.time(), error=f"the worker ended {TRIES} times over this job; ask for less at once"))
        connection.execute(jobs.update().where(jobs.c.state == "running").values(state="queued"))


def claim(engine: sql.Engine) -> Job | None:
    """Begin the first job in line; None where nobody waits."""
    first = row(engine, sql.select(jobs).where(jobs.c.state == "queued").order_by(jobs.c.number).limit(1))
    if first is None:
        return None
    with engine.begin() as connection:
        taken = connection.execute(jobs.update().where(jobs.c.id == first["id"], jobs.c.state == "queued").values(
            state="running", tries=jobs.c.tries + 1, begun_at=sql.func.coalesce(jobs.c.begun_at, time.time())))
    if not taken.rowcount:
        return None  # cancelled in between
    there = {r["position"] for r in rows(engine, sql.select(images.c.position).where(images.c.job == first["id"]))}
    asked = ((prompt, seed + k) for prompt, n, seed in first["asked"] for k in range(n))
    wanted = tuple((at, *one) for at, one in enumerate(asked) if at not in there)
    return Job(first["id"], wanted, first["steps"], first["guidance"])


def keep(engine: sql.Engine, job: Job, position: int, prompt: str, seed: int, outcome: Outcome) -> bool:
    """Enter what came of one position; False where it stands there already. Image, labels and count appear together."""
    record = outcome.record
    line = {"id": opaque(), "job": job.id, "position": position, "prompt": prompt, "seed": seed, "made_at": time.time(),
            "reason": outcome.reason}
    if record is not None:
        line |= {"record": record.id, "file_name": record.file_name, "image_type": record.image_type,
                 "line": records.as_line(record)}
    try:
        with engine.begin() as connection:
            number = connection.execute(images.insert().values(line)).inserted_primary_key[0]
            if record is not None and record.findings:
                connection.execute(findings.insert(), [{"image": number, "name": name, "present": present}
                                                       for name, present in record.findings.items()])
            connection.execute(jobs.update().where(jobs.c.id == job.id).values(
                done=jobs.c.done + 1, refused=jobs.c.refused + int(record is None), tries=0))
    except sql.exc.IntegrityError:
        return False
    return True


def finish(engine: sql.Engine, job: str, error: str | None = None) -> str:
    """End a job: cancelled where that was asked for, failed where there is an error, else done."""
    with engine.begin() as connection:
        ended = {"ended_at": time.time()}
        connection.execute(jobs.update().where(jobs.c.id == job, jobs.c.state == "cancelling").values(state="cancelled", **ended))
        connection.execute(jobs.update().where(jobs.c.id == job, jobs.c.state == "running").values(
            state="failed" if error else "done", error=error, **ended))
        return connection.execute(sql.select(jobs.c.state).where(jobs.c.id == job)).scalar_one()


def cancel(engine: sql.Engine, job: str) -> None:
    """Ask for an end: at once where the job waits, else the worker stops within a step. An ended job stays as it is."""
    with engine.begin() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job, jobs.c.state == "queued").values(
            state="cancelled", ended_at=time.time()))
        connection.execute(jobs.update().where(jobs.c.id == job, jobs.c.state == "running").values(state="cancelling"))


def wanted(engine: sql.Engine, job: str) -> bool:
    """Whether anybody still waits for a job's images."""
    found = row(engine, sql.select(jobs.c.state).where(jobs.c.id == job))
    return found is not None and found["state"] == "running"


def pace(engine: sql.Engine, job: str | None = None) -> float:
    """Seconds an image took lately: of a job, or of any where it has fewer than three."""
    for mine in ([images.c.job == job] if job else []), []:
        recent = rows(engine, sql.select(images.c.made_at, images.c.job).where(*mine).order_by(
            images.c.number.desc()).limit(RECENT))
        times = [r["made_at"] for r in recent if r["job"] == recent[0]["job"]]
        if len(times) > 2 and times[0] > times[-1]:
            return (times[0] - times[-1]) / (len(times) - 1)
    return SLOW


def seconds_left(engine: sql.Engine, job: dict) -> float:
    """Until a row of `jobs` should be done, those before it not counted."""
    return (job["total"] - job["done"]) * pace(engine, job["id"])
