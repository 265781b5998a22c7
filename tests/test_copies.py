"""Copies: planted ones are found, turned, cropped or recompressed; what was never there is not."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift, zoom

from medisyn.evaluation import copies


def scenes(n: int, seed: int, side: int = 96) -> np.ndarray:
    """Smooth random pictures, each its own: uint8 (n, side, side, 3)."""
    light = gaussian_filter(np.random.default_rng(seed).normal(size=(n, side, side, 3)), (0, 4, 4, 0))
    light /= light.std((1, 2, 3), keepdims=True)
    return np.clip(128 + 45 * light, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 50) -> np.ndarray:
    out = []
    for square in pixels:
        file = io.BytesIO()
        Image.fromarray(square).save(file, "JPEG", quality=quality)
        with Image.open(file) as opened:
            out.append(np.asarray(opened))
    return np.stack(out)


def cut(pixels: np.ndarray, share: float, top: int = 3, left: int = 5) -> np.ndarray:
    side, keep = pixels.shape[1], round(pixels.shape[1] * share)
    return np.stack([np.asarray(Image.fromarray(p[top:top + keep, left:left + keep]).resize((side, side))) for p in pixels])


def seen(pixels: np.ndarray, features: np.ndarray | None = None) -> copies.Shown:
    return copies.shown(lambda rows: pixels[rows], len(pixels), features)


TRAIN = scenes(60, 0)
LIBRARY = copies.library(seen(TRAIN))
PLANTED = {
    "plain": lambda x: x, "mirrored": lambda x: x[:, :, ::-1], "upside down": lambda x: x[:, ::-1],
    "turned": lambda x: np.rot90(x, 1, (1, 2)), "transposed": lambda x: x.swapaxes(1, 2),
    "recompressed": jpeg, "cropped": lambda x: cut(x, 0.9), "cropped more": lambda x: cut(x, 0.82, 8, 8),
    "darker": lambda x: (x * 0.5 + 20).astype(np.uint8), "bent": lambda x: (255 * (x / 255) ** 1.6).astype(np.uint8),
    "softened": lambda x: gaussian_filter(x, (0, 1.5, 1.5, 0)),
    "noisy": lambda x: np.clip(x + np.random.default_rng(1).normal(0, 8, x.shape), 0, 255).astype(np.uint8),
    "all at once": lambda x: jpeg(np.ascontiguousarray(cut((x * 0.7 + 30).astype(np.uint8), 0.9)[:, :, ::-1])),
}


@pytest.mark.parametrize("change", PLANTED)
def test_a_planted_copy_is_found_and_told_which_image_it_copies(change):
    planted = np.ascontiguousarray(PLANTED[change](TRAIN[10:18]))
    score, row = copies.search(seen(planted), LIBRARY)
    assert row.tolist() == list(range(10, 18))
    assert score.min() > 0.8


def test_what_is_not_there_is_not_found():
    score, _ = copies.search(seen(scenes(40, 9)), LIBRARY)
    assert score.max() < 0.6


def test_an_image_is_itself_and_its_negative_is_not():
    score, row = copies.search(seen(TRAIN[:4]), LIBRARY)
    assert score == pytest.approx(np.ones(4), abs=1e-3)
    assert row.tolist() == [0, 1, 2, 3]
    assert copies.search(seen(255 - TRAIN[:4]), LIBRARY)[0].max() < 0.7


def test_the_correlation_is_that_of_the_shifted_window():
    """Against numpy.corrcoef of the core and the window that it came from."""
    image = copies.grays(TRAIN[:1])[0]
    moved = np.roll(image, (2, 3), (0, 1))
    relief, others = copies.reliefs(image[None])[0], copies.reliefs(moved[None])
    core, window = relief[3:61, 3:61], others[0, 5:63, 6:64]
    expected = np.corrcoef(core.ravel(), window.ravel())[0, 1]
    found = copies.aligned(image, moved[None], np.array([[0]]))[0]
    assert found >= expected - 1e-4
    assert found == pytest.approx(expected, abs=5e-3)


def test_alignment_follows_shift_and_zoom():
    image = copies.grays(TRAIN[:1])[0].astype(float)
    moved = shift(image, (2, -3), mode="nearest")
    larger = zoom(image, 64 / 54, order=1)[5:69, 5:69]
    for other in (moved, larger):
        found = copies.aligned(np.clip(other, 0, 255).astype(np.uint8), image[None].astype(np.uint8), np.array([[0]]))
        assert found[0] > 0.85


def test_brightness_and_contrast_do_not_count():
    soft = copies.grays(TRAIN[:1])
    assert np.corrcoef(copies.reliefs(soft).ravel(), copies.reliefs(soft // 2 + 60).ravel())[0, 1] > 0.98


def test_a_flat_image_copies_nothing():
    flat = np.full((2, 96, 96, 3), 77, np.uint8)
    score, _ = copies.search(seen(flat), LIBRARY)
    assert np.isfinite(score).all()
    assert score.max() < 0.5


def test_features_bring_candidates_that_the_sketch_does_not_see():
    """A part of a training image, too small for the sketches: only the features know where to look."""
    part = np.stack([np.asarray(Image.fromarray(p[20:90, 20:90]).resize((96, 96))) for p in TRAIN[:6]])
    features = np.eye(60, dtype=np.float32)
    with_features = copies.library(seen(TRAIN, features))
    blind, told = (copies.search(seen(part, mine), against)[0]
                   for mine, against in ((None, LIBRARY), (features[:6], with_features)))
    assert (told >= blind - 1e-6).all()


def test_the_own_patient_is_hidden_where_that_is_asked():
    score, row = copies.search(seen(TRAIN[:5]), LIBRARY, apart=lambda rows: rows[:, None] == np.arange(60)[None])
    assert score.max() < 0.6
    assert all(row != np.arange(5))


def test_an_empty_library_finds_nothing():
    score, row = copies.search(seen(TRAIN[:2]), copies.library(seen(TRAIN[:0])))
    assert score.tolist() == row.tolist() == [-1, -1]


@pytest.mark.parametrize("side", [32, 64, 96, 100, 128])
def test_any_side_becomes_sixty_four_with_the_same_mean(side):
    pixels = scenes(2, 3, side)
    light = (pixels @ np.array([0.299, 0.587, 0.114])).mean((1, 2))
    assert copies.grays(pixels).shape == (2, 64, 64)
    assert copies.grays(pixels).mean((1, 2)) == pytest.approx(light, abs=1.0)


# ---- the limit -------------------------------------------------------------------------------------------------------

def usual(n: int, seed: int = 0) -> np.ndarray:
    return np.tanh(0.6 + 0.1 * np.random.default_rng(seed).gumbel(size=n))


def test_a_limit_keeps_its_promise_on_other_images():
    rates = [(usual(4000, 100 + k) >= copies.limit(usual(400, k), 0.01).score).mean() for k in range(20)]
    assert np.mean(rates) == pytest.approx(0.01, abs=0.004)


def test_hidden_doubles_do_not_raise_the_limit():
    clean = usual(300)
    doubled = np.concatenate([clean, np.full(20, 0.99)])
    before, after = copies.limit(clean), copies.limit(doubled)
    assert 20 <= after.far_out <= 20 + before.far_out
    assert after.score == pytest.approx(before.score, abs=0.03)
    assert f"{after.far_out} more show what a training image shows" in after.note


def test_few_unseen_images_allow_no_low_rate_and_the_limit_says_so():
    found = copies.limit(usual(36))
    assert found.false_alarms == pytest.approx(1 / 37, abs=0.002)
    assert "allow no 1.0%; 99 would" in found.note
    assert copies.limit(usual(99)).false_alarms == pytest.approx(0.01, abs=2e-4)
    assert copies.limit(usual(1000)).false_alarms <= 0.01


def test_three_images_set_no_limit():
    with pytest.raises(ValueError, match="expects at least 4 unseen images, found 3"):
        copies.limit(usual(3))


def test_nothing_that_correlates_little_is_called_a_copy():
    assert copies.limit(np.full(50, 0.1) + np.linspace(0, 0.01, 50)).score == copies.LEAST
