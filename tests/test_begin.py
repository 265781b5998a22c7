"""A run that begins from a model keeps its words and its autoencoder, and trains its denoiser further."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medisyn import recipe
from medisyn.models import checkpoint
from medisyn.training import begin, diffusion, latents, stages
from medisyn.training.batches import Pixels
from medisyn.training.run import Stage


@pytest.fixture(scope="module")
def further(phantom_recipe, phantom_run, tmp_path_factory):
    """(recipe, run folder) of a run that went on from the model of another one."""
    folder = tmp_path_factory.mktemp("further")
    settings = recipe.read(phantom_recipe, [f"start={json.dumps(str(phantom_run / 'model'))}", "dit.n_images=32",
                                            "dit.learning_rate=0.0", "dit.matrix_learning_rate=0.0"])
    assert stages.run(settings, folder) == folder / "model"
    return settings, folder


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


def test_words_and_autoencoder_are_the_model_s(further, phantom_run):
    before, after = (checkpoint.load(folder / "model") for folder in (phantom_run, further[1]))
    assert same(before.text, after.text) and same(before.vae, after.vae)
    assert before.vae.config == after.vae.config
    assert before.tokenizer.to_str() == after.tokenizer.to_str()


def test_the_card_counts_all_images_that_it_learned_from(further, phantom_run):
    before, after = (checkpoint.load(folder / "model").card.n_images for folder in (phantom_run, further[1]))
    assert after == before + 32


def test_a_model_s_decoder_alone_can_be_trained_on(phantom_recipe, phantom_run, tmp_path):
    settings = recipe.read(phantom_recipe, [f"start={json.dumps(str(phantom_run / 'model'))}", "dit.n_images=0",
                                            "decoder.further=true", "decoder.n_images=12", "decoder.grid=4.0", "model.texture=0.1"])
    stages.run(settings, tmp_path)
    before, after = (checkpoint.load(folder / "model") for folder in (phantom_run, tmp_path))
    assert same(before.text, after.text) and same(before.dit, after.dit) and same(before.vae.encoder, after.vae.encoder)
    assert not same(before.vae.decoder, after.vae.decoder)
    assert after.support == before.support and after.card == dataclasses.replace(before.card, texture=0.1)
    assert {path.parent.name for path in tmp_path.glob("*/log.jsonl")} == {"decoder"}
    assert (tmp_path / "model" / "training_data.json").read_text() == (phantom_run / "model" / "training_data.json").read_text()


def test_a_recogniser_is_kept_unless_the_recipe_trains_one(phantom_recipe, phantom_run, tmp_path):
    def begun(start, name, *more):
        settings = recipe.read(phantom_recipe, [f"start={json.dumps(str(start))}", "dit.n_images=0", "recogniser.batch=8", *more])
        return stages.run(settings, tmp_path / name)
    first = begun(phantom_run / "model", "first", "recogniser.n_images=16", "recogniser.side=16")
    kept = begun(first, "kept", "recogniser.side=32")
    anew = begun(first, "anew", "recogniser.n_images=16", "recogniser.side=32")
    assert [checkpoint.load(model).recogniser.config.side for model in (first, kept, anew)] == [16, 16, 32]
    assert same(*(checkpoint.load(model).recogniser for model in (first, kept)))


def test_a_denoiser_learns_in_one_call_what_two_of_a_frozen_teacher_give(phantom_recipe, phantom_run, tmp_path, monkeypatch):
    """The teacher is what it began from: here weights at random, to which words mean much."""
    monkeypatch.setattr(diffusion, "UNGUIDED", 0.0)
    settings = recipe.read(phantom_recipe, ["dit.guided=2.0", "dit.guided_share=1.0", 'dit.teacher="frozen"', "dit.n_images=960",
                                            "dit.batch=16", "dit.warmup=1", "dit.drop_text=0.0"]).dit
    known, encoded, read = Pixels(phantom_run / "pixels").records, latents.load(phantom_run / "latents"), stages.reader(phantom_run)
    teacher = checkpoint.load(phantom_run / "model").dit
    torch.manual_seed(3)
    for weight in teacher.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    watch, best, config = diffusion.fit(Stage(tmp_path, "dit", lambda text: None), encoded, known, read, 3, settings,
                                        start=teacher.state_dict())
    assert config.guided == 2.0
    x, t = torch.randn(16, *encoded.latent.shape[1:], generator=torch.Generator().manual_seed(1)), torch.full((16,), 0.5)
    with torch.no_grad():
        tokens, pooled = read(["chest X-ray with pneumonia", "dermoscopy of a melanoma"] * 8)
        nothing, empty = (value.expand(16, *value.shape[1:]) for value in read([""]))
        told, untold = teacher(x, t, tokens, pooled), teacher(x, t, nothing, empty)
        found = best(x, t, tokens, pooled, guidance=torch.full((16,), 2.0))
    guided = untold + 3 * (told - untold)
    assert (found - guided).norm() < 0.6 * (told - guided).norm()
    newest = load_file(sorted((tmp_path / "dit").glob("checkpoint-*"))[-1])
    assert all(torch.equal(newest[f"module.teacher.{name}"], value) for name, value in teacher.state_dict().items())


def test_in_memory_the_scale_is_the_model_s_and_so_are_clusters_of_the_same_latents(phantom_recipe, phantom_run, tmp_path):
    """The second run has the latents of the model's own: none of its clusters is looked for among the model's."""
    settings = recipe.read(phantom_recipe, [f"start={json.dumps(str(phantom_run / 'model'))}", "resident=true", "dit.n_images=8",
                                            "dit.learning_rate=0.0", "dit.matrix_learning_rate=0.0"])
    shutil.copytree(phantom_run / "latents", tmp_path / "same" / "latents")
    for name in ("own", "same"):
        stages.run(settings, tmp_path / name, stages=("latents", "dit", "model"))
    before, own, again = (checkpoint.load(folder / "model") for folder in (phantom_run, tmp_path / "own", tmp_path / "same"))
    assert own.vae.config == again.vae.config == before.vae.config
    assert own.support != before.support and not same(own.dit, before.dit)
    assert again.support == before.support and same(again.dit, before.dit)


def test_sources_of_before_stay_and_none_is_counted_twice():
    def row(source: str, n: int) -> dict:
        return {"source": source, "n_images": n}
    assert begin.together([row("a", 5), row("b", 9)], [row("b", 7), row("c", 2)]) == [row("a", 5), row("b", 9), row("c", 2)]
    assert begin.together([row("a", 5)], [row("a", 6)]) == [row("a", 6)]


def test_an_outlook_says_what_is_taken_over(further):
    first, second = stages.outlook(further[0])
    assert "taken over from" in first
    assert second.startswith("dit")


def test_nothing_but_the_denoiser_was_trained(further):
    logs = {path.parent.name for path in further[1].glob("*/log.jsonl")}
    assert logs == {"dit"}


def test_without_learning_the_denoiser_is_the_model_s_but_for_its_style_clusters(further, phantom_run):
    before, after = (checkpoint.load(folder / "model").dit.state_dict() for folder in (phantom_run, further[1]))
    assert all(torch.equal(before[name], value) for name, value in after.items() if name != "style.weight")
    assert torch.equal(before["style.weight"][-1], after["style.weight"][-1])


def test_each_new_cluster_begins_as_one_of_its_image_type_s(further, phantom_run):
    model, folder = checkpoint.load(phantom_run / "model"), further[1]
    encoded, known = latents.load(folder / "latents"), Pixels(folder / "pixels").records
    state = begin.denoiser(model, stages.reader(folder), encoded, known, 1)
    per_type = begin.styles_by_type(model.support)
    for style in range(encoded.n_styles):
        kind = known[encoded.row[np.flatnonzero(encoded.style == style)[0]]].image_type
        assert any(torch.equal(state["style.weight"][style], model.dit.style.weight[old]) for old in per_type[kind])


def test_several_ranks_find_the_clusters_that_one_finds(further, phantom_run, monkeypatch):
    model, folder = checkpoint.load(phantom_run / "model"), further[1]
    given = stages.reader(folder), latents.load(folder / "latents"), Pixels(folder / "pixels").records, 1
    alone, shares = begin.denoiser(model, *given)["style.weight"], []
    ranks = 49   # 1 / 49 * 49 is not 1
    monkeypatch.setattr(begin, "world", lambda: ranks)
    for number in range(ranks):
        monkeypatch.setattr(begin, "rank", lambda number=number: number)
        monkeypatch.setattr(begin, "average", lambda chosen: shares.append(chosen.clone()) or chosen / ranks)
        begin.denoiser(model, *given)
    assert all((share > 0).sum() <= 1 for share in shares) and sum(shares).all()
    monkeypatch.setattr(begin, "average", lambda chosen: sum(shares) / ranks)
    assert torch.equal(begin.denoiser(model, *given)["style.weight"], alone)


def test_a_cluster_of_an_image_type_that_the_model_never_saw_begins_as_none(further, phantom_run):
    model, folder = checkpoint.load(phantom_run / "model"), further[1]
    known = [dataclasses.replace(r, image_type="oct") for r in Pixels(folder / "pixels").records]
    state = begin.denoiser(model, stages.reader(folder), latents.load(folder / "latents"), known, 1)
    assert all(torch.equal(row, model.dit.style.weight[-1]) for row in state["style.weight"])


@pytest.mark.parametrize(("change", "said"), [
    ("image_size=64", "the recipe says 64; set image_size to the model's"),
    ('start="nowhere"', "nowhere is not a MediSyn model")])
def test_a_start_that_does_not_fit_is_told_in_a_sentence(phantom_recipe, phantom_run, tmp_path, change, said):
    changes = [f"start={json.dumps(str(phantom_run / 'model'))}", "data.packed_side=72", change]
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        stages.run(recipe.read(phantom_recipe, changes), tmp_path / "run")
