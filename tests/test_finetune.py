"""Fine-tuning: every family of bases goes from its real folder format through training and back into diffusers."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft")
tiny_bases = pytest.importorskip("tiny_bases")

import medisyn  # noqa: E402
from medisyn import painters, recipe, samplers, synthesizer  # noqa: E402
from medisyn.data import records  # noqa: E402
from medisyn.models import bases  # noqa: E402
from medisyn.training import finetune, run, tune  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

PROMPT = "Chest X-ray, pneumonia."


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    return phantoms.collection(tmp_path_factory.mktemp("collection"), 8)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Held-out images enough for a nearest-neighbour ratio."""
    return phantoms.collection(tmp_path_factory.mktemp("many"), 14, val=9)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a tiny base by the name of its family, made once."""
    home, made = tmp_path_factory.mktemp("bases"), {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tiny_bases.FAMILIES[family](home / family)
        return made[family]
    return folder


@pytest.fixture
def written(base, collection, tmp_path):
    """A recipe file of a family and a method, with changes."""
    def write(family: str | Path, method: str = "lora", **changes: object) -> Path:
        source = family if isinstance(family, Path) else base(family)
        path = tmp_path / f"{Path(source).name}-{method}.toml"
        path.write_text(tiny_bases.RECIPE.format(base=source, collection=collection, method=method, side=tiny_bases.SIDE))
        return path
    return write


def taught(path: Path, folder: Path, *changes: str) -> Path:
    made = finetune.run(recipe.read(path, list(changes)), folder)
    assert made == folder / "model"
    return made


def noise_of(seed: int, base) -> torch.Tensor:
    cells = tiny_bases.SIDE // base.factor
    return samplers.seeded_noise([seed], (base.latent_channels, cells, cells))


# ---- every family, there and back -------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", sorted(tiny_bases.FAMILIES))
def test_a_base_that_was_taught_whole_opens_in_diffusers_and_draws_the_same(family, written, tmp_path):
    model = taught(written(family, "full"), tmp_path / "run")
    before, after = bases.load(recipe.read(written(family, "full")).base), bases.load(model)
    changed = [name for name, value in after.networks[after.denoiser].state_dict().items()
               if not torch.equal(value, before.networks[before.denoiser].state_dict()[name])]
    assert len(changed) > 10
    pairs = zip(before.networks["vae"].parameters(), after.networks["vae"].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    maker = medisyn.load(model)
    (made,) = maker.generate(PROMPT, seed=5, guidance=1)
    how = made.record.provenance
    from medisyn.velocities import start, times, velocity
    with torch.no_grad():
        at = times(after, 3, tiny_bases.SIDE)
        noise = noise_of(synthesizer.root(PROMPT, 5), after)
        latent = samplers.euler(velocity(after, after.read([how.read_as])), start(after, noise, at), at)
        wanted = after.decode(latent).clamp(-1, 1)[0].mean(0, keepdim=True).numpy()
    assert np.abs(made.image - wanted).max() < 1e-4
    assert (made.record.image_type, made.record.findings) == ("chest_xray", {"pneumonia": True})


@pytest.mark.parametrize("family", [name for name in sorted(tiny_bases.FAMILIES) if name != "pixart"])
def test_low_rank_updates_are_loaded_by_diffusers_with_the_same_result(family, written, tmp_path):
    import diffusers
    model = taught(written(family), tmp_path / "run")
    assert not (model / "vae").exists()
    size = sum(p.stat().st_size for p in model.glob("*.safetensors"))
    assert size < sum(p.stat().st_size for p in Path(recipe.read(written(family)).base).rglob("*.safetensors"))
    ours = medisyn.load(model).model.base
    theirs = diffusers.DiffusionPipeline.from_pretrained(recipe.read(written(family)).base, local_files_only=True)
    theirs.load_lora_weights(model)
    network = theirs.components[ours.denoiser].eval()
    generator = torch.Generator().manual_seed(1)
    before = bases.load(recipe.read(written(family)).base)
    x, told = torch.randn(noise_of(1, ours).shape, generator=generator), ours.read(["brain mri"])
    step = torch.tensor([500.0])
    before.networks[before.denoiser] = network   # the functions look the networks up at each call
    with torch.no_grad():
        taught_there, taught_here = before.predict(x, step, told), ours.predict(x, step, told)
        plain = bases.load(before.source).predict(x, step, told)
    assert (taught_there - taught_here).abs().max() < 1e-5
    assert (plain - taught_here).abs().max() > 1e-4


def test_low_rank_updates_of_pixart_which_diffusers_does_not_load_are_read_here(written, tmp_path):
    model = taught(written("pixart"), tmp_path / "run")
    plain, ours = bases.load(recipe.read(written("pixart")).base), medisyn.load(model).model.base
    changed = [name for name, value in ours.networks["transformer"].state_dict().items()
               if not torch.equal(value, plain.networks["transformer"].state_dict()[name])]
    assert changed and all("attn" in name or ".ff." in name for name in changed)
    (made,) = medisyn.load(model).generate(PROMPT, seed=1)
    assert np.isfinite(made.image).all()


def test_our_own_model_is_taught_by_the_same_recipe(phantom_run, written, tmp_path):
    path = written(phantom_run / "model", "full")
    model = taught(path, tmp_path / "run", "method.prior_images=6")
    maker = medisyn.load(model)
    assert maker.model.card.n_images == 96 + 24
    assert maker.model.card.name == "taught"
    (made,) = maker.generate(PROMPT, seed=1)
    assert made.image.shape == (1, 32, 32)
    old, new = medisyn.load(phantom_run / "model").model, maker.model
    assert sum(row[7] for row in new.support) == sum(row[7] for row in old.support) + 10
    assert not torch.equal(old.dit.patch.weight, new.dit.patch.weight)
    assert (model / "guard" / "guard.json").is_file()


def test_low_rank_updates_of_our_own_model_become_part_of_it(phantom_run, written, tmp_path):
    model = taught(written(phantom_run / "model", "lora"), tmp_path / "run")
    old, new = medisyn.load(phantom_run / "model").model.dit, medisyn.load(model).model.dit
    changed = {name for name, value in new.state_dict().items() if not torch.equal(value, old.state_dict()[name])}
    assert changed and all("attention" in name or "feed_forward" in name for name in changed)


# ---- what may be asked ------------------------------------------------------------------------------------------------

def test_text_encoders_learn_where_they_are_asked_to(written, tmp_path):
    model = taught(written("sd", "full"), tmp_path / "run", "method.text=true")
    before, after = bases.load(recipe.read(written("sd", "full")).base), bases.load(model)
    pairs = zip(before.networks["text_encoder"].parameters(), after.networks["text_encoder"].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert not list((tmp_path / "run" / "cache").glob("told-*"))


def test_a_new_word_is_learnt_and_nothing_else_of_the_vocabulary(written, collection, tmp_path):
    found = [dataclasses.replace(r, findings=r.findings | {"greenish_glow": i % 2 == 0})
             for i, r in enumerate(records.read(collection))]
    mine = tmp_path / "mine"
    shutil.copytree(collection, mine)
    records.write(found, mine)
    path = written("sd")
    path.write_text(path.read_text().replace(str(collection), str(mine)) +
                    '\n[method.tokens."<glow>"]\nfinding = "greenish_glow"\nbegins_as = "pneumonia"\n')
    model = taught(path, tmp_path / "run")
    told = load_file(model / "learned_embeds.safetensors")
    assert set(told) == {"text_encoder|<glow>"}
    maker = medisyn.load(model)
    table = maker.model.base.networks["text_encoder"].get_input_embeddings().weight
    old = bases.load(recipe.read(path).base).networks["text_encoder"].get_input_embeddings().weight
    new = maker.model.base.pipeline.tokenizer.convert_tokens_to_ids("<glow>")
    others = [row for row in range(len(old)) if row != new]
    assert torch.equal(table[others], old[others]) and torch.equal(table[new], told["text_encoder|<glow>"])
    (with_word,) = maker.generate("Chest X-ray with <glow>", seed=2)
    assert "<glow>" in with_word.record.provenance.read_as
    (without,) = maker.generate("Chest X-ray", seed=2)
    assert "<glow>" not in without.record.provenance.read_as
    assert any("<glow>" in text for text in json.loads(json.dumps(texts_of(path))))


def texts_of(path: Path) -> tuple[str, ...]:
    settings = recipe.read(path)
    base, known = bases.load(settings.base), finetune.taught(settings)
    from medisyn.training import cache
    return cache.plan(known, base, tiny_bases.SIDE, settings.seed, settings.cache, finetune.words_of(settings)).texts


def test_a_word_that_exists_is_refused(written, tmp_path):
    path = written("sd")
    path.write_text(path.read_text() + '\n[method.tokens."<|endoftext|>"]\nfinding = "x"\n')
    with pytest.raises(ValueError, match="is in the tokenizer already; choose another word"):
        taught(path, tmp_path / "run")


def test_images_keep_their_aspect_in_buckets(base, collection, tmp_path, written):
    from PIL import Image
    mine = tmp_path / "mine"
    shutil.copytree(collection, mine)
    for k, record in enumerate(records.read(mine)):
        if k % 2:
            with Image.open(mine / record.file_name) as opened:
                opened.resize((128, 64)).save(mine / record.file_name)
    path = written("sd", "full")
    path.write_text(path.read_text().replace(str(collection), str(mine)).replace("image_size = 32", "image_size = 64"))
    settings = recipe.read(path, ["cache.buckets=true"])
    finetune.run(settings, tmp_path / "run", ("cache", "tune"))
    sizes = {tuple(load_file(shard)["latent"].shape[2:]) for shard in (tmp_path / "run" / "cache").glob("latents-*")}
    assert len(sizes) == 2
    assert (tmp_path / "run" / "tune" / "done.json").is_file()


def test_another_text_encoder_reads_through_a_projection_that_learns(written, tmp_path):
    bert = tiny_bases.bert(tmp_path / "bert")
    model = taught(written("sd"), tmp_path / "run", f'text_encoder="{bert}"')
    after = bases.load(model)
    assert type(after.networks["text_encoder"]).__name__ == "BertModel" and "projection" in after.networks
    fresh = finetune.opened(recipe.read(written("sd"), [f'text_encoder="{bert}"']), torch.device("cpu"))
    assert not torch.equal(next(after.networks["projection"].parameters()), next(fresh.networks["projection"].parameters()))
    (made,) = medisyn.load(model).generate(PROMPT, seed=1)
    assert np.isfinite(made.image).all()


def test_training_ends_before_images_are_known_by_heart(written, tmp_path, capsys):
    path = written("sd", "full")
    finetune.run(recipe.read(path, ["tune.gap=-1.0", "tune.strict=true", "tune.patience=1", "tune.n_images=400"]), tmp_path / "run")
    assert "tune: held-out loss lagged behind" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "tune" / "log.jsonl").read_text().splitlines()]
    assert [row["n_images"] for row in rows] == [12]
    plain, kept = bases.load(recipe.read(path).base), bases.load(tmp_path / "run" / "model")   # no weights were better: the base's
    pairs = zip(plain.networks["unet"].parameters(), kept.networks["unet"].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("family", ["sd", "own"])
def test_what_is_made_meanwhile_is_compared_with_the_images_taught(family, written, phantom_run, many, tmp_path):
    path = written(phantom_run / "model" if family == "own" else family)
    changes = [f'data.collections=["{many}"]', "tune.nearest=4"]
    model = taught(path, tmp_path / "seen", *changes)
    rows = [json.loads(line) for line in (tmp_path / "seen" / "tune" / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["nearest_ratio"] > 0 and row["nearest_distance"] > 0 for row in rows)
    signs = json.loads((model / "memorising.json").read_text())
    assert {round(row["nearest_ratio"], 4) for row in rows} >= {signs["nearest_ratio"]}
    card = (model / "README.md").read_text()
    assert "Taught from " in card and "from scratch" not in card and f"{signs['nearest_distance']:.2f} times as far" in card
    taught(path, tmp_path / "blind", *changes, "tune.nearest=0")               # to look changes nothing of what is learnt
    ours, theirs = (load_file(sorted((tmp_path / name / "tune").glob("checkpoint-*"))[-1]) for name in ("seen", "blind"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("module.tuned."))


def test_a_base_draws_as_it_comes_and_says_that_nothing_of_its_training_is_known(base):
    maker = medisyn.load(base("sd"))
    plan = maker.plan(PROMPT)
    assert plan.read_as == PROMPT and "was never trained on" in plan.warnings[0]
    (made,) = maker.generate(PROMPT, seed=1, steps=2)
    again = maker.remake(made.record.provenance)
    assert np.array_equal(made.image, again.image)


def test_many_threads_read_one_after_the_other(base, monkeypatch):
    """SDXL's two tokenizers pad differently, and remember it between calls."""
    monkeypatch.setattr(synthesizer, "cores", lambda: 4)
    maker = medisyn.load(base("sdxl"))
    many = maker.generate(PROMPT, n=24, seed=0, steps=1)
    for k in (0, 11, 23):
        (alone,) = maker.generate(PROMPT, seed=k, steps=1)
        assert np.array_equal(many[k].image, alone.image)


def test_a_taught_model_finds_its_base_from_anywhere(base, written, tmp_path, monkeypatch):
    monkeypatch.chdir(base("sd").parent)
    path = written("sd")
    model = taught(path, tmp_path / "run", f'base="{base("sd").name}"')
    monkeypatch.chdir(tmp_path)
    before = painters.load(model)
    assert before.base.source == str(base("sd").absolute())
    (model / "base.json").write_text((model / "base.json").read_text().replace(str(base("sd")), str(moved(base("sd"), tmp_path))))
    after = painters.load(model)
    assert after.base.source == str(tmp_path / "moved") and after.digest == before.digest   # an image is verified wherever it lies


def moved(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "moved"))


def test_a_base_that_changed_since_it_was_taught_is_refused(base, written, tmp_path):
    moved = Path(shutil.copytree(base("sd"), tmp_path / "moved"))
    model = taught(written(moved), tmp_path / "run")
    config = moved / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ValueError, match="whose files have changed since it was taught"):
        medisyn.load(model)


@pytest.mark.parametrize("change, said", [
    ("method.trian=\"full\"", "unknown key 'method.trian'; did you mean 'train'"),
    ("method.prior_images=8 method.prior_share=0.1", "less than one image; raise one of them"),
    ("data.n=1", "greater than or equal to 2"),
    ("base=\"/nowhere/at/all\"", "is no folder, nor a hub id")])
def test_what_does_not_fit_is_said_in_a_sentence(change, said, written, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        finetune.run(recipe.read(written("sd"), change.split(" ")), tmp_path / "run")


# ---- resume -----------------------------------------------------------------------------------------------------------

class Killed(BaseException):
    """As if the process had been ended: nothing catches it."""


@pytest.mark.parametrize("family, method, changes", [
    ("sd", "lora", ()), ("sd", "full", ("tune.micro=1",)), ("flux", "lora", ()), ("sd_v", "full", ("method.prior_images=4",)),
    ("sdxl", "lora", ("method.text=true",)), ("own", "full", ("method.prior_images=4",)),
    ("sdxl", "lora", ("method.text=true", "method.frozen=bfloat16", "method.prior_images=4")),
    ("flux", "lora", ("method.frozen=bfloat16", "tune.checkpointing=true")), ("own", "lora", ("method.frozen=bfloat16",)),
    ("own", "full", ("precision=bf16",)), ("sd", "lora", ("precision=bf16",))])
def test_a_run_killed_at_any_step_ends_in_the_same_weights(family, method, changes, written, phantom_run, tmp_path, monkeypatch):
    path = written(phantom_run / "model" if family == "own" else family, method)
    settings = recipe.read(path, [*changes, "tune.save_seconds=0"])
    finetune.run(settings, tmp_path / "whole", ("cache", "prior", "tune"))
    save, left = run.Stage.save, [0]

    def dying(stage, trainee, plan):
        path = save(stage, trainee, plan)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return path
    monkeypatch.setattr(run.Stage, "save", dying)
    for steps in (1, 3):                  # after the first step, then in the middle
        left[0] = steps
        with pytest.raises(Killed):
            finetune.run(settings, tmp_path / "cut", ("cache", "prior", "tune"))
    left[0] = -1
    finetune.run(settings, tmp_path / "cut", ("cache", "prior", "tune"))
    ours, theirs = (load_file(tmp_path / name / "tune" / "network.safetensors") for name in ("whole", "cut"))
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_cache_that_was_cut_short_goes_on(written, tmp_path):
    settings = recipe.read(written("sd", "full"))
    finetune.run(settings, tmp_path / "run", ("cache",))
    folder = tmp_path / "run" / "cache"
    shards = sorted(folder.glob("*.safetensors"))
    contents = {path.name: path.read_bytes() for path in shards}
    assert len(shards) > 3
    shards[0].write_bytes(shards[0].read_bytes()[:50])       # damaged
    shards[-1].unlink()                                      # missing
    kept = shards[1].stat().st_mtime_ns
    finetune.run(settings, tmp_path / "run", ("cache",))
    assert {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} == contents
    assert shards[1].stat().st_mtime_ns == kept


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_process_killed_from_outside_goes_on_bit_for_bit(written, tmp_path, environment):
    path = written("sd", "lora")
    settings = ["tune.save_seconds=0", "tune.n_images=160", "tune.log_images=80"]
    words = [sys.executable, "-m", "medisyn", "train", str(path), "-o", str(tmp_path / "cut"), "--stages", "cache,tune"]
    words += [word for change in settings for word in ("--set", change)]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not list((tmp_path / "cut").glob("tune/checkpoint-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    finetune.run(recipe.read(path, settings), tmp_path / "cut", ("cache", "tune"))
    finetune.run(recipe.read(path, settings), tmp_path / "whole", ("cache", "tune"))
    ours, theirs = (load_file(tmp_path / name / "tune" / "network.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_number_of_processes_sees_the_same_images(written):
    settings = recipe.read(written("sd"))
    base, known = bases.load(settings.base), finetune.taught(settings)
    from medisyn.training import cache
    what = cache.plan(known, base, tiny_bases.SIDE, settings.seed, settings.cache)
    lesson = tune.Lesson(cache.Cache(Path("nowhere"), what, 16), [r for _, r in known])
    draw = tune.drawing(lesson, 3, settings.method, 8)
    again = tune.drawing(lesson, 3, settings.method, 8)
    for i in (0, 5, 1):
        assert np.array_equal(draw(i).entries, again(i).entries) and np.array_equal(draw(i).texts, again(i).texts)
    assert not np.array_equal(draw(0).entries, draw(1).entries)
