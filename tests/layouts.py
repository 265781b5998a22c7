"""Public datasets as their downloads lie on disk, each as a few small files.

A layout maps names to what lies there: None a small image (an empty file where it is no picture), a text, an array
(a NIfTI volume), or a dict of arrays (an .npz).
"""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medisyn.data.images import RASTERS
from medisyn.data.records import Record
from medisyn.data.sources import SOURCES, Unfit, files

Layout = dict[str, "str | np.ndarray | dict[str, np.ndarray] | None"]


def lay(folder: Path, files_: Layout) -> Path:
    for name, held in files_.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if held is None and path.suffix.lower() in RASTERS:
            noise = np.random.default_rng(sum(name.encode())).integers(0, 256, (24, 24), np.uint8)
            Image.fromarray(noise).save(path)
        elif isinstance(held, dict):
            np.savez(path, **held)
        elif isinstance(held, np.ndarray):
            nibabel = pytest.importorskip("nibabel")
            nibabel.save(nibabel.Nifti1Image(held, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
        else:
            text = (held or "").encode()
            path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return folder


def found(name: str, folder: Path, layout: Layout) -> dict[str, Record | Unfit]:
    """What a source finds in its layout, by the stem of the file or the whole address of a part."""
    return {one.file_name if "#" in one.file_name else files.stem(one.file_name): one
            for one in SOURCES[name].read(lay(folder / name, layout))}


def present(record: Record) -> set[str]:
    return {name for name, value in record.findings.items() if value}


def absent(record: Record) -> set[str]:
    return {name for name, value in record.findings.items() if not value}
