"""Sets: the images that are judged, the images their maker was trained on, and the images it never saw.

A set is opened from a collection, from one of its splits (`COLLECTION:test`), from a folder of images with a CSV
(`file_name` and any fields of a record), or from a bare folder of images.
"""

import csv
import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from medisyn.data import images as pictures
from medisyn.data import records
from medisyn.data.records import SPLITS, Record

AGES = ((0, 20, "0-19"), (20, 40, "20-39"), (40, 60, "40-59"), (60, 80, "60-79"), (80, 200, "80+"))  # years
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Images:
    """A set of images with what is known of each; pixels are read when they are asked for."""

    name: str
    records: tuple[Record, ...]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.records)

    def rows_of(self, group: str) -> np.ndarray:
        """Rows of a group such as "all" or "image_type=chest_xray": int64 (n,), empty where there is none."""
        return groups(self).get(group, np.empty(0, np.int64))

    def pixels(self, rows: Sequence[int], side: int) -> np.ndarray:
        """The central squares of the images at `rows`: uint8 (n, side, side, 3), antialiased, read one at a time.

        ValueError names a file that cannot be read.
        """
        out = np.empty((len(rows), side, side, 3), np.uint8)
        for k, row in enumerate(rows):
            out[k] = square(self.paths[row], side)
        return out

    def take(self, rows: Sequence[int]) -> "Images":
        """The set of some of the images, in the order of `rows`."""
        return Images(self.name, tuple(self.records[r] for r in rows), tuple(self.paths[r] for r in rows))


@dataclass(frozen=True)
class Sets:
    """The three sides of every judgement."""

    train: Images      # real: what the maker was trained on
    unseen: Images     # real, of other patients
    synthetic: Images

    def items(self) -> Iterator[tuple[str, Images]]:
        """("train", ...), ("unseen", ...), ("synthetic", ...)."""
        return iter((f.name, getattr(self, f.name)) for f in fields(self))


def square(path: Path, side: int) -> np.ndarray:
    """One file's central square: uint8 (side, side, 3)."""
    try:
        picture = pictures.decode(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected a readable image, found {broken(error)}; repair or remove the file") from None
    return np.asarray(pictures.square(picture, side).convert("RGB"))


def broken(error: Exception) -> str:
    return " ".join(str(error).replace("\n", " ").split()) or type(error).__name__


def open_sets(train: str | Path, unseen: str | Path, synthetic: str | Path,
              progress: Progress = lambda done, total: None) -> Sets:
    """Open and check all three; ValueError where real images are of the same patients, or cannot be read."""
    found = Sets(open_images(train, "train"), open_images(unseen, "unseen"), open_images(synthetic, "synthetic"))
    for side in (found.train, found.unseen):
        made = sum(r.synthetic for r in side.records)
        if made:
            raise ValueError(f"{side.name}: expected real images, found {made:,} with the provenance of a synthetic one; "
                             "give a collection of real images")
    total, done = sum(len(side) for _, side in found.items()), 0
    for _, side in found.items():
        for path in side.paths:
            content(path)
            done += 1
            progress(done, total)
    refuse_overlap(found.train, found.unseen)
    return found


def refuse_overlap(train: Images, unseen: Images) -> None:
    """ValueError where a patient, a record or a file stands in both."""
    def keys(side: Images, of: Callable[[Record, Path], str | None]) -> set[str]:
        return {of(r, p) for r, p in zip(side.records, side.paths, strict=True)} - {None}
    for noun, of in (("patient", lambda r, p: r.patient), ("record id", lambda r, p: r.id),
                     ("file content", lambda r, p: content(p))):
        both = keys(train, of) & keys(unseen, of)
        if both:
            example = min(both)[:40]
            raise ValueError(f"train and unseen should be of different patients, found {len(both):,} {noun}"
                             f"{'s' if len(both) > 1 else ''} in both (such as {example!r}); split by patient, "
                             "for example COLLECTION:train and COLLECTION:test")


def open_images(where: str | Path, name: str) -> Images:
    """The set at `where`, called `name`; ValueError or FileNotFoundError is one sentence.

    where: a collection, `COLLECTION:split`, a folder of images with one CSV, or a bare folder of images.
    """
    folder, split = Path(where), None
    head, colon, tail = str(where).rpartition(":")
    if colon and tail in SPLITS and not folder.exists():
        folder, split = Path(head), tail
    elif colon and not folder.exists() and Path(head).is_dir():
        raise ValueError(f"{name}: expected one of {', '.join(SPLITS)} after the colon, found {tail!r} in {where}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: expected a folder, found {'a file' if folder.exists() else 'nothing'} at {folder}; "
                                "give a collection, COLLECTION:split or a folder of images")
    if (folder / "metadata.jsonl").is_file():
        found = list(records.read(folder))
    elif any(folder.glob("*.csv")):
        found = from_csv(folder, name)
    else:
        found = [Record(f"{name}:{path}", path, "") for path in rasters(folder)]
    if split:
        present = sorted({r.split for r in found})
        found = [r for r in found if r.split == split]
        if not found:
            raise ValueError(f"{name}: {folder} has no image of split {split!r}; it has {', '.join(present) or 'none at all'}")
    if len(found) < 2:
        raise ValueError(f"{name}: expected at least 2 images in {where}, found {'one' if found else 'none'}; "
                         "a set is judged as a whole")
    paths = tuple(folder / r.file_name for r in found)
    for record, path in zip(found, paths, strict=True):
        if not path.is_file():
            raise FileNotFoundError(f"{name}: {path} is missing, though {folder} lists {record.file_name!r}; "
                                    "restore the file or remove its line")
    return Images(name, tuple(found), paths)


def rasters(folder: Path) -> list[str]:
    """Images anywhere below a folder, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")
                  if p.suffix.lower() in pictures.RASTERS and p.is_file())


def from_csv(folder: Path, name: str) -> list[Record]:
    """Records from the one CSV of a folder, or from its metadata.csv."""
    tables = sorted(folder.glob("*.csv"))
    path = folder / "metadata.csv" if (folder / "metadata.csv") in tables else tables[0]
    if len(tables) > 1 and path.name != "metadata.csv":
        raise ValueError(f"{name}: expected one CSV in {folder}, found {len(tables)} "
                         f"({', '.join(t.name for t in tables[:3])}); call the one that counts metadata.csv")
    known = [f.name for f in fields(Record) if f.name != "provenance"]
    with path.open(encoding="utf-8-sig", newline="") as opened:
        table = csv.DictReader(opened)
        columns = table.fieldnames or []
        wrong = [c for c in columns if c not in known]
        if "file_name" not in columns or wrong:
            told = f"the unknown column {wrong[0]!r}" if wrong else f"the columns {', '.join(columns) or 'none'}"
            raise ValueError(f"{path}: expected a column file_name and any of {', '.join(k for k in known if k != 'file_name')}; "
                             f"found {told}")
        return [from_row(row, name, f"{path} line {table.line_num}") for row in table]


def from_row(row: dict[str, str | None], name: str, where: str) -> Record:
    """A record from a line of a CSV: an empty cell is unknown."""
    given = {key: value.strip() for key, value in row.items() if isinstance(key, str) and value and value.strip()}
    if "file_name" not in given:
        raise ValueError(f"{where}: expected a file_name, found an empty cell")
    if "findings" in given:
        given["findings"] = read_findings(given["findings"], where)
    if "age_years" in given:
        try:
            given["age_years"] = float(given["age_years"])
        except ValueError:
            raise ValueError(f"{where}: expected age_years as a number, found {given['age_years']!r}") from None
    line = {"id": f"{name}:{given['file_name']}", "image_type": ""} | given
    return records.from_line(json.dumps(line), where)


def read_findings(text: str, where: str) -> dict[str, bool]:
    """`{"pneumonia": true}` or `pneumonia=true; effusion=false`."""
    words = {"true": True, "1": True, "present": True, "false": False, "0": False, "absent": False}
    try:
        if text.startswith("{"):
            return json.loads(text)
        pairs = [part.split("=") for part in text.split(";") if part.strip()]
        return {key.strip(): words[value.strip().lower()] for key, value in pairs}
    except (ValueError, KeyError):
        raise ValueError(f"{where}: expected findings as 'pneumonia=true; effusion=false' or JSON, found {text!r}") from None


def groups(images: Images) -> dict[str, np.ndarray]:
    """Rows by "all", "image_type=...", "finding=..." (present), "sex=..." and "age=...": int64 arrays.

    What is unknown of an image puts it into no group but "all".
    """
    found: dict[str, list[int]] = {"all": []}
    for row, record in enumerate(images.records):
        for group in groups_of(record):
            found.setdefault(group, []).append(row)
    ordered = sorted(found, key=lambda g: (("all", "image_type", "finding", "sex", "age").index(g.partition("=")[0]), g))
    return {group: np.array(found[group], np.int64) for group in ordered}


def groups_of(record: Record) -> list[str]:
    """The groups that one image belongs to."""
    named = ["all"]
    if record.image_type:
        named.append(f"image_type={record.image_type}")
    named += [f"finding={finding}" for finding, present in sorted(record.findings.items()) if present]
    if record.sex:
        named.append(f"sex={record.sex}")
    if record.age_years is not None:
        named += [f"age={band}" for low, high, band in AGES if low <= record.age_years < high]
    return named


def patients(images: Images) -> np.ndarray:
    """The patient of each image, or the image itself where that is unknown: strings (n,)."""
    return np.array([r.patient or f"image {r.id}" for r in images.records], dtype=object).astype(str)


def kinds_of(images: Images) -> np.ndarray:
    """The image type of each image, "" where it is unknown: strings (n,)."""
    return np.array([r.image_type or "" for r in images.records], dtype=object).astype(str)


def kinds_of_sets(sets: Sets) -> dict[str, np.ndarray]:
    """`kinds_of` each set; where a set knows none, images of all sets are compared as one unknown type."""
    found = {name: kinds_of(images) for name, images in sets.items()}
    return found if all((kinds != "").any() for kinds in found.values()) else {k: np.full(len(v), "") for k, v in found.items()}


def content(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits; ValueError where they are no whole image."""
    status = Path(path).stat()
    return digest_of(str(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1 << 20)
def digest_of(path: str, changed: int, size: int) -> str:
    """The digest of a file that has been checked: a PNG cut short or bent shows in its checksums."""
    raw = Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(raw)) as opened:
            opened.verify()
    except Exception as error:
        raise ValueError(f"{path}: expected a readable image, found {broken(error)}; repair or remove the file") from None
    return hashlib.sha256(raw).hexdigest()


def named(images: Images, name: str) -> Images:
    """The same images under another name."""
    return dataclasses.replace(images, name=name)
