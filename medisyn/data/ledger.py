"""The ledger: which images of a source are finished, so that work that is killed goes on where it stopped.

A line is appended when an image lies on disk whole: {"name", "stamp", "content", "hashes", "thumbnail", "how"}. A crash cuts at
most the last line short; that line does not count. Where a name stands twice the last line counts. Nothing in it
tells a file's name, size or date: the stamp is a keyed hash of them.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import duplicates

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two ingests of one source apart
    fcntl = None

FOLDER = ".ingest"  # ledgers and locks, inside the collection


@dataclass(frozen=True)
class Looks:
    """What tells near-duplicates of named images, 350 bytes an image."""

    names: list[str]
    contents: list[str]     # digest of the file, or of the pixels where it holds several images
    hashes: np.ndarray      # uint64 (N, 8)
    thumbnails: np.ndarray  # uint8 (N, 16, 16)
    how: dict[str, str]     # how deep pixels became 8 bits, by name, where they were deep
    older: int = 0          # named images of which an older medisyn noted too little


def path_of(collection: Path, source: str) -> Path:
    return Path(collection) / FOLDER / f"{source}.jsonl"


def stamp(key: bytes, *facts: object) -> str:
    """A keyed hash of what must stay the same for an image to stay finished: 16 hex digits."""
    return hmac.new(key, repr(("stamp", *facts)).encode(), hashlib.sha256).hexdigest()[:16]


def rows(path: Path) -> Iterator[dict]:
    """The lines of a ledger in order, without those that are cut short or say too little."""
    if not Path(path).is_file():
        return
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("name"), str):
                    yield row


def stamps(path: Path) -> dict[str, str]:
    """The stamp of each image that a ledger says is finished, by name."""
    return {row["name"]: row["stamp"] for row in rows(path) if "stamp" in row and "hashes" in row}


@contextmanager
def noting(path: Path) -> Iterator[Callable[[dict], None]]:
    """A function that appends a line, each written through before it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write("\n")  # closes a line that a crash cut short

        def note(row: dict) -> None:
            out.write(json.dumps(row) + "\n")
            out.flush()
        yield note


def row_of(name: str, stamped: str, content: str, picture: Image.Image, how: str | None) -> dict:
    """The line of a finished image."""
    picture = picture.convert("L")
    return {"name": name, "stamp": stamped, "content": content,
            "hashes": [f"{code:016x}" for code in duplicates.hashes_of(picture)],
            "thumbnail": base64.b64encode(duplicates.thumbnail_of(picture).tobytes()).decode()} | ({"how": how} if how else {})


def looks(path: Path, names: Collection[str]) -> Looks:
    """What a ledger holds of the named images, sorted by name; images without a full line are left out."""
    places = {name: i for i, name in enumerate(sorted(set(names)))}
    contents = [""] * len(places)
    hashes = np.zeros((len(places), duplicates.ORIENTATIONS), np.uint64)
    thumbnails = np.zeros((len(places), duplicates.THUMBNAIL, duplicates.THUMBNAIL), np.uint8)
    how: dict[str, str] = {}
    noted = np.zeros(len(places), bool)
    for row in rows(path):
        i = places.get(row["name"])
        if i is None:
            continue
        noted[i] = True
        with suppress(KeyError, TypeError, ValueError):
            hashes[i] = [int(code, 16) for code in row["hashes"]]
            thumbnails[i] = np.frombuffer(base64.b64decode(row["thumbnail"]), np.uint8).reshape(thumbnails.shape[1:])
            contents[i] = row["content"]
            how.pop(row["name"], None)
            if "how" in row:
                how[row["name"]] = row["how"]
    found, older = Looks(list(places), contents, hashes, thumbnails, how), int(noted.sum()) - sum(map(bool, contents))
    return replace(chosen(found, [i for i, content in enumerate(contents) if content]), older=older)


def chosen(looks: Looks, at: list[int]) -> Looks:
    """Some of the looks, by their places in ascending order; nothing is copied where that is all of them."""
    if len(at) == len(looks.names):
        return looks
    return replace(looks, names=[looks.names[i] for i in at], contents=[looks.contents[i] for i in at], hashes=looks.hashes[at],
                   thumbnails=looks.thumbnails[at])


def joined(held: list[Looks]) -> Looks:
    """Several ledgers' as one."""
    if len(held) == 1:
        return held[0]
    empty = Looks([], [], np.zeros((0, duplicates.ORIENTATIONS), np.uint64),
                  np.zeros((0, duplicates.THUMBNAIL, duplicates.THUMBNAIL), np.uint8), {})
    return Looks([name for one in held for name in one.names], [content for one in held for content in one.contents],
                 np.concatenate([empty.hashes, *(one.hashes for one in held)]),
                 np.concatenate([empty.thumbnails, *(one.thumbnails for one in held)]),
                 {name: how for one in held for name, how in one.how.items()}, sum(one.older for one in held))


def grouped(looks: Looks, limits: duplicates.Limits, names: Collection[str] | None = None) -> dict[str, str]:
    """The near-duplicate group of each image, or of the named ones."""
    if names is not None:
        names = set(names)
        looks = chosen(looks, [i for i, name in enumerate(looks.names) if name in names])
    return dict(zip(looks.names, duplicates.groups(looks.contents, looks.hashes, looks.thumbnails, limits), strict=True))


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock that falls with the process; ValueError with `busy` where another holds it, None waits."""
    with path.open("w") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError:
                raise ValueError(f"{busy}; wait for it, or end it") from None
        yield
