"""Packed collections: records and image bytes in Parquet shards, as the `datasets` library lays them out.

    DIR/data/train-00000.parquet ...    columns: row, id, file_name, image {"bytes", "path"}, and a record's other fields

`datasets.load_dataset("parquet", data_dir=DIR)` opens it, decodes the images and finds the splits. `findings` and
`provenance` are JSON texts. Rows lie in small groups, so that whoever reads one image or one column reads little else.
A packed collection is read by `records.read` like any other, and unpacks to the files that it was packed from.
"""

import heapq
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from medisyn.data import records
from medisyn.data.records import SPLITS, Record

SHARD_MIB = 256        # of image bytes, at most about so many a file
GROUP_BYTES = 8 << 20  # of image bytes a row group
GROUP_ROWS = 2048
NESTED = ("findings", "provenance")  # kept as JSON texts
BATCH = 1024           # rows read at a time
IMAGE = "image"
Progress = Callable[[int, int], None]


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed collection."""
    return next((Path(folder) / "data").glob("*.parquet"), None) is not None


def pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError("a packed collection needs pyarrow, which is not installed; pip install medisyn[tables]") from None
    return pyarrow


def schema() -> Any:
    """The columns of a shard; `datasets` reads from its notes that one of them holds images."""
    pa = pyarrow()
    kinds = {"age_years": pa.float64()}
    notes = {"float64": "float64", "string": "string"}
    columns = [pa.field("row", pa.int64()), pa.field(IMAGE, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    columns += [pa.field(field.name, kinds.get(field.name, pa.string())) for field in fields(Record)]
    features = {"row": {"dtype": "int64", "_type": "Value"}, IMAGE: {"_type": "Image"}}
    features |= {field.name: {"dtype": notes["float64" if field.name in kinds else "string"], "_type": "Value"}
                 for field in fields(Record)}
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


# Packing

def pack(collection: Path, out: Path, shard_mib: float = SHARD_MIB, progress: Progress | None = None) -> int:
    """Write a collection as Parquet shards into the new folder `out`, whole or not at all; returns how many records.

    shard_mib: image bytes a shard; ValueError where `out` holds something already, or an image is missing.
    """
    collection, out = Path(collection), Path(out)
    if shard_mib <= 0:
        raise ValueError(f"shard_mib, the size of a shard, should be more than 0; found {shard_mib:g}")
    total = sum(1 for _ in records.read(collection)) if progress else 0
    with whole(out) as draft:
        (draft / "data").mkdir()
        shards = {split: Shards(draft / "data", split, shard_mib * 2**20) for split in SPLITS}
        count = 0
        try:
            for count, record in enumerate(records.read(collection), 1):
                shards[record.split].add(count - 1, record, image_bytes(collection, record))
                if progress and (count % 256 == 0 or count == total):
                    progress(count, total)
        finally:
            for one in shards.values():
                one.close()
        if count == 0:
            raise ValueError(f"{collection}: expected records to pack; found none")
    return count


def image_bytes(collection: Path, record: Record) -> bytes:
    try:
        return (collection / record.file_name).read_bytes()
    except OSError as error:
        raise ValueError(f"{collection}: {record.file_name} is not readable ({error.strerror}); "
                         f"`medisyn check {collection}` lists what is missing") from None


class Shards:
    """The shards of one split, written one after the other."""

    def __init__(self, folder: Path, split: str, most: float) -> None:
        self.folder, self.split, self.most = folder, split, most
        self.rows: list[dict] = []
        self.waiting, self.written, self.number = 0, 0, 0
        self.writer: Any = None

    def add(self, row: int, record: Record, data: bytes) -> None:
        said = asdict(record)
        said |= {name: None if said[name] is None else json.dumps(said[name], ensure_ascii=False) for name in NESTED}
        self.rows.append({"row": row, IMAGE: {"bytes": data, "path": PurePosixPath(record.file_name).name}, **said})
        self.waiting += len(data)
        if self.waiting >= min(GROUP_BYTES, self.most) or len(self.rows) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self.rows:
            return
        pa = pyarrow()
        table = pa.Table.from_pylist(self.rows, schema=schema())
        if self.writer is None:
            texts = [name for name in table.column_names if name != IMAGE]
            self.writer = pa.parquet.ParquetWriter(
                self.folder / f"{self.split}-{self.number:05d}.parquet", schema(), use_dictionary=texts, write_statistics=texts,
                compression={**dict.fromkeys(texts, "zstd"), f"{IMAGE}.bytes": "none", f"{IMAGE}.path": "zstd"})
        self.writer.write_table(table)
        self.written, self.waiting, self.rows = self.written + self.waiting, 0, []
        if self.written >= self.most:
            self.close()

    def close(self) -> None:
        self.flush() if self.rows else None
        if self.writer is not None:
            self.writer.close()
            self.writer, self.written, self.number = None, 0, self.number + 1


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when all is written, and is removed where that fails."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: expected a new or empty folder; it holds something already")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        draft.chmod(0o777 & ~umask())
        yield draft
        if out.is_dir():
            out.rmdir()
        os.replace(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def umask() -> int:
    """The process' mask of permissions; reading it is setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# Reading

def read(folder: Path) -> Iterator[Record]:
    """The records of a packed collection in the order they were packed; images stay unread."""
    for row in rows(folder):
        yield record_of(row, folder)


def pictures(folder: Path) -> Iterator[tuple[Record, bytes]]:
    """Each record with the bytes of its image."""
    for row in rows(folder, images=True):
        yield record_of(row, folder), row[IMAGE]["bytes"]


def rows(folder: Path, images: bool = False) -> Iterator[dict]:
    """The rows of all shards, in the order they were packed: each split's are in order, so they are merged."""
    splits: dict[str, list[Path]] = {}
    for path in sorted((Path(folder) / "data").glob("*.parquet")):
        splits.setdefault(path.name.rpartition("-")[0], []).append(path)
    return heapq.merge(*(rows_of(paths, images) for paths in splits.values()), key=itemgetter("row"))


def rows_of(paths: list[Path], images: bool) -> Iterator[dict]:
    """The rows of shards, one after the other."""
    pa = pyarrow()
    known = [name for name in schema().names if images or name != IMAGE]
    for path in paths:
        try:
            with pa.parquet.ParquetFile(path) as file:
                if missing := set(known) - set(file.schema_arrow.names) - {"reading"}:
                    raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
                columns = [name for name in known if name in file.schema_arrow.names]
                for batch in file.iter_batches(64 if images else BATCH, columns=columns, use_threads=False):
                    held = [batch.column(i).to_pylist() for i in range(batch.num_columns)]
                    for values in zip(*held, strict=True):
                        yield dict(zip(columns, values, strict=True))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path}: expected a shard that `medisyn pack` wrote ({error})") from None


def record_of(row: dict, folder: Path) -> Record:
    said = {name: value for name, value in row.items() if name not in ("row", IMAGE)}
    try:
        said |= {name: json.loads(said[name]) if said[name] else None for name in NESTED}
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder} row {row['row']}: findings and provenance should be JSON ({error.msg})") from None
    return records.from_row(said, f"{folder} row {row['row']}")


def unpack(folder: Path, out: Path, progress: Progress | None = None) -> int:
    """Write a packed collection as `metadata.jsonl` beside its images into the new folder `out`; returns how many records."""
    folder, out = Path(folder), Path(out)
    if not is_packed(folder):
        raise ValueError(f"{folder}: expected a packed collection, Parquet shards in data/; found none")
    total = sum(1 for _ in read(folder)) if progress else 0
    count = 0
    with whole(out) as draft:
        def written() -> Iterator[Record]:
            nonlocal count
            for count, (record, data) in enumerate(pictures(folder), 1):  # noqa: B007
                target = draft / record.file_name
                if not Path(os.path.normpath(target)).is_relative_to(draft):
                    raise ValueError(f"{folder}: the image of {record.id} would lie outside the collection")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    file.write(data)
                if progress and (count % 256 == 0 or count == total):
                    progress(count, total)
                yield record
        records.write(written(), draft)
    return count
