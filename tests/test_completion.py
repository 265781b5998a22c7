"""What a prompt leaves open is drawn from the training images that show what it asks for."""

import pytest

from medisyn.data.completion import complete, unlearnt
from medisyn.data.understanding import Understanding

SUPPORT = [
    ["chest_xray", "chest", "posteroanterior", None, None, ["bacterial_pneumonia", "pneumonia"], ["normal"], 6, {"0": 3, "1": 3}],
    ["chest_xray", "chest", "posteroanterior", None, None, ["normal"], ["pneumonia"], 2, {"2": 2}],
    ["chest_xray", "chest", "anteroposterior", None, None, ["pneumonia"], ["normal"], 2, {"1": 2}],
    ["dermoscopy", "skin", None, None, None, [], [], 9, {"3": 9}],
]
SICK = Understanding("chest_xray", findings={"pneumonia": True})


def drawn(understood: Understanding, n: int = 400) -> list:
    return [complete(understood, SUPPORT, seed) for seed in range(n)]


def test_the_rest_is_drawn_as_often_as_it_goes_with_what_was_asked_for():
    views = [c.facts.view for c in drawn(SICK)]
    assert views.count("posteroanterior") / 400 == pytest.approx(0.75, abs=0.07)
    assert set(views) == {"posteroanterior", "anteroposterior"}


def test_a_style_occurs_in_the_combination_that_was_drawn():
    found = {(c.facts.view, c.style) for c in drawn(SICK)}
    assert found == {("posteroanterior", 0), ("posteroanterior", 1), ("anteroposterior", 1)}


def test_what_goes_with_a_combination_is_added_and_what_was_asked_for_stays():
    found = {(c.facts.view, tuple(sorted(c.facts.findings.items()))) for c in drawn(SICK)}
    assert found == {("posteroanterior", (("bacterial_pneumonia", True), ("pneumonia", True))),
                     ("anteroposterior", (("pneumonia", True),))}
    asked = Understanding("chest_xray", view="anteroposterior", findings={"pneumonia": True})
    assert {c.facts.view for c in drawn(asked, 30)} == {"anteroposterior"}


def test_absent_findings_are_never_added():
    assert all(all(c.facts.findings.values()) for c in drawn(Understanding("chest_xray")))


def test_an_unseen_combination_gets_no_finding_that_nobody_asked_for():
    unseen = Understanding("chest_xray", view="posteroanterior", findings={"bacterial_pneumonia": True, "normal": True})
    assert all(c.facts.findings == {"bacterial_pneumonia": True, "normal": True} for c in drawn(unseen, 60))


def test_an_unseen_combination_takes_the_style_of_what_lacks_least():
    sideways = Understanding("chest_xray", laterality="left", findings={"bacterial_pneumonia": True})
    assert {c.style for c in drawn(sideways, 100)} == {0, 1}       # findings weigh more than the side
    healthy = Understanding("chest_xray", view="anteroposterior", findings={"normal": True})
    assert {(c.style, c.facts.view) for c in drawn(healthy, 60)} == {(2, "anteroposterior")}
    enlarged = Understanding("chest_xray", findings={"cardiomegaly": True})
    assert {c.style for c in drawn(enlarged, 200)} == {0, 1}       # nobody is sick and healthy


def test_what_was_never_learnt_of_an_image_type_is_not_told():
    asked = Understanding("chest_xray", laterality="left", technique="t2", findings={"cardiomegaly": True, "pneumonia": False})
    for found in drawn(asked, 40):
        assert (found.facts.laterality, found.facts.technique, found.facts.findings) == (None, None, {"pneumonia": False})
    many = {"pneumonia": True, "cardiomegaly": True, "bacterial_pneumonia": True, "normal": False}
    kept = ["pneumonia", "bacterial_pneumonia", "normal"]
    assert [list(c.facts.findings) for c in drawn(Understanding("chest_xray", findings=many), 5)] == [kept] * 5  # in their order
    assert {c.facts.anatomy for c in drawn(Understanding("dermoscopy", anatomy="leg"), 20)} == {"skin"}


def test_what_was_never_learnt_is_named_once():
    asked = Understanding("chest_xray", laterality="left", view="posteroanterior",
                          findings={"cardiomegaly": True, "pneumonia": True, "tuberculosis": False})
    assert unlearnt(asked, SUPPORT) == ["left", "cardiomegaly"]
    graded = Understanding("fundus_photograph", anatomy="retina", findings={
        "severe_nonproliferative_retinopathy": True, "diabetic_retinopathy": True})
    eyes = [["fundus_photograph", "retina", None, None, None, [], [], 3, {"0": 3}]]
    assert unlearnt(graded, eyes) == ["severe non-proliferative diabetic retinopathy"]
    assert unlearnt(graded, SUPPORT) == unlearnt(SICK, SUPPORT) == []


def test_a_pretrained_network_is_told_all_that_was_asked_for():
    asked = Understanding("chest_xray", laterality="left", findings={"cardiomegaly": True})
    found = complete(asked, SUPPORT, 0, pretrained=True).facts
    assert (found.laterality, found.findings) == ("left", {"cardiomegaly": True})


def test_an_image_type_that_nobody_understood_or_trained_is_left_as_it_is():
    assert complete(Understanding(), SUPPORT, 0).facts == Understanding()
    other = Understanding("oct", anatomy="macula")
    assert complete(other, SUPPORT, 0).facts == other
    assert complete(other, SUPPORT, 0).style is None


def test_a_seed_draws_the_same_again():
    assert drawn(SICK, 20) == drawn(SICK, 20)
