"""The census of a collection: how many images of what, of whom, from where, and a seeded sample to look at.

One pass over the records, which need not fit into memory: 8 bytes a record are kept to count the people.
"""

import json
import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medisyn.data import check, ledger, prompts, records, vocabulary
from medisyn.data.records import Record

LOOKED_AT = 24     # images of each type
SAID = 12          # records whose prompts are sampled
AGES = tuple(f"{low} to {low + 9}" for low in range(0, 90, 10)) + ("90 and over",)


@dataclass
class Kind:
    """What is known of the images of one type."""

    n: int = 0
    synthetic: int = 0
    split: Counter = field(default_factory=Counter)
    present: Counter = field(default_factory=Counter)  # by finding
    absent: Counter = field(default_factory=Counter)
    sex: Counter = field(default_factory=Counter)      # None: unknown
    age: Counter = field(default_factory=Counter)      # by a word of AGES; None: unknown
    sample: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Census:
    """What a collection holds."""

    n: int
    synthetic: int
    people: int                                # patients, or groups that stand for one; images where neither is known
    kinds: dict[str, Kind]                     # by image type
    origins: dict[tuple[str, str], int]        # images by (source, licence); "" where unknown
    readings: dict[str, int]                   # images by how deep pixels became 8 bits
    quarantine: dict[tuple[str, str], int]     # files by (source, reason)
    said: list[tuple[Record, str]]             # records with a prompt sampled for each
    copies: list[list[str]]                    # near-identical pictures, as "source/name", most first
    compared: int                              # images that the ledgers let be compared


def census(collection: Path, seed: int = 0) -> Census:
    """Count a collection and draw samples from it; the same seed draws the same."""
    collection, rng = Path(collection), random.Random(seed)
    kinds: dict[str, Kind] = {}
    origins, readings, people = Counter(), Counter(), array("Q")
    said: list[Record] = []
    named: dict[str, dict[str, str]] = {}
    ledgers: dict[str, bool] = {}
    fit = 0
    for record in records.read(collection):
        kind = kinds.setdefault(record.image_type, Kind())
        add(kind, record)
        keep(kind.sample, record, LOOKED_AT, kind.n, rng)
        origins[record.source or "", record.licence or ""] += 1
        if record.reading:
            readings[record.reading] += 1
        people.append(check.code(check.person(record)))
        if not vocabulary.check(record):
            fit += 1
            keep(said, record, SAID, fit, rng)
        if record.source:
            if record.source not in ledgers:
                ledgers[record.source] = ledger.path_of(collection, record.source).is_file()
            if ledgers[record.source]:
                named.setdefault(record.source, {})[Path(record.file_name).stem] = record.split
    copies, compared = copied(collection, named)
    words = np.random.default_rng(seed)
    return Census(len(people), sum(kind.synthetic for kind in kinds.values()), len(np.unique(np.frombuffer(people, np.uint64))),
                  dict(sorted(kinds.items(), key=lambda pair: -pair[1].n)), dict(origins.most_common()),
                  dict(readings.most_common()), quarantined(collection),
                  [(record, prompts.describe(record, words)) for record in said], copies, compared)


def add(kind: Kind, record: Record) -> None:
    kind.n += 1
    kind.synthetic += record.synthetic
    kind.split[record.split] += 1
    for finding, there in record.findings.items():
        (kind.present if there else kind.absent)[finding] += 1
    kind.sex[record.sex] += 1
    kind.age[None if record.age_years is None else AGES[min(max(int(record.age_years), 0) // 10, len(AGES) - 1)]] += 1


def keep(sample: list[Record], record: Record, most: int, seen: int, rng: random.Random) -> None:
    """Keep a record in a sample of at most `most`, so that each of those `seen`, this one included, is as likely to be in it."""
    if len(sample) < most:
        sample.append(record)
    elif (at := rng.randrange(seen)) < most:
        sample[at] = record


def quarantined(collection: Path) -> dict[tuple[str, str], int]:
    """How many files of each source were kept out, by reason, most first."""
    path, counted = Path(collection) / "quarantine.jsonl", Counter()
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in filter(str.strip, lines):
                try:
                    row = json.loads(line)
                    counted[str(row.get("source") or ""), str(row.get("reason") or "")] += 1
                except (json.JSONDecodeError, AttributeError):
                    counted["", "a line of quarantine.jsonl that is no JSON object"] += 1
    return dict(counted.most_common())


def copied(collection: Path, named: dict[str, dict[str, str]]) -> tuple[list[list[str]], int]:
    """(groups of near-identical pictures, images compared), by the ledgers. named: as of `check.leaks`."""
    looks = check.looks_of(collection, named)
    return sorted(map(sorted, check.alike(looks)), key=lambda names: (-len(names), names)), len(looks.names)
