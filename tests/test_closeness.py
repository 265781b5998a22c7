"""Closeness: figures on arrays against closed forms and other libraries."""

import numpy as np
import pytest
from test_novelty import scenes

from medisyn.evaluation import closeness


def normal(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6))


def test_nearer_to_train_is_a_half_for_one_distribution_whatever_the_sizes():
    made, train, unseen = normal(400, 0), normal(500, 1), normal(60, 2)
    votes = closeness.closer_to_train(closeness.distances(made, train), closeness.distances(made, unseen))
    assert votes.mean() == pytest.approx(0.5, abs=0.06)


def test_hidden_images_shorten_the_other_side_as_well():
    """Each image hides half of the unseen ones: still a half, though fewer are left on one side."""
    made, train, unseen = normal(500, 0), normal(80, 1), normal(80, 2)
    gaps = closeness.distances(made, unseen)
    gaps[:, ::2] = np.inf
    assert closeness.closer_to_train(closeness.distances(made, train), gaps).mean() == pytest.approx(0.5, abs=0.06)
    gaps[:] = np.inf
    assert np.isnan(closeness.closer_to_train(closeness.distances(made, train), gaps)).all()


def test_adversarial_accuracy_of_twins_apart_and_alike():
    a = normal(300, 0)
    assert closeness.adversarial_accuracy(a, a + 1e-6) == 0
    assert closeness.adversarial_accuracy(a, a + 100) == 1
    assert closeness.adversarial_accuracy(a, normal(300, 1)) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="two sets of one size"):
        closeness.adversarial_accuracy(a, a[:5])


def test_an_image_is_authentic_outside_the_reach_of_its_nearest():
    train = np.array([[0.0], [1.0], [10.0]])
    made = np.array([[0.2], [1.9], [-1.5], [15.0], [19.5]])
    assert closeness.authentic(made, train).tolist() == [False, False, True, False, True]


def test_the_z_score_is_that_of_scipy():
    from scipy.stats import mannwhitneyu
    made, unseen = np.abs(normal(60, 0)[:, 0]), np.abs(normal(80, 1)[:, 0])
    u = mannwhitneyu(made, unseen, method="asymptotic").statistic
    expected = (u - 60 * 80 / 2) / np.sqrt(60 * 80 * 141 / 12)
    assert closeness.mann_whitney_z(made, unseen) == pytest.approx(expected)
    assert closeness.mann_whitney_z(unseen * 0, unseen) < -5


def test_distances_are_those_of_scipy():
    from scipy.spatial.distance import cdist
    a, b = normal(20, 0), normal(30, 1)
    assert closeness.distances(a, b) == pytest.approx(cdist(a, b), abs=1e-5)
    assert closeness.two_nearest(a, b) == pytest.approx(np.sort(cdist(a, b), axis=1)[:, :2], abs=1e-5)


def test_the_blur_is_found_that_was_used():
    pixels = scenes(12, 1, "dermoscopy")
    noisy = np.clip(pixels + np.random.default_rng(0).normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    for sigma in (1.0, 2.0):
        wanted = float(np.median(closeness.sharpness(closeness.blurred(noisy, sigma))))
        assert closeness.sigma_like(noisy, wanted) == pytest.approx(sigma, abs=0.15)
    assert closeness.sigma_like(noisy, 1.0) == 0
