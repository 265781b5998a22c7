"""Mixture: real images that show what synthetic ones say they show.

A set made for prompts is mixed as the prompts are: a third benign, a third malignant, a third normal, say, where a hospital
has few that are malignant. Its distance to real images holds that difference as well; real images in the same mixture have it
too, so beside them it is told apart from what the maker does wrong.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medisyn.data.records import Record
from medisyn.data.understanding import SLOTS, Understanding, lack, support_table
from medisyn.data.vocabulary import IMAGE_TYPES


def alike(wanted: Sequence[Record], real: Sequence[Record], rng: np.random.Generator) -> np.ndarray:
    """For each of n wanted records a real one, none twice, that lacks least of what it says: int64 (n,), rows of `real`.

    What is not said is left to chance, so of records that say nothing but their image type any will do. A record is said to
    lack what it does not mention, as in `understanding.lack`; age and sex do not count. ValueError: fewer real ones than n.
    """
    if len(real) < len(wanted):
        raise ValueError(f"expected at least {len(wanted)} real images to draw from, found {len(real)}")
    rows_of: dict[tuple, list[int]] = defaultdict(list)     # what real images show: which of them do
    for row in rng.permutation(len(real)):
        *facts, present, absent, _ = support_table([real[row]])[0]
        rows_of[(*facts, tuple(present), tuple(absent))].append(int(row))
    ranked: dict[tuple, list[list[tuple]]] = {}             # what is said: what real ones show, those that lack least first
    taken = np.empty(len(wanted), np.int64)
    for at in rng.permutation(len(wanted)):
        said = understanding_of(wanted[at])
        ranks = ranked.setdefault((*(getattr(said, slot) for slot in SLOTS), *sorted(said.findings.items())), [])
        if not ranks:
            ranks += in_ranks(said, list(rows_of))
        while not (left := [shown for shown in ranks[0] if rows_of[shown]]):
            ranks.pop(0)                                    # all taken: rows never come back
        share = np.array([len(rows_of[shown]) for shown in left], float)
        taken[at] = rows_of[left[int(rng.choice(len(left), p=share / share.sum()))]].pop()
    return taken


def in_ranks(said: Understanding, shown: Sequence[tuple]) -> list[list[tuple]]:
    """What real images show by how much of what is said it lacks, least first."""
    ranks: dict[int, list[tuple]] = defaultdict(list)
    for row in shown:
        ranks[lack(said, row)].append(row)
    return [ranks[lacking] for lacking in sorted(ranks)]


def understanding_of(record: Record) -> Understanding:
    """A record's facts as a prompt's: what it does not say is open."""
    slots = {slot: getattr(record, slot) or None for slot in SLOTS}
    if slots["image_type"] not in IMAGE_TYPES:
        slots["image_type"] = None      # somebody's own word
    return Understanding(findings=dict(record.findings), **slots)
