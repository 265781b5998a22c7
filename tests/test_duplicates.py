"""Near-duplicates: planted copies are found, different pictures are not."""

import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medisyn.data import duplicates


def picture(seed: int, side: int = 96) -> Image.Image:
    """A smooth random scene, as different from another as two scans."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def groups(pictures: list[Image.Image], names: list[str] | None = None) -> list[str]:
    names = names or [f"{n:032x}" for n in range(len(pictures))]
    return duplicates.groups(names, [duplicates.hash_of(p) for p in pictures],
                             np.stack([duplicates.thumbnail_of(p) for p in pictures]))


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


def test_the_name_of_a_group_is_its_smallest_digest_and_does_not_depend_on_order():
    pictures = [picture(1), picture(2), picture(1).resize((80, 80)), picture(3)]
    names = ["d", "b", "c", "a"]
    assert groups(pictures, names) == ["c", "b", "c", "a"]
    assert groups(pictures[::-1], names[::-1]) == ["a", "c", "b", "c"]


def test_a_chain_of_neighbours_is_one_group():
    codes, thumbnail = [0, 0b111111, 0b111111111111], np.asarray(duplicates.thumbnail_of(picture(1)))
    assert duplicates.groups(["a", "b", "c"], codes, np.stack([thumbnail] * 3)) == ["a", "a", "a"]


def test_an_equal_hash_with_another_thumbnail_is_another_picture():
    thumbnails = np.stack([duplicates.thumbnail_of(picture(seed)) for seed in (1, 2)])
    assert duplicates.pairs([5, 5], thumbnails) == []


def test_identical_files_are_one_group_even_where_nothing_is_to_be_seen():
    black = Image.new("L", (64, 64))
    assert groups([black, black], ["a", "a"]) == ["a", "a"]
    assert groups([black, Image.new("L", (64, 64), 200)], ["a", "b"]) == ["a", "b"]


def test_nothing_has_no_groups():
    assert duplicates.groups([], [], np.zeros((0, 16, 16), np.uint8)) == []


def test_many_pictures_are_compared_block_by_block(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = [int(n) for n in rng.integers(0, 2**63, 300, np.uint64)]
    thumbnails = rng.integers(0, 256, (300, 16, 16), np.uint8)
    hashes[299], thumbnails[299] = hashes[3], thumbnails[3]
    whole = duplicates.pairs(hashes, thumbnails)
    monkeypatch.setattr(duplicates, "BLOCK", 64)
    assert duplicates.pairs(hashes, thumbnails) == whole == [(3, 299)]


def test_three_thousand_pictures_take_seconds():
    rng = np.random.default_rng(0)
    hashes = [int(n) for n in rng.integers(0, 2**63, 3000, np.uint64)]
    start = time.perf_counter()
    duplicates.pairs(hashes, rng.integers(0, 256, (3000, 256), np.uint8))
    assert time.perf_counter() - start < 10
