"""What a guard lets pass: exhaustively in small rings, and how chains of guards fit together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, examples, kernels_named

from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.guards import INDEX_BITS, ROUNDING, Guard, chain, guard, texts_of


def passes(g: Guard, x: np.ndarray, r: np.ndarray, name: str) -> np.ndarray:
    """Whether values x pass under masks r, in words mod 2^64."""
    kernels = kernels_named(name)
    u, r = (x + r).astype(np.uint64), r.astype(np.uint64)
    tables = kernels.guard_tables(r, [g])
    return ((tables >> ((u >> np.uint64(g.shift)) & np.uint64(63))) & np.uint64(1)) == 0


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("g", [Guard(0, 0, 30), Guard(0, 60, 10), Guard(1, 3, 100), Guard(2, 250, 85), Guard(2, 0, 247),
                               Guard(3, 500, 300)], ids=str)
def test_every_value_under_every_mask(g: Guard, name: str) -> None:
    ring, part = 1 << (g.shift + INDEX_BITS), 1 << g.shift
    x, r = (a.reshape(-1) for a in np.meshgrid(np.arange(ring), np.arange(ring), indexing="ij"))
    inside = (x - g.low) % ring
    good = passes(g, x, r, name)
    assert not good[inside > g.span].any(), "a value outside never passes"
    assert good[(inside >= part - 1) & (inside <= g.span - part + 1)].all(), "one well inside always does"
    near = (inside <= g.span) & ~((inside >= part - 1) & (inside <= g.span - part + 1))
    if near.any():
        assert 0.0 < good[near].mean() < 1.0, "in between, the mask decides"


@examples(40)
@given(seed=st.integers(0, 999), rows=st.integers(1, 7), each=st.integers(1, 70), negated=st.booleans(),
       shifts=st.lists(st.integers(0, 58), min_size=1, max_size=4))
def test_every_kernel_looks_up_alike(seed: int, rows: int, each: int, negated: bool, shifts: list[int]) -> None:
    """Bit for bit, and as plain integers say it: several guards at once, wherever their bytes start."""
    rng, n = np.random.default_rng(seed), rows * each
    r, u = rng.integers(0, 2**64, size=(2, n), dtype=np.uint64)
    shares, weights = rng.integers(0, 2**64, size=(2, len(shifts), n), dtype=np.uint64)
    guards = [Guard(shift, int(rng.integers(0, 2 ** (shift + INDEX_BITS), dtype=np.uint64)), 2 ** (shift + 4))
              for shift in shifts]
    payload = np.zeros(shares.nbytes + 1, dtype=np.uint8)[1:]
    payload[...] = shares.reshape(-1).view(np.uint8)
    found = [(k.guard_tables(r, guards, negated), k.breaches(payload, u, shifts, weights.reshape(-1), rows))
             for k in map(kernels_named, KERNELS)]
    own = np.uint64(0) - r if negated else r
    one_by_one = np.concatenate([kernels_named("numpy").guard_tables(own, [g]) for g in guards])
    for tables, words in found:
        np.testing.assert_array_equal(tables, one_by_one)
        np.testing.assert_array_equal(words, found[0][1])
    expected = [0] * rows
    for shift, own, weight in zip(shifts, shares.tolist(), weights.tolist(), strict=True):
        for i, at in enumerate(u.tolist()):
            if (own[i] >> (at >> shift & 63)) & 1:
                expected[i // each] ^= weight[i]
    assert found[0][1].tolist() == expected


@examples(60)
@given(low=st.floats(-300, 300), length=st.floats(0.1, 300), frac=st.integers(0, 16), more=st.integers(2, 12),
       seed=st.integers(0, 99))
def test_an_interval_is_resolved_to_a_tenth(low: float, length: float, frac: int, more: int, seed: int) -> None:
    high, rng = low + length, np.random.default_rng(seed)
    bits = min(60, max(INDEX_BITS, math.ceil(math.log2(length * 2.0**frac + 8)) + more))
    g = guard(low, high, frac, bits)
    assert g.shift + INDEX_BITS <= bits
    part = (1 << g.shift) * 2.0**-frac
    assert part <= max(2.0**-frac, (length + 8 * 2.0**-frac) / 10)
    slack = part + (ROUNDING + 1) * 2.0**-frac
    r = rng.integers(0, 2**62, size=400)
    inner = np.clip(rng.uniform(low, high, size=400), low + part, max(low + part, high - part))
    if high - low > 2 * part:
        assert passes(g, np.rint(inner * 2.0**frac).astype(np.int64), r, "numpy").all()
    ring = (1 << (g.shift + INDEX_BITS)) * 2.0**-frac
    for start, end in ((high + slack, low + ring - slack), (high - ring + slack, low - slack)):
        outside = np.rint(rng.uniform(start, end, size=400) * 2.0**frac).astype(np.int64)
        assert not passes(g, outside, r, "numpy").any()


@examples(60)
@given(near=st.sampled_from([1.0, 16.0, 4096.0]), tolerance=st.sampled_from([2.0**-9, 2.0**-5]),
       bits=st.integers(28, 48), seed=st.integers(0, 99))
def test_a_chain_lets_nothing_pass_whatever_its_size(near: float, tolerance: float, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high, frac = near * (1 - tolerance), near * (1 + tolerance), 14
    guards = chain(low, high, frac, bits)
    assert guards[-1].shift + INDEX_BITS == bits
    x = np.concatenate([
        rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), size=3000),
        np.rint(near * 2.0**frac).astype(np.int64) + 2 ** np.arange(bits - 1),
        np.rint(near * 2.0**frac).astype(np.int64) - 2 ** np.arange(bits - 1),
        np.rint(rng.uniform(0.9 * near, 1.1 * near, size=1000) * 2.0**frac).astype(np.int64),
    ])
    r = rng.integers(0, 2**62, size=x.size)
    good = np.logical_and.reduce([passes(g, x, r, "numpy") for g in guards])
    value = x * 2.0**-frac
    slack = (ROUNDING + 1) * 2.0**-frac
    assert not good[(value < low - slack) | (value > high + slack)].any()
    middle = np.abs(value - near) < 0.5 * near * tolerance
    assert good[middle].all()
    assert middle.any()


def test_no_room_is_refused() -> None:
    with pytest.raises(RangeError, match="leaves no room"):
        guard(-2.0, 2.0, 4, 6)
    guard(-2.0, 2.0, 4, 7)
    with pytest.raises(RangeError, match="5 bits"):
        guard(0.0, 1.0, 0, 5)


def test_rows_belong_to_texts() -> None:
    texts = {3: np.array([0, 0, 1]), 2: np.arange(2)}
    assert texts_of(texts, (3, 5)).tolist() == [0, 0, 1]
    assert texts_of(texts, (2, 4, 9, 9)).tolist() == [0, 1]
    for shape in ((4, 3), ()):
        with pytest.raises(ShapeError, match=r"tokens or texts, \[2, 3\]"):
            texts_of(texts, shape)
