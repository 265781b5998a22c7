"""Anybody's own data: a table of paths, or a folder of images, read by a mapping in TOML.

A mapping says where each fact of a record comes from. A plain value holds for every image; the rest is looked up:

    name = "st_marys_chest"                      # the source's name in the collection
    table = "exports/labels.csv"                 # CSV, TSV or JSONL below the folder (`table` only)
    file = {column = "path"}                     # the image, relative to the folder or to the table
    image_type = "chest_xray"
    view = {column = "ViewPosition", values = {PA = "posteroanterior", AP = "anteroposterior"}}
    patient = {column = "mrn"}                   # becomes a pseudonym
    laterality = {name = "_(L|R)[.]", values = {L = "left", R = "right"}}   # from the path, by regular expression

    [findings]
    pneumonia = {column = "pneumonia"}           # 1/0, true/false, yes/no; empty is unknown
    pleural_effusion = {column = "labels", split = "|", holds = "Effusion"}  # listed or not; empty is unknown
    normal = {folder = 1, values = {healthy = true, ill = false}}  # the folder the image lies in; 2: the one above
"""

import contextlib
import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path, PurePosixPath

from medisyn.data import archives, parts
from medisyn.data.images import RASTERS
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record
from medisyn.data.sources import files
from medisyn.data.sources.source import UNCONFIRMED, Found, Source, Unfit

MAPPING = "medisyn.toml"  # looked for in the folder where no mapping is passed
TABLE = "a table (CSV, TSV or JSONL) that names images, and a mapping in TOML that says what its columns mean"
IMAGEFOLDER = ("images with metadata.jsonl or metadata.csv (file_name, image_type, ...), "
               "or folders of images with a mapping in TOML")
READ_ARCHIVES = ("webdataset",)  # sources that read archives themselves
LOOKED_UP = ("specialty", "anatomy", "view", "technique", "laterality", "age_years", "sex", "text", "patient",
             "licence")
KEYS = ("name", "title", "table", "file", "image_type", "findings", *LOOKED_UP)
RULE_KEYS = ("column", "folder", "name", "values", "split", "holds")
KINDS = {str: "a word", int: "a whole number from 1", dict: "a table {found = meant}"}
Rule = dict | str | float | bool


def read_mapping(path: Path) -> dict:
    """A mapping file, checked; ValueError names the key that is wrong."""
    try:
        mapping = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: expected a mapping in TOML, found no readable file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a mapping in TOML, found something else ({error})") from None
    for name in mapping:
        expect_key(name, KEYS, path)
    rules = {name: mapping[name] for name in ("file", "image_type", *LOOKED_UP) if name in mapping}
    findings = mapping.get("findings", {})
    if not isinstance(findings, dict):
        raise ValueError(f"{path}: findings should be a section [findings] with a rule a finding; found {findings!r}")
    for name, rule in {**rules, **findings}.items():
        if isinstance(rule, dict):
            for word in rule:
                expect_key(word, RULE_KEYS, f"{path}: {name}")
            if len({"column", "folder", "name"} & set(rule)) != 1:
                raise ValueError(f"{path}: {name} should say one of column, folder or name; found {sorted(rule)}")
            expect_kinds(rule, f"{path}: {name}")
        elif name in findings and not isinstance(rule, bool):
            raise ValueError(f"{path}: finding {name} should be true, false, or {{column = ...}}; found {rule!r}")
    return mapping


def expect_key(name: str, allowed: tuple[str, ...], where: object) -> None:
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed, 1)
        raise ValueError(f"{where}: unknown key {name!r}; " + (f"did you mean {near[0]!r}?" if near else
                                                              f"the keys are {', '.join(allowed)}"))


def expect_kinds(rule: dict, where: str) -> None:
    """ValueError where a rule holds a value of another kind than it can use."""
    for name, value in rule.items():
        kind = {"folder": int, "values": dict}.get(name, str)
        if not isinstance(value, kind) or isinstance(value, bool) or (name == "folder" and value < 1):
            raise ValueError(f"{where}: {name} should be {KINDS[kind]}; found {value!r}")
    try:
        re.compile(rule.get("name", ""))
    except re.error as error:
        raise ValueError(f"{where}: name should be a regular expression; found {rule['name']!r} ({error})") from None


def look_up(rule: Rule, row: dict, path: PurePosixPath) -> object:
    """What a rule says of one image: a word, a number, a truth value, or None for unknown."""
    if not isinstance(rule, dict):
        return rule
    if "column" in rule:
        found = row.get(rule["column"])
    elif "folder" in rule:
        above = [path, *path.parents]
        found = above[rule["folder"]].name if rule["folder"] < len(above) else None
    else:
        match = re.search(rule["name"], str(path))
        found = (match[1] if match.re.groups else match[0]) if match else None
    if found is None or found == "":
        return None
    if "holds" in rule:
        return rule["holds"] in [word.strip() for word in str(found).split(rule["split"])] if "split" in rule \
            else rule["holds"] == str(found).strip()
    if "values" in rule:
        return rule["values"].get(str(found).strip())
    return found


def facts(mapping: dict, row: dict, path: PurePosixPath) -> dict:
    """The fields of a record that a mapping gives for one image; unknown ones are left out."""
    found = {name: look_up(mapping[name], row, path) for name in ("image_type", *LOOKED_UP) if name in mapping}
    found = {name: str(value).strip() for name, value in found.items() if value is not None}
    if "age_years" in found:
        found["age_years"] = files.age(found["age_years"])
    if "sex" in found:
        found["sex"] = files.sex(found["sex"])
    truths = {name: look_up(rule, row, path) for name, rule in mapping.get("findings", {}).items()}
    found["findings"] = files.known(**{name: value if isinstance(value, bool) else files.yes_no(value)
                                       for name, value in truths.items()})
    return found


def table_rows(path: Path) -> Iterator[dict]:
    """The rows of a CSV, TSV or JSONL file."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        yield from files.rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path} line {number}: expected one JSON object a line ({error.msg})") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path} line {number}: expected a JSON object, found {type(row).__name__}")
                yield row


def table(folder: Path, mapping: Path | None = None) -> Iterator[Found]:
    """The images that a table names, with the facts that a mapping finds in its columns."""
    folder = Path(folder)
    mapping = mapping_of(folder, mapping) or folder / MAPPING
    rules = read_mapping(mapping)
    for name in ("table", "file", "image_type"):
        if name not in rules:
            raise ValueError(f"{mapping}: a mapping for a table needs table, file and image_type; it lacks {name}")
    path = next((path for home in (folder, top_of(folder)) if (path := home / rules["table"]).is_file()), None)
    if path is None:
        files.expect([], folder, f"the table {rules['table']} that {mapping.name} names")
    seen: set[PurePosixPath] = set()
    for row in table_rows(path):
        said = look_up(rules["file"], row, PurePosixPath())
        if said is None:
            continue
        found = inside(folder, str(said), path.parent)
        if found is None:
            yield Unfit(str(said), f"{rules['table']} names it, but no such image lies in the folder")
        elif found not in seen:
            seen.add(found)
            yield record(found, facts(rules, row, found))
    files.expect(seen, folder, f"images that {rules['table']} names")


def imagefolder(folder: Path, mapping: Path | None = None) -> Iterator[Found]:
    """The images of a folder, with the facts of its metadata file, and those of a mapping over them."""
    folder = Path(folder)
    mapping = mapping_of(folder, mapping)
    rules = read_mapping(mapping) if mapping else {}
    paths = files.rasters(folder)
    home = top_of(folder)
    metadata = next((path for name in ("metadata.jsonl", "metadata.csv") if (path := home / name).is_file()), None)
    files.expect([*paths, metadata] if metadata else paths, folder, IMAGEFOLDER)
    rows: dict[PurePosixPath, dict] = {}
    for row in table_rows(metadata) if metadata else ():
        found = inside(folder, str(row.get("file_name") or ""), home)
        if found is None:
            yield Unfit(str(row.get("file_name")), f"{metadata.name} names it, but no such image lies in the folder")
        else:
            rows.setdefault(found, row)
    if not rows and "image_type" not in rules:
        files.expect([], folder, IMAGEFOLDER)
    known = set(paths)
    for path in [*paths, *(path for path in rows if path not in known)]:
        row = rows.get(path, {})
        said, mapped = stated(row), facts(rules, row, path)
        findings = {**said.pop("findings", {}), **mapped.pop("findings")}
        yield record(path, {**said, **mapped, "findings": findings})


PLAIN = {field.name for field in fields(Record)} - {"id", "file_name", "source", "split", "reading"}


def stated(row: dict) -> dict:
    """The fields of a record that the columns of a row name outright."""
    said = {key: value for key, value in row.items() if key in PLAIN and value not in (None, "")}
    said |= {key: read(said[key]) for key, read in (("age_years", files.age), ("sex", files.sex)) if key in said}
    made, held = (said.pop(name, None) for name in ("provenance", "findings"))
    said["findings"] = json.loads(held) if isinstance(held, str) else held or {}
    return said | ({"provenance": Provenance.from_dict(made)} if made else {})


def record(path: PurePosixPath, said: dict) -> Found:
    """A record of the fields that are said of an image."""
    if not said.get("image_type"):
        return Unfit(str(path), "its image type is unknown; say image_type in the mapping or the table")
    wrong = [key for key, value in said["findings"].items() if not isinstance(value, bool)]
    if wrong:
        raise ValueError(f"findings are true or false, and left out where unknown; found another value for {', '.join(wrong)}")
    return Record(id=str(path), file_name=str(path), **said)


def inside(folder: Path, said: str, beside: Path | None = None) -> PurePosixPath | None:
    """The image that a table means, whatever its suffix, relative to the folder; None where none lies inside it.

    Any address of `parts` will do: "scan.dcm#3", "batch.zip!inner/x.png".
    """
    root = os.path.normpath(folder)
    for base in (folder, beside or folder):
        meant = Path(os.path.normpath(base / said.replace("\\", "/")))  # a link may lead elsewhere, ".." may not
        if not said or not meant.is_relative_to(root):
            continue
        for path in (meant, *(meant.with_name(files.stem(meant.name) + suffix) for suffix in RASTERS)):
            if path.is_file():
                return PurePosixPath(path.relative_to(root).as_posix())
        if "#" in said or "!" in said:
            with contextlib.suppress(ValueError):
                parts.locate(Path(root), meant.relative_to(root).as_posix())
                return PurePosixPath(meant.relative_to(root).as_posix())
    return None


def mapping_of(folder: Path, mapping: Path | None) -> Path | None:
    """The mapping that was passed, or the one that lies in the folder."""
    if mapping is not None:
        return Path(mapping)
    found = top_of(folder) / MAPPING
    return found if found.is_file() else None


def top_of(folder: Path) -> Path:
    """The folder, or the only one in it where nothing lies beside that: so a zip of a folder unpacks."""
    folder = Path(folder)
    inner = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))] if folder.is_dir() else []
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def stated_name(folder: Path, mapping: Path | None) -> str | None:
    """The name that a mapping gives to the data; None where none does."""
    path = mapping_of(folder, mapping)
    return read_mapping(path).get("name") if path else None


def named(source: Source, folder: Path, mapping: Path | None) -> Source:
    """`table` or `imagefolder` under the name of the data it reads: the mapping's, else the folder's."""
    path = mapping_of(folder, mapping)
    rules = read_mapping(path) if path else {}
    name = re.sub(r"[^a-z0-9]+", "_", str(rules.get("name", archives.stem(Path(folder).resolve()))).lower()).strip("_") or "own"
    licence = rules.get("licence")  # for all images, in the user's own words; a column's words are another matter
    return replace(source, name=name, title=rules.get("title", source.title), read=partial(source.read, mapping=path),
                   licence=licence if isinstance(licence, str) else source.licence)


SOURCES = (
    Source("table", "Your own table of images", (), (), None, UNCONFIRMED, "your own data", None,
           "patient, or near_duplicates", TABLE, False, table),
    Source("imagefolder", "Your own folder of images", (), (), None, UNCONFIRMED, "your own data", None,
           "patient, or near_duplicates", IMAGEFOLDER, False, imagefolder),
)
