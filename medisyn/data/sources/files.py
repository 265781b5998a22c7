"""Files of a raw dataset, found by stem: a table that names x.png means x.webp too."""

import csv
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from medisyn.data.images import RASTERS


def rasters(folder: Path) -> list[PurePosixPath]:
    """Every image below a folder, relative to it, in a fixed order; hidden files are left out."""
    folder = Path(folder)
    found = (PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*")
             if path.suffix.lower() in RASTERS and path.is_file())
    return sorted(path for path in found if not any(part.startswith((".", "__MACOSX")) for part in path.parts))


def stem(name: str | PurePosixPath) -> str:
    """The name of an image file without its suffix; a name without a raster suffix stays whole."""
    name = PurePosixPath(str(name).replace("\\", "/").strip()).name
    head, dot, tail = name.rpartition(".")
    return head if dot and f".{tail.lower()}" in RASTERS else name


def key(path: str | PurePosixPath, depth: int = 1) -> str:
    """The last `depth` parts of a path without the suffix: "img/patient1/seq4/1.png" -> "seq4/1" for 2."""
    path = PurePosixPath(str(path).replace("\\", "/").strip())
    return "/".join([*path.parts[max(0, len(path.parts) - depth):-1], stem(path)])


def rows(path: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """The rows of a CSV file with trimmed names and values; a missing value is ""."""
    with Path(path).open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        for row in csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True):
            yield {name.strip(): (value or "").strip() for name, value in row.items() if isinstance(name, str)}


def table(folder: Path, pattern: str) -> Path | None:
    """The first file below a folder whose name matches a pattern, case ignored; None where there is none."""
    folder = Path(folder)
    found = [path for path in folder.rglob("*") if fnmatch(path.name.lower(), pattern.lower()) and path.is_file()]
    return min(found, key=lambda path: (len(path.parts), path.as_posix()), default=None)


def expect(found: Iterable, folder: Path, layout: str) -> None:
    """ValueError that says what the folder should look like and what was found, where nothing fits."""
    if any(True for _ in found):
        return
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with {layout}; found no folder there")
    names = sorted(path.name for path in folder.iterdir())
    held = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
    raise ValueError(f"{folder}: expected {layout}; found {held}")


def number(value: str) -> float | None:
    """A number in a table; None where it is missing, "unknown", or no number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 <= found < float("inf") else None


def age(value: str) -> float | None:
    """An age in years; None where it is missing, or no age: tables write 999 for unknown."""
    found = number(value)
    return found if found is not None and found <= 120 else None


def sex(value: str) -> str | None:
    return {"f": "female", "female": "female", "m": "male", "male": "male"}.get(str(value).strip().lower())


def yes_no(value: str) -> bool | None:
    """True, False, or None for "UNK", "" and everything else."""
    return {"true": True, "y": True, "yes": True, "1": True, "1.0": True,
            "false": False, "n": False, "no": False, "0": False, "0.0": False}.get(str(value).strip().lower())


def known(**findings: bool | None) -> dict[str, bool]:
    """Findings without the unknown ones."""
    return {name: value for name, value in findings.items() if value is not None}


def one_of(present: str | None, names: Iterable[str]) -> dict[str, bool]:
    """Findings that exclude each other: the present one True, the others False; none where it is unknown."""
    names = tuple(names)
    return {name: name == present for name in names} if present in names else {}
