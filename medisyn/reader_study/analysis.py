"""Analysis: what a study shows, from its responses: estimates, tests, counts."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from medisyn import estimates
from medisyn.estimates import Estimate, absent
from medisyn.reader_study import agreement, design, judging, rating, responses
from medisyn.reader_study.design import Study
from medisyn.reader_study.equivalence import Test
from medisyn.reader_study.table import Table, crossed, ratings, table, truth_of, value

DRAWS = 500  # of each bootstrap over cases


@dataclass(frozen=True)
class Analysis:
    study: Study
    whole: Table
    some: Table                                  # readers and cases crossed
    log: responses.Log
    estimates: tuple[tuple[str, Estimate], ...]  # (part, figure)
    tests: tuple[Test, ...]
    notes: tuple[str, ...]
    confusion: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # image type -> arm -> answer -> n
    marks: dict[str, dict[str, int]] = field(default_factory=dict)                 # kind -> arm -> responses that set one
    roc: dict[str, list[list[float]]] = field(default_factory=dict)                # reader -> [false alarms, hits] points


def analyze(study: Study) -> Analysis:
    """All that the responses of a study show; ValueError where there are none or the chain is broken."""
    truth, log = design.truth(study), responses.read_log(study.folder)
    if not log.responses:
        raise ValueError(f"{study.folder} has no responses yet; open it to readers with `medisyn study serve {study.folder}`")
    whole = table(study, truth, log.responses)
    some, notes = crossed(whole)
    if log.torn:
        notes.append(f"the last line of {responses.FILE}, {len(log.torn)} bytes, was cut short by a crash and is left out")
    unread = len(study.readers) - len(whole.readers)
    if unread:
        notes.append(f"{unread} of {len(study.readers)} readers have answered nothing")
    room = judging if study.question.scale == "nominal" else rating
    found: list[tuple[str, Estimate]] = [("all readers", row) for row in room.of_all(study, some)]
    found += [("readers", row) for row in room.of_readers(study, whole)]
    for kind, part in judging.parts(some):
        found += [("image types", row) for row in room.of_all(study, part, f"image_type={kind}")]
    if study.design == "alignment":
        found += [("concepts", row) for row in rating.by_concept(study, some)]
    tests = judging.tests(study, whole, some) if room is judging else rating.tests(study, some)
    found += [("agreement", row) for row in between(study, some) + within(study, whole)]
    found += [("time", row) for row in times(whole)]
    return Analysis(study, whole, some, log, tuple(found), tuple(tests), tuple(notes), confusion(whole), marks(study, whole),
                    curves(whole) if study.design == "real-or-synthetic" else {})


def between(study: Study, some: Table) -> list[Estimate]:
    """Agreement of readers with each other, bootstrapped over cases."""
    if len(some.readers) < 2 or len(some.cases) < 2:
        return [absent("fleiss_kappa", "fewer than two readers read the same two cases", n=some.given.size)]
    answers = np.array([[plainly(study, some, one) for one in row] for row in some.given], object)
    counts = agreement.tally(answers, alternatives(study))
    found = [over(counts, agreement.fleiss, "fleiss_kappa"), over(counts, agreement.krippendorff, "krippendorff_nominal")]
    if study.question.scale == "ordinal":
        found.append(over(counts, lambda c: agreement.krippendorff(c, "ordinal"), "krippendorff_ordinal"))
    elif study.design == "real-or-synthetic":
        steps = len(study.question.confidence)
        sure = agreement.tally(ratings(some).astype(int), [*range(-steps, 0), *range(1, steps + 1)])
        found.append(over(sure, lambda c: agreement.krippendorff(c, "ordinal"), "krippendorff_ordinal",
                          "of answer and confidence as one scale of 10"))
    return found


def over(counts: np.ndarray, statistic: Callable[[np.ndarray], float], name: str, note: str | None = None) -> Estimate:
    return estimates.bootstrap(lambda rows: statistic(counts[rows]), len(counts), name=name, draws=DRAWS, better="higher",
                               note=note)


def within(study: Study, whole: Table) -> list[Estimate]:
    """Agreement of readers with themselves, on the cases that were shown twice."""
    twice = [(r, c, plainly(study, whole, whole.given[r, c]), plainly(study, whole, one)) for r, c, one in whole.again]
    if not twice:
        return [absent("same_answer", "no case was answered twice", better="higher")]
    found = []
    for row, reader in enumerate(whole.readers):
        mine = [(a, b) for r, _, a, b in twice if r == row]
        if mine:
            found.append(estimates.proportion(sum(a == b for a, b in mine), len(mine), name="same_answer", group=f"reader={reader}",
                                              better="higher"))
    first, second = (np.array([t[k] for t in twice], object) for k in (2, 3))
    cases = [t[1] for t in twice]
    same = (first == second).astype(float)
    return [estimates.bootstrap(lambda rows: float(same[rows].mean()), len(same), name="same_answer", patients=cases, share=True,
                                draws=DRAWS, better="higher", note="cases resampled"),
            estimates.bootstrap(lambda rows: agreement.cohen(first[rows], second[rows]), len(same), name="intra_kappa",
                                patients=cases, draws=DRAWS, better="higher", note="Cohen's kappa of both showings, all readers"),
            *found]


def plainly(study: Study, some: Table, one: responses.Response) -> object:
    """An answer to compare with others: of a pair, whether it was right, as the sides of a repeat are swapped."""
    return value(some, one, study.design) if study.design == "two-alternatives" else one.answer


def alternatives(study: Study) -> Sequence:
    return (0.0, 1.0) if study.design == "two-alternatives" else study.question.answers


def times(whole: Table) -> list[Estimate]:
    """Seconds a case: medians."""
    found = []
    groups = {"all": whole.given.ravel()} | {f"reader={r}": whole.given[k] for k, r in enumerate(whole.readers)}
    groups |= {f"arm={arm}": whole.given[:, whole.rows(arm)].ravel() for arm in sorted({t.arm for t in whole.truths})}
    for group, cells in groups.items():
        seconds = np.array([one.seconds for one in cells if one is not None and one.seconds is not None], float)
        if len(seconds):
            found.append(estimates.bootstrap(lambda rows, s=seconds: float(np.median(s[rows])), len(seconds), name="seconds",
                                             group=group, draws=DRAWS))
        else:
            found.append(absent("seconds", "no time was kept", group))
    return found


def confusion(whole: Table) -> dict[str, dict[str, dict[str, int]]]:
    """How often each arm of each image type got each answer, first showings."""
    found: dict[str, dict[str, Counter]] = {}
    for column, truth in enumerate(whole.truths):
        for one in whole.given[:, column]:
            if one is not None:
                arm = f"synthetic is {whole.known[one.case].answer}" if truth.arm == "pair" else truth.arm
                found.setdefault(truth.image_type, {}).setdefault(arm, Counter())[str(one.answer)] += 1
    return {kind: {arm: dict(found[kind][arm]) for arm in sorted(found[kind])} for kind in sorted(found)}


def marks(study: Study, whole: Table) -> dict[str, dict[str, int]]:
    """In how many responses each kind of error was marked, by arm; `responses` counts all."""
    found: dict[str, Counter] = {kind: Counter() for kind, _ in study.question.marks} | {"responses": Counter()}
    for column, truth in enumerate(whole.truths):
        for one in whole.given[:, column]:
            if one is not None:
                found["responses"][truth.arm] += 1
                for kind in {mark["kind"] for mark in one.marks}:
                    found[kind][truth.arm] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in found.items()}


def curves(whole: Table) -> dict[str, list[list[float]]]:
    """Points of each reader's empirical ROC curve, from (0, 0) to (1, 1)."""
    found, truth = {}, truth_of(whole)
    for reader, row in zip(whole.readers, ratings(whole), strict=True):
        ones, zeros = row[(truth == 1) & ~np.isnan(row)], row[(truth == 0) & ~np.isnan(row)]
        if len(ones) and len(zeros):
            levels = sorted({*ones, *zeros}, reverse=True)
            found[reader] = [[0.0, 0.0], *([float((zeros >= v).mean()), float((ones >= v).mean())] for v in levels)]
    return found
