"""Near-duplicates: planted copies are found, different pictures are not."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medisyn.data import duplicates

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import duplicates as bench  # noqa: E402


def picture(seed: int, side: int = 96) -> Image.Image:
    """A smooth random scene, as different from another as two scans."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def groups(pictures: list[Image.Image], names: list[str] | None = None) -> list[str]:
    names = names or [f"{n:032x}" for n in range(len(pictures))]
    return duplicates.groups(names, [duplicates.hashes_of(p) for p in pictures],
                             np.stack([duplicates.thumbnail_of(p) for p in pictures]))


def alike(code: int) -> tuple[int, ...]:
    """A hash that is the same in every orientation."""
    return (code,) * duplicates.ORIENTATIONS


def test_no_copies_planted_none_found():
    assert len(set(groups([picture(seed) for seed in range(60)]))) == 60


@pytest.mark.parametrize("change", [
    lambda p: p.resize((64, 64)), lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    lambda p: ImageEnhance.Brightness(p).enhance(0.8), lambda p: p.convert("RGB"),
    lambda p: Image.fromarray(np.clip(np.asarray(p, int) + np.random.default_rng(0).normal(0, 6, (96, 96)), 0, 255)
                              .astype(np.uint8)),
])
def test_a_planted_copy_is_found(change):
    pictures = [picture(seed) for seed in range(20)]
    found = groups([*pictures, change(pictures[7])])
    assert found[-1] == found[7] and len(set(found)) == 20


@pytest.mark.parametrize("how", [*Image.Transpose])
def test_a_copy_is_found_in_every_orientation(how):
    pictures = [picture(seed) for seed in range(20)]
    turned = ImageEnhance.Contrast(pictures[7].resize((80, 80))).enhance(0.8).transpose(how)
    assert groups([*pictures, turned])[-1] == groups(pictures)[7]
    assert len(set(groups([turned, *pictures]))) == 20


def test_a_picture_has_the_hash_of_each_of_its_orientations():
    scene = picture(3)
    square = np.asarray(scene)
    expected = [duplicates.hashes_of(Image.fromarray(duplicates.turned(square, how)))[0] for how in range(8)]
    assert all((a ^ b).bit_count() <= 1 for a, b in zip(duplicates.hashes_of(scene), expected, strict=True))
    assert len(set(expected)) == 8


def test_orientations_are_the_eight_of_a_square():
    square = np.arange(9).reshape(3, 3)
    assert len({duplicates.turned(square, how).tobytes() for how in range(8)}) == 8
    assert np.array_equal(duplicates.turned(square, 1), np.fliplr(square))
    assert np.array_equal(duplicates.turned(square, 2), np.flipud(square))
    assert np.array_equal(duplicates.turned(square, 4), square.T)


def test_the_name_of_a_group_is_its_smallest_digest_and_does_not_depend_on_order():
    pictures = [picture(1), picture(2), picture(1).resize((80, 80)), picture(3)]
    names = ["d", "b", "c", "a"]
    assert groups(pictures, names) == ["c", "b", "c", "a"]
    assert groups(pictures[::-1], names[::-1]) == ["a", "c", "b", "c"]


def test_a_chain_of_neighbours_is_one_group():
    codes = [alike(code) for code in (0, 0b111111, 0b111111111111)]
    thumbnail = np.asarray(duplicates.thumbnail_of(picture(1)))
    assert duplicates.groups(["a", "b", "c"], codes, np.stack([thumbnail] * 3)) == ["a", "a", "a"]


def test_an_equal_hash_with_another_thumbnail_is_another_picture():
    thumbnails = np.stack([duplicates.thumbnail_of(picture(seed)) for seed in (1, 2)])
    assert duplicates.pairs([alike(5), alike(5)], thumbnails) == []


def test_identical_files_are_one_group_even_where_nothing_is_to_be_seen():
    black = Image.new("L", (64, 64))
    assert groups([black, black], ["a", "a"]) == ["a", "a"]
    assert groups([black, Image.new("L", (64, 64), 200)], ["a", "b"]) == ["a", "b"]


def test_nothing_has_no_groups():
    assert duplicates.groups([], [], np.zeros((0, 16, 16), np.uint8)) == []


def test_many_pictures_are_compared_block_by_block(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = [tuple(map(int, row)) for row in rng.integers(0, 2**63, (300, 8), np.uint64)]
    thumbnails = rng.integers(0, 256, (300, 16, 16), np.uint8)
    hashes[299], thumbnails[299] = hashes[3], thumbnails[3]
    whole = duplicates.pairs(hashes, thumbnails)
    monkeypatch.setattr(duplicates, "BLOCK", 64)
    assert duplicates.pairs(hashes, thumbnails) == whole == [(3, 299)]


@pytest.mark.parametrize("limits", [duplicates.LIKELY, duplicates.CERTAIN])
def test_the_pairs_are_those_of_all_with_all(limits):
    hashes, thumbnails = bench.generated(2000)
    expected = bench.all_with_all(hashes, thumbnails, limits)
    assert duplicates.pairs(hashes, thumbnails, limits) == expected and len(expected) > 30


def test_a_standing_film_is_one_group_without_every_frame_being_compared_with_every_other(monkeypatch):
    hashes, thumbnails = bench.generated(3000, copies=0, frames=0.9)
    compared, products = [], duplicates.products
    monkeypatch.setattr(duplicates, "products", lambda squares, i, j, how: compared.append(len(i)) or products(squares, i, j, how))
    names = duplicates.groups([f"{i:032x}" for i in range(3000)], hashes, thumbnails)
    assert len(set(names)) < 400 and sum(compared) < 3000 * 100


def test_frames_that_a_hash_takes_for_one_and_that_are_not_are_compared_once():
    hashes, thumbnails = bench.generated(800, copies=0, frames=1.0)  # too noisy to be certain copies
    assert duplicates.pairs(hashes, thumbnails, duplicates.CERTAIN) == bench.all_with_all(hashes, thumbnails, duplicates.CERTAIN)
    near = [pair for _, i, j in duplicates.near(hashes[:, 0], hashes[:, :1].T, 8)
            for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert len(near) == len(set(near)) > 150_000
