"""Training: on phantoms from end to end, and each loss against a value known beforehand."""

import json
import shutil

import numpy as np
import phantoms
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from medisyn import recipe
from medisyn.data import facts, records
from medisyn.models.dit import Dit, DitConfig
from medisyn.training import adversary, autoencoder, batches, diffusion, run, stages, text
from medisyn.training.batches import Pixels
from medisyn.training.diffusion import DitSettings
from medisyn.training.ema import Ema, gamma_of


def rows(run, stage: str) -> list[dict]:
    return [json.loads(line) for line in (run / stage / "log.jsonl").read_text().splitlines()]


# ---- end to end ------------------------------------------------------------------------------------------------------

def test_every_stage_leaves_its_log_its_pictures_and_its_network(phantom_run):
    for stage, n_images, figures in (("text", 96, {"reading", "contrast", "stated_facts_read", "captions_without_error"}),
                                     ("vae", 96, {"loss", "reconstruction", "kl", "psnr_db"}),
                                     ("decoder", 24, {"closeness", "matching", "critic", "psnr_db", "sharpness"}),
                                     ("dit", 96, {"loss", "train_ema_0.05", "held_out_ema_0.05", "held_out_ema_0.10"})):
        last = rows(phantom_run, stage)[-1]
        assert last["n_images"] == n_images
        assert figures <= set(last)
        assert all(np.isfinite(value) for value in last.values())
        assert (phantom_run / stage / "network.safetensors").is_file()
        for picture in ("loss.png",) if stage == "text" else ("loss.png", "samples.png"):
            with Image.open(phantom_run / stage / picture) as opened:
                assert min(opened.size) > 30


def test_every_stage_that_sees_images_learns_something(phantom_run):
    for stage, figure in (("vae", "loss"), ("decoder", "closeness"), ("dit", "loss")):
        first, last = (row[figure] for row in rows(phantom_run, stage))
        assert last < first, stage


def test_the_text_encoder_learns_to_say_little_rather_than_anything(phantom_recipe, phantom_run, tmp_path):
    shutil.copytree(phantom_run / "pixels", tmp_path / "pixels")
    changes = ["text.n_images=320", "text.learning_rate=0.03", "text.log_images=160"]
    stages.run(recipe.read(phantom_recipe, changes), tmp_path, ["text"])
    first, last = (row["reading"] for row in rows(tmp_path, "text"))
    assert last < 0.75 * first


def test_sharpening_leaves_the_latents_as_they_were(phantom_run):
    before, after = (stages.scaled_vae(phantom_run, sharpened) for sharpened in (False, True))
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(before.encode(image), after.encode(image))
    assert not torch.equal(before.decode(before.encode(image)), after.decode(after.encode(image)))


def test_the_model_counts_what_it_was_trained_on(phantom_run, maker, phantom_recipe):
    known = [r for r in records.read(phantom_recipe.parent / "collection") if r.split == "train"]
    assert sum(row[7] for row in maker.model.support) == len(known)
    assert all(sum(row[8].values()) == row[7] for row in maker.model.support)
    assert max(int(style) for row in maker.model.support for style in row[8]) < maker.model.dit.config.n_styles
    data, = json.loads((phantom_run / "model" / "training_data.json").read_text())
    assert data.items() >= {"source": "phantom", "licences": ["CC0-1.0"], "image_types": ["chest_xray", "dermoscopy"],
                            "n_images": len(known)}.items()
    assert maker.model.card.n_images == 96


def test_the_outlook_names_every_network(phantom_recipe):
    lines = stages.outlook(recipe.read(phantom_recipe))
    assert [line.split()[0] for line in lines] == ["text", "vae", "dit"]
    assert all("96 images" in line for line in lines)


# ---- the autoencoder -------------------------------------------------------------------------------------------------

def test_psnr_of_a_known_error():
    image = torch.zeros(2, 3, 8, 8)
    assert autoencoder.psnr(image + 0.02, image).tolist() == pytest.approx([40.0, 40.0], abs=1e-3)


def test_a_perfect_reconstruction_costs_nothing_and_a_shift_costs_its_size():
    image = torch.rand(2, 3, 16, 16)
    assert autoencoder.reconstruction_loss(image, image) == 0
    assert float(autoencoder.reconstruction_loss(image + 0.1, image)) == pytest.approx(0.1 * 1.5, abs=1e-5)


def test_sobel_measures_the_slope_of_a_ramp():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    slopes = autoencoder.sobel(ramp)
    assert slopes.shape == (1, 6, 6, 6)
    assert slopes[:, 0::2].abs().unique().tolist() == [2.0]
    assert slopes[:, 1::2].abs().max() == 0


def test_crops_are_a_function_of_their_generator(phantom_run):
    pixels, chosen = Pixels(phantom_run / "pixels"), np.arange(6)
    first, again, other = (autoencoder.crops(pixels, chosen, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (6, 3, 32, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= -1
    assert first.max() <= 1


def test_the_spread_takes_types_in_turns(phantom_run):
    pixels = Pixels(phantom_run / "pixels")
    kinds = [pixels.records[row].image_type for row in autoencoder.spread(pixels, pixels.of_split("train"), 2)]
    assert kinds == ["chest_xray", "dermoscopy"] * 2


# ---- the decoder's adversary -----------------------------------------------------------------------------------------

def test_the_hinge_is_content_beyond_its_margin():
    one = torch.ones(1, 1, 2, 2)
    assert adversary.discriminator_loss(2 * one, -2 * one) == 0
    assert adversary.discriminator_loss(0 * one, 0 * one) == 2


def test_a_critic_that_tells_nothing_apart_is_not_heard():
    one = torch.ones(1, 1, 2, 2)
    assert adversary.assurance(0 * one, 0 * one) == 0
    assert adversary.assurance(0.5 * one, 0.9 * one) == 0   # worse than nothing: what it takes for real is made
    heard = [adversary.assurance(told * one, -told * one).item() for told in (0.05, 0.1, 0.15, 0.9)]
    assert heard == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_balanced_losses_pull_equally_hard():
    last = torch.ones(3, requires_grad=True)
    weight = adversary.balance((6 * last).sum(), (2 * last).sum(), last)
    assert float(weight) == pytest.approx(3.0, rel=1e-3)


def test_the_critic_may_learn_faster_than_the_decoder(followed, monkeypatch):
    """Rate 0 is a critic that never moves."""
    settings = recipe.read(followed / "tiny.toml").decoder
    pixels = batches.Pixels(followed / "run" / "pixels")
    moved = {}

    def taken(stage, plan, trainee, resume):
        networks = [trainee.modules[name] for name in ("vae", "critic")]
        before = [[p.detach().clone() for p in network.parameters()] for network in networks]
        trainee.step(60)
        moved[rate] = [max((p.detach() - q).abs().max().item() for p, q in zip(network.parameters(), old, strict=True))
                       for network, old in zip(networks, before, strict=True)]
        return False
    monkeypatch.setattr(adversary, "train", taken)
    for rate in (0.0, 1.0, 4.0):
        vae = stages.scaled_vae(followed / "run", sharpened=False)
        adversary.fit(None, vae, pixels, 32, 0, settings.model_copy(update={"discriminator_rate": rate, "n_images": 10_000}))
    assert moved[0.0][1] == 0 < moved[1.0][1] < moved[4.0][1]
    assert moved[0.0][0] == moved[1.0][0] == moved[4.0][0] > 0


def test_eight_turns_are_eight_pictures():
    image = torch.rand(1, 3, 4, 4)
    made = [adversary.turned(image, which) for which in range(8)]
    assert torch.equal(made[0], image)
    assert len({tuple(m.flatten().tolist()) for m in made}) == 8


def test_sharpness_is_one_for_the_original_and_less_when_blurred():
    image = torch.rand(2, 3, 32, 32)
    blurred = nn.functional.avg_pool2d(image, 3, 1, 1)
    assert adversary.sharpness(image, image) == pytest.approx(1.0)
    assert adversary.sharpness(blurred, image) < 0.5


# ---- the text encoder ------------------------------------------------------------------------------------------------

def test_like_facts_attract():
    stated = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]])
    together = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    apart = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]])
    assert text.contrastive_loss(together, stated) < 0.01
    assert text.contrastive_loss(apart, stated) > 5


def test_captions_state_what_is_said_of_them(phantom_recipe):
    known = list(records.read(phantom_recipe.parent / "collection"))
    names = facts.names()
    first, second, stated = text.draw_captions(known, batches.weights(known), 20, np.random.default_rng(0), 0.0, names)
    again = text.draw_captions(known, batches.weights(known), 20, np.random.default_rng(0), 0.0, names)
    assert (first, second) == again[:2]
    assert stated.shape == (20, len(names))
    kinds = [i for i, name in enumerate(names) if name in ("chest_xray", "dermoscopy", "ct", "mri")]
    assert (stated[:, kinds] > 0).any()
    assert len({a == b for a, b in zip(first, second, strict=True)} | {False}) <= 2
    assert np.array_equal(stated, again[2])


# ---- the denoiser ----------------------------------------------------------------------------------------------------

def test_the_angle_costs_nothing_ahead_one_across_and_two_behind():
    ahead, across = torch.tensor([[1.0, 0]]).view(1, 2, 1, 1), torch.tensor([[0, 1.0]]).view(1, 2, 1, 1)
    costs = [float(diffusion.direction_loss(v, 5 * ahead)) for v in (ahead, across, -ahead)]
    assert costs == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)


def test_every_weight_has_one_optimizer():
    dit = Dit(DitConfig(4, 4, 32, 2, 2, 16, 24, 2, 3))
    optimizers = diffusion.split_optimizers(dit, DitSettings())
    held = [id(p) for o in optimizers.values() for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in dit.parameters())
    assert all(p.ndim == 2 for group in optimizers["muon"].param_groups for p in group["params"])


def test_captions_and_styles_are_withheld_as_often_as_told(phantom_run):
    known, found = Pixels(phantom_run / "pixels").records, stages.latents.load(phantom_run / "latents")
    chosen = np.zeros(1500, int) + int(found.row[0])
    settings = DitSettings(drop_text=0.2, drop_style=0.4)
    m, texts, styles = diffusion.batch_of(found, known, diffusion.by_row(found), chosen, np.random.default_rng(0), settings)
    assert texts.count("") / 1500 == pytest.approx(0.2, abs=0.04)
    assert (styles == found.n_styles).mean() == pytest.approx(0.4, abs=0.04)
    assert set(found.row[m]) == {found.row[0]}
    told = styles != found.n_styles
    assert np.array_equal(styles[told], found.style[m][told])


def test_watched_images_take_types_in_turns(phantom_run):
    known = Pixels(phantom_run / "pixels").records
    watched = diffusion.watched_rows(np.arange(len(known)), known, 6)
    assert [known[row].image_type for row in watched] == ["chest_xray", "dermoscopy"] * 3


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run whose held-out images are many enough for a nearest-neighbour ratio."""
    home = tmp_path_factory.mktemp("followed")
    path = phantoms.recipe(home, phantoms.collection(home / "data", 20, val=9))
    changes = ["dit.nearest=6", "decoder.n_images=0", "recogniser.n_images=0"]
    assert stages.run(recipe.read(path, changes), home / "run", [s for s in stages.STAGES if s != "guard"])
    return home


def test_gap_and_ratio_are_followed_and_published_with_the_model(followed):
    rows = [json.loads(line) for line in (followed / "run" / "dit" / "log.jsonl").read_text().splitlines()]
    assert [row["n_images"] for row in rows] == [48, 96]
    assert rows[0]["gap"] == 0 and all(0.2 < row["nearest_ratio"] < 5 and row["nearest_distance"] > 1 for row in rows)
    signs = json.loads((followed / "run" / "model" / "memorising.json").read_text())
    kept = {row["n_images"]: row for row in rows}[signs["after_images"]]
    assert signs["gap"] == pytest.approx(kept["gap"], abs=1e-4)
    assert signs["nearest_ratio"] == pytest.approx(kept["nearest_ratio"], abs=1e-4)
    card = (followed / "run" / "model" / "README.md").read_text()
    assert f"against that of unseen images: {signs['nearest_ratio']:.2f}" in card


def test_a_denoiser_that_memorises_is_stopped_and_its_earlier_weights_kept(followed):
    path = followed / "tiny.toml"
    run = followed / "again"
    shutil.copytree(followed / "run", run)
    shutil.rmtree(run / "dit")
    changes = ["dit.nearest=0", "dit.gap=-1.0", "dit.patience=2", "dit.n_images=480"]   # any gap is too large
    stages.run(recipe.read(path, changes), run, ["dit"])
    done = json.loads((run / "dit" / "done.json").read_text())["memorising"]
    assert len((run / "dit" / "log.jsonl").read_text().splitlines()) == 2
    assert done["after_images"] == 0 and "lagged behind" in done["told"]


def test_what_it_measures_changes_nothing_of_what_it_learns(followed):
    """The ratio draws images and looks at them; the weights are those of a run that does not."""
    run = followed / "blind"
    shutil.copytree(followed / "run", run)
    shutil.rmtree(run / "dit")
    stages.run(recipe.read(followed / "tiny.toml", ["dit.nearest=0", "decoder.n_images=0", "recogniser.n_images=0"]), run, ["dit"])
    ours, theirs = (load_file(sorted((followed / name / "dit").glob("checkpoint-*.safetensors"))[-1]) for name in ("run", "blind"))
    names = [name for name in ours if name.startswith("module.dit.")]
    assert names and all(torch.equal(ours[name], theirs[name]) for name in names)


# ---- the decoder's texture -------------------------------------------------------------------------------------------

def test_what_repeats_from_cell_to_cell_is_a_grid_and_texture_is_not():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 64, 64, generator=rng) - 0.5
    tile = torch.zeros(8, 8)
    tile[::2, ::2] = 0.1
    assert adversary.grid_loss(image, image) == 0
    assert adversary.grid_loss(image + 0.3, image) < 1e-6                                    # brighter: no grid
    grid = adversary.grid_loss(image + tile.repeat(8, 8), image)
    texture = adversary.grid_loss(image + 0.1 * torch.randn(image.shape, generator=rng) / 2, image)
    assert grid == pytest.approx(float((tile - tile.mean()).abs().mean()), rel=1e-3) and grid > 3 * texture


def test_a_critic_that_is_shown_the_detail_sees_six_channels():
    critic = adversary.PatchDiscriminator(4, detail=True)
    assert critic.layers[0].in_channels == 6 and critic(torch.zeros(1, 3, 32, 32))[0].shape == (1, 1, 4, 4)
    flat = torch.ones(1, 3, 32, 32)
    assert adversary.finest(flat).abs().max() == 0


def test_a_model_s_decoder_is_trained_on_where_the_recipe_says_so(followed):
    run, model = followed / "further", followed / "run" / "model"
    changes = [f'start="{model}"', "decoder.further=true", "decoder.grid=4.0", "decoder.spectrum=0.1", "decoder.n_images=16",
               "decoder.latent_noise_most=0.2", "decoder.discriminator_detail=true", "dit.n_images=8", "dit.nearest=0"]
    stages.run(recipe.read(followed / "tiny.toml", changes), run, ["latents", "decoder"])
    before, after = (load_file(run / name / "network.safetensors") for name in ("vae", "decoder"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)
    row = json.loads((run / "decoder" / "log.jsonl").read_text().splitlines()[-1])
    assert row["grid"] > 0


# ---- moving averages -------------------------------------------------------------------------------------------------

def test_an_average_begins_as_the_network_and_weighs_by_a_power_of_time():
    layer = nn.Linear(1, 1, bias=False)
    ema = Ema(layer, 0.10)
    values = []
    for step in range(50):
        nn.init.constant_(layer.weight, float(step))
        ema.update(layer, step)
        values.append(float(ema.network.weight))
    assert values[0] == 0
    assert values[-1] == pytest.approx((gamma_of(0.10) + 1) / (gamma_of(0.10) + 2) * 50, rel=0.03)


@pytest.mark.parametrize("width", [0.05, 0.10, 0.20])
def test_gamma_gives_the_width_it_was_asked_for(width):
    gamma = gamma_of(width)
    assert (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) == pytest.approx(width)


def test_progress_is_told_whatever_the_stride(monkeypatch):
    said = []
    monkeypatch.setattr(run, "say", said.append)
    for stride in (1, 96):
        tell = run.counter("latents", 100)
        for done in range(stride, 300, stride):
            tell(done, 299)
        tell(299, 299)
        assert len(said) in (3, 4) and said[-1] == "latents: 299 of 299"
        said.clear()


def test_a_stage_that_counts_tells_at_every_so_many_and_when_it_has_been_silent_for_long(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    tell = run.counter("pixels", every=100, seconds=30)
    for done, at in ((40, 10), (110, 20), (140, 45), (150, 51), (160, 60), (170, 65)):
        now[0] = at
        tell(done, 170)
    assert capsys.readouterr().err.splitlines() == ["pixels: 110 of 170", "pixels: 150 of 170", "pixels: 170 of 170"]
