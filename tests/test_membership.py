"""Membership: what leaks is measured, what does not is not, and what cannot be resolved says so."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from medisyn.data.records import Record
from medisyn.evaluation import membership
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.sets import Images, Sets

EXTRACTOR = Extractor("test", "0" * 12, 8, 8, lambda pixels: pixels.reshape(len(pixels), -1)[:, :8].astype(np.float32))


def named(n: int, name: str, kinds: tuple[str, ...] = ("a",), each: int = 1) -> Images:
    records = tuple(Record(f"{name}{i}", f"{i}.png", kinds[i % len(kinds)], patient=f"{name}-{i // each}") for i in range(n))
    return Images(name, records, tuple(Path(r.file_name) for r in records))


def measured(train: np.ndarray, unseen: np.ndarray, made: np.ndarray, kinds: tuple[str, ...] = ("a",), each: int = 1) -> dict:
    sets = Sets(*(named(len(x), name, kinds, each) for x, name in ((train, "train"), (unseen, "unseen"), (made, "synthetic"))))
    rows = membership.measure(sets, {"train": train, "unseen": unseen, "synthetic": made}, EXTRACTOR)
    return {(row.name, row.group): row for row in rows}


def normal(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def test_the_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    members, others = np.round(rng.normal(0.4, 1, 300), 1), np.round(rng.normal(0, 1, 250), 1)  # with ties
    truth, score = np.repeat([1, 0], [300, 250]), np.concatenate([members, others])
    assert membership.auc(members, others) == pytest.approx(roc_auc_score(truth, score))
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    for rate in (0.01, 0.1):
        assert membership.true_positives(members, others, rate) == pytest.approx(tpr[fpr <= rate + 1e-12].max())


def test_nearest_is_that_of_scikit_learn():
    a, b = normal(70, 0), normal(40, 1)
    assert membership.nearest(a, b) == pytest.approx(NearestNeighbors(n_neighbors=1).fit(b).kneighbors(a)[0][:, 0], abs=1e-5)


def test_copies_leak_and_new_images_do_not():
    train, unseen = normal(300, 0), normal(300, 1)
    leaking = measured(train, unseen, train + 0.01 * normal(300, 2))["mia_auc", "all"]
    silent = measured(train, unseen, normal(300, 3))["mia_auc", "all"]
    assert leaking.value > 0.99
    assert silent.low < 0.5 < silent.high
    assert leaking.floor == silent.floor == 0.5
    assert leaking.better == "lower"


def test_a_few_exposed_patients_show_at_few_false_positives_only():
    train, unseen = normal(400, 0), normal(400, 1)
    rows = measured(train, unseen, np.concatenate([train[:40], 3 + normal(300, 2)]))
    assert rows["mia_auc", "all"].value < 0.6
    assert rows["mia_tpr_at_1pct", "all"].value > 0.08


def test_a_rate_that_cannot_be_resolved_is_a_row_that_says_why():
    rows = measured(normal(300, 0), normal(300, 1), normal(50, 2))
    assert rows["mia_tpr_at_1pct", "all"].value is not None
    assert rows["mia_tpr_at_0.1pct", "all"].value is None
    assert "needs at least 1,000 unseen images, found 300" in rows["mia_tpr_at_0.1pct", "all"].missing
    enough = measured(normal(50, 0), normal(1000, 1), normal(50, 2))
    assert enough["mia_tpr_at_0.1pct", "all"].value is not None


def test_a_type_that_is_made_seldom_does_not_look_unknown():
    """Types at other distances: pooled without their own unseen images the AUC would be far from 0.5."""
    def two(n: int, seed: int, share: int) -> np.ndarray:
        scale = np.where(np.arange(n) % share == 0, 5.0, 0.1)[:, None]
        return (normal(n, seed) * scale + np.where(scale > 1, 100, 0)).astype(np.float32)
    kinds = ("rare", "common")
    found = measured(two(300, 0, 2), two(300, 1, 2), two(100, 2, 2), kinds)["mia_auc", "all"]
    assert abs(found.value - 0.5) < 0.08


def test_patients_are_drawn_whole():
    steps = np.repeat(normal(40, 0), 10, axis=0)
    train, unseen, made = steps[:200], steps[200:], normal(60, 5)
    alone, grouped = (measured(train, unseen, made, each=each)["mia_auc", "all"] for each in (1, 10))
    assert alone.value == pytest.approx(grouped.value)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_without_a_common_image_type_there_is_a_reason():
    sets = Sets(named(20, "train", ("a",)), named(20, "unseen", ("b",)), named(20, "synthetic", ("a",)))
    rows = membership.measure(sets, {k: normal(20, i) for i, k in enumerate(("train", "unseen", "synthetic"))}, EXTRACTOR)
    assert {row.name for row in rows} == {"mia_auc", "mia_tpr_at_1pct", "mia_tpr_at_0.1pct"}
    assert all(row.value is None and "expected at least 10 unseen images" in row.missing for row in rows)


def test_a_loss_that_is_handed_in_is_an_attack(monkeypatch):
    train, unseen = named(120, "train"), named(120, "unseen")
    monkeypatch.setattr(Images, "pixels", lambda self, rows, side:
                        np.full((len(rows), side, side, 3), self.name == "train", np.uint8))
    found = membership.measure_loss(train, unseen, lambda pixels, texts: 1.0 - pixels[:, 0, 0, 0], 8)
    assert {row.name: row.value for row in found}["mia_loss_auc"] == 1.0
    blind = membership.measure_loss(train, unseen, lambda pixels, texts: np.zeros(len(texts)), 8)
    assert {row.name: row.value for row in blind}["mia_loss_auc"] == 0.5
    with pytest.raises(ValueError, match="one number an image"):
        membership.measure_loss(train, unseen, lambda pixels, texts: np.zeros((len(texts), 2)), 8)
