"""Archives: the files inside a zip or tar, read in place, and refused where an archive sets a trap.

Members are read one at a time, by name, into memory. Those that would lie outside (absolute, ".."), links, devices,
encrypted ones, and those that unpack to far more than they occupy are left alone, each with a reason.
"""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from medisyn.data import handles

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_BYTES = 2 * 2**30      # of one member, unpacked
MOST_RATIO = 200            # unpacked to packed; images stay below 100, a repeated byte reaches 1000 and more
FREE_BYTES = 16 * 2**20     # what may be unpacked at any ratio
MOST_MEMBERS = 5_000_000
TRAPS = {"outside": "its name leads out of the archive", "link": "it is a link", "device": "it is no plain file",
         "locked": "it is encrypted", "large": "it unpacks to more than 2 GiB",
         "bomb": f"it unpacks to more than {MOST_RATIO} times its size"}
BROKEN = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, KeyError, tarfile.TarError,
          zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what the readers raise on a damaged archive


@dataclass(frozen=True)
class Member:
    """One file inside an archive."""

    name: str               # with forward slashes
    size: int               # bytes, unpacked
    trap: str | None        # why it is not read; None: it may be
    place: int = 0          # bytes from the start of the archive


def is_archive(path: Path) -> bool:
    """Whether a file has the name of an archive that can be read in place."""
    return Path(path).name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """The name of an archive without its suffix."""
    name = Path(path).name
    return next((name[:-len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def members(path: Path) -> list[Member]:
    """The files of an archive, in its order, those with a trap too; ValueError where it is damaged or is one itself."""
    return list(opened(path).members.values())


def names(path: Path) -> dict[str, Member]:
    """The same by name; of two that share a name the last counts, as it does when an archive is unpacked."""
    return opened(path).members


def read(path: Path, name: str) -> bytes:
    """The bytes of one member; ValueError where it is missing, damaged, or a trap."""
    held = opened(path)
    if name not in held.members:
        raise ValueError("the archive holds no such file")
    if held.members[name].trap:
        raise ValueError(held.members[name].trap)
    try:
        with held.open(name) as file:
            data = file.read(held.members[name].size + 1)
        if len(data) != held.members[name].size:
            raise EOFError
        return data
    except BROKEN as error:
        raise ValueError(f"the archive is damaged there ({type(error).__name__})") from None


def unpack(path: Path, into: Path, wanted: Callable[[Member], bool]) -> Iterator[Member]:
    """Write an archive's tree below the new folder `into`: files that are wanted whole, the others empty.

    Yields every member, with the trap of those that were not written.
    """
    for member in members(path):
        trap = member.trap
        if trap is None:
            target = into / member.name
            try:
                data = read(path, member.name) if wanted(member) else b""
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:  # never over another file, nor through a link
                    out.write(data)
            except ValueError as error:
                trap = str(error)
            except OSError as error:
                trap = f"it cannot be unpacked ({type(error).__name__})"
        yield replace(member, trap=trap)


# Open archives

class Zip:
    """An open zip."""

    def __init__(self, path: Path) -> None:
        self.file = zipfile.ZipFile(path)
        try:
            infos = self.file.infolist()
            expect_few(len(infos))
            if sum(info.compress_size for info in infos) > path.stat().st_size:
                raise ValueError("its files overlap each other, as those of a bomb do")
        except BaseException:
            self.file.close()
            raise
        self.infos = {info.filename.replace("\\", "/"): info for info in infos if not info.filename.endswith("/")}
        self.members = {name: Member(name, info.file_size, zip_trap(info), info.header_offset)
                        for name, info in self.infos.items()}

    def open(self, name: str) -> BinaryIO:
        return self.file.open(self.infos[name])

    def close(self) -> None:
        self.file.close()


class Tar:
    """An open tar, packed or not."""

    def __init__(self, path: Path) -> None:
        self.stream = unpacked(path)
        try:
            self.file = tarfile.open(fileobj=self.stream, mode="r:", errorlevel=1)
            self.infos = {info.name.removeprefix("./"): info for info in limited(self.file) if not info.isdir()}
        except BaseException:
            self.stream.close()
            raise
        self.members = {name: Member(name, info.size, tar_trap(info), info.offset) for name, info in self.infos.items()}

    def open(self, name: str) -> BinaryIO:
        return self.file.extractfile(self.infos[name])

    def close(self) -> None:
        self.file.close()
        self.stream.close()


def opened(path: Path) -> Zip | Tar:
    """An archive, opened or still open; ValueError where it cannot be read."""
    try:
        return handles.kept(Zip if Path(path).name.lower().endswith(".zip") else Tar, Path(path))
    except BROKEN as error:
        reason = str(error) if type(error) is ValueError else f"it is damaged ({type(error).__name__})"
        raise ValueError(f"the archive cannot be read: {reason}") from None


def expect_few(count: int) -> None:
    if count > MOST_MEMBERS:
        raise ValueError(f"it holds more than {MOST_MEMBERS:,} files")


def limited(held: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, info in enumerate(held):
        expect_few(count)
        yield info


class Metered:
    """An unpacked stream that ends in a ValueError where it grows out of proportion to its file."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self.stream, self.most = stream, most

    def read(self, n: int = -1) -> bytes:
        data = self.stream.read(min(n, self.most + 1) if n >= 0 else self.most + 1)
        self.expect(self.stream.tell())
        return data

    def seek(self, place: int, whence: int = 0) -> int:
        self.expect(place if whence == 0 else 0)
        return self.stream.seek(place, whence)

    def expect(self, place: int) -> None:
        if place > self.most:
            raise ValueError(TRAPS["bomb"])

    def tell(self) -> int:
        return self.stream.tell()

    def close(self) -> None:
        self.stream.close()


def unpacked(path: Path) -> BinaryIO | Metered:
    """The bytes of a tar, whatever it is packed with."""
    most = FREE_BYTES + MOST_RATIO * path.stat().st_size
    packings = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if path.suffix.lower() in packings:
        return Metered(packings[path.suffix.lower()](path, "rb"), most)
    return path.open("rb")


# Traps

def zip_trap(info: zipfile.ZipInfo) -> str | None:
    """Why a member of a zip is not read; None where it may be."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if outside(info.filename):
        return TRAPS["outside"]
    if kind == stat.S_IFLNK:
        return TRAPS["link"]
    if kind not in (0, stat.S_IFREG):
        return TRAPS["device"]
    if info.flag_bits & 1:
        return TRAPS["locked"]
    return grown(info.file_size, info.compress_size)


def tar_trap(info: tarfile.TarInfo) -> str | None:
    """Why a member of a tar is not read; None where it may be."""
    if outside(info.name):
        return TRAPS["outside"]
    if info.issym() or info.islnk():
        return TRAPS["link"]
    if not info.isreg() or info.issparse():
        return TRAPS["device"]
    return grown(info.size, info.size)


def outside(name: str) -> bool:
    """Whether the name of a member leads out of the archive, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not name or "\0" in name or path.is_absolute() or ".." in path.parts or ":" in (path.parts or (":",))[0]


def grown(size: int, packed: int) -> str | None:
    """The trap of a member by its bytes unpacked and packed."""
    if size > MOST_BYTES:
        return TRAPS["large"]
    return TRAPS["bomb"] if size > FREE_BYTES and size > MOST_RATIO * max(packed, 1) else None
