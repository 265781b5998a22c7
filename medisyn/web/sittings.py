"""Sittings: where each reader stands in a study, when a case was first shown, and by which addresses a reader sees it.

Where a reader stands is counted from the responses on the disk, so it survives the server. The first showing of a case is a line
of `shown.jsonl`; a case is shown before it is answered, so the time it took is known after a restart too.
"""

import hashlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medisyn.reader_study import design, responses
from medisyn.reader_study.design import Case, Study
from medisyn.reader_study.responses import Response

FILE = "shown.jsonl"
LONGEST = 9e6  # seconds: more is no reading time, and is not kept


class AnsweredBefore(ValueError):
    """A case that is not the one due: it was answered before, or its turn has not come."""


class Misfit(ValueError):
    """An answer that does not fit the question."""


@dataclass(frozen=True)
class Place:
    """Where a reader stands."""

    reader: str
    position: int          # 0, 1, ...: cases answered
    total: int
    case: Case | None      # the one due; None: all are answered
    begun: bool            # whether any was shown


@dataclass(frozen=True)
class Sittings:
    """All readers of a study."""

    study: Study
    secret: bytes                                            # of this study's server: addresses come from it
    orders: dict[str, tuple[str, ...]]                       # case ids as each reader meets them
    shown: dict[tuple[str, str], float]                      # (reader, case) -> Unix time of its first showing
    lock: threading.RLock = field(default_factory=threading.RLock)
    held: dict[str, Any] = field(default_factory=dict)       # "log": the responses as last read; "stamp": of their file then


def open_study(folder: Path, secret: bytes) -> Sittings:
    """The sittings of a study; ValueError where its responses were changed."""
    study = design.read(folder)
    orders = {reader: tuple(design.order(study, reader)) for reader in study.readers}
    opened = Sittings(study, secret, orders, shown_in(folder))
    given(opened)
    return opened


def shown_in(folder: Path) -> dict[tuple[str, str], float]:
    """First showings; a line that a crash cut short counts for nothing."""
    path, found = Path(folder) / FILE, {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            found.setdefault((row["reader"], row["case"]), float(row["at"]))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def given(sittings: Sittings) -> tuple[Response, ...]:
    """All responses. The whole chain is checked once; where the file has changed, that it still begins so, and what is new."""
    held, stamp = sittings.held, stamp_of(sittings.study)
    if "log" not in held or held["stamp"] != stamp:
        held["log"] = responses.read_log(sittings.study.folder, held.get("log"))
        held["stamp"] = stamp
    return held["log"].responses


def stamp_of(study: Study) -> tuple[int, int]:
    """Bytes and time of the file of responses."""
    path = study.folder / responses.FILE
    return (stat.st_size, stat.st_mtime_ns) if path.is_file() and (stat := path.stat()) else (0, 0)


def place(sittings: Sittings, reader: str) -> Place:
    """Where a reader stands now."""
    with sittings.lock:
        done = {one.case for one in given(sittings) if one.reader == reader}
        order = sittings.orders[reader]
        due = next((name for name in order if name not in done), None)
        begun = bool(done) or any(name == reader for name, _ in sittings.shown)
        return Place(reader, len(done), len(order), sittings.study.case(due) if due else None, begun)


def show(sittings: Sittings, at: Place) -> None:
    """Note that the case that is due is shown, if it is for the first time."""
    with sittings.lock:
        if at.case is None or (at.reader, at.case.id) in sittings.shown:
            return
        now = time.time()
        with (sittings.study.folder / FILE).open("a+b") as lines:
            lines.seek(max(0, lines.seek(0, 2) - 1))
            row = json.dumps({"reader": at.reader, "case": at.case.id, "at": round(now, 3)}).encode() + b"\n"
            lines.write(row if lines.read(1) in (b"", b"\n") else b"\n" + row)  # behind a line cut short
        sittings.shown[at.reader, at.case.id] = now


def address(sittings: Sittings, reader: str, name: str) -> str:
    """What stands for a case or an image towards one reader: says nothing, not even to a reader who compares with another."""
    return hmac.new(sittings.secret, f"{sittings.study.id}/{reader}/{name}".encode(), hashlib.sha256).hexdigest()[:32]


def picture(sittings: Sittings, at: Place, asked: str) -> bytes | None:
    """The PNG behind an address; None unless it is an image of the case that is due."""
    for image in at.case.images if at.case and at.begun else ():
        if hmac.compare_digest(asked.encode(), address(sittings, at.reader, image).encode()):
            return design.picture(sittings.study, image).read_bytes()
    return None


def answer(sittings: Sittings, reader: str, case: str, choice: int, confidence: int | None, marks: Sequence[dict], comment: str,
           visible: float | None) -> Response:
    """Keep the answer to the case that is due; it lies on the disk when this returns.

    case: its address. choice: 0, 1, ... of the question's choices. visible: seconds in which the page was in front.
    AnsweredBefore where another case is due, Misfit where the answer does not fit the question.
    """
    with sittings.lock:
        at, question = place(sittings, reader), sittings.study.question
        if at.case is None or not hmac.compare_digest(case.encode(), address(sittings, reader, at.case.id).encode()):
            raise AnsweredBefore("this case is answered; an answer cannot be changed")
        if not 0 <= choice < len(question.choices):
            raise Misfit(f"expected an answer of 1 to {len(question.choices)}")
        if (confidence is None) is bool(question.confidence):
            raise Misfit("expected a word on how sure you are" if question.confidence else "expected no confidence")
        since = sittings.shown.get((reader, at.case.id))
        seconds = None if since is None else round(max(0.0, time.time() - since), 3)
        said = Response(sittings.study.id, reader, at.case.id, at.position, question.answers[choice], confidence, tuple(marks),
                        comment, kept(seconds), visible=kept(visible))
        try:
            responses.checked(sittings.study, said)
        except ValueError as error:
            raise Misfit(str(error).partition(": ")[2]) from None  # without the case's name
        return responses.append(sittings.study, said, sittings.held.get("log"))


def kept(seconds: float | None) -> float | None:
    return None if seconds is None or seconds > LONGEST else round(seconds, 3)


def progress(sittings: Sittings) -> list[tuple[str, int, int, str]]:
    """Of each reader: key, cases answered, cases, time of the last answer; nothing of what was answered."""
    with sittings.lock:
        all_given = given(sittings)
    done, last = Counter(one.reader for one in all_given), {one.reader: one.at for one in all_given}
    return [(reader, done[reader], len(order), last.get(reader, "")) for reader, order in sittings.orders.items()]
