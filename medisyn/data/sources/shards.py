"""Shards: one's own data where many images lie in one file, read by the same mapping as a table.

    npz          train_images, val_images, test_images with ..._labels beside them (MedMNIST); columns: label, or label_0, ...
    parquet      a column of images, {"bytes", "path"} as `datasets` writes it; columns: all the others
    webdataset   tars in which files that share a name up to the first dot are one sample; columns: the fields of its .json, and
                 .cls, .txt and every other small text by its suffix
    slides       whole slides, as tiles of tissue; a tile's patient is its slide unless the mapping says another

A split that an .npz names is kept: its authors kept patients apart, and the file does not say who they are.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from medisyn.data import archives, dicom_slides, parts, slides, tables
from medisyn.data.images import RASTERS
from medisyn.data.records import SPLITS
from medisyn.data.sources import files, own
from medisyn.data.sources.source import UNCONFIRMED, Found, Source, Unfit

NPZ = "an .npz with arrays train_images, ..., and a mapping in TOML that says image_type and what label means"
PARQUET = "Parquet files with a column of images, and a mapping in TOML that says image_type and what the other columns mean"
WEBDATASET = "tars of samples (0001.jpg, 0001.json, ...), and a mapping in TOML that says image_type and what the fields mean"
SLIDES = "whole slides (.svs, .ndpi, .tif, DICOM, ...); a mapping in TOML may say what they show"
SIDECAR = 2**20  # bytes; a larger file of a sample is no fact
Rows = Iterable[tuple[str, dict, dict]]  # the part's address behind the file, its columns, its facts


def samples(path: Path) -> Iterator[tuple[str, dict, dict]]:
    """The images of a WebDataset tar with the texts that share their name."""
    held: dict[str, dict[str, archives.Member]] = {}
    for member in archives.members(path):
        inner = PurePosixPath(member.name)
        stem, _, suffix = inner.name.partition(".")
        held.setdefault(str(inner.with_name(stem or inner.name)), {})[suffix.lower()] = member
    for name, found in held.items():
        columns: dict = {"key": name}
        images = {}
        for suffix, member in found.items():
            if f".{suffix.rpartition('.')[2]}" in RASTERS or f".{suffix}" in parts.FORMATS:
                images[suffix] = member
            elif member.size <= SIDECAR and member.trap is None:
                columns |= said_by(suffix, archives.read(path, member.name))
        for suffix, member in images.items():
            yield f"!{member.name}", {**columns, "image": suffix}, {"trap": member.trap} if member.trap else {}


def said_by(suffix: str, data: bytes) -> dict:
    """The columns in a small file of a sample."""
    try:
        text = data.decode("utf-8").strip()
        said = json.loads(text) if suffix == "json" else text
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {suffix: said}


def rows(path: Path) -> Rows:
    for part, columns in tables.rows(path):
        yield f"#{part}", columns, {"split": columns["split"]} if tables.is_npz(path) and columns.get("split") in SPLITS else {}


def tiles(path: Path) -> Rows:
    if not path.stat().st_size:
        raise ValueError("it is empty, or lies in an archive, where whole slides cannot be read in place: unpack it")
    said: dict = {}
    if dicom_slides.is_dicom(path):
        if path not in dicom_slides.floors(path)[:1]:  # a label, or a floor of a slide that is read by its finest
            return
        said = dicom_slides.facts(path)
    for part, facts in slides.parts(path):
        yield f"#{part}", {}, {**facts, **said}


def is_slide(path: Path) -> bool:
    """Whether a file may be a slide: by its suffix, or as DICOM, whose names seldom have one."""
    name = path.name.lower()
    return name.endswith((*parts.SLIDES, ".tif", ".tiff")) or not name.endswith(own.MAPPING) and dicom_slides.is_dicom(path)


def read(fits: Callable[[Path], bool], layout: str, held: Callable[[Path], Rows], folder: Path,
         mapping: Path | None = None) -> Iterator[Found]:
    """The images in the files of a folder, or of one file, with what a mapping finds in their columns."""
    folder = Path(folder)
    root = folder.parent if folder.is_file() else folder
    mapping = own.mapping_of(root, mapping)
    rules = own.read_mapping(mapping) if mapping else {}
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file() and fits(path))
    files.expect(paths, folder, layout)
    for path in paths:
        inner = PurePosixPath(path.relative_to(root).as_posix())
        for part, columns, facts in readable(held(path)):
            address = PurePosixPath(f"{inner}{part or ''}")
            if "trap" in facts:
                yield Unfit(str(address), facts["trap"])
                continue
            said = {"patient": f"slide/{inner}"} if held is tiles else {}
            stated, mapped = own.stated(columns), own.facts(rules, columns, inner)
            doubt = facts.pop("doubt", None)
            said |= {**facts, **stated, **mapped, "findings": {**stated["findings"], **mapped["findings"]}}
            if not said.get("image_type"):
                raise ValueError(f"{folder}: expected {layout}; nothing says the image type")
            found = own.record(address, said)
            yield Unfit(str(address), doubt, found) if doubt else found


def ends(suffixes: tuple[str, ...], path: Path) -> bool:
    return path.name.lower().endswith(suffixes)


def readable(held: Rows) -> Iterator[tuple[str | None, dict, dict]]:
    """What a reader yields; where it fails, that as a trap of the whole file."""
    try:
        yield from held
    except ValueError as error:
        yield None, {}, {"trap": str(error)}


SOURCES = tuple(
    Source(name, title, (), (), None, UNCONFIRMED, "your own data", None, group, layout, False,
           partial(read, fits, layout, held))
    for name, title, group, layout, fits, held in (
        ("npz", "Your own arrays, as MedMNIST packs them", "official split", NPZ, partial(ends, (".npz",)), rows),
        ("parquet", "Your own Parquet files of images", "patient, or near_duplicates", PARQUET, partial(ends, (".parquet",)), rows),
        ("webdataset", "Your own WebDataset tars", "patient, or near_duplicates", WEBDATASET, partial(ends, archives.SUFFIXES[1:]),
         samples),
        ("slides", "Your own whole slides", "patient, or the slide", SLIDES, is_slide, tiles)))
