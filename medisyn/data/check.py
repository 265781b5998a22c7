"""Check: what is wrong with a collection, a sentence a problem.

One pass over the records, which need not fit into memory: 17 bytes of each are kept. Names are looked up in a second
pass, and only where something is wrong. Where ingest left its ledgers, pictures are compared too, for a kilobyte each;
others where they shall be looked at.
"""

import hashlib
import io
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from medisyn.data import duplicates, images, ledger, packed, records, vocabulary
from medisyn.data.ledger import Looks
from medisyn.data.records import SPLITS, Record


def check(collection: Path, look: bool = False, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """What is wrong with a collection; [] where nothing is.

    Missing images, ids that stand twice, words that are not in the vocabulary, patients in two splits, and,
    where ingest left its ledgers, near-identical pictures in two splits.

    look      open the real images that no ledger tells of, too, and compare them: 4 ms each
    progress  of the looking: called with (done, all)
    """
    collection, problems = Path(collection), []
    ids, people, splits = array("Q"), array("Q"), array("B")
    named: dict[str, dict[str, str]] = {}  # source: name of the image: split
    inside = not (collection / records.METADATA).is_file()  # packed: the images lie beside the facts
    ledgers: dict[str, bool] = {}
    for record in records.read(collection):
        ids.append(code(record.id))
        people.append(code(person(record)))
        splits.append(SPLITS.index(record.split))
        if not inside and not (collection / record.file_name).is_file():
            problems.append(f"{record.id}: {record.file_name} is missing")
        problems += vocabulary.check(record)
        source = record.source
        if source and source not in ledgers:
            ledgers[source] = ledger.path_of(collection, source).is_file()
        if source and ledgers[source]:
            named.setdefault(source, {})[Path(record.file_name).stem] = record.split
    problems += twice(collection, np.frombuffer(ids, np.uint64))
    problems += torn(collection, np.frombuffer(people, np.uint64), np.frombuffer(splits, np.uint8))
    looked, splits_of = looked_at(collection, named, progress) if look else (ledger.joined([]), {})
    return [*problems, *leaks(collection, named, looked, splits_of)]


def code(name: str) -> int:
    """64 bits that stand for a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def person(record: Record) -> str:
    return record.patient or record.id


def twice(collection: Path, ids: np.ndarray) -> Iterator[str]:
    """The ids that stand more than once. ids: a `code` a record."""
    found, counts = np.unique(ids, return_counts=True)
    several = {int(one): int(n) for one, n in zip(found[counts > 1], counts[counts > 1], strict=True)}
    for record in records.read(collection) if several else ():
        n = several.pop(code(record.id), None)
        if n:
            yield f"{record.id}: the id stands {n} times"


def torn(collection: Path, people: np.ndarray, splits: np.ndarray) -> Iterator[str]:
    """The patients who stand in more than one split. people: a `code` a record; splits: its place in SPLITS."""
    order = np.lexsort((splits, people))
    one, split = people[order], splits[order]
    apart = one[1:][(one[1:] == one[:-1]) & (split[1:] != split[:-1])]
    left = {int(name) for name in apart}
    for record in records.read(collection) if left else ():
        name = code(person(record))
        if name in left:
            left.remove(name)
            held = sorted(SPLITS[i] for i in np.unique(splits[people == np.uint64(name)]))
            yield f"patient {person(record)}: stands in {' and '.join(held)}"


def leaks(collection: Path, named: dict[str, dict[str, str]], looked: Looks, splits: dict[str, str]) -> Iterator[str]:
    """The pictures that stand nearly the same in two splits.

    named: the split of each image that a ledger tells of, by source and name; looked: what was seen of others, splits: theirs
    """
    looks = looks_of(collection, named)
    if looks.older:
        yield f"{looks.older:,} images were ingested before mirrored copies were looked for; ingest their sources again"
    for names in alike(ledger.joined([looks, looked]) if looked.names else looks):
        held = sorted({splits[name] if name in splits else named[name.rpartition("/")[0]][name.rpartition("/")[2]]
                       for name in names})
        if len(held) > 1:
            yield f"{' and '.join(names[:4])}: nearly the same picture stands in {' and '.join(held)}"


def looked_at(collection: Path, named: dict[str, dict[str, str]], progress: Callable[[int, int], None] | None
              ) -> tuple[Looks, dict[str, str]]:
    """What the real images look like that no ledger tells of, by id, and their splits; unreadable ones are left out."""
    pictures = packed.pictures(collection) if packed.is_packed(collection) else \
        ((record, None) for record in records.read(collection))
    total = sum(1 for _ in records.read(collection)) if progress else 0
    names, contents, hashes, thumbnails, splits = [], [], array("Q"), bytearray(), {}
    for count, (record, data) in enumerate(pictures, 1):
        if not record.synthetic and Path(record.file_name).stem not in named.get(record.source or "", ()):
            with suppress(Exception):  # a missing one is said elsewhere
                data = data or (collection / record.file_name).read_bytes()
                picture = images.eight_bit(images.upright(io.BytesIO(data)))
                hashes.extend(duplicates.hashes_of(picture))
                thumbnails += duplicates.thumbnail_of(picture).tobytes()
                names.append(record.id), contents.append(duplicates.digest(data))
                splits[record.id] = record.split
        if progress and (count % 256 == 0 or count == total):
            progress(count, total)
    return Looks(names, contents, np.frombuffer(hashes, np.uint64).reshape(-1, duplicates.ORIENTATIONS),
                 np.frombuffer(thumbnails, np.uint8).reshape(-1, duplicates.THUMBNAIL, duplicates.THUMBNAIL), {}), splits


def alike(looks: Looks) -> Iterator[list[str]]:
    """The names of each group of nearly the same pictures, of two and more."""
    groups = ledger.grouped(looks, duplicates.CERTAIN)
    several = {group for group, n in Counter(groups.values()).items() if n > 1}
    together: dict[str, list[str]] = {}
    for name, group in groups.items():
        if group in several:
            together.setdefault(group, []).append(name)
    yield from together.values()


def looks_of(collection: Path, named: dict[str, dict[str, str]]) -> Looks:
    """What the ledgers hold of the images that a collection names, as "source/name"."""
    held = []
    for source, names in sorted(named.items()):
        found = ledger.looks(ledger.path_of(collection, source), names)
        held.append(replace(found, names=[f"{source}/{name}" for name in found.names]))
    return ledger.joined(held)
