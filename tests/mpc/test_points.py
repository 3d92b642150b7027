"""Distributed point functions: both rows make up the unit vector, on every backend, and one key says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, chi_square_fits, examples, kernels_named, looks_uniform

from secformer.mpc.errors import RangeError
from secformer.mpc.kernels.blocks import blocks
from secformer.mpc.kernels.points import LEAF, PointKeys, depth, leaves
from secformer.mpc.points import keys_of

SEED = bytes(range(32))
SIZES = (1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 100, 128, 129, 257)


def rows(keys: PointKeys, columns: int, kernels: str = KERNELS[-1]) -> np.ndarray:
    out = np.full((len(keys), columns), 7, np.uint64)
    kernels_named(kernels).points(keys, out)
    return out


def both(points: np.ndarray, columns: int, seed: bytes = SEED, kernels: str = KERNELS[-1]) -> np.ndarray:
    first, second = keys_of(points, columns, seed)
    return rows(first, columns, kernels) + rows(second, columns, kernels)


def test_the_cipher_is_chacha20_with_a_key_of_16_bytes() -> None:
    """Test vector 1 for keys of 128 bits and 20 rounds in draft-strombergson-chacha-test-vectors-01: all zero."""
    block = blocks(np, np.zeros((4, 3), np.uint32), 0, np.zeros((3, 3), np.uint32))
    wanted = "89670952608364fd00b2f90936f031c8e756e15dba04b8493d00429259b20f46cc04f111246b6c2ce066be3bfb32d9aa"
    for column in block.T:
        assert column.astype("<u4").tobytes().hex().startswith(wanted)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("columns", SIZES)
def test_every_point_of_a_small_row(columns: int, kernels: str) -> None:
    np.testing.assert_array_equal(both(np.arange(columns), columns, kernels=kernels), np.eye(columns, dtype=np.uint64))


@examples(40)
@given(columns=st.integers(1, 3000), data=st.data(), seed=st.binary(min_size=32, max_size=32))
def test_any_points_of_any_row(columns: int, data: st.DataObject, seed: bytes) -> None:
    """Also both backends, word by word; each key alone expands to words that are no unit vector."""
    points = np.array(data.draw(st.lists(st.integers(0, columns - 1), min_size=1, max_size=7)), dtype=np.int64)
    keys = keys_of(points, columns, seed)
    for each in keys:
        found = [rows(each, columns, kernels) for kernels in KERNELS]
        assert all(np.array_equal(found[0], other) for other in found)
        assert each.depth == depth(columns) and (leaves(columns) - 1) >> each.depth == 0
    total = rows(keys[0], columns) + rows(keys[1], columns)
    np.testing.assert_array_equal(total, points[:, None] == np.arange(columns))


def test_a_key_of_one_seed_is_made_again_and_no_other() -> None:
    a, b = keys_of(np.array([3, 40]), 64, SEED), keys_of(np.array([3, 40]), 64, SEED)
    other = keys_of(np.array([3, 40]), 64, bytes(32))
    assert np.array_equal(a[0].corrections, b[0].corrections) and not np.array_equal(a[0].seeds, other[0].seeds)
    assert not np.array_equal(a[0].seeds, a[1].seeds) and not np.array_equal(a[0].salt, other[0].salt)
    for name in ("salt", "corrections", "turns", "finals"):
        assert getattr(a[0], name) is getattr(a[1], name)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("point", [0, 5, 16, 37, 63, 70])
def test_one_key_alone_looks_uniform_at_every_point(point: int, rank: int) -> None:
    """Every part of a key, and the row that it expands to, over many fresh seeds. The row's entry at the point, too."""
    many, columns = 4000, 71
    keys = keys_of(np.full(many, point), columns, bytes([point]) * 32)[rank]
    for words, bits in ((keys.seeds, 32), (keys.corrections, 32), (keys.turns, 2), (keys.finals, 64)):
        for column in words.reshape(many, -1).T:
            assert looks_uniform(column, bits)
    expanded = rows(keys, columns)
    assert looks_uniform(expanded[:, point], 64)
    assert looks_uniform(expanded, 64)


@pytest.mark.parametrize("rank", [0, 1])
def test_pairs_of_a_keys_parts_are_independent_of_the_point(rank: int) -> None:
    """The low bits of two parts and the point, jointly. The same with both seeds, which nobody has, must fail: the bit
    that is on the path is where the two differ."""
    many, columns = 40_000, 64
    points = np.arange(many) % columns
    keys = keys_of(points, columns, SEED)
    own = keys[rank]
    parts = {"seed": own.seeds[:, 0] & 3, "correction": own.corrections[:, 0, 0] & 3, "turn": own.turns[:, 0] & 3,
             "turn1": own.turns[:, 1] & 3, "final": (own.finals[:, 5] & np.uint64(3)).astype(np.uint32)}
    for a in parts:
        for b in parts:
            if a < b:
                joint = (parts[a].astype(np.int64) * 4 + parts[b]) * columns + points
                assert chi_square_fits(joint, 16 * columns), (a, b)
    leaf = own.turns[:, 0].astype(np.int64) * 2 + ((points // LEAF) & 1)
    assert chi_square_fits(leaf, 8)
    seen = (rows(keys[0], columns) + rows(keys[1], columns))[:, 0].astype(np.int64)
    assert not chi_square_fits(seen, 2)


def test_tokens_of_equal_seeds_are_told_apart_by_their_number() -> None:
    keys = keys_of(np.array([4, 4]), 64, SEED)[0]
    same = replace(keys, seeds=np.repeat(keys.seeds[:1], 2, axis=0), finals=np.repeat(keys.finals[:1], 2, axis=0),
                   corrections=np.repeat(keys.corrections[:1], 2, axis=0), turns=np.repeat(keys.turns[:1], 2, axis=0))
    first, second = rows(same, 64)
    assert not (first == second).any()


@pytest.mark.parametrize(("points", "columns"), [([-1], 4), ([4], 4), ([0, 9], 9), ([0], 0), ([], 4)])
def test_points_outside_of_the_row_are_refused(points: list[int], columns: int) -> None:
    with pytest.raises(RangeError, match="one or more points lie in a row"):
        keys_of(np.array(points), columns, SEED)


@pytest.mark.parametrize("part", ["seeds", "corrections", "turns", "finals", "salt"])
def test_a_key_with_one_wrong_bit_makes_no_unit_vector(part: str) -> None:
    first, second = keys_of(np.array([37]), 64, SEED)
    wrong = getattr(second, part).copy()
    wrong.reshape(-1)[0] ^= 1
    total = rows(first, 64) + rows(replace(second, **{part: wrong}), 64)
    assert not np.array_equal(total, np.arange(64)[None] == 37)
