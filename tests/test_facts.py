"""Facts: a record's words as numbers, where unknown is not absent."""

import numpy as np
import pytest

from medisyn.data import facts, prompts
from medisyn.data.records import Record

NAMES = ("chest_xray", "chest", "left", "male", "pneumonia", "pleural_effusion", "age_0_18", "age_18_40")
CHILD = Record("a", "a.png", "chest_xray", anatomy="chest", sex="male", age_years=4,
               findings={"pneumonia": True, "pleural_effusion": False, "cardiomegaly": True})


def test_present_absent_and_unstated_are_three_things():
    found = facts.states(CHILD, NAMES)
    assert dict(zip(NAMES, found, strict=True)) == {
        "chest_xray": facts.PRESENT, "chest": facts.PRESENT, "left": facts.UNSTATED, "male": facts.PRESENT,
        "pneumonia": facts.PRESENT, "pleural_effusion": facts.ABSENT, "age_0_18": facts.PRESENT, "age_18_40": facts.UNSTATED}


def test_a_bare_record_states_its_image_type_alone():
    assert facts.states(Record("a", "a.png", "ct"), facts.names()).sum() == facts.PRESENT


@pytest.mark.parametrize(("years", "band"), [
    (0, "age_0_18"), (17.9, "age_0_18"), (18, "age_18_40"), (74, "age_60_75"), (101, "age_75_200")])
def test_every_age_lies_in_one_band(years, band):
    found = facts.states(Record("a", "a.png", "ct", age_years=years), facts.names())
    bands = {name for name, state in zip(facts.names(), found, strict=True) if state and name.startswith("age_")}
    assert bands == {band}


def test_names_stand_once_and_always_in_one_order():
    assert len(set(facts.names())) == len(facts.names())
    assert facts.names() == facts.names()


def test_a_prompt_states_what_its_record_states():
    text = prompts.canonical(CHILD)
    asked = tuple(name for name in facts.names() if name != "normal")
    said = np.flatnonzero(facts.states(CHILD, asked))
    assert np.array_equal(facts.states(prompts.understand(text), asked)[said], facts.states(CHILD, asked)[said])
