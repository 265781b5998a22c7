"""The vocabulary: its words hang together, and it knows a wrong record."""

import subprocess
import sys
from dataclasses import replace

import pytest

from medisyn.data import vocabulary
from medisyn.data.records import Record
from medisyn.data.vocabulary import IMAGE_TYPES, KINDS, SPECIALTIES, TERMS, Term, check, closed, find, nearest, terms_of

KNEE = Record("a", "a.png", "bone_xray", "radiology", "knee", "posteroanterior", laterality="left",
              findings={"kellgren_lawrence_3": True})


def test_every_name_is_one_term_of_a_known_kind():
    for name, term in TERMS.items():
        assert term.name == name and term.kind in KINDS and term.label
    assert sum(len(terms_of(kind)) for kind in KINDS) == len(TERMS)


def test_what_terms_refer_to_exists():
    for term in TERMS.values():
        assert set(term.image_types) <= set(IMAGE_TYPES)
        assert {where for places in term.local.values() for where in places} <= set(IMAGE_TYPES)
        assert all(TERMS[name].kind == "finding" for name in term.implies)
        assert all(TERMS[name].kind == "anatomy" for name in (*term.sites, *term.shows))
    for kind in IMAGE_TYPES.values():
        assert kind.specialty in SPECIALTIES and kind.symmetry in ("none", "mirror", "dihedral")
        assert kind.default_anatomy is None or TERMS[kind.default_anatomy].applies_to(kind.name)


def test_an_implication_holds_wherever_its_finding_applies():
    for term in terms_of("finding"):
        for implied in term.implies:
            assert set(term.image_types) <= set(TERMS[implied].image_types)


def test_no_wording_stands_twice_within_a_term():
    for term in TERMS.values():
        assert len(set(term.synonyms)) == len(term.synonyms) and term.label not in term.synonyms


@pytest.mark.parametrize(("words", "name"), [
    ("CXR", "chest_xray"), ("chest radiographs", "chest_xray"), ("brain tumor", "brain_tumour"), ("nevus", "naevus"),
    ("Seborrheic keratosis", "seborrhoeic_keratosis"), ("BCC", "basal_cell_carcinoma"), ("melanoma", "melanoma"),
    ("hematology", "haematology"), ("H&E", "haematoxylin_eosin"), ("KL 3", "kellgren_lawrence_3"),
    ("PMN", "neutrophil"), ("thorax", "chest"), ("no such thing", None)])
def test_a_wording_finds_its_term(words, name):
    found = find(words)
    assert (found.name if found else None) == name


def test_a_misspelt_word_has_near_ones():
    assert nearest("pneumona")[0] == "pneumonia"
    assert nearest("diabetic")[0] == "diabetic retinopathy"
    assert nearest("zzzzzz") == []


def test_what_follows_is_closed_and_what_was_said_stays():
    assert closed({"bacterial_pneumonia": True}) == {"bacterial_pneumonia": True, "pneumonia": True, "normal": False}
    assert closed({"pneumonia": False})["viral_pneumonia"] is False
    assert closed({"kellgren_lawrence_3": True})["kellgren_lawrence_1"] is False
    assert closed({"normal": True}, "chest_xray")["pneumonia"] is False
    assert closed({"viral_pneumonia": True, "pneumonia": False})["pneumonia"] is False
    assert "pneumonia" not in closed({"covid_19": True})
    assert "naevus" not in closed({"adenocarcinoma": True}, "histopathology")
    assert closed({}) == {}


def test_a_single_cell_is_of_one_kind_and_a_field_of_many():
    assert closed({"eosinophil": True}, "blood_smear", "single_cell")["basophil"] is False
    assert "basophil" not in closed({"eosinophil": True}, "blood_smear", "smear_field")


def test_a_good_record_has_no_problems():
    assert check(KNEE) == []


@pytest.mark.parametrize(("change", "says"), [
    ({"image_type": "bone_x_ray"}, "did you mean 'bone_xray'"), ({"anatomy": "kneee"}, "did you mean 'knee'"),
    ({"view": "craniocaudal"}, "does not apply to bone_xray"),
    ({"findings": {"osteoarthrits": True}}, "did you mean 'osteoarthritis'"),
    ({"specialty": "surgery"}, "belongs to radiology"), ({"sex": "F"}, "not in the vocabulary"),
    ({"age_years": 240.0}, "0..120")])
def test_a_wrong_word_is_named_with_the_nearest_one(change, says):
    problems = check(replace(KNEE, **change))
    assert len(problems) == 1 and says in problems[0] and problems[0].startswith("a: ")


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="specialty, image_type"):
        terms_of("colour")


def test_a_word_applies_where_it_says():
    everywhere = Term("x", "x", "finding")
    assert everywhere.applies_to("ct") and TERMS["flair"].applies_to("mri") and not TERMS["flair"].applies_to("ct")
    assert TERMS["flair"] in vocabulary.applicable("technique", "mri")


def test_importing_the_words_loads_nothing_heavy():
    code = "import sys, medisyn.data.prompts; print([m for m in ('numpy', 'PIL', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
