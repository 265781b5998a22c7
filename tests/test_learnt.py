"""New words: the model that was taught one understands it, says so and is told it; any other model does not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import phantoms
import pytest

pytest.importorskip("peft")
tiny_bases = pytest.importorskip("tiny_bases")

import medisyn  # noqa: E402
from medisyn import recipe  # noqa: E402
from medisyn.data import learnt, records  # noqa: E402
from medisyn.training import finetune  # noqa: E402
from medisyn.web import words  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

TOKENS = """
[method.tokens."<glow>"]
finding = "greenish_glow"
begins_as = "pneumonia"
[method.tokens."<mole-2>"]
finding = "other_mole"
begins_as = "nevus"
"""
PROMPT = "Chest X-ray with pneumonia and <glow>"


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    """Phantoms, every other one with a finding that no vocabulary has."""
    home = phantoms.collection(tmp_path_factory.mktemp("taught") / "collection", 8)
    found = [dataclasses.replace(r, findings=r.findings | {"greenish_glow": i % 2 == 0}) for i, r in enumerate(records.read(home))]
    records.write(found, home)
    return home


@pytest.fixture(scope="module", params=["lora", "full"])
def taught(request, collection, tmp_path_factory) -> Path:
    """A tiny diffusers base that was taught two words, as a model folder."""
    home = tmp_path_factory.mktemp("base")
    path = home / "recipe.toml"
    path.write_text(tiny_bases.RECIPE.format(
        base=tiny_bases.FAMILIES["sd"](home / "sd"), side=tiny_bases.SIDE, collection=collection,
        method=request.param) + TOKENS)
    finetune.run(recipe.read(path), home / "run", ("cache", "tune", "model"))
    return home / "run" / "model"


def test_a_word_is_told_as_taught_by_the_model_that_learnt_it(call, taught):
    assert learnt.words_of(taught) == ("<glow>", "<mole-2>") and learnt.support_of(taught)
    code, out, _ = call("understand", PROMPT, "--model", taught)
    assert code == 0
    assert out.splitlines()[0].endswith('images; taught word: "<glow>"')
    code, out, _ = call("understand", "chest X-ray, <glow>, <gleam>", "--model", taught)
    assert out.splitlines()[0].endswith('; taught word: "<glow>"; not understood: "gleam"')
    told = json.loads(call("understand", "chest X-ray without <glow>, <gleam>", "--model", taught, "--json")[1])
    assert (told["taught"], told["not_understood"]) == ({"<glow>": False}, ["gleam"])


def test_the_model_reads_the_words_that_are_wanted_and_no_other(taught):
    maker = medisyn.load(taught)
    assert set(maker.painter.words) == {"<glow>", "<mole-2>"}
    plan = maker.plan("chest X-ray with pneumonia, <GLOW>, <gleam>")
    assert (plan.understood.taught, plan.understood.not_understood) == ({"<glow>": True}, ("gleam",))
    assert plan.read_as.endswith(", <glow>") and "<gleam>" not in plan.read_as
    for prompt, said in ((PROMPT, True), ("Chest X-ray with pneumonia, no <glow>", False), ("Chest X-ray with pneumonia", False)):
        (made,) = maker.generate(prompt, seed=2)
        assert ("<glow>" in made.record.provenance.read_as) is said
        assert made.record.findings == {"pneumonia": True}
        again = maker.remake(made.record.provenance)
        assert again.record == made.record and np.array_equal(again.image, made.image)


def test_strict_makes_what_holds_a_taught_word_and_refuses_what_was_never_trained(call, taught, tmp_path):
    """As words of the vocabulary "<mole-2>" would be a naevus, which no chest X-ray shows."""
    code, _, err = call("generate", "chest X-ray, <mole-2>", "-n", 1, "--strict", "--model", taught, "-o", tmp_path / "a")
    assert code == 0, err
    assert '; taught word: "<mole-2>"\n' in err and "not understood" not in err and "warning" not in err
    (made,) = records.read(tmp_path / "a")
    assert made.findings == {} and made.provenance.read_as.endswith(", <mole-2>")
    assert call("verify", tmp_path / "a" / made.file_name, "--model", taught)[0] == 0
    code, _, err = call("generate", "chest X-ray, <mole-3>", "-n", 1, "--strict", "--model", taught, "-o", tmp_path / "b")
    assert code == 1
    assert "no training image shows this combination" in err and "leave --strict out" in err
    assert not (tmp_path / "b").exists()


def test_our_own_model_is_taught_no_words_and_understands_none(call, phantom_run, maker, collection, tmp_path):
    model = phantom_run / "model"
    assert learnt.words_of(model) == maker.painter.words == ()
    code, out, _ = call("understand", PROMPT, "--model", model)
    assert code == 0 and out.splitlines()[0].endswith('; not understood: "glow"')
    plan = maker.plan(PROMPT)
    assert (plan.understood.taught, plan.understood.not_understood) == ({}, ("glow",))
    assert "<glow>" not in plan.read_as
    code, _, err = call("generate", PROMPT, "-n", 1, "--strict", "--model", model, "-o", tmp_path / "made")
    assert code == 0 and 'not understood: "glow"' in err and "taught word" not in err
    path = tmp_path / "recipe.toml"
    path.write_text(tiny_bases.RECIPE.format(base=model, side=32, collection=collection, method="full") + TOKENS)
    with pytest.raises(ValueError, match="reads by word pieces of its own, to which none can be added; use a word of the vocab"):
        finetune.run(recipe.read(path), tmp_path / "run")


def test_our_own_model_goes_on_without_words_once_it_was_taught_images(call, phantom_run, collection, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(tiny_bases.RECIPE.format(base=phantom_run / "model", side=32, collection=collection, method="lora"))
    model = finetune.run(recipe.read(path), tmp_path / "run", ("cache", "tune", "model"))
    assert learnt.words_of(model) == medisyn.load(model).painter.words == ()
    assert call("understand", PROMPT, "--model", model)[1].splitlines()[0].endswith('; not understood: "glow"')


def test_the_studio_shows_a_taught_word_as_understood(taught):
    found = words.understood(PROMPT, learnt.support_of(taught), learnt.words_of(taught))
    assert found["facts"][-1] == {"kind": "taught", "label": "taught word <glow>", "present": True, "said": True}
    assert found["not_understood"] == [] and found["warning"] is None
    assert words.understood(PROMPT, learnt.support_of(taught))["not_understood"] == ["glow"]
