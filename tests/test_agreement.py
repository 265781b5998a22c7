"""Agreement against the published examples and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medisyn.reader_study import agreement

# Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses
FLEISS = np.array([[int(c) for c in row] for row in (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 00501 30012 51000 02040 10203 "
    "00006 01050 02013 20040 10041 05010 40002 02040 10500 00006").split()])
# Krippendorff 2011, section E: 4 observers, 12 units, some unread
KRIPPENDORFF = [[1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
                [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]]


def test_the_kappa_of_fleiss_1971():
    assert FLEISS.sum(0).tolist() == [26, 26, 30, 55, 43]
    assert agreement.fleiss(FLEISS) == pytest.approx(0.430, abs=5e-4)


@pytest.mark.parametrize("scale, alpha", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_alphas_of_krippendorff_2011(scale, alpha):
    counts = agreement.tally(KRIPPENDORFF, (1, 2, 3, 4, 5))
    assert agreement.krippendorff(counts, scale) == pytest.approx(alpha, abs=5e-4)


def test_cohens_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 80)
    b = np.where(rng.random(80) < 0.6, a, rng.integers(0, 3, 80))
    assert agreement.cohen(a, b) == pytest.approx(cohen_kappa_score(a, b))


def test_full_agreement_is_1_and_chance_about_0():
    alike = np.array([[5, 0], [0, 5], [5, 0]])
    assert agreement.fleiss(alike) == agreement.krippendorff(alike) == 1
    answers = np.random.default_rng(1).integers(0, 2, (6, 2000))
    assert abs(agreement.fleiss(agreement.tally(answers, (0, 1)))) < 0.02


def test_where_all_answers_are_one_nothing_can_be_said():
    counts = np.array([[4, 0], [4, 0]])
    assert np.isnan(agreement.fleiss(counts)) and np.isnan(agreement.krippendorff(counts))
    assert np.isnan(agreement.cohen(["a", "a"], ["a", "a"]))


def test_an_ordered_scale_forgives_neighbours():
    near, far = np.array([[1, 1, 0], [0, 1, 1], [2, 0, 0], [0, 0, 2]]), np.array([[1, 0, 1], [1, 0, 1], [0, 2, 0], [0, 2, 0]])
    assert agreement.krippendorff(near, "ordinal") > agreement.krippendorff(near) > agreement.krippendorff(far, "ordinal")


def test_cases_read_by_different_numbers_are_refused_by_fleiss_alone():
    counts = np.array([[2, 0], [1, 2]])
    with pytest.raises(ValueError, match="found 2 to 3"):
        agreement.fleiss(counts)
    assert np.isfinite(agreement.krippendorff(counts))
    with pytest.raises(ValueError, match="found 'ratio'"):
        agreement.krippendorff(counts, "ratio")
