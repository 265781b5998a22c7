"""Cases: which images a study shows, drawn so that arms and image types are balanced and content is no cue.

A real image is drawn to show what its synthetic counterpart shows, as far as there is one: the same image type, then as many
equal findings, views and anatomies as can be had, of a patient who is not in the study yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medisyn.data import prompts, records
from medisyn.data.records import SPLITS, Record
from medisyn.data.vocabulary import IMAGE_TYPES

CONTROL = 0.2  # of the cases of an alignment study: real images with their sentence; as many images with a wrong one
Picture = tuple[Path, Record]


@dataclass(frozen=True)
class Drawn:
    """A case before it has a name."""

    arm: str
    pictures: tuple[Picture, ...]
    answer: str | None = None
    told: Record | None = None   # whose facts the sentence states; None: no sentence is shown


def open_arm(where: str | Path, synthetic: bool) -> list[Picture]:
    """The images of a collection or of one of its splits (`COLLECTION:test`); ValueError where they are of the other arm."""
    name, (head, colon, tail) = "synthetic" if synthetic else "real", str(where).rpartition(":")
    folder, split = (Path(head), tail) if colon and tail in SPLITS and not Path(where).exists() else (Path(where), None)
    found = [(folder / r.file_name, r) for r in records.read(folder) if split in (None, r.split)]
    strange = sum(r.synthetic is not synthetic for _, r in found)
    if strange:
        raise ValueError(f"--{name} {where}: expected {name} images, found {strange:,} that are "
                         f"{'real' if synthetic else 'synthetic'} (a record is synthetic where it has a provenance)")
    if not found:
        raise ValueError(f"--{name} {where}: expected images, found none")
    for path, _ in found:
        if not path.is_file():
            raise FileNotFoundError(f"--{name}: {path} is missing, though {folder} lists it; restore it or remove its line")
    return found


def draw(design: str, real: Sequence[Picture], synthetic: Sequence[Picture], n: int, rng: np.random.Generator) -> list[Drawn]:
    """At most n different cases of a design, in no order that means anything."""
    by_type = [grouped(real), grouped(synthetic)]
    shared = sorted(set(by_type[0]) & set(by_type[1]))
    if not shared:
        raise ValueError("expected real and synthetic images of the same image types, found "
                         f"{', '.join(sorted(by_type[0]))} and {', '.join(sorted(by_type[1]))}")
    if design == "alignment":
        return aligned(shared, *by_type, n, rng)
    counts = allot(n if design == "two-alternatives" else n // 2,
                   {kind: min(len(arm[kind]) for arm in by_type) for kind in shared})
    drawn: list[Drawn] = []
    for kind, k in counts.items():
        chosen = [by_type[1][kind][i] for i in rng.permutation(len(by_type[1][kind]))[:k]]
        pairs = list(zip(chosen, matched(chosen, by_type[0][kind], rng), strict=True))
        if design == "two-alternatives":
            first = len(drawn) % 2  # alternating, so the sides are balanced; the order of cases is drawn later
            drawn += [Drawn("pair", (s, r), "left") if (i + first) % 2 else Drawn("pair", (r, s), "right")
                      for i, (s, r) in enumerate(pairs)]
        else:
            asked = design == "real-or-synthetic"
            drawn += [Drawn(arm, (picture,), arm if asked else None) for s, r in pairs
                      for arm, picture in (("synthetic", s), ("real", r))]
    return drawn


def aligned(shared: Sequence[str], real: dict[str, list[Picture]], synthetic: dict[str, list[Picture]], n: int,
            rng: np.random.Generator) -> list[Drawn]:
    """Synthetic images with their sentence, real ones with theirs, and images of both arms with another one's sentence."""
    drawn: list[Drawn] = []
    left = {kind: [synthetic[kind][i] for i in rng.permutation(len(synthetic[kind]))] for kind in shared}
    controls = round(CONTROL * n)
    wrong = {"synthetic": controls // 2, "real": controls - controls // 2}
    for kind, k in allot(n - 2 * controls + wrong["synthetic"], {kind: len(left[kind]) for kind in shared}).items():
        drawn += [Drawn("synthetic", (p,), None, p[1]) for p in left[kind][:k]]
    for i in rng.permutation(len(drawn))[:min(wrong["synthetic"], len(drawn) // 4)]:  # some of them get a wrong sentence
        drawn[i] = replace(drawn[i], arm="mismatch")
    wanted = controls + wrong["real"]
    chosen = [drawn[i] for i in rng.permutation(len(drawn))]
    counts = allot(wanted, {kind: len(real[kind]) for kind in shared})
    for kind, k in counts.items():
        like = [d.pictures[0] for d in chosen if d.told.image_type == kind] or left[kind]
        picked = matched([like[i % len(like)] for i in range(k)], real[kind], rng)
        drawn += [Drawn("real", (p,), None, p[1]) for p in picked]
    reals = [i for i, d in enumerate(drawn) if d.arm == "real"]
    for i in rng.permutation(reals)[:min(wrong["real"], len(reals) // 2)]:
        drawn[i] = replace(drawn[i], arm="mismatch")
    others = [p[1] for kind in shared for p in [*synthetic[kind], *real[kind]]]
    return [replace(d, answer="no", told=another(d.told, others, rng)) if d.arm == "mismatch" else d for d in drawn]


def another(record: Record, others: Sequence[Record], rng: np.random.Generator) -> Record:
    """A record whose sentence is false of this one: of the same image type with other findings, else of another type."""
    mine = present(record)
    same = [o for o in others if o.image_type == record.image_type and mine and present(o) and not mine & present(o)]
    pool = same or [o for o in others if o.image_type != record.image_type]
    pool = pool or [o for o in others if sentence(o) != sentence(record)]
    if not pool:
        raise ValueError("an alignment study needs sentences that differ; give collections with findings or more image types")
    return pool[int(rng.integers(len(pool)))]


def matched(synthetic: Sequence[Picture], real: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
    """For each synthetic image a real one that shows as much of the same as there is, of another patient each time."""
    left = [real[i] for i in rng.permutation(len(real))]
    chosen, met = [], set()
    for _, record in synthetic:
        fresh = [k for k, (_, r) in enumerate(left) if r.patient is None or r.patient not in met] or range(len(left))
        best = max(fresh, key=lambda k, record=record: likeness(left[k][1], record))
        picked = left.pop(best)
        chosen.append(picked)
        met.add(picked[1].patient)
    return chosen


def likeness(one: Record, other: Record) -> int:
    """Facts that both state alike less facts that they state differently; findings that are present count double."""
    same = sum((1 if getattr(one, name) == getattr(other, name) else -1) for name in ("view", "technique", "anatomy", "laterality")
               if None not in (getattr(one, name), getattr(other, name)))
    both = set(one.findings) & set(other.findings)
    return (same + sum((1 + one.findings[f]) if one.findings[f] is other.findings[f] else -2 for f in both)
            - len(present(one) ^ present(other)))


def present(record: Record) -> set[str]:
    return {name for name, there in record.findings.items() if there}


def sentence(record: Record) -> str:
    """What the image should show, in one plain wording for all arms: what is present, never age or sex nor what is absent."""
    shown = replace(record, age_years=None, sex=None, findings=dict.fromkeys(sorted(present(record)), True))
    return prompts.canonical(shown)


def concepts(record: Record) -> tuple[str, ...]:
    """What that sentence names, as words of the vocabulary."""
    words = (record.view, record.technique, record.laterality, *sorted(present(record)))
    return tuple(word for word in words if word)


def grouped(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """By image type; what is of no known type cannot be balanced and is left out."""
    found: dict[str, list[Picture]] = {}
    for picture in sorted(pictures, key=lambda p: p[1].id):
        if picture[1].image_type in IMAGE_TYPES:
            found.setdefault(picture[1].image_type, []).append(picture)
    return found


def allot(n: int, room: dict[str, int]) -> dict[str, int]:
    """n places shared out among the types as evenly as their room allows; fewer where there is not enough room."""
    counts = dict.fromkeys(room, 0)
    for _ in range(min(n, sum(room.values()))):
        free = [kind for kind in counts if counts[kind] < room[kind]]
        counts[min(free, key=lambda kind: counts[kind])] += 1
    return counts
