"""Mixture: the floor of a set that is mixed otherwise than a hospital."""

from collections import Counter

import numpy as np
import pytest

from medisyn.data.records import Record
from medisyn.evaluation import mixture


def breasts(**n: int) -> list[Record]:
    """Ultrasound records, so many of each finding."""
    return several("ultrasound", **n)


def several(kind: str, **n: int) -> list[Record]:
    return [Record(f"{name}-{i}", "x.png", kind, findings={name: True}) for name, many in n.items() for i in range(many)]


REAL = breasts(normal=20, benign_breast_lesion=60, malignant_breast_lesion=20)


def drawn(wanted: list[Record], real: list[Record] = REAL, seed: int = 0) -> Counter:
    rows = mixture.alike(wanted, real, np.random.default_rng(seed))
    assert len(set(rows.tolist())) == len(wanted)
    return Counter(next(iter(real[row].findings)) for row in rows)


def test_real_images_come_in_the_mixture_of_the_set():
    wanted = breasts(normal=10, benign_breast_lesion=10, malignant_breast_lesion=10)
    assert drawn(wanted) == {"normal": 10, "benign_breast_lesion": 10, "malignant_breast_lesion": 10}
    assert drawn(breasts(malignant_breast_lesion=20)) == {"malignant_breast_lesion": 20}


def test_what_is_not_said_is_left_to_chance():
    found = drawn([Record(str(i), "x.png", "ultrasound") for i in range(50)])
    assert 20 <= found["benign_breast_lesion"] <= 40
    assert min(found.values()) > 2
    assert drawn([Record(str(i), "x.png", "ultrasound") for i in range(50)], seed=1) != found


def test_a_word_that_another_implies_is_shown_too():
    real = several("chest_xray", bacterial_pneumonia=5, normal=50)
    assert drawn(several("chest_xray", pneumonia=5), real) == {"bacterial_pneumonia": 5}


def test_where_too_few_show_it_those_that_lack_least_come_next():
    """25 malignant ones are wanted and 20 there are: the others show a benign lesion or none, and nobody is drawn twice."""
    found = drawn(breasts(malignant_breast_lesion=25))
    assert found["malignant_breast_lesion"] == 20
    assert sum(found.values()) == 25
    with pytest.raises(ValueError, match="at least 101 real images to draw from, found 100"):
        drawn(breasts(normal=101))


def test_absence_is_asked_for_as_well():
    real = [Record(f"{k}{i}", "x.png", "mri", findings={"brain_tumour": k == "t"}) for k in "tn" for i in range(20)]
    wanted = [Record(str(i), "x.png", "mri", findings={"brain_tumour": False}) for i in range(15)]
    rows = mixture.alike(wanted, real, np.random.default_rng(0))
    assert {real[row].findings["brain_tumour"] for row in rows} == {False}


@pytest.mark.parametrize("kind", ["", "retinal angiogram"])
def test_words_of_somebody_elses_are_compared_as_they_stand(kind):
    real = [Record(f"{k}{i}", "x.png", kind, anatomy=k, findings={"their own": k == "eye"})
            for k in ("ear", "eye") for i in range(9)]
    wanted = [Record(str(i), "x.png", kind, findings={"their own": True}) for i in range(9)]
    rows = mixture.alike(wanted, real, np.random.default_rng(0))
    assert {real[row].anatomy for row in rows} == {"eye"}
