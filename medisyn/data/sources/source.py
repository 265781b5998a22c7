"""A source: a public dataset as it comes, with its licence and the function that reads it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from medisyn.data import vocabulary
from medisyn.data.records import Record

READ = "read in the provider's files"
STATED = "stated by a third party"
UNCONFIRMED = "to be confirmed at the origin"


@dataclass(frozen=True)
class Unfit:
    """A file that a source holds and that is no image of its type; it goes to the quarantine."""

    file_name: str  # relative to the source's folder
    reason: str
    record: Record | None = None  # what it would be once somebody has looked at it; None: no image of any use


Found = Record | Unfit  # a Record's file_name is relative to the source's folder, its patient the raw key


@dataclass(frozen=True)
class Source:
    """A public dataset: what it holds, who may use it, how it is read."""

    name: str
    title: str
    image_types: tuple[str, ...]
    specialties: tuple[str, ...]
    licence: str | None      # SPDX identifier where there is one; None: none is stated
    licence_evidence: str    # one of READ, STATED, UNCONFIRMED
    citation: str
    address: str | None      # the public page of the dataset; None: not known
    group: str               # what never crosses a split: "patient", "near_duplicates", or what the key is
    layout: str              # one sentence: what the folder should look like
    open: bool               # True: may train a model that is given away
    read: Callable[..., Iterator[Found]]  # (folder) -> what it holds, in a fixed order
    size: str | None = None      # images and gigabytes as published; None: not stated
    download: str | None = None  # one sentence: what to download, and whether one must register; None: your own data


def shown(source: str, path: PurePosixPath, image_type: str, **facts) -> Record:
    """The record of one raw file, `path` relative to its source's folder; the image type tells the specialty."""
    return Record(id=f"{source}/{path.with_suffix('')}", file_name=str(path), image_type=image_type,
                  specialty=vocabulary.IMAGE_TYPES[image_type].specialty, **facts)


def part(source: str, path: PurePosixPath, address: str, image_type: str, **facts) -> Record:
    """The record of one image inside a raw file: a slice, a frame, a row of an array; "" is the file's only image."""
    name = f"{path}#{address}" if address else str(path)
    return Record(id=f"{source}/{name}", file_name=name, image_type=image_type,
                  specialty=vocabulary.IMAGE_TYPES[image_type].specialty, **facts)
