"""Trees: what a source is shown of its dataset, which may lie in archives.

A source reads names and tables in a folder. Where the dataset is a zip or tar, or a folder that holds some, it is shown
a private temporary folder with the archives' trees in it: tables and headers whole; pictures, slides and videos as empty
files by their names; loose files as links. So sources know nothing of archives, an archive gives the same names (and
splits) as the folder that it unpacks to, and the pixels, nearly all of the bytes, are read in place. The temporary folder
is its owner's alone and lies outside the collection, because names may name patients.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medisyn.data import archives, parts
from medisyn.data.images import RASTERS
from medisyn.data.sources import Found, Source, Unfit, called, own

PICTURES = {*RASTERS, *parts.VIDEOS, *parts.SLIDES}  # read by their addresses alone
LOOKED_INTO = {"video": parts.VIDEOS}  # except by these sources, which search them
READ_BY_SOURCES = re.compile(r"mask|segment|seg\b|label|annot|ground.?truth|_gt\b", re.IGNORECASE)  # except such pictures


Whole = Callable[[str], bool]  # whether a member is laid out whole, by its name


@dataclass(frozen=True)
class Tree:
    """A dataset as its source sees it, and where what it sees really lies."""

    folder: Path                # that the source reads
    root: Path                  # that addresses start from
    mounts: dict[str, str]      # a folder of the tree: the archive that it stands for, both relative
    unfit: tuple[Unfit, ...] = ()  # what the archives hold and cannot be read

    def address(self, file_name: str) -> str:
        """The address of what a source calls `file_name`."""
        path = PurePosixPath(file_name)
        for above in path.parents if self.mounts else ():
            held = self.mounts.get(str(above))
            if held is not None:
                return f"{held}!{file_name if str(above) == '.' else file_name[len(str(above)) + 1:]}"
        return file_name


@contextmanager
def tree(source_name: str, folder: Path, mapping: Path | None = None) -> Iterator[tuple[Source, Tree]]:
    """A source and the tree that it reads; what was made for it is gone afterwards."""
    folder = Path(folder)
    held = [] if source_name in own.READ_ARCHIVES else [folder] if folder.is_file() and archives.is_archive(folder) \
        else sorted(path for path in folder.rglob("*") if archives.is_archive(path) and path.is_file())
    if not held:
        root = folder.parent if folder.is_file() else folder
        yield called(source_name, folder, mapping), Tree(folder, root, {})
        return
    with tempfile.TemporaryDirectory(prefix="medisyn-") as home:
        made = Path(home) / archives.stem(folder.resolve())
        made.mkdir()
        whole = read_by(source_name)
        seen = opened(held[0], made, whole) if folder.is_file() else linked(folder, held, made, whole)
        yield called(source_name, made, mapping), seen


def opened(archive: Path, into: Path, whole: Whole) -> Tree:
    """The tree of a dataset that is one archive."""
    return Tree(into, archive.parent, {".": archive.name}, tuple(trapped(archive, into, "", whole)))


def linked(folder: Path, held: list[Path], into: Path, whole: Whole) -> Tree:
    """The tree of a folder with archives in it, each beside the loose files as a folder of its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            link = into / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    mounts, unfit = {}, []
    for archive in held:
        inner = PurePosixPath(archive.relative_to(folder).as_posix())
        mount = inner.with_name(archives.stem(archive))
        if not (into / mount).exists():  # else it lies there unpacked, too
            mounts[str(mount)] = str(inner)
            unfit += trapped(archive, into / mount, f"{mount}/", whole)
    return Tree(into, folder, mounts, tuple(unfit))


def trapped(archive: Path, into: Path, prefix: str, whole: Whole) -> Iterator[Unfit]:
    """Lay out the tree of an archive; yields what it holds and cannot be read, or the archive itself."""
    into.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(into).free
    try:
        for member in archives.unpack(archive, into, lambda member: whole(member.name)):
            free -= member.size if whole(member.name) else 0
            if free < 2**28:
                raise OSError(f"{archive.name}: its tables need more room than there is in {tempfile.gettempdir()}; "
                              "set TMPDIR to a larger disk")
            if member.trap:
                yield Unfit(f"{prefix}{member.name}", member.trap)
    except ValueError as error:
        yield Unfit(prefix.rstrip("/") or archive.name, str(error))


def read_by(source_name: str) -> Whole:
    """A function of a member's name: whether a source may want to read it itself, not by its address."""
    by_address = PICTURES.difference(LOOKED_INTO.get(source_name, ()))
    return lambda name: parts.suffix(name) not in by_address or bool(READ_BY_SOURCES.search(name))


def found(source: Source, seen: Tree) -> Iterator[Found]:
    """What a source finds in its tree; an error names the dataset, not the temporary folder."""
    try:
        yield from source.read(seen.folder)
    except ValueError as error:
        if not seen.mounts:
            raise
        whole = seen.root / seen.mounts["."] if "." in seen.mounts else seen.root
        raise ValueError(str(error).replace(str(seen.folder), os.fspath(whole))) from None
