"""Files of a raw dataset, found by stem: a table that names x.png means x.webp too."""

import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
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


def ending(folder: Path, *suffixes: str) -> list[PurePosixPath]:
    """Every file below a folder whose name ends in one of the suffixes, relative to it, in a fixed order."""
    folder = Path(folder)
    found = (PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*")
             if path.name.lower().endswith(suffixes) and path.is_file())
    return sorted(path for path in found if not any(part.startswith((".", "__MACOSX")) for part in path.parts))


def tables(folder: Path, *patterns: str) -> list[Path]:
    """Every file below a folder whose name matches one of the patterns, case ignored, in a fixed order."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file()
                  and any(fnmatch(path.name.lower(), pattern.lower()) for pattern in patterns))


def lines(tables: Iterable[Path], delimiter: str = ",") -> Iterator[dict[str, str]]:
    """The rows of several CSV files, one after the other; those named .gz are decompressed."""
    for path in tables:
        if path.suffix.lower() != ".gz":
            yield from rows(path, delimiter)
            continue
        with gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
            for row in csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True):
                yield {name.strip(): (value or "").strip() for name, value in row.items() if isinstance(name, str)}


def years(value: str) -> float | None:
    """An age as DICOM and people write it: "060Y", "45yrs", "6M", "10D", or a number of years."""
    match = re.fullmatch(r"\s*(\d{1,3})\s*(y|m|w|d)\w*\s*", str(value).lower())
    if not match:
        return age(value)
    found = int(match[1]) / {"y": 1, "m": 12, "w": 52, "d": 365}[match[2]]
    return age(str(round(found, 2)))


def stated(row: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, bool]:
    """Findings by the columns that say 1 or 0; of several columns of one finding, one that says 1 is enough."""
    found: dict[str, bool] = {}
    for column, name in columns.items():
        value = yes_no(row.get(column, ""))
        if value is not None:
            found[name] = found.get(name, False) or value
    return found


def listed(words: Iterable[str], names: Mapping[str, str]) -> dict[str, bool]:
    """Findings by a list that is complete: those listed present, the others that `names` knows absent."""
    present = {names[word] for word in words if word in names}
    return {name: name in present for name in names.values()}


def mentioned(words: Iterable[str], names: Mapping[str, str]) -> dict[str, bool]:
    """Findings by a list that is not complete: those listed present, the others unknown."""
    return {names[word]: True for word in words if word in names}


def header(folder: Path, path: PurePosixPath) -> dict[str, object]:
    """The facts in the header of a DICOM file, for a dataset whose tables leave them out; {} where it cannot be read."""
    from medisyn.data import dicom
    try:
        found = next(iter(dicom.parts(Path(folder) / path)), ("", {}))[1]
    except ValueError:
        return {}  # ingest says why when it opens the file
    return {name: found[name] for name in ("view", "laterality", "age_years", "sex", "patient") if found.get(name)}
