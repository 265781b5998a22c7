"""Ingest: a raw dataset becomes part of a collection.

Work that is interrupted goes on where it stopped: every finished image stands in a ledger inside
the collection, and images are written whole or not at all. Original file names, which may name
patients, are not kept.
"""

import contextlib
import hashlib
import heapq
import hmac
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from medisyn.data import (
    archives,
    deidentify,
    duplicates,
    engine,
    images,
    ledger,
    parts,
    prompts,
    records,
    sources,
    trees,
    vocabulary,
)
from medisyn.data.deidentify import Policy
from medisyn.data.ledger import FOLDER as NOTES
from medisyn.data.ledger import Looks, locked
from medisyn.data.parts import Reading
from medisyn.data.records import PUBLIC_KEY, Record
from medisyn.data.sources import Found, Source, Unfit, own
from medisyn.data.trees import Tree

FACTS = ("image_type", "specialty", "anatomy", "view", "technique", "laterality", "age_years", "sex")  # beside findings
OWN = {source.name for source in sources.OWN}
Progress = Callable[[int, int], None]  # (images done, images in all)
OFFICIAL_SPLIT = "official split"      # the `group` of a source whose own splits keep patients apart


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


@dataclass(frozen=True, slots=True)
class Task:
    """One image to be read, reduced and written."""

    folder: str        # that the address starts from
    address: str       # of the part (see `parts`)
    target: str        # the PNG to be written
    name: str          # of the image in the collection
    stamp: str         # of the ledger
    reading: Reading   # with the short side in pixels
    key: bytes
    text_boxes: bool   # whether text in the pixels keeps it out


def ingest(source_name: str, folder: Path, out: Path, limit: int | None = None, size: int = 256,
           key: bytes = PUBLIC_KEY, workers: int | None = None, progress: Progress | None = None,
           mapping: Path | None = None, window: str = "auto", run_on: str = "processes", address: str | None = None,
           policy: Policy | None = None, home: Path | None = None) -> Summary:
    """Read a raw dataset into the collection `out`, beside the sources it already holds.

    folder    the dataset as it comes: a folder, or the zip or tar it was published as
    limit     at most so many images, spread over the whole dataset; None takes all
    size      short side in pixels; smaller images stay as they are
    key       of the pseudonyms; a hospital passes a secret of its own
    workers   processes; None: one a processor
    progress  called with (done, all) as images are finished
    mapping   for one's own data: a TOML file that says what columns, folders and names mean
    window    of deep pixels: "auto", "percentile" or "CENTRE/WIDTH" (see `parts.Reading`)
    run_on    an engine of `engine.ENGINES`; address: of an existing Ray cluster
    policy    what is kept of the facts, and what waits for review; None: the one that goes with the key
    home      private folder for the names of quarantined files; None: quarantine.jsonl names them itself
    """
    folder, out = Path(folder), Path(out)
    if limit is not None and limit < 1:
        raise ValueError(f"limit should be 1 or more, or None for all images; found {limit}")
    if size < 1:
        raise ValueError(f"size, the short side in pixels, should be 1 or more; found {size}")
    parts.expect_window(window)
    reading, policy = Reading(window, size), policy or deidentify.policy_of(key)
    with trees.tree(source_name, folder, mapping) as (source, tree):
        if home is not None and source_name in OWN and not own.stated_name(tree.folder, mapping):
            source = replace(source, name=f"own_{neutral_name('own', str(folder.resolve()), key)[:6]}")
        found = [*trees.found(source, tree), *tree.unfit]
        wanted, unfit = sift(source.name, found, policy, released(home, out), key, headers_speak=source_name == "dicom")
        kept = {neutral_name(source.name, record.file_name, key): record for record in spread(wanted, limit)}
        expect_words(source, kept.values())
        (out / "images" / source.name).mkdir(parents=True, exist_ok=True)
        (out / NOTES).mkdir(exist_ok=True)
        with locked(out / NOTES / f"{source.name}.lock", f"{source.name} is being ingested into {out} by another run"):
            tasks = tasks_of(source.name, tree, out, kept, reading, key, policy, released(home, out))
            del found, wanted  # memory for a million images
            done, reasons, resumed = decode_all(source.name, out, tasks, workers, progress, run_on, address)
            del tasks
            unfit += [Unfit(kept[name].file_name, reason) for name, reason in reasons.items()]
            looks = ledger.looks(ledger.path_of(out, source.name), done)
            finished = finish(source, {name: kept[name] for name in looks.names}, looks, key, policy)
            with locked(out / NOTES / "lock"):
                merge_in(out, source.name, finished, held_back(source.name, unfit, tree, out, key, home))
    return Summary(source.name, out, len(finished), resumed, len(unfit), len({record.patient for record in finished}),
                   records.counts(finished))


def sift(source: str, found: Iterable[Found], policy: Policy, let_pass: frozenset[str],
         key: bytes, headers_speak: bool = False) -> tuple[list[Record], list[Unfit]]:
    """What a source holds, as records to be taken in and files that go to the quarantine.

    An image that only somebody's look is missing for is taken in where that was given, or the policy asks for none.
    headers_speak: the source has looked into headers for reasons to doubt; else an image's type may be one.
    """
    wanted, unfit = [], []
    for one in found:
        if isinstance(one, Record):
            why = deidentify.doubt_of_type(one.image_type) if policy.classes and not headers_speak else None
            if why and neutral_name(source, one.file_name, key) not in let_pass:
                unfit.append(Unfit(one.file_name, why, one))
            else:
                wanted.append(one)
        elif one.record is not None and (not policy.headers or neutral_name(source, one.file_name, key) in let_pass):
            wanted.append(one.record)
        else:
            unfit.append(one)
    return wanted, unfit


def released(home: Path | None, out: Path) -> frozenset[str]:
    """The names of quarantined images that somebody looked at and released."""
    if home is None:
        return frozenset()
    from medisyn.data import review
    return frozenset(review.released(deidentify.private(home, out)))


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

def tasks_of(source: str, tree: Tree, out: Path, wanted: dict[str, Record], reading: Reading, key: bytes, policy: Policy,
             let_pass: frozenset[str]) -> list[Task]:
    """A task for each image; those of an archive as they lie in it, so that each is read once from front to back."""
    tasks = []
    for name, record in wanted.items():
        address, order, facts = tree.address(record.file_name), (), ()
        with contextlib.suppress(ValueError, OSError):  # said when it is read
            place = parts.locate(tree.root, address)
            status = place.path.stat()
            facts = (status.st_size, status.st_mtime_ns)
            order = (str(place.path), archives.names(place.path)[place.member].place) if place.member else ()
        text_boxes = policy.text_boxes and name not in let_pass
        tasks.append((order, Task(str(tree.root), address, str(out / "images" / source / f"{name}.png"), name,
                                  ledger.stamp(key, *facts, reading, text_boxes), reading, key, text_boxes)))
    return [task for _, task in sorted(tasks, key=lambda pair: pair[0])]


def decode_all(source: str, out: Path, tasks: list[Task], workers: int | None, progress: Progress | None,
               run_on: str = "processes", address: str | None = None) -> tuple[set[str], dict[str, str], int]:
    """The names of the finished images, why the others are unreadable (by name), how many were done before."""
    path = ledger.path_of(out, source)
    stamps = ledger.stamps(path)
    done = {task.name for task in tasks if stamps.get(task.name) == task.stamp and os.path.isfile(task.target)}
    left, resumed, reasons = [task for task in tasks if task.name not in done], len(done), {}
    if progress:
        progress(resumed, len(tasks))
    with ledger.noting(path) as note:
        for count, (task, row) in enumerate(engine.map(decode_one, left, run_on, address, workers), 1):
            if isinstance(row, engine.Lost):
                row = {"reason": row.reason}
            if "reason" in row:
                reasons[task.name] = row["reason"]
            else:
                done.add(task.name)
                note(row)
            if progress:
                progress(resumed + count, len(tasks))
    return done, reasons, resumed


def decode_one(task: Task) -> dict:
    """Read one image, reduce it, write it as PNG; the ledger's line for it, or {"reason"}.

    Whatever a broken file makes its reader raise ends in a reason, and no reason repeats what the file holds.
    """
    try:
        place = parts.locate(Path(task.folder), task.address)
        file = parts.opened(place)
        read = parts.read(place, file, task.reading if not task.text_boxes else replace(task.reading, short_side=None))
        content = digest_of(file) if not place.part else digest_of_pixels(read.picture)
    except ValueError as error:
        return {"reason": str(error)}
    except OSError as error:
        return {"reason": f"not a readable file ({error.strerror or type(error).__name__})"}
    except MemoryError:
        return {"reason": "it takes more memory to read than there is"}
    except Exception as error:
        return {"reason": f"not readable ({type(error).__name__})"}
    if task.text_boxes:
        from medisyn.data import burned_in
        doubt = burned_in.doubt(read.picture)
        if doubt:
            return {"reason": doubt}
    picture = images.shrink(read.picture, task.reading.short_side)
    Path(f"{task.target}.part").write_bytes(images.quick_png(picture))
    os.replace(f"{task.target}.part", task.target)
    if task.key != PUBLIC_KEY:  # else whoever has the file could prove that it is in the collection
        content = hmac.new(task.key, content.encode(), hashlib.sha256).hexdigest()[:32]
    return ledger.row_of(task.name, task.stamp, content, picture, read.how)


def digest_of(file: Path | parts.BinaryIO) -> str:
    """The digest of a file's bytes, as of `duplicates.digest`."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:32]
    file.seek(0)
    return duplicates.digest(file.read())


def digest_of_pixels(picture: images.Image.Image) -> str:
    return duplicates.digest(f"{picture.mode} {picture.size} ".encode() + picture.tobytes())


# Records: what the collection says of the images.

def finish(source: Source, found: dict[str, Record], looks: Looks, key: bytes, policy: Policy) -> list[Record]:
    """Raw records, by neutral name, as a collection keeps them: pseudonyms, splits, text, licence.

    Images without a patient stand in near-duplicate groups instead; patients who share a picture share a split. A source
    whose group is OFFICIAL_SPLIT has its own splits kept, except for pictures that it has in two of them.
    """
    contents = dict(zip(looks.names, looks.contents, strict=True))
    groups = ledger.grouped(looks, duplicates.LIKELY, [name for name in looks.names if found[name].patient is None])
    alone = {name: records.pseudonym(source.name, f"near-duplicates/{contents[name]}" if name in groups
                                     else found[name].patient, key) for name in looks.names}
    patients = {name: records.pseudonym(source.name, f"near-duplicates/{groups[name]}", key) if name in groups
                else alone[name] for name in looks.names}
    drawn = {name: found[name].split if source.group == OFFICIAL_SPLIT else records.split_of(alone[name], key)
             for name in looks.names}
    splits = shared(patients, ledger.grouped(looks, duplicates.CERTAIN), drawn)
    finished, told = [], {}  # told: the sentence of each set of facts, as many images share theirs
    for name in looks.names:
        record = deidentify.deidentified(found[name], policy)
        record = replace(record, id=f"{source.name}/{name}", file_name=f"images/{source.name}/{name}.png",
                         patient=patients[name], split=splits[name], source=source.name,
                         licence=record.licence or source.licence, reading=looks.how.get(name))
        if record.text is None:
            facts = (*(getattr(record, fact) for fact in FACTS), tuple(sorted(record.findings.items())))
            if facts not in told:
                told[facts] = prompts.canonical(record)
            record = replace(record, text=told[facts])
        finished.append(record)
    return finished


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


def merge_in(out: Path, source: str, finished: list[Record], quarantine: list[dict[str, str]]) -> None:
    """Put a source's records in the place of its earlier ones; images that no line names any more are removed."""
    by_id = attrgetter("id")
    held = records.read(out) if (out / "metadata.jsonl").is_file() else ()
    records.write(heapq.merge((record for record in held if record.source != source), sorted(finished, key=by_id), key=by_id), out)
    path = out / "quarantine.jsonl"
    kept = [row for row in quarantined(out) if row["source"] != source] + quarantine
    draft = path.with_suffix(".jsonl.part")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    os.replace(draft, path)
    named = {Path(record.file_name).name for record in finished}
    for image in os.scandir(out / "images" / source):
        if image.name not in named:
            os.unlink(image)


def held_back(source: str, unfit: list[Unfit], tree: Tree, out: Path, key: bytes, home: Path | None) -> list[dict[str, str]]:
    """The lines of quarantine.jsonl. With a private folder, files stand there by name, and here by `neutral_name`."""
    rows = [{"file": one.file_name, "source": source, "reason": one.reason} for one in unfit]
    if home is None:
        return rows
    from medisyn.data import review
    named = [row | {"name": neutral_name(source, row["file"], key), "file": tree.address(row["file"])} for row in rows]
    review.hold(deidentify.private(home, out), named, source, tree.root)
    return [{"file": row["name"], "source": source, "reason": row["reason"]} for row in named]


def quarantined(collection: Path) -> list[dict[str, str]]:
    """The files that were not taken in: {"file", "source", "reason"} each."""
    path = Path(collection) / "quarantine.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()
    return [json.loads(line) for line in lines if line.strip()]
