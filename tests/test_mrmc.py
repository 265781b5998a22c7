"""Readers and cases as random effects, against a published analysis and against studies whose truth is known."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medisyn.reader_study import detection, mrmc, simulation
from medisyn.reader_study.simulation import Skill

VAN_DYKE = Path(__file__).parents[2] / "shared" / "data" / "readers" / "van-dyke.imrmc"
# Van Dyke et al. 1993 (spin echo against cine MRI, 5 readers, 45 + 69 cases) as OR-DBM MRMC 2.5 (Schartz, Hillis, Pesce and
# Berbaum, University of Iowa) prints its analysis: trapezoidal areas, jackknife.
AREAS = np.array([[0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066],
                  [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169]])
ERROR, COV1, COV2, COV3 = 0.00080229, 0.00034661, 0.00034407, 0.00023903
SINGLE = [(0.89703704, 0.00048396, 0.03317360, 12.74, 0.82522360, 0.96885048),  # area, Cov2, standard error, df, 95 %
          (0.94083736, 0.00020419, 0.02156637, 12.71, 0.89413783, 0.98753689)]


def covariances(t, r, error, cov1, cov2, cov3):
    cov = np.empty((t, r, t, r))
    for i, j, k, m in np.ndindex(t, r, t, r):
        cov[i, j, k, m] = {(True, True): error, (False, True): cov1, (True, False): cov2, (False, False): cov3}[i == k, j == m]
    return cov


def test_the_published_analysis_of_van_dyke_is_reproduced():
    found = mrmc.compare(AREAS, covariances(2, 5, ERROR, COV1, COV2, COV3))
    assert found.f == pytest.approx(4.46, abs=0.005)
    assert (found.df1, found.df2) == (1, pytest.approx(15.26, abs=0.005))
    assert found.p == pytest.approx(0.0517, abs=5e-5)
    (_, _, one), = found.differences
    assert one.value == pytest.approx(-0.04380032, abs=1e-8)
    assert one.se == pytest.approx(0.02075, abs=5e-6)
    assert one.interval() == (pytest.approx(-0.08796, abs=5e-6), pytest.approx(0.00036, abs=5e-6))


@pytest.mark.parametrize("test", [0, 1])
def test_the_published_single_test_intervals_of_van_dyke_are_reproduced(test):
    area, cov2, se, df, low, high = SINGLE[test]
    cov = np.full((5, 5), cov2)
    np.fill_diagonal(cov, ERROR)
    found = mrmc.single(AREAS[test], cov)
    assert found.value == pytest.approx(area, abs=1e-8)
    assert found.se == pytest.approx(se, abs=1e-7)
    assert found.df == pytest.approx(df, abs=0.005)
    assert found.interval() == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


@pytest.mark.skipif(not VAN_DYKE.is_file(), reason=f"needs the ratings of Van Dyke et al. in {VAN_DYKE}")
def test_the_ratings_of_van_dyke_give_the_published_areas_and_covariances():
    rows = [line.split(",") for line in VAN_DYKE.read_text().splitlines() if line.count(",") == 3]
    known = {case: int(score) for reader, case, _, score in rows if reader == "-1"}
    cases = {case: k for k, case in enumerate(known)}
    readers = {name: k for k, name in enumerate(sorted({row[0] for row in rows} - {"-1"}))}
    tests = {name: k for k, name in enumerate(sorted({row[2] for row in rows} - {"truth"}))}
    given, truth = np.empty((2, 5, 114)), np.array(list(known.values()))
    for reader, case, test, score in rows:
        if reader != "-1":
            given[tests[test], readers[reader], cases[case]] = float(score)
    flat = given.reshape(10, 114)
    values = detection.auc(flat, truth)[0].reshape(2, 5)
    assert np.allclose(values, AREAS, atol=5e-9)
    cov = mrmc.jackknife(lambda rows: detection.auc(flat[:, rows], truth[rows])[0], 114)
    found = mrmc.compare(values, cov.reshape(2, 5, 2, 5))
    assert (found.error, found.cov1, found.cov2, found.cov3) == tuple(pytest.approx(v, abs=5e-9) for v in (ERROR, COV1, COV2, COV3))


def ordinary(seed=0, readers=4, n=60):
    rng = np.random.default_rng(seed)
    truth = np.repeat([1, 0], n // 2)
    return np.round(rng.normal(size=(readers, n)) + rng.normal(size=n) + truth), truth


def test_an_area_is_scikit_learns():
    given, truth = ordinary()
    assert detection.auc(given, truth)[0] == pytest.approx([roc_auc_score(truth, row) for row in given])


@pytest.mark.parametrize("statistic", [detection.auc, detection.difference, detection.sensitivity])
def test_what_cases_add_agrees_with_leaving_each_out(statistic):
    given, truth = ordinary(n=200)
    given = given if statistic is detection.auc else (given > 0).astype(float)
    taken = mrmc.jackknife(lambda rows: statistic(given[:, rows], truth[rows])[0], len(truth))
    assert mrmc.covariance(statistic(given, truth)[1]) == pytest.approx(taken, rel=0.12, abs=2e-5)


def test_two_arms_compared_are_their_difference():
    given, truth = ordinary()
    parts = [given[:, truth == side] for side in (1, 0)]
    found = mrmc.compare(np.array([p.mean(1) for p in parts]), mrmc.nested([mrmc.covariance([p]) for p in parts]))
    one = mrmc.effect(detection.difference, given, truth)
    assert found.differences[0][2].value == pytest.approx(one.value)
    assert found.p == pytest.approx(one.p(0))


def test_one_reader_leaves_cases_alone_random():
    given, truth = ordinary(readers=1)
    one = mrmc.effect(detection.mean, given, truth)
    assert one.se == pytest.approx(given[0].std(ddof=1) / np.sqrt(60))
    assert one.df == np.inf
    assert "one reader only" in mrmc.estimate(detection.mean, given, truth, name="mean", share=False).note


def test_readers_who_all_err_alike_do_not_make_cases_more():
    given, truth = ordinary(readers=1)
    one, many = (mrmc.effect(detection.mean, np.repeat(given, r, 0), truth) for r in (1, 8))
    assert many.se == pytest.approx(one.se)


def test_too_few_cases_are_a_row_that_says_so():
    row = mrmc.estimate(detection.accuracy, np.ones((3, 3)), np.array([1, 1, 0]), name="accuracy")
    assert row.value is None and "fewer than two cases" in row.missing
    assert mrmc.estimate(detection.mean, np.ones((3, 0)), np.empty(0), name="accuracy").missing


def test_full_agreement_has_an_interval_that_counts_each_case_once():
    row = mrmc.estimate(detection.mean, np.ones((9, 20)), np.ones(20), name="accuracy")
    assert (row.value, row.high) == (1, 1)
    assert row.low == pytest.approx(0.025 ** (1 / 20))  # Clopper and Pearson of 20 of 20


def test_readers_who_cannot_tell_are_found_to_tell_in_5_percent_of_studies():
    truth = np.repeat([1, 0], 30)
    seen = simulation.evidence(np.where(truth, 1, -1), np.arange(60), 5, Skill(0, 0, 0.2, 0.8), np.random.default_rng(5), draws=600)
    ps = np.array([mrmc.effect(detection.accuracy, (s > 0).astype(float), truth).p(0.5) for s in seen])
    assert 0.025 < (ps < 0.05).mean() < 0.075


@pytest.mark.parametrize("name, share", [("accuracy", True), ("dprime", False), ("sensitivity", True)])
def test_95_percent_of_intervals_hold_the_truth(name, share):
    skill, truth = Skill(0.8, 0.3, 0.3, 0.7), np.repeat([1, 0], 30)
    seen = simulation.evidence(np.where(truth, 1, -1), np.arange(60), 5, skill, np.random.default_rng(1), draws=300)
    rows = [mrmc.estimate(getattr(detection, name), (s > skill.criterion).astype(float), truth, name=name, share=share)
            for s in seen]
    held = np.mean([row.low <= simulation.expected(skill)[name] <= row.high for row in rows])
    assert 0.91 < held < 0.985


def test_a_comparison_needs_two_readers():
    with pytest.raises(ValueError, match="found 2 and 1"):
        mrmc.compare(np.ones((2, 1)), np.ones((2, 1, 2, 1)))
