"""Downloads: images as a collection in an archive, and one image as DICOM where that can be written."""

import importlib
import importlib.util
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from medisyn.data import images, records
from medisyn.web import gallery

CHUNK = 1 << 18  # bytes handed out at a time
MEMORY = 1 << 25  # bytes of an archive that are held before it goes to disk


def archive(folder: Path, wanted: Sequence[dict]) -> IO[bytes]:
    """images/ and metadata.jsonl of some images, once each, in a ZIP file opened at its beginning."""
    out = tempfile.SpooledTemporaryFile(MEMORY)
    lines, there = [], set()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:  # a PNG shrinks no further
        for one in wanted:
            path = gallery.file_of(folder, one)
            if path is None or one["record"].id in there:
                continue
            there.add(one["record"].id)
            packed.write(path, one["record"].file_name)
            lines.append(records.as_line(one["record"]))
        packed.writestr(records.METADATA, "".join(lines), zipfile.ZIP_DEFLATED)
    out.seek(0)
    return out


def chunks(out: IO[bytes]) -> Iterator[bytes]:
    """An open file piece by piece; it is closed at its end."""
    with out:
        while piece := out.read(CHUNK):
            yield piece


def writes_dicom() -> bool:
    """Whether this installation writes DICOM."""
    try:
        return importlib.util.find_spec("medisyn.data.dicom_out") is not None and importlib.util.find_spec("pydicom") is not None
    except (ImportError, ValueError):
        return False


def dicom(folder: Path, one: dict) -> bytes | None:
    """An image as a DICOM file; None where its file is gone."""
    path = gallery.file_of(folder, one)
    if path is None:
        return None
    writer = importlib.import_module("medisyn.data.dicom_out")
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / f"{one['record'].id}.dcm"
        writer.write(one["record"], images.read(path), out)
        return out.read_bytes()
