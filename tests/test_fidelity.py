"""Fidelity: closed forms, the same figures as other libraries on the same arrays, and faults that must show."""

from dataclasses import replace

import numpy as np
import phantoms
import pytest
import scipy.linalg
from PIL import Image

from medisyn.evaluation import distances, diversity, fidelity, manifolds, sets, two_sample
from medisyn.evaluation.features import Extractor


def cloud(n: int, dims: int = 8, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dims)) @ np.random.default_rng(99).normal(size=(dims, dims)) + shift).astype(np.float32)


def textbook_frechet(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real))


def textbook_mmd(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    k = [[(a @ b.T / x.shape[1] + 1) ** 3 for b in (x, y)] for a in (x, y)]
    return float((k[0][0].sum() - np.trace(k[0][0])) / (n * (n - 1)) + (k[1][1].sum() - np.trace(k[1][1])) / (m * (m - 1))
                 - 2 * k[0][1].mean())


def textbook_manifolds(x: np.ndarray, y: np.ndarray, k: int) -> dict[str, float]:
    """As their authors print them: whole matrices of distances."""
    def far(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2)
    rx, ry = np.sort(far(x, x), 1)[:, k], np.sort(far(y, y), 1)[:, k]
    d = far(x, y)
    return {"precision": (d < rx[:, None]).any(0).mean(), "recall": (d < ry[None]).any(1).mean(),
            "density": (d < rx[:, None]).sum(0).mean() / k, "coverage": (d.min(1) < rx).mean()}


def test_the_distance_of_two_gaussians_is_the_closed_form():
    m1, m2, v1, v2 = np.array([0.0, 1, 2]), np.array([1.0, 1, 0]), np.array([1.0, 4, 9]), np.array([4.0, 4, 1])
    closed = np.square(m1 - m2).sum() + np.square(np.sqrt(v1) - np.sqrt(v2)).sum()
    assert distances.frechet((m1, np.diag(v1)), (m2, np.diag(v2))) == pytest.approx(closed)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (6, 200), (200, 7), (5, 6)])
def test_the_frechet_distance_is_that_of_the_matrix_root(n, m):
    x, y = cloud(n, 8, 1), cloud(m, 8, 2, 0.5)
    assert distances.frechet_distance(x, y) == pytest.approx(textbook_frechet(x, y), rel=1e-3)


def test_a_rank_deficient_covariance_has_a_root_too():
    flat = cloud(100, 8, 1)
    other = cloud(90, 8, 2)
    flat[:, 3] = other[:, 3] = 1.0
    seven = [z[:, [0, 1, 2, 4, 5, 6, 7]] for z in (flat, other)]
    assert distances.frechet_distance(flat, other) == pytest.approx(textbook_frechet(*seven), rel=1e-3)


def test_counts_are_repeated_rows():
    x, y = cloud(30, 4, 1), cloud(40, 4, 2)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 30), rng.integers(0, 3, 40)
    assert distances.frechet_distance(x, y, a, b) == pytest.approx(
        distances.frechet_distance(np.repeat(x, a, 0), np.repeat(y, b, 0)), rel=1e-6)
    assert diversity.vendi_score(x, a) == pytest.approx(diversity.vendi_score(np.repeat(x, a, 0)), rel=1e-6)


def test_moments_are_those_of_numpy_block_by_block(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", 7)
    x = cloud(50) + 1000
    mean, covariance = distances.moments(x)
    np.testing.assert_allclose(mean, x.mean(0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-6, atol=1e-8)


def test_the_kernel_distance_is_the_textbook_sum_whatever_the_block(monkeypatch):
    x, y = cloud(50, 8, 1), cloud(33, 8, 2, 0.3)
    for block in (7, 1024):
        monkeypatch.setattr(distances, "BLOCK", block)
        assert distances.kernel_distance(x, y) == pytest.approx(textbook_mmd(x, y), rel=1e-4)


def test_kernel_distances_of_one_distribution_are_about_zero_and_unbiased():
    values = [distances.kernel_distance(cloud(80, 4, 2 * i), cloud(80, 4, 2 * i + 1)) for i in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 60**0.5
    assert distances.kernel_distance(cloud(80, 4, 0), cloud(80, 4, 1, 2.0)) > 10 * np.std(values)
    assert abs(distances.cmmd(cloud(80, 4, 0), cloud(80, 4, 1))) < distances.cmmd(cloud(80, 4, 0), cloud(80, 4, 1, 2.0)) / 10


def test_blocks_estimate_what_all_pairs_do():
    x, y = cloud(600, 8, 1), cloud(600, 8, 2, 0.5)
    parts = distances.mmd_blocks(x, y, distances.cubic, 100)
    assert len(parts) == 6
    assert parts.mean() == pytest.approx(textbook_mmd(x, y), abs=3 * parts.std() / 6**0.5 + 1e-6)


def test_doubles_of_a_resample_do_not_make_a_distance_larger():
    x, y = cloud(60, 8, 1), cloud(60, 8, 2)
    rng = np.random.default_rng(0)
    a, b = (np.stack([np.bincount(rng.integers(60, size=60), minlength=60) for _ in range(300)]) for _ in range(2))
    drawn = distances.mmd(x, y, distances.cubic, a, b)
    assert drawn.shape == (300,)
    assert drawn.mean() == pytest.approx(textbook_mmd(x, y), abs=4 * drawn.std() / 300**0.5)


@pytest.mark.parametrize("size", [manifolds.BYTES, 2000])
def test_manifolds_are_the_textbook_ones_whatever_the_block(monkeypatch, size):
    monkeypatch.setattr(manifolds, "BYTES", size)
    x, y = cloud(60, 4, 1), cloud(70, 4, 2, 0.8)
    found = manifolds.manifolds(x, y)
    for name, value in textbook_manifolds(x, y, manifolds.K).items():
        assert getattr(found, name).mean() == pytest.approx(value, abs=1e-9), name


def test_a_set_lies_wholly_in_itself_and_not_at_all_far_away():
    x = cloud(40)
    same, apart = manifolds.manifolds(x, x), manifolds.manifolds(x, x + 1000)
    assert (same.precision.mean(), same.recall.mean(), same.coverage.mean()) == (1, 1, 1)
    assert (apart.precision.mean(), apart.recall.mean(), apart.density.mean(), apart.coverage.mean()) == (0, 0, 0, 0)


def test_one_image_repeated_is_precise_and_covers_nothing():
    x = cloud(200)
    found = manifolds.manifolds(x, np.repeat(x[:1], 200, 0))
    assert found.precision.mean() == 1
    assert found.coverage.mean() < 0.1


def test_the_vendi_score_counts_different_images():
    assert diversity.vendi_score(np.eye(7)) == pytest.approx(7)
    assert diversity.vendi_score(np.repeat(np.eye(7)[:2], 5, 0)) == pytest.approx(2)
    assert diversity.vendi_score(np.ones((9, 3))) == pytest.approx(1)
    x = cloud(40, 60)
    k = distances.unit(x) @ distances.unit(x).T / 40
    p = np.linalg.eigvalsh(k).clip(1e-12)
    assert diversity.vendi_score(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


def test_ms_ssim_is_1_of_an_image_with_itself_and_falls_with_damage():
    rng = np.random.default_rng(0)
    image = np.asarray(phantoms.chest(rng, True).resize((128, 128)), float)
    values = [diversity.ms_ssim(image, image + amount * rng.normal(size=image.shape)) for amount in (0, 5, 20, 60)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    with pytest.raises(ValueError, match="at least 88 pixels"):
        diversity.ms_ssim(image[:64, :64], image[:64, :64])


def test_torchmetrics_finds_the_same():
    metrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    import torch
    from torchmetrics.functional.image.ssim import _ssim_update
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd
    x, y = cloud(120, 16, 1).astype(np.float64), cloud(120, 16, 2, 0.4).astype(np.float64)
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    theirs = float(_compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()))
    assert theirs == pytest.approx(distances.frechet_distance(x, y), rel=1e-4)
    assert float(poly_mmd(a, b)) == pytest.approx(distances.kernel_distance(x, y), rel=1e-6)
    rng = np.random.default_rng(0)
    one, two = (np.asarray(phantoms.chest(rng, sick).resize((128, 128)), float) for sick in (True, False))
    left, right = torch.from_numpy(one)[None, None], torch.from_numpy(two)[None, None]
    structure = _ssim_update(left, right, True, 1.5, 11, 255.0, return_contrast_sensitivity=True)[1]
    assert float(structure) == pytest.approx(diversity.similarity(one, two)[1], abs=1e-9)
    theirs = metrics.functional.image.multiscale_structural_similarity_index_measure(
        left, right, data_range=255.0, betas=tuple(diversity.SCALES), normalize="relu")
    assert float(theirs) == pytest.approx(diversity.ms_ssim(one, two), abs=0.05)   # theirs counts a mirrored border


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_monai_finds_the_same():
    pytest.importorskip("monai", reason="monai is not installed")
    import torch
    from monai.metrics import MultiScaleSSIMMetric
    from monai.metrics.fid import get_fid_score
    from monai.metrics.mmd import compute_mmd
    x, y = cloud(120, 16, 1).astype(np.float64), cloud(120, 16, 2, 0.4).astype(np.float64)
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    assert float(get_fid_score(b, a)) == pytest.approx(distances.frechet_distance(x, y), rel=1e-4)
    theirs = float(compute_mmd(a[..., None, None], b[..., None, None], None))   # its kernel is the inner product
    assert theirs == pytest.approx(distances.mmd(x, y, lambda p, q: p @ q.T)[0], rel=1e-6)
    rng = np.random.default_rng(0)
    one, two = (np.asarray(phantoms.chest(rng, sick).resize((128, 128)), float) for sick in (True, False))
    metric = MultiScaleSSIMMetric(spatial_dims=2, data_range=255.0, weights=tuple(diversity.SCALES))
    found = metric(*(torch.from_numpy(image)[None, None] for image in (one, two)))
    assert float(found) == pytest.approx(diversity.ms_ssim(one, two), abs=1e-6)


def test_the_regression_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, truth = np.concatenate((cloud(60, 5, 1), cloud(40, 5, 2, 0.5))).astype(float), np.repeat([0.0, 1.0], [60, 40])
    theirs = linear.LogisticRegression(C=1 / two_sample.PENALTY, class_weight="balanced", tol=1e-8, max_iter=2000).fit(x, truth)
    ours = two_sample.logistic(x, truth)
    np.testing.assert_allclose(ours, np.append(theirs.coef_[0], theirs.intercept_), atol=0.01)


def test_two_draws_of_one_distribution_cannot_be_told_apart_and_two_distributions_can():
    keys = np.arange(150).astype(str)
    right = np.concatenate(two_sample.tell_apart_features(cloud(150, 8, 1), cloud(150, 8, 2), keys, np.char.add("s", keys)))
    assert 0.38 < right.mean() < 0.62
    right = np.concatenate(two_sample.tell_apart_features(cloud(150, 8, 1), cloud(150, 8, 2, 3.0), keys, np.char.add("s", keys)))
    assert right.mean() > 0.8


def test_a_patient_is_never_on_both_sides_of_a_fold():
    keys = np.repeat([f"p{i}" for i in range(20)], 5)
    fold = two_sample.folds(keys, 5, 0)
    assert all(len(set(fold[keys == key])) == 1 for key in keys)
    assert len(set(fold)) == 5


def test_equal_pictures_of_one_patient_do_not_fool_the_test():
    """Each patient's images are the same ten times over: a leak across folds would be told by heart."""
    rng = np.random.default_rng(0)
    first, second = (np.repeat(rng.normal(size=(12, 30)), 10, 0) for _ in range(2))
    keys = np.repeat([f"p{i}" for i in range(12)], 10)
    right = np.concatenate(two_sample.tell_apart_features(first, second, keys, np.char.add("s", keys)))
    assert right.mean() < 0.8


def test_soft_images_are_told_by_their_pixels(monkeypatch):
    monkeypatch.setattr(two_sample, "STEPS", 40)
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (40, 96, 96, 3), np.uint8)
    soft = ((sharp[:, ::2, ::2].astype(int) + sharp[:, 1::2, 1::2]) // 2).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    keys = np.arange(40).astype(str)
    assert np.concatenate(two_sample.tell_apart_pixels(sharp, soft, keys, np.char.add("s", keys))).mean() > 0.9


def brightness(squares: np.ndarray) -> np.ndarray:
    """Features that anybody can check: the means of a 4 x 4 grid."""
    n, side = squares.shape[:2]
    return squares.mean(3).reshape(n, 4, side // 4, 4, side // 4).mean((2, 4)).reshape(n, 16).astype(np.float32) / 32


GRID = Extractor("grid", "0" * 12, 32, 16, brightness)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> sets.Sets:
    """Train, unseen and a good synthetic set: three draws of the same phantoms."""
    opened = []
    for seed, name in enumerate(("train", "unseen", "synthetic")):
        images = sets.open_images(phantoms.collection(tmp_path_factory.mktemp(name), 40, seed), name)
        opened.append(replace(images, records=tuple(
            replace(r, id=f"{name}/{r.id}", patient=f"{name}/{r.patient}", text="a phantom") for r in images.records)))
    return sets.Sets(*opened)


@pytest.fixture(scope="module")
def found(three) -> dict:
    features = {name: brightness(images.pixels(range(len(images)), 32)) for name, images in three.items()}
    return {(e.name, e.group): e for e in fidelity.measure(three, features, GRID, pixels=False)}


def test_every_figure_is_there_with_interval_floor_and_extractor(found):
    for name in ("fd", "kd", "cmmd", "precision", "recall", "density", "coverage", "vendi", "two_sample"):
        estimate = found[f"{name}_grid", "all"]
        assert estimate.low <= estimate.value <= estimate.high or name == "cmmd", estimate
        assert estimate.floor is not None
        assert estimate.extractor == "grid 000000000000"
        assert {f"{name}_grid"} == {n for n, group in found if n == f"{name}_grid" and group == "image_type=chest_xray"}


def test_images_of_the_same_kind_stand_at_the_floor(found):
    assert found["fd_grid", "all"].value < 4 * found["fd_grid", "all"].floor
    assert found["precision_grid", "all"].value > 0.5
    assert 0.3 < found["two_sample_grid", "all"].value < 0.7


def test_a_group_too_small_is_a_row_that_says_so(found, three):
    few = found["fd_grid", "finding=melanoma"]
    assert few.value is None
    assert "fewer than 30 images" in few.missing
    assert found["coverage_grid", "finding=melanoma"].value is not None


def test_blank_images_are_far_from_real_ones(three, found, tmp_path):
    blank = []
    for i in range(len(three.synthetic)):
        blank.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((64, 64), 10 + i % 3, np.uint8)).save(blank[-1])
    planted = replace(three, synthetic=replace(three.synthetic, paths=tuple(blank)))
    features = {name: brightness(images.pixels(range(len(images)), 32)) for name, images in planted.items()}
    bad = {(e.name, e.group): e for e in fidelity.measure(planted, features, GRID, pixels=False)}
    for name in ("fd", "kd"):
        assert bad[f"{name}_grid", "all"].low > found[f"{name}_grid", "all"].high
    assert bad["precision_grid", "all"].value < 0.1
    assert bad["coverage_grid", "all"].value < 0.1
    assert bad["two_sample_grid", "all"].value > 0.95
    assert bad["vendi_grid", "all"].value < found["vendi_grid", "all"].value


def test_sets_are_matched_by_image_type(three):
    chest = three.synthetic.take(three.synthetic.rows_of("image_type=chest_xray"))
    few = replace(three, synthetic=chest)
    use = fidelity.matched(few, {name: range(len(images)) for name, images in few.items()}, 0)
    assert (len(use.train), len(use.unseen), len(use.synthetic)) == (40, 40, 40)
    assert {three.unseen.records[r].image_type for r in use.unseen} == {"chest_xray"}
    assert use.left_out == ("dermoscopy",)


def only(three: sets.Sets, finding: str) -> sets.Sets:
    """The synthetic images that show one finding, for which they were asked."""
    rows = [k for k, r in enumerate(three.synthetic.records) if r.findings.get(finding)]
    return replace(three, synthetic=three.synthetic.take(rows))


def test_the_floor_is_mixed_as_the_set_is(three):
    """All synthetic images show one finding that only half of the real ones show: so do the train images of the floor."""
    one = only(three, "pneumonia")
    use = fidelity.matched(one, {side: range(len(images)) for side, images in one.items()}, 0)
    shows = [bool(r.findings.get("pneumonia")) for r in three.train.records]
    assert len(use.mixed) == len(use.train) == len(use.synthetic)
    assert all(shows[row] for row in use.mixed)
    assert not all(shows[row] for row in use.train)


def test_a_set_of_one_finding_is_at_the_floor_of_that_finding_and_it_is_said(three, monkeypatch):
    """Real images of pneumonia alone lie as far from all chests as the set does; how much it reaches is compared with all."""
    monkeypatch.setattr(fidelity, "FEWEST", 20)
    one = only(three, "pneumonia")
    features = {name: brightness(images.pixels(range(len(images)), 32)) for name, images in one.items()}
    for name, images in one.items():        # what the finding changes, so that its share of a set matters
        features[name] += 3.0 * np.array([bool(r.findings.get("pneumonia")) for r in images.records], np.float32)[:, None]
    found = {(e.name, e.group): e for e in fidelity.measure(one, features, GRID, pixels=False)}
    far = found["fd_grid", "all"]
    assert far.low < far.floor < far.high
    assert "train images as they come: " in far.note
    assert float(far.note.split("as they come: ")[1].split(";")[0]) < far.floor / fidelity.RAISED
    assert found["coverage_grid", "all"].value < found["coverage_grid", "all"].floor - 0.2


def test_one_picture_for_every_prompt_is_seen_by_ms_ssim(three, tmp_path):
    path = three.synthetic.paths[0]
    collapsed = replace(three, synthetic=replace(three.synthetic, paths=tuple(path for _ in three.synthetic.paths)))
    (varied, *_), (same, *_) = (fidelity.alike(s, [], 0) for s in (three, collapsed))
    assert same.value == pytest.approx(1)
    assert varied.value < 1
    assert varied.floor < 1


def test_without_prompts_there_is_no_ms_ssim_and_it_says_why(three):
    bare = replace(three.synthetic, records=tuple(replace(r, text=None, image_type="") for r in three.synthetic.records))
    assert "unknown" in fidelity.alike(replace(three, synthetic=bare), [], 0)[0].missing


