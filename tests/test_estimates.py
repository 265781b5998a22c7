"""Estimates: an interval holds the truth as often as it says, and a figure that cannot be computed says why."""

import json

import numpy as np
import pytest

from medisyn import estimates
from medisyn.estimates import Estimate


def mean_of(values: np.ndarray, **facts) -> Estimate:
    return estimates.bootstrap(lambda rows: values[rows].mean(), len(values), name="mean", **facts)


def test_the_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_of(values, draws=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert (found.n, found.patients) == (400, None)


def test_an_interval_holds_the_truth_about_95_times_of_100():
    held = 0
    for seed in range(200):
        found = mean_of(np.random.default_rng(seed).normal(0, 1, 60), draws=200, seed=seed)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_images_of_one_patient_are_no_independent_witnesses():
    values = np.repeat(np.random.default_rng(1).normal(0, 1, 40), 10)      # ten equal images a patient
    alone, together = mean_of(values), mean_of(values, patients=np.repeat(np.arange(40), 10))
    assert together.patients == 40
    assert 2.2 < (together.high - together.low) / (alone.high - alone.low) < 4.5   # sqrt(10)


def test_a_resample_holds_whole_patients():
    keys = np.array(["a", "a", "b", "c", "c", "c"])
    for rows in estimates.resamples(6, 50, 0, keys):
        times = np.bincount(rows, minlength=6)
        assert times[0] == times[1]
        assert times[3] == times[4] == times[5]


def test_strata_keep_their_sizes():
    strata = np.repeat([0, 1], [30, 5])
    for rows in estimates.resamples(35, 20, 0, None, strata):
        assert np.bincount(strata[rows]).tolist() == [30, 5]


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert mean_of(values, seed=3) == mean_of(values, seed=3)
    assert mean_of(values, seed=3) != mean_of(values, seed=4)


def test_a_centred_interval_surrounds_its_value():
    values = np.random.default_rng(0).random(30)

    def different(rows):
        return float(len(np.unique(values[rows])))      # doubles make it smaller, always
    plain, centred = (estimates.bootstrap(different, 30, name="x", centred=c) for c in (False, True))
    assert plain.high < plain.value
    assert centred.low < centred.value < centred.high


def test_wilson_and_clopper_pearson_are_the_textbook_ones():
    found = estimates.proportion(8, 20, name="share")
    assert (found.low, found.high) == pytest.approx((0.2188, 0.6134), abs=1e-4)
    assert estimates.exact(8, 20) == pytest.approx((0.1912, 0.6395), abs=1e-4)
    assert estimates.proportion(0, 20, name="share").high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert estimates.proportion(20, 20, name="share").low == pytest.approx(0.025 ** (1 / 20))


def test_intervals_of_shares_are_those_of_scipy():
    from scipy.stats import binomtest
    for k, n in ((1, 9), (3, 7), (50, 60)):
        for ours, method in ((estimates.wilson, "wilson"), (estimates.exact, "exact")):
            theirs = binomtest(k, n).proportion_ci(method=method)
            assert ours(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_all_of_a_few_patients_is_still_uncertain():
    keys = np.repeat(np.arange(5), 20)
    found = estimates.bootstrap(lambda rows: 1.0, 100, name="share", patients=keys, share=True)
    assert found.low == pytest.approx(0.025 ** (1 / 5))


def test_what_cannot_be_computed_is_a_row_that_says_why():
    assert "no images" in mean_of(np.empty(0)).missing
    assert "undefined" in estimates.bootstrap(lambda rows: float("nan"), 4, name="auroc").missing
    assert "no images" in estimates.proportion(0, 0, name="share").missing
    row = estimates.absent("x", "nobody looked", "sex=female", n=3)
    assert (row.value, row.low, row.high, row.group) == (None, None, None, "sex=female")
    assert row.text == "not computed: nobody looked"


def test_one_patient_gives_a_value_without_an_interval():
    found = mean_of(np.arange(4.0), patients=["a"] * 4)
    assert (found.value, found.low, found.high) == (1.5, None, None)
    assert "one patient" in found.note


def test_a_share_of_more_than_all_is_refused():
    with pytest.raises(ValueError, match="expected 0 <= k <= n, found k = 3 and n = 2"):
        estimates.proportion(3, 2, name="share")


def test_an_estimate_survives_json():
    found = mean_of(np.arange(20.0), floor=0.5, better="lower", extractor="eye 012")
    assert estimates.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    with pytest.raises(ValueError, match="expected the fields of an estimate"):
        estimates.from_dict({"nom": "x"})
