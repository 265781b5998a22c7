"""Tables: images that lie as rows in one file, NumPy's .npz (MedMNIST) and Parquet (the `datasets` convention).

An .npz holds arrays like `train_images` (N, H, W) or (N, H, W, 3) of 8 bits, with `train_labels` (N, 1) or (N, K) beside
them. A Parquet file holds a column of encoded images: {"bytes", "path"}, or plain bytes. Rows are read in order, so a
file is unpacked once, however large it is.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from medisyn.data import handles

MOST_BYTES = 2 * 2**30  # of a row, and of a row group of a Parquet file
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, zlib.error, zipfile.BadZipFile, RuntimeError)


def parts(file: Path | BinaryIO, each: int = 1) -> Iterator[tuple[str, dict]]:
    """Every row's part; rows tell no facts by themselves (`rows` has their columns)."""
    for part, _ in rows(file, each):
        yield part, {}


def rows(file: Path | BinaryIO, each: int = 1) -> Iterator[tuple[str, dict]]:
    """The part of every `each`-th row with its columns: "split" and "label" (or "label_0", ...) of an .npz, all but the
    image of a Parquet file."""
    yield from (npz_rows if is_npz(file) else parquet_rows)(file, each)


def picture(file: Path | BinaryIO, part: str, reading: object = None) -> tuple[Image.Image, str | None]:
    """The image of a row: "train_images:17" of an .npz, "5" of a Parquet file."""
    if is_npz(file):
        return npz_picture(file, part), None
    return parquet_picture(file, part, reading)


def is_npz(file: Path | BinaryIO) -> bool:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(2) == b"PK"
    found = file.read(2) == b"PK"
    file.seek(0)
    return found


# .npz: a zip of arrays, each a header and then its rows

class Array:
    """One array of an .npz, read from front to back."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.stream = archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self.stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = header(self.stream)
        if self.dtype.hasobject or fortran or not self.shape:
            raise Reason(f"{name} should be an array of numbers, a row an image")
        self.start = self.stream.tell()
        self.row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        if self.row_bytes > MOST_BYTES:
            raise Reason(f"a row of {name} holds more than 2 GiB")
        if len(self.shape) > 2 and self.shape[1] * self.shape[2] > Image.MAX_IMAGE_PIXELS:
            raise Reason(f"a row of {name} holds more pixels than can be read")

    def row(self, number: int) -> np.ndarray:
        if not 0 <= number < self.shape[0]:
            raise Reason(f"row {number} was asked for, counted from 0; the array holds {self.shape[0]}")
        self.stream.seek(self.start + number * self.row_bytes)
        data = self.stream.read(self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])


class Npz:
    """An open .npz."""

    def __init__(self, file: Path | BinaryIO) -> None:
        self.archive = zipfile.ZipFile(file)
        self.arrays: dict[str, Array] = {}

    def array(self, name: str) -> Array:
        if name not in self.arrays:
            self.arrays[name] = Array(self.archive, name)
        return self.arrays[name]

    def names(self) -> list[str]:
        return [name.removesuffix(".npy") for name in self.archive.namelist() if name.endswith(".npy")]

    def close(self) -> None:
        self.archive.close()


def npz(file: Path | BinaryIO) -> Npz:
    return handles.kept(Npz, file) if isinstance(file, Path) else Npz(file)


def npz_rows(file: Path | BinaryIO, each: int) -> Iterator[tuple[str, dict]]:
    try:
        held = npz(file)
        names = [name for name in held.names() if name == "images" or name.endswith("_images")]
        if not names:
            raise Reason("an .npz should hold arrays called images, or train_images, val_images and test_images")
        for name in names:
            split = name.removesuffix("images").rstrip("_") or None
            labelled = name.removesuffix("images") + "labels"
            labels = held.array(labelled) if labelled in held.names() else None
            for i in range(0, held.array(name).shape[0], each):
                said = np.atleast_1d(labels.row(i)).ravel().tolist() if labels else []
                columns = {"label": said[0]} if len(said) == 1 else {f"label_{k}": value for k, value in enumerate(said)}
                yield f"{name}:{i}", columns | ({"split": split} if split else {})
    except BROKEN as error:
        raise plain(error, ".npz") from None


def npz_picture(file: Path | BinaryIO, part: str) -> Image.Image:
    name, _, number = part.rpartition(":")
    if not name or not number.isdecimal():
        raise ValueError("the part of an .npz should be an array and a row, as in train_images:17")
    try:
        row = npz(file).array(name).row(int(number))
    except BROKEN as error:
        raise plain(error, ".npz") from None
    if row.dtype != np.uint8 or not (row.ndim == 2 or (row.ndim == 3 and row.shape[-1] in (1, 3))) or not row.size:
        raise ValueError(f"a row should be (H, W) or (H, W, 3) of 8 bits; found {row.shape} of {row.dtype}")
    return Image.fromarray(np.ascontiguousarray(row[..., 0] if row.ndim == 3 and row.shape[-1] == 1 else row))


class Reason(ValueError):
    """A reason of our own; the libraries' messages may quote what a file holds, so they are not repeated."""


def plain(error: Exception, kind: str) -> ValueError:
    return error if isinstance(error, Reason) else ValueError(f"not a readable {kind} ({type(error).__name__})")


# Parquet

class Parquet:
    """An open Parquet file and the row group that was read last."""

    def __init__(self, file: Path | BinaryIO) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise Reason("Parquet needs pyarrow, which is not installed; pip install medisyn[tables]") from None
        self.file = pyarrow.parquet.ParquetFile(file)
        self.column = image_column(self.file.schema_arrow)
        meta = self.file.metadata
        self.starts = np.cumsum([0] + [meta.row_group(i).num_rows for i in range(meta.num_row_groups)])
        self.group, self.images = -1, None

    def image(self, number: int) -> Any:
        """What the image column holds in a row."""
        if not 0 <= number < self.starts[-1]:
            raise Reason(f"row {number} was asked for, counted from 0; the file holds {self.starts[-1]}")
        group = int(np.searchsorted(self.starts, number, "right")) - 1
        if group != self.group:
            if self.file.metadata.row_group(group).total_byte_size > MOST_BYTES:
                raise Reason("a row group holds more than 2 GiB")
            self.images = self.file.read_row_group(group, [self.column]).column(0)
            self.group = group
        return self.images[int(number - self.starts[group])].as_py()

    def close(self) -> None:
        self.file.close()


def image_column(schema: Any) -> str:
    """The first column of {"bytes", "path"}, else the first of plain bytes."""
    import pyarrow.types as kinds
    for field in schema:
        if kinds.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return field.name
    for field in schema:
        if kinds.is_binary(field.type) or kinds.is_large_binary(field.type):
            return field.name
    raise Reason('a Parquet file should have a column of images: {"bytes", "path"}, or bytes')


def parquet(file: Path | BinaryIO) -> Parquet:
    return handles.kept(Parquet, file) if isinstance(file, Path) else Parquet(file)


def parquet_rows(file: Path | BinaryIO, each: int) -> Iterator[tuple[str, dict]]:
    try:
        held = parquet(file)
        others = [name for name in held.file.schema_arrow.names if name != held.column]
        number = 0
        for batch in held.file.iter_batches(1024, columns=others or [held.column]):
            for row in batch.to_pylist() if others else [{}] * batch.num_rows:
                if number % each == 0:
                    yield str(number), row
                number += 1
    except Exception as error:
        raise plain(error, "Parquet file") from None


def parquet_picture(file: Path | BinaryIO, part: str, reading: object) -> tuple[Image.Image, str | None]:
    if not part.isdecimal():
        raise ValueError("the part of a Parquet file should be the number of a row, counted from 0")
    try:
        found = parquet(file).image(int(part))
    except Exception as error:
        raise plain(error, "Parquet file") from None
    found, name = (found.get("bytes"), found.get("path")) if isinstance(found, dict) else (found, None)
    if not isinstance(found, bytes):
        raise ValueError("the row holds no image" + (", only the name of a file" if name else ""))
    from medisyn.data import parts as any_format
    read = any_format.read(any_format.Place(Path(str(name or "image"))), io.BytesIO(found), reading or any_format.Reading())
    return read.picture, read.how
