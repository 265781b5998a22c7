"""Neighbours: no pair of codes within the distance is missed, none beyond it is given, crowds are not compared one by one."""

import itertools

import numpy as np
import pytest

from medisyn.data import neighbours
from medisyn.data.duplicates import Numbers


def every_pair(left: np.ndarray, right: np.ndarray, distance: int) -> set[tuple[int, int, int]]:
    apart = np.bitwise_count(left[None, :, None] ^ right[:, None, :])
    return {(how, i, j) for how, i, j in np.argwhere(apart <= distance).tolist() if i < j}


def found(left: np.ndarray, right: np.ndarray, distance: int) -> set[tuple[int, int, int]]:
    return {(how, a, b) for how, i, j in neighbours.near(left, right, distance)
            for a, b in zip(i.tolist(), j.tolist(), strict=True)}


def codes(n: int, seed: int = 0) -> np.ndarray:
    """Codes around a few centres, 0 to 16 bits from them."""
    rng = np.random.default_rng(seed)
    held = rng.integers(0, 2**64, max(1, n // 8), np.uint64)[rng.integers(0, max(1, n // 8), n)]
    for _ in range(16):
        held ^= np.where(rng.random(n) < 0.5, np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64), np.uint64(0))
    return held


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 5, 8, 12, 20])
def test_whichever_bits_differ_some_mask_leaves_them_all_out(distance):
    masks, rng = neighbours.masks(distance), np.random.default_rng(distance)
    alone = [1 << bit for bit in range(64)]
    differing = [sum(chosen) for k in (1, 2) for chosen in itertools.combinations(alone, k) if k <= distance]
    differing += [sum(alone[bit] for bit in rng.permutation(64)[:distance]) for _ in range(3000)]
    differing += [sum(alone[(start + step * k) % 64] for k in range(distance)) for start in range(64) for step in (1, 2, 3)]
    assert all(any(bits & mask == 0 for mask in masks) for bits in differing)
    assert all(0 <= mask < 2**64 for mask in masks)


def test_eight_bits_take_46_masks_of_16_bits_and_more():
    assert len(neighbours.masks(8)) == 46 and min(mask.bit_count() for mask in neighbours.masks(8)) >= 16
    assert len(neighbours.masks(4)) == 31 and min(mask.bit_count() for mask in neighbours.masks(4)) >= 32


@pytest.mark.parametrize("distance", [-1, 64])
def test_a_distance_that_no_code_has_is_refused(distance):
    with pytest.raises(ValueError, match="0 to 63 bits"):
        neighbours.masks(distance)


@pytest.mark.parametrize("distance", [0, 2, 4, 8, 11])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 400])
def test_the_pairs_are_those_of_all_with_all(n, distance):
    left, right = codes(n), np.stack([codes(n), codes(n, 1)])
    assert found(left, right, distance) == every_pair(left, right, distance)


@pytest.mark.parametrize("block, crowd", [(1, 10_000), (7, 3), (100, 0), (1 << 20, 20)])
def test_neither_the_size_of_a_block_nor_that_of_a_crowd_changes_the_pairs(monkeypatch, block, crowd):
    left = codes(300)
    left[50:120] = left[50] ^ (np.uint64(1) << np.arange(70, dtype=np.uint64) % np.uint64(64))
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "CROWD", crowd)
    assert found(left, left[None], 8) == every_pair(left, left[None], 8)


def test_the_members_of_a_group_are_not_compared_again(monkeypatch):
    monkeypatch.setattr(neighbours, "CROWD", 64)
    monkeypatch.setattr(neighbours, "BLOCK", 1 << 14)
    n = 5000  # of one code, and as many strangers
    left = np.concatenate([np.full(n, 12345, np.uint64), np.random.default_rng(0).integers(0, 2**64, n, np.uint64)])
    union, given = Numbers(len(left)), 0
    for _, i, j in neighbours.near(left, left[None], 8, union.roots):
        union.join(i, j)
        given += len(i)
    assert (union.roots(np.arange(n)) == 0).all() and (union.roots(np.arange(n, 2 * n)) == np.arange(n, 2 * n)).all()
    assert given < 46 * 80 * n < n * n / 2 * 46  # those of the first 64 codes of a crowd are


def test_numbers_join_in_chains_and_keep_the_smallest():
    union, n = Numbers(100_000), 100_000
    union.join(np.arange(1, n, 2), np.arange(0, n, 2))
    assert union.roots(np.array([7, 6])).tolist() == [6, 6]
    union.join(np.arange(1, n), np.arange(n - 1))
    assert not union.roots(np.arange(n)).any()
    other = Numbers(4)
    other.join(np.array([3, 3, 3]), np.array([0, 1, 2]))  # one number with several at once
    assert other.roots(np.arange(4)).tolist() == [0, 0, 0, 0]
