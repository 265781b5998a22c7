"""The classifier learns what can be learned, nothing else, and the same each time."""

import sys
import types

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medisyn.evaluation import classifier
from medisyn.evaluation.classifier import Question, Settings

SHADE = Question("shade", ("dark", "bright"))
MARKS = Question("marks", ("left", "red"), exclusive=False)
QUICK = Settings(side=16, width=8, steps=120, batch=16, peak=5e-3)


def squares(n: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Noise, where a class has a disc-like blob in the middle, a mark on the left, or a red cast."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 130, (n, 16, 16, 3)).astype(np.uint8)
    shade, left, red = rng.integers(0, 2, (3, n))
    pixels[shade == 1, 5:11, 5:11] += 90
    pixels[left == 1, :, 1:5] = 10
    pixels[red == 1, ..., 0] += 35
    return pixels, {"shade": shade, "marks": np.stack([left, red], 1).astype(np.int8)}


@pytest.fixture(scope="module")
def taught() -> classifier.Network:
    pixels, truth = squares(200)
    return classifier.fit(pixels, truth, [SHADE, MARKS], QUICK, symmetry=["none"] * 200)


def state(network: torch.nn.Module) -> np.ndarray:
    return np.concatenate([v.numpy().ravel().astype(np.float64) for v in network.state_dict().values()])


def test_it_learns_what_images_show(taught):
    pixels, truth = squares(120, seed=1)
    seen = classifier.answers(taught, pixels)
    assert (seen["shade"].argmax(1) == truth["shade"]).mean() > 0.95
    assert ((seen["marks"] > 0.5) == (truth["marks"] == 1)).mean() > 0.9
    assert min(roc_auc_score(truth["marks"][:, k], seen["marks"][:, k]) for k in (0, 1)) > 0.95


def test_probabilities_are_probabilities(taught):
    seen = classifier.answers(taught, squares(9)[0])
    assert seen["shade"].sum(1) == pytest.approx(np.ones(9), abs=1e-5)
    assert seen["marks"].shape == (9, 2)
    assert classifier.answers(taught, np.zeros((0, 16, 16, 3), np.uint8))["shade"].shape == (0, 2)
    assert classifier.features(taught, squares(9)[0]).shape == (9, 64)


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    pixels, truth = squares(40)
    few = Settings(side=16, width=8, steps=5, batch=8)
    a, b = (classifier.fit(pixels, truth, [SHADE], few, symmetry=["dihedral"] * 40) for _ in range(2))
    c = classifier.fit(pixels, truth, [SHADE], Settings(**{**vars(few), "seed": 1}), symmetry=["dihedral"] * 40)
    assert np.array_equal(state(a), state(b))
    assert not np.array_equal(state(a), state(c))
    assert classifier.digest(a) == classifier.digest(b) != classifier.digest(c)


def test_training_leaves_the_callers_random_numbers_alone():
    pixels, truth = squares(20)
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    classifier.fit(pixels, truth, [SHADE], Settings(side=16, width=8, steps=2, batch=4), symmetry=["none"] * 20)
    assert torch.equal(torch.rand(2), wanted)


def test_unknown_truths_teach_nothing():
    pixels, truth = squares(60)
    few = Settings(side=16, width=8, steps=6, batch=8)
    hidden = {"shade": truth["shade"], "marks": np.full((60, 2), -1, np.int8)}
    silent = {"shade": np.full(60, -1), "marks": hidden["marks"]}
    network = classifier.fit(pixels, silent, [SHADE, MARKS], few, symmetry=["none"] * 60)
    torch.manual_seed(few.seed)
    fresh = classifier.Network([SHADE, MARKS], few)
    shrunk = np.prod([1 - classifier.learning_rate(few, step) * few.decay for step in range(few.steps)])
    assert network.head.weight.numpy() == pytest.approx(fresh.head.weight.detach().numpy() * shrunk, abs=1e-6)


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, monkeypatch):
    pixels, truth = squares(40)
    few = Settings(side=16, width=8, steps=12, batch=8)
    whole = classifier.fit(pixels, truth, [SHADE, MARKS], few, symmetry=["mirror"] * 40)
    monkeypatch.setattr(classifier, "SAVE_EVERY", 5)

    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classifier.fit(pixels, truth, [SHADE, MARKS], few, symmetry=["mirror"] * 40, checkpoint=tmp_path / "c.step", progress=stop)
    steps: list[int] = []
    again = classifier.fit(pixels, truth, [SHADE, MARKS], few, symmetry=["mirror"] * 40, checkpoint=tmp_path / "c.step",
                           progress=lambda done, total: steps.append(done))
    assert steps[0] == 6
    assert np.array_equal(state(whole), state(again))


def test_fine_tuning_starts_where_it_is_told(taught):
    pixels, truth = squares(40, seed=4)
    still = classifier.fit(pixels, truth, [SHADE, MARKS], Settings(side=16, width=8, steps=0), symmetry=["none"] * 40, start=taught)
    assert np.array_equal(state(still), state(taught))


def test_saved_and_loaded_it_answers_alike(taught, tmp_path):
    file = classifier.save(taught, tmp_path / "judge.safetensors")
    pixels = squares(7)[0]
    assert np.array_equal(classifier.answers(classifier.load(file), pixels)["marks"], classifier.answers(taught, pixels)["marks"])
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected a classifier that medisyn saved"):
        classifier.load(file)


def test_only_what_an_image_type_allows_is_turned():
    assert classifier.symmetries(["chest_xray", "histopathology", "nobody's"]).tolist() == ["none", "dihedral", "none"]
    mirrored = [t for t in ("fundus_photograph", "ultrasound", "mri") if classifier.symmetries([t])[0] == "mirror"]
    assert mirrored
    assert set(classifier.symmetries(mirrored, keep_sides=True)) == {"none"}


def test_a_picture_that_may_not_be_turned_keeps_its_sides():
    pixels = np.full((64, 24, 24, 3), 40, np.uint8)
    pixels[:, :, :8] = 220
    left = classifier.augmented(pixels, ["none"] * 64, np.random.default_rng(0))
    assert (left[..., :4].mean((1, 2, 3)) > left[..., -4:].mean((1, 2, 3))).all()
    turned = classifier.augmented(pixels, ["dihedral"] * 64, np.random.default_rng(0))
    assert 8 < (turned[..., :4].mean((1, 2, 3)) > turned[..., -4:].mean((1, 2, 3)) + 0.3).sum() < 56
    assert left.shape[-1] % 4 == 0
    assert -1 <= float(left.min()) <= float(left.max()) <= 1


def test_optional_backbones_are_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="needs the library timm"):
        classifier.trunk_of(Settings(backbone="timm:resnet18"))
    with pytest.raises(ValueError, match="expected the backbone small"):
        classifier.trunk_of(Settings(backbone="resnet"))
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    pool.num_features = 3
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=lambda *_, **__: pool))
    pixels, truth = squares(10)
    asked = Settings(side=16, steps=1, batch=4, backbone="timm:any")
    network = classifier.fit(pixels, truth, [SHADE], asked, symmetry=["none"] * 10)
    assert classifier.features(network, pixels).shape == (10, 3)


def test_nothing_to_learn_from_is_said():
    with pytest.raises(ValueError, match="needs images to learn from"):
        classifier.fit(np.zeros((0, 16, 16, 3), np.uint8), {}, [SHADE], QUICK, symmetry=[])
