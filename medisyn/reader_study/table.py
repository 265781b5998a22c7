"""The table of a study: readers by cases, made of its responses, repeats apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medisyn.reader_study.design import Study, Truth
from medisyn.reader_study.questions import SCORES
from medisyn.reader_study.responses import Response

DILIGENT = 0.8  # of the cases of the reader who read most: who read fewer is left out where readers are compared


@dataclass(frozen=True)
class Table:
    """Every case once: what each reader answered when it was first shown."""

    readers: tuple[str, ...]            # who answered anything
    cases: tuple[str, ...]              # ids of cases that are no repeats
    truths: tuple[Truth, ...]           # of these cases
    given: np.ndarray                   # (readers, cases) of Response or None
    again: tuple[tuple[int, int, Response], ...]  # (reader, case, response to the second showing)
    known: dict[str, Truth]             # of all cases by id: in a repeated pair the sides are swapped

    def rows(self, *arms: str) -> np.ndarray:
        """Cases of some arms: int64."""
        return np.array([k for k, t in enumerate(self.truths) if t.arm in arms], np.int64)

    def take(self, readers: Sequence[int], cases: Sequence[int]) -> "Table":
        """Some readers and cases, with the second showings among them."""
        place = {int(c): k for k, c in enumerate(cases)}
        who = {int(r): k for k, r in enumerate(readers)}
        again = tuple((who[r], place[c], one) for r, c, one in self.again if r in who and c in place)
        return Table(tuple(self.readers[r] for r in readers), tuple(self.cases[c] for c in cases),
                     tuple(self.truths[c] for c in cases), self.given[np.ix_(list(readers), list(cases))], again,
                     self.known)


def table(study: Study, truth: dict[str, Truth], given: Sequence[Response]) -> Table:
    """The table of the responses of a study."""
    readers = tuple(r for r in study.readers if any(one.reader == r for one in given))
    cases = tuple(case.id for case in study.cases if truth[case.id].repeat_of is None)
    who, place = {r: k for k, r in enumerate(readers)}, {c: k for k, c in enumerate(cases)}
    cells = np.full((len(readers), len(cases)), None, object)
    again = []
    for one in sorted(given, key=lambda r: r.position):
        row, column = who[one.reader], place[truth[one.case].repeat_of or one.case]
        if cells[row, column] is None:
            cells[row, column] = one
        else:
            again.append((row, column, one))
    return Table(readers, cases, tuple(truth[c] for c in cases), cells, tuple(again), truth)


def crossed(whole: Table) -> tuple[Table, list[str]]:
    """The readers who read nearly all and the cases that all of them read, as readers and cases crossed need; and notes."""
    read = np.array([[one is not None for one in row] for row in whole.given], bool).reshape(whole.given.shape)
    counts = read.sum(1)
    kept = [k for k, n in enumerate(counts) if n and n >= DILIGENT * counts.max()]
    cases = np.flatnonzero(read[kept].all(0)) if kept else np.empty(0, np.int64)
    notes = []
    if len(kept) < len(whole.readers):
        out = ", ".join(whole.readers[k] for k in range(len(whole.readers)) if k not in kept)
        notes.append(f"{out} read fewer than {DILIGENT:.0%} of the cases that others read, and count in no figure of all readers")
    if kept and len(cases) < len(whole.cases):
        notes.append(f"figures of all readers rest on the {len(cases)} of {len(whole.cases)} cases that each of them read")
    return whole.take(kept, cases), notes


def value(some: Table, one: Response, kind: str) -> float:
    """A response as a number: 1 for "synthetic" or the right side, the score of an alignment, the rating of a quality."""
    if kind == "real-or-synthetic":
        return float(one.answer == "synthetic")
    if kind == "two-alternatives":
        return float(one.answer == some.known[one.case].answer)
    return SCORES[one.answer] if kind == "alignment" else float(one.answer)


def values(some: Table, kind: str) -> np.ndarray:
    """`value` of every cell: float64 (readers, cases), nan where unread."""
    return np.array([[np.nan if one is None else value(some, one, kind) for one in row] for row in some.given],
                    float).reshape(some.given.shape)


def ratings(some: Table) -> np.ndarray:
    """How sure each reader was that an image is synthetic: -5 (certainly real) to 5, never 0; nan where unread.

    Where no confidence was given the answer alone counts.
    """
    return np.array([[np.nan if one is None else (1 if one.answer == "synthetic" else -1) * (one.confidence or 1) for one in row]
                     for row in some.given], float).reshape(some.given.shape)


def truth_of(some: Table, signal: str = "synthetic") -> np.ndarray:
    """1 where a case is of the arm `signal`, else 0: int64 (cases,)."""
    return np.array([int(t.arm == signal) for t in some.truths], np.int64)
