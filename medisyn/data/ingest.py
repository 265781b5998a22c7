"""Ingest: a raw dataset becomes part of a collection.

Work that is interrupted goes on where it stopped: every finished image stands in a ledger inside
the collection, and images are written whole or not at all. Original file names, which may name
patients, are not kept.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from medisyn.data import duplicates, images, prompts, records, vocabulary
from medisyn.data.records import PUBLIC_KEY, Record
from medisyn.data.sources import Source, Unfit, called

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two ingests of one source apart
    fcntl = None

Progress = Callable[[int, int], None]  # (images done, images in all)
NOTES = ".ingest"                      # ledgers and locks, inside the collection


@dataclass(frozen=True)
class Summary:
    """What an ingest did."""

    source: str
    collection: Path
    written: int                           # records of this source in the collection
    resumed: int                           # of them, finished by an earlier run
    quarantined: int                       # files that stand in quarantine.jsonl instead
    groups: int                            # patients, or near-duplicate groups
    counts: dict[str, dict[str, Counter]]  # `records.counts` of this source


def ingest(source_name: str, folder: Path, out: Path, limit: int | None = None, size: int = 256,
           key: bytes = PUBLIC_KEY, workers: int | None = None, progress: Progress | None = None,
           mapping: Path | None = None) -> Summary:
    """Read a raw dataset into the collection `out`, beside the sources it already holds.

    limit     at most so many images, spread over the whole dataset; None takes all
    size      short side in pixels; smaller images stay as they are
    key       of the pseudonyms; a hospital passes a secret of its own
    workers   processes; None: one a processor
    progress  called with (done, all) as images are finished
    mapping   for the sources `table` and `imagefolder`: a TOML file that says what the columns mean
    """
    folder, out = Path(folder), Path(out)
    if limit is not None and limit < 1:
        raise ValueError(f"limit should be 1 or more, or None for all images; found {limit}")
    if size < 1:
        raise ValueError(f"size, the short side in pixels, should be 1 or more; found {size}")
    source = called(source_name, folder, mapping)
    found = list(source.read(folder))
    unfit = [one for one in found if isinstance(one, Unfit)]
    wanted = {neutral_name(source.name, record.file_name, key): record
              for record in spread([one for one in found if isinstance(one, Record)], limit)}
    expect_words(source, wanted.values())
    (out / "images" / source.name).mkdir(parents=True, exist_ok=True)
    (out / NOTES).mkdir(exist_ok=True)
    with locked(out / NOTES / f"{source.name}.lock", f"{source.name} is being ingested into {out} by another run"):
        done, reasons, resumed = decode_all(source, folder, out, wanted, size, workers, progress)
        kept = {name: record for name, record in wanted.items() if name in done}
        unfit += [Unfit(wanted[name].file_name, reason) for name, reason in reasons.items()]
        finished = finish(source, kept, done, key)
        with locked(out / NOTES / "lock"):
            merge_in(out, source.name, finished, unfit)
    return Summary(source.name, out, len(finished), resumed, len(unfit), len({record.patient for record in finished}),
                   records.counts(finished))


def spread(found: list[Record], limit: int | None) -> list[Record]:
    """At most `limit` records, drawn by a hash of their names: the same each time, and more with a higher limit."""
    if limit is None or limit >= len(found):
        return found
    return sorted(found, key=lambda record: hashlib.sha256(record.id.encode()).digest())[:limit]


def neutral_name(source: str, file_name: str, key: bytes) -> str:
    """The name of an image in a collection: 16 hex digits that do not tell what the file was called."""
    return hmac.new(key, f"file/{source}/{file_name}".encode(), hashlib.sha256).hexdigest()[:16]


def expect_words(source: Source, wanted: Iterable[Record]) -> None:
    """ValueError before the first image is read where a source uses words that the vocabulary lacks."""
    problems = [problem for record in wanted for problem in vocabulary.check(record)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"source {source.name}: {problems[0]}{more}; map it to a word of the vocabulary, "
                         "or leave it out")


# Images: each in a process of its own, noted in the ledger when it is finished.

def decode_all(source: Source, folder: Path, out: Path, wanted: dict[str, Record], size: int, workers: int | None,
               progress: Progress | None) -> tuple[dict[str, dict], dict[str, str], int]:
    """The finished images (ledger lines by name), the unreadable ones (reasons by name), how many were done before."""
    ledger = out / NOTES / f"{source.name}.jsonl"
    done = {name: row for name, row in read_ledger(ledger, out / "images" / source.name, size).items()
            if name in wanted and current(row, folder / wanted[name].file_name)}
    tasks = [(str(folder / record.file_name), str(out / "images" / source.name / f"{name}.png"), name, size)
             for name, record in wanted.items() if name not in done]
    resumed, reasons = len(done), {}
    if progress:
        progress(resumed, len(wanted))
    with ledger.open("a", encoding="utf-8") as note:
        note.write("\n")  # closes a line that a crash cut short
        for count, row in enumerate(run(tasks, workers), 1):
            if "reason" in row:
                reasons[row["name"]] = row["reason"]
            else:
                done[row["name"]] = row
                note.write(json.dumps(row) + "\n")
                note.flush()
            if progress:
                progress(resumed + count, len(wanted))
    return done, reasons, resumed


def decode_one(task: tuple[str, str, str, int]) -> dict:
    """Read one raw file, reduce it, write it as PNG; the ledger's line for it, or {"name", "reason"}."""
    raw, target, name, size = task
    try:
        data, status = Path(raw).read_bytes(), os.stat(raw)
        picture = images.shrink(images.decode(Path(raw)), size)
    except OSError as error:
        return {"name": name, "reason": f"not a readable file ({error.strerror})"}
    except ValueError as error:
        return {"name": name, "reason": str(error)}
    Path(f"{target}.part").write_bytes(images.png_bytes(picture, compress_level=3))
    os.replace(f"{target}.part", target)
    return {"name": name, "size": size, "bytes": status.st_size, "mtime": status.st_mtime_ns,
            "content": duplicates.digest(data), "hashes": [f"{code:016x}" for code in duplicates.hashes_of(picture)],
            "thumbnail": base64.b64encode(duplicates.thumbnail_of(picture).tobytes()).decode()}


def run(tasks: list[tuple[str, str, str, int]], workers: int | None) -> Iterator[dict]:
    workers = min(workers or os.cpu_count() or 1, max(1, len(tasks) // 16))  # a process costs as much as 16 images
    if workers == 1:
        yield from map(decode_one, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(decode_one, tasks, chunksize=8)


def read_ledger(path: Path, pictures: Path, size: int) -> dict[str, dict]:
    """Finished images by name; a line cut short by a crash, another size, or a lost image do not count."""
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            row = json.loads(line)
            if row["size"] == size and row["hashes"] and (pictures / f"{row['name']}.png").is_file():
                done[row["name"]] = row
    return done


def current(row: dict, raw: Path) -> bool:
    """Whether a ledger's line still describes the raw file."""
    try:
        status = raw.stat()
    except OSError:
        return False
    return (row["bytes"], row["mtime"]) == (status.st_size, status.st_mtime_ns)


# Records: what the collection says of the images.

def finish(source: Source, found: dict[str, Record], rows: dict[str, dict], key: bytes) -> list[Record]:
    """Raw records, by neutral name, as a collection keeps them: pseudonyms, splits, text, licence.

    Images without a patient stand in near-duplicate groups instead; patients who share a picture share a split.
    """
    names = sorted(found)
    groups = grouped([name for name in names if found[name].patient is None], rows, duplicates.LIKELY)
    alone = {name: records.pseudonym(source.name, f"near-duplicates/{rows[name]['content']}" if name in groups
                                     else found[name].patient, key) for name in names}
    patients = {name: records.pseudonym(source.name, f"near-duplicates/{groups[name]}", key) if name in groups
                else alone[name] for name in names}
    splits = shared(patients, grouped(names, rows, duplicates.CERTAIN),
                    {name: records.split_of(alone[name], key) for name in names})
    finished = []
    for name in names:
        record = replace(found[name], id=f"{source.name}/{name}", file_name=f"images/{source.name}/{name}.png",
                         patient=patients[name], split=splits[name], source=source.name,
                         licence=found[name].licence or source.licence)
        finished.append(replace(record, text=record.text or prompts.canonical(record)))
    return finished


def grouped(names: list[str], rows: dict[str, dict], limits: duplicates.Limits) -> dict[str, str]:
    """The near-duplicate group of each named image."""
    if not names:
        return {}
    thumbnails = np.stack([np.frombuffer(base64.b64decode(rows[name]["thumbnail"]), np.uint8) for name in names])
    hashes = [tuple(int(code, 16) for code in rows[name]["hashes"]) for name in names]
    contents = [rows[name]["content"] for name in names]
    return dict(zip(names, duplicates.groups(contents, hashes, thumbnails, limits), strict=True))


def shared(patients: dict[str, str], groups: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """The split of each image: one for all who share a patient or a picture, train before val before test.

    own: the split that each image would have by itself. As train comes first, new images and newly found
    copies never move an image that was trained on into a set to test on.
    """
    union = duplicates.Union()
    for name, patient in patients.items():
        union.join(("patient", patient), ("picture", groups[name]))
    together: dict[tuple, set[str]] = {}
    for name, patient in patients.items():
        together.setdefault(union.root(("patient", patient)), set()).add(own[name])
    return {name: next(split for split in ("train", "val", "test") if split in together[union.root(("patient", patient))])
            for name, patient in patients.items()}


def merge_in(out: Path, source: str, finished: list[Record], unfit: list[Unfit]) -> None:
    """Put a source's records in the place of its earlier ones; images that no line names any more are removed."""
    held = records.read(out) if (out / "metadata.jsonl").is_file() else ()
    others = [record for record in held if record.source != source]
    records.write(sorted([*others, *finished], key=lambda record: record.id), out)
    path = out / "quarantine.jsonl"
    kept = [row for row in quarantined(out) if row["source"] != source]
    kept += [{"file": one.file_name, "source": source, "reason": one.reason} for one in unfit]
    draft = path.with_suffix(".jsonl.part")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    os.replace(draft, path)
    named = {Path(record.file_name).name for record in finished}
    for image in (out / "images" / source).iterdir():
        if image.name not in named:
            image.unlink()


def quarantined(collection: Path) -> list[dict[str, str]]:
    """The files that were not taken in: {"file", "source", "reason"} each."""
    path = Path(collection) / "quarantine.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()
    return [json.loads(line) for line in lines if line.strip()]


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock that falls with the process; ValueError with `busy` where another holds it, None waits."""
    with path.open("w") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError:
                raise ValueError(f"{busy}; wait for it, or end it") from None
        yield


def check(collection: Path) -> list[str]:
    """What is wrong with a collection, a sentence a problem; [] where nothing is.

    Missing images, ids that stand twice, words that are not in the vocabulary, patients in two splits, and,
    where ingest left its ledgers, near-identical pictures in two splits.
    """
    collection, problems, seen = Path(collection), [], Counter()
    splits: dict[str, set[str]] = {}
    ledgers: dict[str, dict[str, dict]] = {}
    pictures: dict[str, tuple[dict, str]] = {}
    older = 0
    for record in records.read(collection):
        seen[record.id] += 1
        if not (collection / record.file_name).is_file():
            problems.append(f"{record.id}: {record.file_name} is missing")
        problems += vocabulary.check(record)
        splits.setdefault(record.patient or record.id, set()).add(record.split)
        if record.source and record.source not in ledgers:
            ledgers[record.source] = all_rows(collection / NOTES / f"{record.source}.jsonl")
        row = ledgers.get(record.source or "", {}).get(Path(record.file_name).stem)
        if row and "hashes" in row:
            pictures[record.id] = row, record.split
        elif row:
            older += 1
    problems += [f"{name}: the id stands {n} times" for name, n in seen.items() if n > 1]
    problems += [f"patient {patient}: stands in {' and '.join(sorted(held))}" for patient, held in splits.items()
                 if len(held) > 1]
    if older:
        problems.append(f"{older:,} images were ingested before mirrored copies were looked for; ingest their sources again")
    together: dict[str, list[str]] = {}
    rows = {name: row for name, (row, _) in pictures.items()}
    for name, group in grouped(sorted(pictures), rows, duplicates.CERTAIN).items():
        together.setdefault(group, []).append(name)
    for names in together.values():
        held = sorted({pictures[name][1] for name in names})
        if len(held) > 1:
            problems.append(f"{' and '.join(names[:4])}: nearly the same picture stands in {' and '.join(held)}")
    return problems


def all_rows(path: Path) -> dict[str, dict]:
    """The lines of a ledger by name, the last one of each."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            row = json.loads(line)
            found[row["name"]] = row
    return found
