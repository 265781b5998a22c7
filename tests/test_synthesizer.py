"""The synthesizer: an image is decided by its provenance, says so, and can be made again."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import medisyn
from medisyn import synthesizer

PROMPT = "chest X-ray with pneumonia"


def test_an_image_depends_on_its_own_seed_alone(maker):
    many = maker.generate(PROMPT, n=3, seed=5)
    alone, = maker.generate(PROMPT, n=1, seed=6)
    assert np.array_equal(many[1].image, alone.image)
    assert many[1].record == alone.record
    assert not np.array_equal(many[0].image, alone.image)


def test_what_is_decided_otherwise_looks_otherwise(maker):
    base, = maker.generate(PROMPT, seed=1)
    for change in ({"seed": 2}, {"steps": 3}, {"guidance": 5.0}, {"sampler": "euler"}):
        other, = maker.generate(PROMPT, **{"seed": 1} | change)
        assert other.record.id != base.record.id
        assert not np.array_equal(other.image, base.image), change


def test_guidance_of_one_asks_once_and_agrees_with_the_long_way(maker):
    plan = maker.plan(PROMPT)
    short = maker.make(plan, maker.settings(plan, 3, guidance=1))
    long = maker.make(plan, dataclasses.replace(maker.settings(plan, 3), guidance=1.0 + 1e-9))
    assert np.allclose(short.image, long.image, atol=1e-3)


def test_an_image_is_made_again_from_its_provenance(maker):
    made, = maker.generate(PROMPT, seed=11, steps=3, guidance=1.5, sampler="heun")
    again = maker.remake(made.record.provenance)
    assert np.array_equal(again.image, made.image)
    assert again.record == made.record


def test_a_model_may_ask_for_guidance_between_two_times_alone(phantom_run, tmp_path):
    shutil.copytree(phantom_run / "model", tmp_path / "model")
    card, images = tmp_path / "model" / "medisyn.json", []
    plain = json.loads(card.read_text())
    for since, until in ((0.0, 1.0), (0.3, 0.6), (2.0, 3.0)):
        card.write_text(json.dumps(plain | {"guidance_from": since, "guidance_until": until}))
        maker = medisyn.load(tmp_path / "model")
        images.append(maker.generate(PROMPT, seed=3, guidance=4.0)[0].image)
    never, = maker.generate(PROMPT, seed=3, guidance=1.0)
    assert np.allclose(images[2], never.image, atol=1e-4)           # a time that never comes: as if not guided
    assert len({image.tobytes() for image in images}) == 3


def test_a_model_may_ask_for_other_guidance_of_one_image_type(phantom_run, tmp_path):
    shutil.copytree(phantom_run / "model", tmp_path / "model")
    card = tmp_path / "model" / "medisyn.json"
    plain, made = json.loads(card.read_text()) | {"guidance_from": 2.0}, []
    for more in ({}, {"guidance_since": {"dermoscopy": 0.0}}, {"guidance_since": {"chest_xray": 0.0}},
                 {"guidance_since": {"chest_xray": 0.0}, "guidance_along": 0.0}):
        card.write_text(json.dumps(plain | more))
        maker = medisyn.load(tmp_path / "model")
        made.append(maker.generate(PROMPT, seed=3, guidance=4.0)[0])
        assert np.array_equal(maker.remake(made[-1].record.provenance).image, made[-1].image)
    images = [one.image.tobytes() for one in made]
    assert images[0] == images[1] and len(set(images)) == 3


def test_a_model_may_ask_for_a_little_noise_before_it_is_decoded(phantom_run, tmp_path):
    shutil.copytree(phantom_run / "model", tmp_path / "model")
    card = tmp_path / "model" / "medisyn.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"texture": 0.2}))
    plain, textured = (medisyn.load(folder) for folder in (phantom_run / "model", tmp_path / "model"))
    (a,), (b,), (c,) = plain.generate(PROMPT, seed=3), textured.generate(PROMPT, seed=3), textured.generate(PROMPT, seed=3)
    assert np.array_equal(b.image, c.image) and 0 < np.abs(a.image - b.image).mean() < 0.2
    assert textured.remake(b.record.provenance).record.id == b.record.id


def test_the_provenance_of_another_model_is_refused(maker):
    made, = maker.generate(PROMPT)
    with pytest.raises(ValueError, match="pass the right one with --model"):
        maker.remake(dataclasses.replace(made.record.provenance, model="sha256:other"))


def test_gray_types_are_gray_and_coloured_ones_are_not(maker):
    chest, = maker.generate("chest X-ray")
    mole, = maker.generate("dermoscopy of a melanoma")
    assert chest.image.shape == (1, 32, 32)
    assert mole.image.shape == (3, 32, 32)
    for made in (chest, mole):
        assert made.image.dtype == np.float32
        assert np.abs(made.image).max() <= 1


def test_a_record_says_what_was_understood_and_nothing_more(maker):
    made, = maker.generate("CXR, 4 y/o boy, pneumonia")
    record = made.record
    assert (record.image_type, record.specialty, record.sex, record.age_years) == ("chest_xray", "radiology", "male", 4)
    assert record.findings == {"pneumonia": True}
    assert record.text == "CXR, 4 y/o boy, pneumonia"
    assert record.synthetic
    assert record.source == "phantom"


def test_a_known_combination_is_made_without_a_warning(maker):
    assert maker.plan(PROMPT).warnings == ()
    assert maker.plan(PROMPT).understood.support == 10


@pytest.mark.parametrize(("prompt", "said"), [
    ("a purple banana", "no image type was understood in 'a purple banana'"),
    ("brain MRI with glioma", "MRI was never trained on; this model knows chest X-ray, dermoscopy"),
    ("chest X-ray with cardiomegaly", "no training image shows this combination; the nearest known one is: chest X-ray"),
    ("chest X-ray with cardiomegaly", "; not drawn, as none of that type shows it: cardiomegaly"),
])
def test_a_doubtful_prompt_is_told_so(maker, prompt, said):
    warning, = maker.plan(prompt).warnings
    assert said in warning
    assert "\n" not in warning


def test_a_warning_about_an_unknown_word_offers_the_nearest(maker):
    warning, = maker.plan("dermoscpy").warnings or maker.plan("dermatoscopi picture").warnings or ("",)
    assert "did you mean" in warning or maker.plan("dermoscpy").understood.image_type == "dermoscopy"


def test_what_is_not_understood_is_not_read_by_the_network(maker):
    plan = maker.plan("chest X-ray with pneumonia and a blorbified gnarf")
    assert plan.understood.not_understood
    assert plan.read_as == "Chest X-ray, pneumonia."


@pytest.mark.parametrize(("change", "said"), [
    ({"steps": 0}, "steps should lie between 1 and 200, found 0"), ({"steps": 201}, "found 201"),
    ({"guidance": -1}, "guidance should lie between 0 and 20"), ({"guidance": float("nan")}, "guidance should lie"),
    ({"sampler": "hein"}, "should be one of euler, heun, multistep"), ({"seed": -1}, "a seed should lie between 0 and 2"),
    ({"seed": 2**63}, "a seed should lie")])
def test_a_setting_out_of_range_is_refused_in_a_sentence(maker, change, said):
    with pytest.raises(ValueError, match=said):
        maker.generate(PROMPT, **change)


def test_what_a_prompt_leaves_open_is_drawn_by_the_seed_and_read_but_is_no_label(maker):
    support = [["chest_xray", "chest", "posteroanterior", None, None, ["pneumonia"], [], 3, {"0": 3}],
               ["chest_xray", "chest", "anteroposterior", None, None, ["pneumonia"], [], 1, {"1": 1}]]
    other = synthesizer.Synthesizer(dataclasses.replace(maker.model, support=support), "0")
    plan = other.plan("pneumonia on a chest X-ray")
    how = [other.settings(plan, seed) for seed in range(40)]
    assert {(h.read_as, h.style) for h in how} == {("Chest X-ray, posteroanterior view, pneumonia.", 0),
                                                   ("Chest X-ray, anteroposterior view, pneumonia.", 1)}
    assert how == [other.settings(plan, seed) for seed in range(40)]
    made = other.generate(plan.prompt, seed=3)[0].record
    assert made.view is None
    assert made.text == plan.prompt
    assert made.provenance.read_as == how[3].read_as


def test_two_wordings_of_one_meaning_give_two_images(maker):
    one, two = (maker.generate(text, seed=3)[0] for text in ("chest X-ray with pneumonia", "pneumonia on a chest X-ray"))
    assert one.record.findings == two.record.findings
    assert not np.array_equal(one.image, two.image)
