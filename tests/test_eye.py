"""The eye: a recipe trains it, a stopped training ends in the same weights, and its folder is what it says."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from safetensors.torch import load_file

from medisyn import recipe
from medisyn.evaluation import eye as eyes
from medisyn.evaluation.eye import Eye, EyeConfig
from medisyn.training import batches, eye, run

TINY = """
kind = "eye"
seed = 5
threads = 1
collections = ["{collection}"]
splits = ["train"]
[eye]
side = 64
widths = [8, 16, 16, 24]
views = [48, 32]
n_images = 96
batch = 16
log_images = 32
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("eye")
    (home / "eye.toml").write_text(TINY.format(collection=phantoms.collection(home / "collection", 12)))
    return home / "eye.toml"


@pytest.fixture(scope="module")
def trained(written, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert eye.run(recipe.read(written), folder) == folder / "model"
    return folder


def test_the_recipe_that_ships_is_of_other_patients_than_the_generators(written):
    ships = Path(__file__).parent.parent / "recipes"
    judge, maker = recipe.read(ships / "eye.toml"), recipe.read(ships / "medisyn-xs.toml")
    assert judge.splits == ("val",)
    assert judge.seed != maker.seed
    assert judge.collections == ("data/open",)


def test_a_slip_in_an_eyes_recipe_is_named(written):
    with pytest.raises(ValueError, match="unknown key 'eye.batc'; did you mean 'batch'"):
        recipe.read(written, ["eye.batc=3"])
    with pytest.raises(ValueError, match="kind should be one of model, eye, finetune, found 'ear'"):
        recipe.read(written, ["kind=ear"])


def test_the_command_trains_an_eye(written, command, tmp_path):
    done = command("train", written, "-o", tmp_path / "run", "--set", "eye.n_images=16")
    assert done.returncode == 0, done.stderr
    assert eyes.load(tmp_path / "run" / "model").config.side == 64
    told = command("train", written, "-o", tmp_path / "none", "--dry-run")
    assert "40 features" in told.stdout
    assert not (tmp_path / "none").exists()


def test_a_stopped_training_ends_in_the_same_weights(written, trained, tmp_path, monkeypatch):
    asked, left = run.Stop.agreed, [3]

    def agreed(stop):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        left[0] -= 1
        return asked(stop)
    monkeypatch.setattr(run.Stop, "agreed", agreed)
    assert eye.run(recipe.read(written), tmp_path / "run") is None
    monkeypatch.setattr(run.Stop, "agreed", asked)
    assert eye.run(recipe.read(written), tmp_path / "run") == tmp_path / "run" / "model"
    ours, theirs = (load_file(home / "model" / eyes.WEIGHTS) for home in (tmp_path / "run", trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_training_learns_to_tell_images_apart(written, tmp_path):
    longer = recipe.read(written, ["eye.n_images=960", "eye.log_images=320"])
    eye.run(longer, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "eye" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_an_eye_is_written_and_read(tmp_path):
    network = Eye(EyeConfig(64, (8, 16, 16, 24))).eval()
    again = eyes.load(eyes.save(network, tmp_path))
    image = torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(again(image), network(image), atol=0.02, rtol=0.02)   # fp16 on disk
        assert again(image).shape == (3, again.config.dims) == (3, 40)


def test_what_is_no_eye_is_one_sentence(tmp_path):
    eyes.save(Eye(EyeConfig(64, (8, 16, 16, 24))), tmp_path)
    for file, text in ((eyes.WEIGHTS, "nothing"), ("config.json", '{"sides": 3}'), ("config.json", '{"widths": [4, 4, 4, 4]}')):
        broken = Path(shutil.copytree(tmp_path, tmp_path.with_name("broken"), dirs_exist_ok=True))
        (broken / file).write_text(text)
        with pytest.raises(ValueError, match="holds no eye") as caught:
            eyes.load(broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="holds no eye"):
        eyes.load(tmp_path / "none")


def test_the_eye_that_ships_is_small_and_openly_licensed():
    files = {p.name: p.stat().st_size for p in eyes.SHIPPED.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "LICENSE"}
    assert sum(files.values()) < 6e6
    assert sum(p.numel() for p in eyes.load().parameters()) < 3e6
    assert "CC BY 4.0" in (eyes.SHIPPED / "LICENSE").read_text()


def test_views_are_a_function_of_their_seed_and_stay_in_range(trained):
    pixels = batches.Pixels(trained / "pixels")
    rows = np.arange(8)
    one, two, other = (eye.views(pixels, rows, 48, 0.25, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (8, 3, 48, 48)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert float(one.min()) >= -1
    assert float(one.max()) <= 1


def test_gray_images_stay_gray_in_every_view(trained):
    pixels = batches.Pixels(trained / "pixels")
    rows = np.array([i for i, r in enumerate(pixels.records) if r.image_type == "chest_xray"][:8])
    seen = eye.views(pixels, rows, 48, 0.25, np.random.default_rng(0))
    assert float((seen[:, 0] - seen[:, 2]).abs().max()) < 0.05     # JPEG may tint a little


def test_crops_lie_within_the_image():
    for seed in range(20):
        frame = eye.frames(np.zeros(32, bool), 0.25, np.random.default_rng(seed)).numpy()
        half, centre = np.linalg.norm(frame[:, :, :2], axis=1), np.abs(frame[:, :, 2])
        assert (half <= 1 + 1e-6).all()
        assert (centre + half <= 1 + 1e-6).all()
