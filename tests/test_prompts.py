"""Prompts say what a record knows, in many words, and never what it does not know."""

from dataclasses import replace

import numpy as np
import pytest

from medisyn.data.prompts import REGISTERS, canonical, caption, describe, necessary, noisy, paraphrases, random_record, understand
from medisyn.data.records import Record
from medisyn.data.vocabulary import IMAGE_TYPES, check, closed
from medisyn.data.wordings import HOLES, PHRASES, REPORTS, SENTENCES

FIELDS = ("image_type", "specialty", "anatomy", "view", "technique", "laterality", "age_years", "sex")
CHEST = Record("a", "a.png", "chest_xray", "radiology", "chest", "anteroposterior", age_years=54.0, sex="female",
               findings={"normal": False, "pneumonia": True, "bacterial_pneumonia": True, "viral_pneumonia": False})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def compared(text: str, stated: Record) -> tuple[int, int, int, int]:
    """(facts stated, of these recovered, facts read, of these false)."""
    read = understand(text)
    follows = closed(read.findings, read.image_type, read.view)
    allowed = closed(stated.findings, stated.image_type, stated.view)
    told = [(getattr(stated, name), getattr(read, name)) for name in FIELDS]
    told += [(present, follows.get(name)) for name, present in stated.findings.items()]
    heard = [(getattr(stated, name), getattr(read, name)) for name in FIELDS]
    heard += [(allowed.get(name), present) for name, present in read.findings.items()]
    default = IMAGE_TYPES[stated.image_type].default_anatomy  # a chest X-ray shows a chest, whether said or not
    return (sum(a is not None for a, _ in told), sum(a is not None and a == b for a, b in told),
            sum(b is not None for _, b in heard), sum(b not in (None, a, default) for a, b in heard))


@pytest.mark.parametrize("register", REGISTERS)
def test_what_is_stated_is_recovered_and_nothing_else(register):
    draw, totals = rng(1), np.zeros(4)
    for _ in range(400):
        totals += compared(*caption(random_record(draw), draw, register))
    stated, recovered, read, false = totals
    assert recovered >= 0.99 * stated and false <= 0.002 * read


def test_with_nothing_dropped_everything_known_is_stated():
    draw = rng(2)
    for _ in range(200):
        record = random_record(draw)
        text, stated = caption(record, draw, drop=0.0)
        assert stated == record
        told, recovered, _, _ = compared(text, record)
        assert recovered == told, text


def test_the_canonical_sentence_names_every_known_fact_and_is_fixed():
    draw = rng(3)
    for _ in range(200):
        record = random_record(draw)
        told, recovered, _, false = compared(canonical(record), record)
        assert (recovered, false) == (told, 0), canonical(record)
    assert canonical(CHEST) == ("Chest X-ray, anteroposterior view, female, 54 years old, bacterial pneumonia, "
                                "no viral pneumonia.")


def test_the_unknown_is_never_mentioned():
    bare = Record("a", "a.png", "chest_xray")
    for seed in range(60):
        read = understand(describe(bare, rng(seed)))
        assert read.findings == {} and read.not_understood == ()
        assert (read.view, read.technique, read.laterality, read.age_years, read.sex) == (None,) * 5


def test_the_same_seed_makes_the_same_words():
    assert [describe(CHEST, rng(7)) for _ in range(3)] == [describe(CHEST, rng(7))] * 3
    assert len({describe(CHEST, rng(seed)) for seed in range(50)}) > 45


def test_dropping_everything_leaves_the_image_type():
    text, stated = caption(CHEST, rng(), drop=1.0)
    assert understand(text).image_type == "chest_xray"
    assert stated == replace(CHEST, view=None, age_years=None, sex=None, findings={})


def test_a_finding_is_not_repeated_in_its_parent():
    assert necessary(CHEST) == {"bacterial_pneumonia": True, "viral_pneumonia": False}


def test_paraphrases_state_the_same_facts_in_different_words():
    texts = paraphrases(CHEST, rng(4), 6)
    assert len(set(texts)) == 6
    facts = [(read.findings, read.view, read.age_years, read.sex) for read in map(understand, texts)]
    assert facts == facts[:1] * 6


def test_an_unknown_register_is_named():
    with pytest.raises(ValueError, match="keywords, phrase"):
        describe(CHEST, rng(), register="poem")


def test_templates_are_many_and_their_holes_exist():
    for templates in (PHRASES, SENTENCES, REPORTS):
        assert len(set(templates)) >= 12
        for template in templates:
            template.format(**dict.fromkeys(HOLES, ""))
            assert template.count("{image}") == 1


def test_sentences_have_clean_seams():
    draw = rng(5)
    for _ in range(300):
        text = describe(random_record(draw), draw)
        assert not any(seam in text for seam in ("  ", "..", " .", " ,", ",,", ", .", "{", "}", "None")), text
        assert text == text.strip()


def test_a_random_record_is_of_the_vocabulary_and_sound():
    draw = rng(6)
    records = [random_record(draw) for _ in range(300)]
    assert [problem for record in records for problem in check(record)] == []
    assert {record.image_type for record in records} == set(IMAGE_TYPES)
    for record in records:
        for name, present in record.findings.items():
            rest = {other: value for other, value in record.findings.items() if other != name}
            assert closed(rest, record.image_type, record.view).get(name, present) is present


def test_noise_seldom_changes_what_is_understood():
    draw, totals = rng(8), np.zeros(4)
    for _ in range(400):
        text, stated = caption(random_record(draw), draw)
        totals += compared(noisy(text, draw, 0.05), stated)
    stated, recovered, read, false = totals
    assert recovered >= 0.97 * stated and false <= 0.005 * read


def test_without_noise_the_words_stay():
    assert noisy("A chest X-ray.", rng(), rate=0.0) == "A chest X-ray."
