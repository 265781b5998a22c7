"""Records: one image and what is known of it.

A collection is a folder: `metadata.jsonl`, one record a line, beside the images that the
lines name: the Hugging Face `imagefolder` convention (`file_name`, `text`). Real and
synthetic images have the same form on disk; a record is synthetic exactly when it carries
a provenance. Every command of medisyn reads collections, writes collections, or both.

Unknown is not absent: a finding that nobody looked for is missing from `findings`, one that
was looked for and not seen is False there. In every other field `None` means unknown.
"""

import difflib
import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from medisyn.data.provenance import Provenance

SPLITS = ("train", "val", "test")
SPLIT_SHARES = {"train": 0.85, "val": 0.05, "test": 0.10}  # of patients, not of images
METADATA = "metadata.jsonl"
PUBLIC_KEY = b"medisyn"  # for public datasets; a hospital passes a secret of its own


@dataclass(frozen=True)
class Record:
    """One image, its facts and its origin."""

    id: str                              # unique within the collection
    file_name: str                       # path of the image, relative to the collection
    image_type: str                      # a word of the vocabulary: "chest_xray", "dermoscopy", ...
    specialty: str | None = None         # "radiology", ...
    anatomy: str | None = None           # "chest", "knee", "peripheral_blood", ...
    view: str | None = None              # "posteroanterior", "axial", "single_cell", ...
    technique: str | None = None         # sequence or stain: "flair", "haematoxylin_eosin", ...
    laterality: str | None = None        # "left" or "right", the patient's
    findings: dict[str, bool] = field(default_factory=dict)  # True present, False absent, missing unknown
    age_years: float | None = None
    sex: str | None = None               # "female" or "male"
    text: str | None = None              # the prompt it was made from, or a sentence that describes it
    patient: str | None = None           # pseudonym; never crosses a split
    source: str | None = None            # the public dataset, or the name of a local one
    licence: str | None = None           # SPDX identifier where there is one
    split: str = "train"                 # "train", "val" or "test"
    provenance: Provenance | None = None
    reading: str | None = None           # how deep pixels became 8 bits: "window 40/400 from the header"; None: stored as 8 bits

    @property
    def synthetic(self) -> bool:
        return self.provenance is not None


KNOWN = frozenset(one.name for one in fields(Record))


def pseudonym(source: str, patient: str, key: bytes = PUBLIC_KEY) -> str:
    """A patient's name in a collection: HMAC-SHA256 of source and raw key, 16 hex digits."""
    return hmac.new(key, f"{source}/{patient}".encode(), hashlib.sha256).hexdigest()[:16]


def split_of(patient: str, key: bytes = PUBLIC_KEY) -> str:
    """The split of a patient, by keyed hash: adding data never moves anybody."""
    digest = hmac.new(key, b"split/" + patient.encode(), hashlib.sha256).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < SPLIT_SHARES["test"]:
        return "test"
    return "val" if place < SPLIT_SHARES["test"] + SPLIT_SHARES["val"] else "train"


def write(records: Iterable[Record], folder: Path) -> Path:
    """Write `metadata.jsonl`, whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / METADATA
    draft = path.with_suffix(".jsonl.part")
    with draft.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(as_line(record))
    os.replace(draft, path)
    return path


def as_line(record: Record) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def read(folder: Path) -> Iterator[Record]:
    """The records of a collection, packed or not, one at a time; ValueError names the line that is wrong."""
    path = Path(folder) / METADATA
    if not path.is_file():
        from medisyn.data import packed
        if packed.is_packed(folder):
            yield from packed.read(folder)
            return
        raise FileNotFoundError(f"{folder} is not a collection: it should hold metadata.jsonl beside images/; "
                                "make one with `medisyn ingest`")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield from_line(line, f"{path} line {number}")


def from_line(line: str, where: str = "record") -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected one JSON object a line, found {line[:40]!r} ({error.msg})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return from_row(row, where)


def from_row(row: dict, where: str = "record") -> Record:
    """The record of a JSON object; ValueError says what is wrong with it, and `where`."""
    for name in row.keys() - KNOWN:
        near = difflib.get_close_matches(name, KNOWN, 1)
        raise ValueError(f"{where}: unknown field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    missing = [name for name in ("file_name", "id", "image_type") if row.get(name) is None]
    if missing:
        raise ValueError(f"{where}: a record needs id, file_name and image_type; missing {', '.join(missing)}")
    findings = row.get("findings") or {}
    wrong = {name: value for name, value in findings.items() if not isinstance(value, bool)}
    if wrong:
        raise ValueError(f"{where}: findings are true or false, and left out where unknown; found {wrong}")
    if row.get("split", "train") not in SPLITS:
        raise ValueError(f"{where}: split {row['split']!r} should be one of {', '.join(SPLITS)}")
    made = row.get("provenance")
    return Record(**{**row, "findings": findings, "provenance": Provenance.from_dict(made) if made else None})


def counts(records: Iterable[Record]) -> dict[str, dict[str, Counter]]:
    """How many images of each image type lie in each split, and show or lack each finding.

    {image_type: {"split": Counter, "present": Counter, "absent": Counter}}
    """
    table: dict[str, dict[str, Counter]] = {}
    for record in records:
        row = table.setdefault(record.image_type, {"split": Counter(), "present": Counter(), "absent": Counter()})
        row["split"][record.split] += 1
        for finding, present in record.findings.items():
            row["present" if present else "absent"][finding] += 1
    return table


def merge(*folders: Path) -> Iterator[tuple[Path, Record]]:
    """The records of several collections with the folder each lies in; ids must not meet twice."""
    seen: dict[str, Path] = {}
    for folder in folders:
        for record in read(folder):
            if record.id in seen:
                raise ValueError(f"record id {record.id!r} stands in both {seen[record.id]} and {folder}; ids must be unique")
            seen[record.id] = folder
            yield Path(folder), record
