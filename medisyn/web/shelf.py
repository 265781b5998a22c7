"""The shelf: the collections and reports that a server shows; each was named when it started, none by a request."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from medisyn.data import images, records, sheets
from medisyn.data.vocabulary import label

EACH = 8      # images of a type on a contact sheet
TILE = 112    # pixels a side of one


@dataclass(frozen=True)
class Shown:
    """A collection or a report, under an id from which no path follows."""

    id: str
    title: str
    folder: Path


def opaque(folder: Path, secret: bytes) -> str:
    return hashlib.sha256(secret + str(folder.resolve()).encode()).hexdigest()[:16]


def collections(own: Path, named: tuple[Path, ...], secret: bytes) -> list[Shown]:
    """The studio's own collection first, then those that were named."""
    found = [Shown(opaque(own, secret), "Made in this studio", own)]
    found += [Shown(opaque(folder, secret), folder.resolve().name, folder) for folder in named if folder.resolve() != own.resolve()]
    return [one for one in found if (one.folder / records.METADATA).is_file()]


def reports(own: Path, named: tuple[Path, ...], secret: bytes) -> list[Shown]:
    """The reports that were named, and those in `reports/` of the studio's folder."""
    folders = [*named, *sorted((own / "reports").glob("*"))]
    return [Shown(opaque(folder, secret), folder.resolve().name, folder) for folder in folders
            if (folder / "report.html").is_file()]


def stamp(folder: Path) -> int:
    """Changes when a collection does."""
    return (folder / records.METADATA).stat().st_mtime_ns


@lru_cache(16)
def counted(folder: Path, stamp: int) -> dict:
    """Counts of a collection: by image type, split, finding, sex, origin; unknown is a row of its own."""
    all_records = list(records.read(folder))
    table = records.counts(all_records)
    kinds = [{"name": name, "label": label(name), "n": sum(part["split"].values()), "splits": dict(part["split"]),
              "findings": sorted(({"name": f, "label": label(f), "present": part["present"][f], "absent": part["absent"][f]}
                                  for f in {*part["present"], *part["absent"]}), key=lambda f: (-f["present"], f["label"]))}
             for name, part in table.items()]
    ages = Counter("unknown" if r.age_years is None else "under 18" if r.age_years < 18 else
                   "18 to 64" if r.age_years < 65 else "65 and over" for r in all_records)
    return {"n": len(all_records), "synthetic": sum(r.synthetic for r in all_records),
            "patients": len({(r.source, r.patient) for r in all_records if r.patient}),
            "image_types": sorted(kinds, key=lambda kind: -kind["n"]),
            "sexes": dict(Counter(r.sex or "unknown" for r in all_records).most_common()),
            "ages": {name: ages[name] for name in ("under 18", "18 to 64", "65 and over", "unknown") if ages[name]},
            "sources": dict(Counter(r.source or "unknown" for r in all_records).most_common(20))}


@lru_cache(16)
def contact_sheet(folder: Path, stamp: int) -> bytes:
    """A PNG with a row of images of each type, spread over the collection."""
    by_type: dict[str, list[records.Record]] = {}
    for record in records.read(folder):
        by_type.setdefault(record.image_type, []).append(record)
    rows = []
    for name, mine in sorted(by_type.items()):
        spread = mine[::max(1, len(mine) // EACH)][:EACH]
        there = [folder / one.file_name for one in spread if inside(folder, one.file_name)]
        rows.append((f"{label(name)} ({len(mine):,})", [images.decode(path) for path in there if path.is_file()]))
    out = BytesIO()
    sheets.sheet(rows, tile=TILE).save(out, "PNG")
    return out.getvalue()


def inside(folder: Path, file_name: str) -> bool:
    """Whether a record's file lies in its collection: metadata may come from anybody."""
    return (folder / file_name).resolve().is_relative_to(folder.resolve())
