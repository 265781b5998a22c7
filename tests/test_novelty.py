"""Novelty: each way to cheat shows in its row, and images that are new are called new."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medisyn.data import records
from medisyn.data.records import Record
from medisyn.evaluation import closeness, looking, novelty
from medisyn.evaluation.features import Extractor
from medisyn.evaluation.sets import Images, Sets, open_images

SIDE = 64
N = {"train": 30, "unseen": 24, "synthetic": 8}


def projected(pixels: np.ndarray) -> np.ndarray:
    """A network of one layer: what lies in 8 x 8 cells, in random directions."""
    cells = pixels.reshape(len(pixels), 8, SIDE // 8, 8, SIDE // 8, 3).mean((2, 4)).reshape(len(pixels), -1)
    return (cells @ np.random.default_rng(0).normal(size=(192, 32)) / 100).astype(np.float32)


EXTRACTOR = Extractor("test", "0" * 12, SIDE, 32, projected)


def scenes(n: int, seed: int, kind: str) -> np.ndarray:
    """Smooth random pictures of a kind: uint8 (n, 64, 64, 3); one kind is gray and coarse, the other coloured and fine."""
    rng = np.random.default_rng([seed, kind == "chest_xray"])
    light = gaussian_filter(rng.normal(size=(n, SIDE, SIDE, 3)), (0, *((4, 4, 0) if kind == "chest_xray" else (2.5, 2.5, 0))))
    if kind == "chest_xray":
        light[:] = light.mean(3, keepdims=True)
    light /= light.std((1, 2, 3), keepdims=True)
    return np.clip(128 + 45 * light, 0, 255).astype(np.uint8)


def written(folder: Path, name: str, by_kind: dict[str, np.ndarray], texts: int = 4) -> Images:
    found = []
    for kind, pixels in by_kind.items():
        for i, square in enumerate(pixels):
            file = f"images/{name}-{kind}-{i}.png"
            (folder / name / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(square).save(folder / name / file)
            found.append(Record(f"{name}-{kind}-{i}", file, kind, text=f"{kind} {i % texts}", patient=f"{name}-{kind}-{i // 2}"))
    records.write(found, folder / name)
    return open_images(folder / name, name)


KINDS = ("chest_xray", "dermoscopy")
REAL = {name: {kind: scenes(N[name], seed, kind) for kind in KINDS} for seed, name in enumerate(("train", "unseen"))}


def near_copies(kind: str) -> np.ndarray:
    rng, base = np.random.default_rng(5), REAL["train"][kind][:8]
    changed = [looking.cropped(base[:2], rng), looking.recompressed(base[2:4], rng), base[4:6, :, ::-1],
               looking.contrasted(base[6:], rng)]
    return np.ascontiguousarray(np.concatenate(changed))


CHEATS = {
    "new": lambda kind: scenes(8, 7, kind),
    "copies": lambda kind: REAL["train"][kind][:8],
    "near copies": near_copies,
    "one image": lambda kind: np.repeat(REAL["train"][kind][:1], 8, axis=0),
    "noise": lambda kind: np.random.default_rng(3).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8),
    "another type": lambda kind: REAL["train"][KINDS[kind == KINDS[0]]][:8],
    "unseen": lambda kind: REAL["unseen"][kind][:8],
    "soft": lambda kind: closeness.blurred(scenes(8, 7, kind), 2.5),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Rows by (name, group) of a way to cheat, measured once."""
    home = tmp_path_factory.mktemp("novelty")
    train, unseen = (written(home, name, REAL[name]) for name in ("train", "unseen"))
    before = looking.PLANTED
    looking.PLANTED = 3

    @cache
    def rows(cheat: str) -> dict:
        sets = Sets(train, unseen, written(home, cheat, {kind: CHEATS[cheat](kind) for kind in KINDS}))
        features = {name: projected(images.pixels(range(len(images)), SIDE)) for name, images in sets.items()}
        return {(row.name, row.group): row for row in novelty.measure(sets, features, EXTRACTOR)}
    yield rows
    looking.PLANTED = before


# ---- ways to cheat ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("cheat", "rate"), [("copies", 1.0), ("near copies", 1.0), ("one image", 1.0), ("another type", 1.0),
                                             ("new", 0.0), ("unseen", 0.0), ("noise", 0.0)])
def test_copies_are_called_copies_and_nothing_else_is(measured, cheat, rate):
    row = measured(cheat)["copy_rate", "all"]
    assert row.value == rate if rate else row.value <= 2 / 16  # of 16, at the 4 % that 24 unseen images allow
    assert row.low <= row.value <= row.high
    assert row.floor <= 0.15
    assert row.better == "lower"
    assert "set on 24 unseen images" in measured(cheat)["copy_rate", "image_type=chest_xray"].note


def test_planted_copies_are_found_and_unseen_ones_are_not_called(measured):
    rows = measured("new")
    for name in ("", "_plain", "_flipped", "_cropped", "_recompressed", "_contrasted"):
        assert rows[f"copy_rate_planted{name}", "all"].value == 1.0
        assert rows[f"copy_rate_planted{name}", "image_type=dermoscopy"].n == (15 if name == "" else 3)
    assert rows["copy_rate_unseen", "all"].value <= 0.15
    assert rows["copy_rate_unseen", "all"].patients == 24


def test_a_prompt_whose_seed_gives_a_patient_back_is_counted(measured):
    assert measured("copies")["reid_rate", "all"].value == 1.0
    assert measured("new")["reid_rate", "all"].value <= 2 / 8
    assert measured("copies")["reid_max", "all"].value > 0.95
    found = measured("new")["reid_max", "all"]
    assert found.value == pytest.approx(found.floor, abs=0.05)
    assert found.n == 8


def test_copies_lie_nearer_to_train_and_new_images_do_not(measured):
    near, new = (measured(cheat)["nn_closer_to_train", "all"] for cheat in ("copies", "new"))
    assert near.value > 0.75
    assert new.low < 0.5 < new.high
    assert new.floor == pytest.approx(0.5, abs=0.25)            # of 48 images


def test_unseen_images_handed_in_as_synthetic_lie_nearer_to_unseen(measured):
    assert measured("unseen")["nn_closer_to_train", "all"].value < 0.25


def test_the_control_is_as_soft_as_the_synthetic_images(measured):
    soft, sharp = (measured(cheat)["nn_closer_to_train_blurred_unseen", "image_type=dermoscopy"] for cheat in ("soft", "new"))
    assert float(soft.note.split("Gaussian of ")[1].split(" ")[0]) == pytest.approx(2.5, abs=0.6)
    assert float(sharp.note.split("Gaussian of ")[1].split(" ")[0]) < 0.5
    assert 0.2 < soft.value < 0.8


def test_distances_shrink_with_copies_and_not_with_new_images(measured):
    assert measured("copies")["dcr", "all"].value < 0.01
    assert measured("copies")["nndr", "all"].value < 0.01
    assert measured("new")["dcr", "all"].value == pytest.approx(1, abs=0.25)
    assert measured("copies")["auth_pct", "all"].value == 0
    assert measured("new")["auth_pct", "all"].value == pytest.approx(measured("new")["auth_pct", "all"].floor, abs=0.25)
    assert measured("copies")["c_t", "all"].value < -3
    assert abs(measured("new")["c_t", "all"].value) < 3


def test_every_row_says_its_extractor_and_its_reason_or_its_value(measured):
    for row in measured("new").values():
        assert row.extractor == "test " + "0" * 12
        assert (row.value is None) == (row.missing is not None)


def test_a_type_without_unseen_images_says_so_and_takes_the_strictest_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "PLANTED", 3)
    train = written(tmp_path, "train", {kind: pixels[:12] for kind, pixels in REAL["train"].items()})
    unseen = written(tmp_path, "unseen", {"chest_xray": REAL["unseen"]["chest_xray"][:12]})
    made = written(tmp_path, "made", {"dermoscopy": REAL["train"]["dermoscopy"][:4]})
    sets = Sets(train, unseen, made)
    features = {name: projected(images.pixels(range(len(images)), SIDE)) for name, images in sets.items()}
    rows = {(row.name, row.group): row for row in novelty.measure(sets, features, EXTRACTOR)}
    assert rows["copy_rate", "image_type=dermoscopy"].value == 1.0
    assert "0 unseen images of this type: the strictest limit of the other types stands in" in \
        rows["copy_rate", "image_type=dermoscopy"].note
    assert "expected at least 2 training and 5 unseen images" in rows["nn_closer_to_train", "image_type=dermoscopy"].missing
    assert rows["nn_closer_to_train", "all"].value is None
