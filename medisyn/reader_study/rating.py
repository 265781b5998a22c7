"""Answers on a scale (alignment, quality): the mean of each arm, the difference of the arms, by concept and image type."""

import numpy as np

from medisyn import estimates
from medisyn.estimates import Estimate, absent
from medisyn.reader_study import detection, mrmc
from medisyn.reader_study.design import Study
from medisyn.reader_study.equivalence import Test, tost
from medisyn.reader_study.judging import family, said
from medisyn.reader_study.table import Table, truth_of, values

NAMES = {"alignment": "shown", "quality": "rating"}  # the mean answer: 0 no to 1 yes; 1 to 5


def of_readers(study: Study, whole: Table) -> list[Estimate]:
    """Each reader alone: the mean answer of each arm, with a bootstrap over cases."""
    found, given = [], values(whole, study.design)
    for row, reader in enumerate(whole.readers):
        for arm in arms(whole):
            mine = given[row, whole.rows(arm)]
            mine = mine[~np.isnan(mine)]
            found.append(estimates.bootstrap(lambda rows, mine=mine: float(mine[rows].mean()), len(mine),
                                             name=f"{NAMES[study.design]}_{arm}", group=f"reader={reader}", draws=500,
                                             share=study.design == "alignment"))
    return found


def of_all(study: Study, some: Table, group: str = "all", sides: bool = True) -> list[Estimate]:
    """All readers: the mean answer of each arm, the share of full agreement, and the difference synthetic less real."""
    name, given, found = NAMES[study.design], values(some, study.design), []
    for arm in arms(some):
        rows = some.rows(arm)
        mine = given[:, rows]
        found.append(mrmc.estimate(detection.mean, mine, np.ones(len(rows)), name=f"{name}_{arm}", group=group,
                                   share=study.design == "alignment"))
        if study.design == "alignment":
            found.append(mrmc.estimate(detection.mean, (mine == 1).astype(float), np.ones(len(rows)), name=f"yes_{arm}",
                                       group=group))
    if sides:
        found += differences(study, some, group)
    return found


def differences(study: Study, some: Table, group: str) -> list[Estimate]:
    """Synthetic less real, and how often a real image is put above a synthetic one (0.5: no difference)."""
    part, truth = pair(some)
    name = f"{NAMES[study.design]}_difference"
    if not enough(truth):
        return [absent(name, "fewer than two cases of an arm were read by every reader", group, n=part.given.size)]
    given = values(part, study.design)
    return [mrmc.estimate(detection.difference, given, truth, name=name, group=group, share=False, better="higher"),
            mrmc.estimate(detection.auc, given, 1 - truth, name="preferred_real", group=group)]


def by_concept(study: Study, some: Table) -> list[Estimate]:
    """The share of synthetic images on which readers fully see what the sentence says, for each word it names."""
    found, made = [], some.rows("synthetic")
    for concept in sorted({c for k in made for c in some.truths[k].concepts}):
        rows = [int(k) for k in made if concept in some.truths[k].concepts]
        given = (values(some, study.design)[:, rows] == 1).astype(float)
        found.append(mrmc.estimate(detection.mean, given, np.ones(len(rows)), name="yes_synthetic", group=f"concept={concept}"))
    return found


def tests(study: Study, some: Table) -> list[Test]:
    """Do the arms differ, are they equivalent, are wrong sentences noticed? By concept or image type with Holm."""
    found = arms_test(study, some, "all")
    part, truth = pair(some)
    if enough(truth) and part.given.size:
        area = mrmc.effect(detection.auc, values(part, study.design), 1 - truth)
        low, high = 0.5 - study.margin, 0.5 + study.margin
        found.append(Test("equivalence", "all", "the chance that a real image is put above a synthetic one lies outside "
                          f"{low:g} to {high:g}", tost(area, low, high), said(area)))
    wrong = some.take(range(len(some.readers)), some.rows("real", "mismatch"))
    if study.design == "alignment" and enough(truth_of(wrong, "mismatch")) and wrong.given.size:
        one = mrmc.effect(detection.difference, values(wrong, study.design), truth_of(wrong, "mismatch"))
        found.append(Test("controls", "all", "wrong sentences are judged as right ones on real images are", one.p(0), said(one)))
    groups = ({f"concept={c}": [k for k, t in enumerate(some.truths) if c in t.concepts]
               for c in sorted({c for t in some.truths for c in t.concepts})} if study.design == "alignment" else
              {f"image_type={kind}": [k for k, t in enumerate(some.truths) if t.image_type == kind]
               for kind in sorted({t.image_type for t in some.truths})})
    rows = [test for group, cases in groups.items() for test in arms_test(study, some.take(range(len(some.readers)), cases), group)]
    return found + family(rows, "concepts" if study.design == "alignment" else "image types")


def arms_test(study: Study, some: Table, group: str) -> list[Test]:
    """Synthetic against real; nothing where an arm has fewer than two cases."""
    part, truth = pair(some)
    if not enough(truth) or not part.given.size:
        return []
    one = mrmc.effect(detection.difference, values(part, study.design), truth)
    return [Test("arms", group, "synthetic and real images get the same answers", one.p(0), said(one))]


def pair(some: Table) -> tuple[Table, np.ndarray]:
    """The synthetic and real cases with their own sentences, and which are synthetic."""
    part = some.take(range(len(some.readers)), some.rows("synthetic", "real"))
    return part, truth_of(part)


def enough(truth: np.ndarray) -> bool:
    return min((truth == 1).sum(), (truth == 0).sum()) > 1


def arms(some: Table) -> list[str]:
    return sorted({t.arm for t in some.truths}, key=("synthetic", "real", "mismatch").index)
