"""Pictures: those of a collection's records, whether they lie in files or inside shards."""

import io
from collections.abc import Collection, Iterator
from pathlib import Path

from PIL import Image

from medisyn.data import images, packed, records
from medisyn.data.records import Record

File = Path | bytes  # where an image lies, or itself


def files(collection: Path) -> Iterator[tuple[Record, File]]:
    """Each record with its image, which is not opened; ValueError where a record names a file outside the collection."""
    collection = Path(collection)
    if not (collection / records.METADATA).is_file() and packed.is_packed(collection):
        yield from packed.pictures(collection)
        return
    home = collection.resolve()
    for record in records.read(collection):
        path = collection / record.file_name
        if not path.resolve().is_relative_to(home):
            raise ValueError(f"{record.id}: file_name should lie inside the collection; found {record.file_name!r}")
        yield record, path


def opened(file: File) -> Image.Image:
    """An image as an 8-bit "L" or "RGB" picture; ValueError says why it cannot be read."""
    if isinstance(file, Path):
        return images.decode(file)
    try:
        return images.eight_bit(images.upright(io.BytesIO(file)))
    except Exception as error:
        raise ValueError(f"not a readable image ({type(error).__name__})") from None


def chosen(collection: Path, ids: Collection[str]) -> dict[str, Image.Image]:
    """The pictures of some records, by id; those that cannot be read are left out. Of a packed collection all bytes pass by."""
    left, found = set(ids), {}
    for record, file in files(collection) if left else ():
        if record.id in left:
            left.remove(record.id)
            try:
                found[record.id] = opened(file)
            except ValueError:
                continue
        if not left:
            break
    return found
