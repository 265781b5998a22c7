"""Batches: which images a step trains on, as a function of (seed, step) alone.

Collections are packed once into one memory-mapped array of squares, so that a step needs no
decoding, no workers and no queue; `order` then draws a step's images. Rare image types are drawn
more often than their share and common ones less: p ~ n ** 0.5 over image types, and again over the
classes (what is to be seen) inside each.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from medisyn.data import images, records
from medisyn.data.duplicates import digest
from medisyn.data.records import Record
from medisyn.data.vocabulary import IMAGE_TYPES
from medisyn.training.run import write_json


class Pixels:
    """Squares of one side with their records. `array`: uint8 (N, side, side, 3), on disk."""

    def __init__(self, folder: Path):
        self.array = np.load(Path(folder) / "pixels.npy", mmap_mode="r")
        with (Path(folder) / "records.jsonl").open(encoding="utf-8") as lines:
            self.records = [records.from_line(line) for line in lines]

    def of_split(self, *splits: str) -> np.ndarray:
        """Rows whose record belongs to one of the splits: int64 (n,)."""
        return np.array([i for i, r in enumerate(self.records) if r.split in splits], np.int64)


def pack(collections: Sequence[Path], folder: Path, side: int, splits: Sequence[str] = ("train", "val"),
         progress: Callable[[int, int], None] = lambda done, total: None, keep: bool = False,
         message: Callable[[str], None] = lambda text: None, image_types: Sequence[str] = ()) -> Pixels:
    """Every real image of the collections' splits as a central square of side x side pixels, once.

    image_types: only these; () all of them.

    They are packed again where anything has changed since; with `keep`, not for changed records alone: what was
    computed from these squares counts their rows. `message` is told so.
    """
    folder = Path(folder)
    wanted = {"collections": [str(c) for c in collections], "side": side, "splits": list(splits)}
    if image_types:
        wanted["image_types"] = sorted(image_types)
    tables = [Path(c) / records.METADATA for c in collections]
    now = {"records": [digest(table.read_bytes()) for table in tables if table.is_file()]}
    marker = folder / "done.json"
    held = json.loads(marker.read_text()) if marker.is_file() else {}
    if held == wanted | now:
        return Pixels(folder)
    if keep and {name: held.get(name) for name in {*wanted, "image_types"}} == {"image_types": None} | wanted:
        message(f"{', '.join(map(str, collections))} changed after {folder} was packed; going on with what was packed. "
                "To train on the collection as it is now, start a new run folder")
        return Pixels(folder)
    chosen = [(home, r) for home, r in records.merge(*collections) if r.split in splits]
    for name in image_types:
        if chosen and not any(r.image_type == name for _, r in chosen):
            raise ValueError(f"no image of type {name!r} in {', '.join(map(str, collections))}, which hold "
                             f"{', '.join(sorted({r.image_type for _, r in chosen}))}; change data.image_types")
    chosen = [(home, r) for home, r in chosen if not image_types or r.image_type in image_types]
    if not chosen:
        raise ValueError(f"no image of split {' or '.join(splits)} in {', '.join(map(str, collections))}; "
                         "training needs a collection made by `medisyn ingest`")
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    array = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (len(chosen), side, side, 3))

    def fill(i: int) -> None:
        home, record = chosen[i]
        array[i] = np.asarray(images.square(images.decode(home / record.file_name), side).convert("RGB"))

    with ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(fill, range(len(chosen))), 1):
            if done % 500 == 0 or done == len(chosen):
                progress(done, len(chosen))
    array.flush()
    (folder / "records.jsonl").write_text("".join(records.as_line(r) for _, r in chosen), encoding="utf-8")
    write_json(marker, wanted | now)
    return Pixels(folder)


def known_types(table: dict[str, float]) -> dict[str, float]:
    """The table, every name of which is an image type; else ValueError."""
    for name in table:
        if name not in IMAGE_TYPES:
            raise ValueError(f"expected an image type, one of {', '.join(IMAGE_TYPES)}, found {name!r}")
    return table


def class_of(record: Record) -> tuple:
    """What a record shows, as far as sampling is concerned."""
    present = sorted(name for name, seen in record.findings.items() if seen)
    return record.image_type, record.anatomy, record.view, record.technique, *present


def weights(chosen: Sequence[Record], power: float = 0.5, often: Mapping[str, float] | None = None) -> np.ndarray:
    """The probability of each record: (n,), summing to 1. often: how many times as often as by `power` an image type is drawn."""
    types, classes = Counter(r.image_type for r in chosen), Counter(map(class_of, chosen))
    share_of_type = {t: n**power * (often or {}).get(t, 1.0) for t, n in types.items()}
    total = dict.fromkeys(types, 0.0)
    for c, n in classes.items():
        total[c[0]] += n**power
    p = np.array([share_of_type[r.image_type] * classes[class_of(r)] ** (power - 1) / total[r.image_type] for r in chosen])
    return p / p.sum()


def generator(seed: int, stream: str, step: int) -> np.random.Generator:
    """Random numbers that depend on nothing but their three names."""
    return np.random.default_rng([seed, int.from_bytes(stream.encode(), "big"), step])


def order(p: np.ndarray, batch: int, seed: int, step: int) -> np.ndarray:
    """The rows that step number `step` trains on: int64 (batch,), drawn by p with replacement."""
    return np.searchsorted(np.cumsum(p), generator(seed, "order", step).random(batch) * (1 - 1e-12))
