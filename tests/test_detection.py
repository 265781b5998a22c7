"""Skill of readers: closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from medisyn.reader_study import detection, equivalence, mrmc
from medisyn.reader_study.mrmc import Effect

TRUTH = np.repeat([1, 0], 20)


def called(hits, false, n=20):
    row = np.zeros(2 * n)
    row[:hits], row[n:n + false] = 1, 1
    return row[None]


def test_rates_of_a_table_counted_by_hand():
    given = called(15, 4)
    assert detection.sensitivity(given, TRUTH)[0] == 0.75
    assert detection.specificity(given, TRUTH)[0] == 0.8
    assert detection.accuracy(given, TRUTH)[0] == pytest.approx(31 / 40)


def test_dprime_and_criterion_with_the_log_linear_correction():
    zh, zf = stats.norm.ppf([15.5 / 21, 4.5 / 21])
    assert detection.dprime(called(15, 4), TRUTH)[0] == pytest.approx(zh - zf)
    assert detection.criterion(called(15, 4), TRUTH)[0] == pytest.approx(-(zh + zf) / 2)


def test_dprime_of_a_perfect_reader_is_finite_and_has_an_interval():
    row = detection.of_reader(detection.dprime, called(20, 0)[0], TRUTH, name="dprime", group="reader=a")
    assert 3 < row.value < 5 and row.low < row.value < row.high


def test_the_interval_of_dprime_is_gourevitch_and_galanters():
    h, f = 15.5 / 21, 4.5 / 21
    row = detection.of_reader(detection.dprime, called(15, 4)[0], TRUTH, name="dprime", group="reader=a")
    variance = sum(0.75 * 0.25 / 19 / stats.norm.pdf(stats.norm.ppf(h)) ** 2 if p == h else
                   0.2 * 0.8 / 19 / stats.norm.pdf(stats.norm.ppf(f)) ** 2 for p in (h, f))
    assert row.high - row.value == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)


def test_two_alternatives_give_root_2_times_z():
    right = np.r_[np.ones(15), np.zeros(5)][None]
    assert detection.forced(right, np.ones(20))[0] == pytest.approx(math.sqrt(2) * stats.norm.ppf(15.5 / 21))


def test_sensitivity_and_specificity_change_places_with_the_truth():
    given = called(15, 4)
    assert detection.sensitivity(1 - given, 1 - TRUTH)[0] == detection.specificity(given, TRUTH)[0]
    assert detection.dprime(1 - given, 1 - TRUTH)[0] == pytest.approx(detection.dprime(given, TRUTH)[0])


def test_an_area_depends_on_the_order_of_ratings_alone():
    given = np.random.default_rng(0).normal(size=(3, 40)) + TRUTH
    assert detection.auc(given, TRUTH)[0] == pytest.approx(detection.auc(np.exp(given), TRUTH)[0])
    assert detection.auc(-given, TRUTH)[0] == pytest.approx(1 - detection.auc(given, TRUTH)[0])
    assert detection.auc(np.ones((1, 40)), TRUTH)[0] == 0.5


def test_a_perfect_area_has_an_interval_below_1():
    row = detection.of_reader(detection.auc, TRUTH, TRUTH, name="auc", group="reader=a", share=True)
    assert row.value == 1 and 0.8 < row.low < 0.9 and row.high == 1


def test_equivalence_holds_exactly_when_the_90_percent_interval_lies_within():
    for value in np.linspace(0.4, 0.6, 41):
        one = Effect(float(value), 0.03, 12.0, 5)
        low, high = one.interval(0.9)
        assert (equivalence.tost(one, 0.4, 0.6) < 0.05) is (0.4 < low and high < 0.6)


def test_few_cases_never_show_equivalence():
    assert equivalence.tost_share(5, 10, 0.4, 0.6) > 0.05
    assert equivalence.tost_share(500, 1000, 0.4, 0.6) < 0.001
    assert equivalence.tost_share(700, 1000, 0.4, 0.6) > 0.99


def test_exact_equivalence_errs_in_at_most_5_percent_at_the_margin():
    n = 200
    shown = [k for k in range(n + 1) if equivalence.tost_share(k, n, 0.4, 0.6) < 0.05]
    assert shown and stats.binom.pmf(shown, n, 0.6).sum() <= 0.05


def test_holm_by_hand():
    assert equivalence.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert equivalence.holm([0.9, 0.8]) == [1, 1]
    assert equivalence.holm([]) == []


def test_an_effect_against_its_own_value_is_not_refuted():
    assert Effect(0.5, 0.1, 7, 3).p(0.5) == pytest.approx(1)
    assert mrmc.Effect(0.5, 0.0, math.inf, 3).p(0.4) == 0
