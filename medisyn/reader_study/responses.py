"""Responses: what readers answered, in a file that only grows and shows when it was changed.

`responses.jsonl` holds a response a line; each carries the hash of the line before, and `responses.head` how many lines there
were and the hash of the last. So an edited, dropped, reordered or doubled line is found, also at the end. Whoever can write both
files can forge both: note the last hash elsewhere (`medisyn study analyze` prints it) when the study closes.
"""

import contextlib
import datetime
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medisyn.reader_study.design import Study

FILE, HEAD, LOCK, TORN = "responses.jsonl", "responses.head", "responses.lock", "responses.torn"
START = "0" * 64  # the hash before the first


@dataclass(frozen=True)
class Response:
    """One reader's answer to one case."""

    study: str                    # its id
    reader: str                   # key
    case: str                     # opaque id
    position: int                 # 0, 1, ...: which case of this reader's order
    answer: str | int             # a value of the question's choices
    confidence: int | None = None  # 1 guess to 5 certain
    marks: tuple[dict, ...] = ()  # {"x": 0..1 from the left, "y": 0..1 from the top, "kind": of the taxonomy, "image": 0 or 1}
    comment: str = ""
    seconds: float | None = None  # from the case shown to the answer given
    at: str = ""                  # UTC, ISO 8601; empty: now
    visible: float | None = None  # of the seconds those in which the page was in front, as the reader's browser says
    previous: str = ""            # filled in
    hash: str = ""                # filled in


@dataclass(frozen=True)
class Log:
    """The responses of a study, checked."""

    responses: tuple[Response, ...]
    last: str                # hash of the last one
    torn: bytes = b""        # a last line that a crash cut short: it counts for nothing
    lines: bytes = b""       # the file as it was checked; empty where its last line has no end


def append(study: Study, response: Response, known: Log | None = None) -> Response:
    """Add a response and return it as written, once it lies on the disk; ValueError says what is wrong with it.

    A reader answers a case once; nothing is ever changed. Several processes may append. known: as `read_log` takes it.
    """
    return extend(study, [response], known)[0]


def extend(study: Study, given: Sequence[Response], known: Log | None = None) -> list[Response]:
    """Add several responses, all or none."""
    for response in given:
        checked(study, response)
    with locked(study.folder):
        log, added = read_log(study.folder, known), []
        seen, last = {(r.reader, r.case) for r in log.responses}, log.last
        for response in given:
            if (response.reader, response.case) in seen:
                raise ValueError(f"{response.reader} has answered case {response.case} before; an answer cannot be changed")
            seen.add((response.reader, response.case))
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            new = replace(response, marks=tuple(response.marks), at=response.at or now, previous=last, hash="")
            added.append(replace(new, hash=digest(new)))
            last = added[-1].hash
        put(study.folder, added, log)
    return added


def read(study: Study) -> list[Response]:
    """All responses in the order given; ValueError names the first line that breaks the chain."""
    return list(read_log(study.folder).responses)


def read_log(folder: Path, known: Log | None = None) -> Log:
    """The responses in a folder, the last hash, and what a crash left of an unfinished line.

    known: an earlier reading. Its lines must still be there byte for byte; only those behind them are parsed and hashed.
    """
    path, first = Path(folder) / FILE, Path(folder) / HEAD
    head = json.loads(first.read_text()) if first.is_file() else {"n": 0, "hash": START}  # first: it trails what is written
    raw = path.read_bytes() if path.is_file() else b""
    held = known if known and known.lines and raw.startswith(known.lines) else Log((), START)
    *lines, tail = raw[len(held.lines):].split(b"\n")
    found, last, torn = list(held.responses), held.last, b""
    end = len(found) + len(lines)
    for number, line in enumerate([*lines, tail] if tail else lines, len(found) + 1):
        try:
            response = from_line(line, last)
        except ValueError as error:
            if number > end:
                torn = tail
                break
            raise ValueError(f"{path} line {number}: {error}; restore the file from a copy") from None
        found.append(response)
        last = response.hash
    if len(found) < head["n"] or (head["n"] and found[head["n"] - 1].hash != head["hash"]):
        raise ValueError(f"{path}: expected at least {head['n']} responses up to hash {head['hash'][:12]}, found {len(found)}; "
                         "lines were dropped; restore the file from a copy")
    if known and tuple(found[:len(known.responses)]) != known.responses:
        raise ValueError(f"{path}: expected the {len(known.responses)} responses that were read before, found others, whose hashes "
                         "fit each other; restore the file from a copy")
    return Log(tuple(found), last, torn, b"" if tail else raw)


def from_line(line: bytes, last: str) -> Response:
    """A response from its line, which must follow the hash `last`."""
    try:
        row = json.loads(line)
        response, same = Response(**row | {"marks": tuple(row["marks"])}), canonical(row) == line
    except (ValueError, TypeError, KeyError):
        raise ValueError("expected the JSON object of a response") from None
    if not same:
        raise ValueError("expected the line as it was written, found it edited")
    if response.previous != last:
        raise ValueError("does not follow the line before: a line was dropped, doubled or moved")
    if digest(response) != response.hash:
        raise ValueError("its hash does not fit its content: it was edited")
    return response


def digest(response: Response) -> str:
    """sha256 of the previous hash and the response as canonical JSON without its own."""
    row = {name: value for name, value in vars(response).items() if name != "hash"}
    return hashlib.sha256(response.previous.encode() + canonical(row)).hexdigest()


def canonical(row: dict) -> bytes:
    """JSON with sorted keys and no blanks, as bytes."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def checked(study: Study, response: Response) -> None:
    """ValueError where a response does not fit the study."""
    question = study.question
    where = f"response of {str(response.reader)[:40]} to case {str(response.case)[:40]}"
    if response.study != study.id or response.reader not in study.readers or all(response.case != c.id for c in study.cases):
        raise ValueError(f"{where}: expected a reader and a case of study {study.id}")
    if not any(response.answer == value and type(response.answer) is type(value) for value in question.answers):
        raise ValueError(f"{where}: expected an answer of {', '.join(map(str, question.answers))}, found "
                         f"{str(response.answer)[:40]!r}")
    steps = len(question.confidence)
    if response.confidence is not None and not (type(response.confidence) is int and 1 <= response.confidence <= steps):
        raise ValueError(f"{where}: expected a confidence of 1 to {steps} or none, found {str(response.confidence)[:40]!r}")
    for seconds in (response.seconds, response.visible):
        if seconds is not None and not 0 <= seconds < 1e7:
            raise ValueError(f"{where}: expected seconds of 0 or more, found {seconds}")
    kinds = {kind for kind, _ in question.marks}
    for mark in response.marks:
        if mark.get("kind") not in kinds or not all(isinstance(mark.get(k), int | float) and 0 <= mark[k] <= 1 for k in "xy"):
            raise ValueError(f"{where}: expected marks with x and y in 0..1 and a kind of {', '.join(sorted(kinds))}, found "
                             f"{str(mark)[:80]}")
    unknown = {key for mark in response.marks for key in mark} - {"x", "y", "kind", "image"}
    if unknown or len(response.comment) > 4000 or len(response.marks) > 100:
        raise ValueError(f"{where}: expected at most 100 marks of x, y, kind and image and a comment of at most 4,000 characters")


def put(folder: Path, added: list[Response], log: Log) -> None:
    """Write lines behind what is there, to the disk itself; a torn last line is first moved to responses.torn."""
    path = folder / FILE
    if log.torn:
        with (folder / TORN).open("ab") as aside:
            aside.write(log.torn + b"\n")
            os.fsync(aside.fileno())
        with path.open("r+b") as out:
            out.truncate(path.stat().st_size - len(log.torn))
    whole = bool(log.lines or log.torn or not log.responses)
    with path.open("ab") as out:
        out.write((b"" if whole else b"\n") + b"".join(canonical(vars(one)) + b"\n" for one in added))
        out.flush()
        os.fsync(out.fileno())
    if added:
        draft = folder / f"{HEAD}.part"
        with draft.open("w") as out:
            json.dump({"n": len(log.responses) + len(added), "hash": added[-1].hash}, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, folder / HEAD)
    sync(folder)


def sync(folder: Path) -> None:
    """The names of new files reach the disk too."""
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time, of all processes on this machine."""
    try:
        import fcntl
    except ImportError:
        raise RuntimeError("a study needs a system with file locks (Linux or macOS)") from None
    with (folder / LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
