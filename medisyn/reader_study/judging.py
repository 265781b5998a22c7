"""Answers that are right or wrong (real-or-synthetic, two-alternatives): skill of each reader, of all, by image type."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from medisyn import estimates
from medisyn.estimates import Estimate, absent
from medisyn.reader_study import detection, mrmc
from medisyn.reader_study.design import Study
from medisyn.reader_study.equivalence import Test, holm, tost, tost_share
from medisyn.reader_study.table import Table, ratings, truth_of, values

SINGLE = (("accuracy", detection.accuracy, True), ("sensitivity", detection.sensitivity, True),
          ("specificity", detection.specificity, True), ("dprime", detection.dprime, False),
          ("criterion", detection.criterion, False))
PAIRED = (("accuracy", detection.mean, True), ("dprime", detection.forced, False))


def of_readers(study: Study, whole: Table) -> list[Estimate]:
    """Each reader alone: shares with Wilson's interval, d' and criterion by the delta method, AUC by DeLong."""
    found: list[Estimate] = []
    answers, sure = values(whole, study.design), ratings(whole)
    for row, reader in enumerate(whole.readers):
        group, read = f"reader={reader}", ~np.isnan(answers[row])
        given, truth = answers[row][read], truth_of(whole)[read]
        paired = study.design == "two-alternatives"
        right = given if paired else np.where(truth == 1, given, 1 - given)
        found.append(estimates.proportion(int(right.sum()), len(right), name="accuracy", group=group))
        if paired:
            found.append(detection.of_reader(detection.forced, given, np.ones(len(given)), name="dprime", group=group,
                                             note=detection.CORRECTED))
            continue
        for name, arm in (("sensitivity", 1), ("specificity", 0)):
            mine = right[truth == arm]
            found.append(estimates.proportion(int(mine.sum()), len(mine), name=name, group=group))
        found += [detection.of_reader(statistic, given, truth, name=name, group=group, note=detection.CORRECTED)
                  for name, statistic in (("dprime", detection.dprime), ("criterion", detection.criterion))]
        found.append(detection.of_reader(detection.auc, sure[row][read], truth, name="auc", group=group, share=True))
    return found


def of_all(study: Study, some: Table, group: str = "all") -> list[Estimate]:
    """All readers, who and whose cases stand for others: Obuchowski and Rockette."""
    answers, truth = values(some, study.design), truth_of(some)
    if study.design == "two-alternatives":
        return [mrmc.estimate(statistic, answers, truth, name=name, group=group, share=share) for name, statistic, share in PAIRED]
    if not told_apart(study, some):
        return [absent("accuracy", "no cases of both arms were read by every reader", group, n=answers.size)]
    found = [mrmc.estimate(statistic, answers, truth, name=name, group=group, share=share) for name, statistic, share in SINGLE]
    return [*found, mrmc.estimate(detection.auc, ratings(some), truth, name="auc", group=group)]


def effect(study: Study, some: Table) -> mrmc.Effect | None:
    """Accuracy of all readers; None where it cannot be had."""
    if not told_apart(study, some):
        return None
    return mrmc.effect(detection.mean if study.design == "two-alternatives" else detection.accuracy,
                       values(some, study.design), truth_of(some))


def tests(study: Study, whole: Table, some: Table) -> list[Test]:
    """Is accuracy chance, or near enough to it? For all readers, each reader and each image type; families by Holm."""
    low, high = 0.5 - study.margin, 0.5 + study.margin
    found = against(effect(study, some), "all", low, high)
    if study.design == "real-or-synthetic" and told_apart(study, some):
        area = mrmc.effect(detection.auc, ratings(some), truth_of(some))
        if area is not None:
            found.append(Test("chance_auc", "all", "the AUC is 0.5", area.p(0.5), said(area)))
    found += of_each_reader(study, whole, low, high)
    by_type = [(kind, effect(study, part)) for kind, part in parts(some)]
    rows = [against(one, f"image_type={kind}", low, high) for kind, one in by_type]
    for name in ("chance", "equivalence"):
        found += family([test for row in rows for test in row if test.name == name], "image types")
    return found + differ(study, some)


def told_apart(study: Study, some: Table) -> bool:
    """Whether there is anything to tell apart: cases that were read, of both arms."""
    return bool(some.given.size) and (study.design == "two-alternatives" or len(set(truth_of(some).tolist())) == 2)


def against(one: mrmc.Effect | None, group: str, low: float, high: float) -> list[Test]:
    """Accuracy against 0.5, and its equivalence to it."""
    if one is None:
        return []
    return [Test("chance", group, "accuracy is 0.5", one.p(0.5), said(one)),
            Test("equivalence", group, f"accuracy lies outside {low:g} to {high:g}", tost(one, low, high), said(one))]


def of_each_reader(study: Study, whole: Table, low: float, high: float) -> list[Test]:
    """Exact binomial tests of each reader, cases random."""
    answers, truth = values(whole, study.design), truth_of(whole)
    chance, near = [], []
    for row, reader in enumerate(whole.readers):
        read = ~np.isnan(answers[row])
        given = answers[row][read]
        right = given if study.design == "two-alternatives" else np.where(truth[read] == 1, given, 1 - given)
        k, n = int(right.sum()), len(right)
        told = f"{k} of {n} right"
        chance.append(Test("chance", f"reader={reader}", "accuracy is 0.5", float(stats.binomtest(k, n, 0.5).pvalue), told))
        near.append(Test("equivalence", f"reader={reader}", f"accuracy lies outside {low:g} to {high:g}",
                         tost_share(k, n, low, high), told))
    return family(chance, "readers") + family(near, "readers")


def differ(study: Study, some: Table) -> list[Test]:
    """Are some image types told better than others?"""
    kept = [(kind, part) for kind, part in parts(some) if len(part.readers) > 1 and told_apart(study, part)]
    found = [(kind, *(detection.mean if study.design == "two-alternatives" else detection.accuracy)(
        values(part, study.design), truth_of(part))) for kind, part in kept]
    found = [(kind, mine, strata) for kind, mine, strata in found if min(s.shape[1] for s in strata) > 1]
    if len(found) < 2:
        return []
    one = mrmc.compare(np.array([mine for _, mine, _ in found]), mrmc.nested([mrmc.covariance(s) for _, _, s in found]))
    return [Test("image_types", "all", "accuracy is the same in all image types", one.p,
                 f"F({one.df1}, {one.df2:.1f}) = {one.f:.2f}")]


def parts(some: Table) -> list[tuple[str, Table]]:
    """The table by image type."""
    kinds = sorted({t.image_type for t in some.truths})
    return [(kind, some.take(range(len(some.readers)), [k for k, t in enumerate(some.truths) if t.image_type == kind]))
            for kind in kinds]


def family(tests: Sequence[Test], of: str) -> list[Test]:
    """Tests asked together, with Holm's p."""
    adjusted = holm([test.p for test in tests])
    return [Test(t.name, t.group, t.asked, t.p, t.statistic, p, f"Holm over {len(tests)} {of}") for t, p in
            zip(tests, adjusted, strict=True)]


def said(one: mrmc.Effect) -> str:
    """An effect in words."""
    df = "normal" if one.df > 1e6 else f"df {one.df:.1f}"
    return f"{one.value:.3f}, standard error {one.se:.3f}, {df}"
