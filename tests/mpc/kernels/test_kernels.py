"""Kernels: compiled and reference are one, bit by bit; packing; the turn; bit tables; the choice of kernels."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import factors_lab
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from mpc_lab import KERNELS, examples, kernels_named, reduced, wire_words
from tree import ROOT

from secformer.mpc.backend import Backend
from secformer.mpc.dealer.comparisons import Less, Relu
from secformer.mpc.kernels import Kernels, kernels_for
from secformer.mpc.kernels.words import Mask, Masked, grid
from secformer.mpc.ring import mask

needs_numba = pytest.mark.skipif("numba" not in KERNELS, reason="numba is not installed")
SIZES = [0, 1, 2, 3, 255, 256, 257, 1000]
EXTREMES = np.array([0, 1, 2**63, 2**63 - 1, 2**64 - 1, 2**32, 2**32 - 1], dtype=np.uint64)


def words(rng: np.random.Generator, *shape: int, bits: int = 64) -> np.ndarray:
    """Random words with extremes strewn in."""
    out = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    where = rng.random(shape) < 0.3
    out[where] = rng.choice(EXTREMES, size=int(where.sum()))
    return reduced(out, bits)


# ---- equality -------------------------------------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("bits", "count"), [(3, 1), (8, 5), (22, 32), (24, 16), (38, 7), (52, 64)])
def test_harmonics_and_series_are_bit_identical(size: int, bits: int, count: int) -> None:
    a, b = kernels_named("numpy"), kernels_named("numba")
    rng = np.random.default_rng(size + bits)
    u = words(rng, size, bits=bits)
    np.testing.assert_array_equal(a.harmonics(u, bits, count, 20), b.harmonics(u, bits, count, 20))
    shares = words(rng, 2 * count, size)
    cos, sin = rng.normal(size=(2, 3, count)) * 10.0 ** rng.integers(-6, 4, size=(2, 3, count))
    cos[0, 0] = sin[1, 0] = 0.0
    np.testing.assert_array_equal(a.series(u, bits, cos, sin, shares, 18), b.series(u, bits, cos, sin, shares, 18))


@needs_numba
@pytest.mark.parametrize("size", [*SIZES, 511, 513, 1025])
@pytest.mark.parametrize(("bits", "period"), [(5, 5), (21, 5), (24, 5), (24, 6), (24, 8), (32, 9), (40, 9), (52, 6)])
def test_powers_and_exponentials_are_bit_identical(size: int, bits: int, period: int) -> None:
    a, b = kernels_named("numpy"), kernels_named("numba")
    rng, keep = np.random.default_rng(size + bits), bits - period
    u, v = words(rng, size, bits=bits), words(rng, size) % np.uint64((16 << keep) + 1)
    np.testing.assert_array_equal(a.growth(v, keep), b.growth(v, keep), strict=True)
    for top in (0.0, 0.3, 2.0):
        arguments = (u, bits, period, int(top * 2.0**keep), 41)
        np.testing.assert_array_equal(a.powers(*arguments), b.powers(*arguments), strict=True)
    table = words(rng, 1 << (period - 4), size)
    mine, other = (np.zeros(size, dtype=np.uint64) for _ in range(2))
    a.exponential(u, bits, period, table, 18, mine)
    b.exponential(u, bits, period, table, 18, other)
    np.testing.assert_array_equal(mine, other)


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", [0, 1, 3, 4, 5, 7, 8])
def test_look_up_is_bit_identical(size: int, block: int) -> None:
    rng = np.random.default_rng(size + 17 * block)
    tables = rng.integers(0, 256, size=(size, max(1, (1 << block) // 8)), dtype=np.uint8)
    v = words(rng, size, bits=block) if block else np.zeros(size, dtype=np.uint64)
    for x, y in zip(kernels_named("numpy").look_up(tables, v), kernels_named("numba").look_up(tables, v), strict=True):
        assert x.dtype == y.dtype == np.uint8
        np.testing.assert_array_equal(x, y)


@needs_numba
@examples(80)
@given(
    window=st.integers(2, 64),
    wraps=st.booleans(),
    size=st.sampled_from(SIZES),
    first=st.booleans(),
    seed=st.integers(0, 999),
)
def test_lifts_are_bit_identical(window: int, wraps: bool, size: int, first: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numpy, numba = map(kernels_named, ("numpy", "numba"))
    if window < 64:
        r = words(rng, size, bits=window) + words(rng, size, bits=window)
        np.testing.assert_array_equal(numpy.wraps(r, window), numba.wraps(r, window), strict=True)
    u, m = words(rng, size, bits=window), Masked(words(rng, size), words(rng, size))
    arguments = (u, m, words(rng, 2 * size) if wraps and window < 64 else None, window, first)
    np.testing.assert_array_equal(numpy.lifted(*arguments), numba.lifted(*arguments), strict=True)


@needs_numba
@pytest.mark.parametrize("shapes", factors_lab.SHAPES, ids=repr)
@pytest.mark.parametrize("windows", factors_lab.WINDOWS)
def test_element_wise_products_are_bit_identical(shapes: factors_lab.Shapes, windows: tuple[int, int]) -> None:
    factors_lab.same_products(kernels_named("numba"), kernels_named("numpy"), shapes, windows)


@examples(200)
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=4, min_side=0, max_side=3))
def test_a_grid_steps_through_what_broadcasts(shapes: Any) -> None:
    arrays = [np.arange(math.prod(s)).reshape(s) for s in shapes.input_shapes]
    found = grid(shapes.input_shapes)
    out = shapes.result_shape
    assert found is not None or sum(n != 1 for n in out) > 2
    if found is None or 0 in out:
        return
    assert found.rows * found.columns == math.prod(out)
    row, column = np.divmod(np.arange(math.prod(out)), found.columns)
    for array, (down, along) in zip(arrays, found.steps, strict=True):
        assert along in {0, 1}
        np.testing.assert_array_equal(row * down + column * along, np.broadcast_to(array, out).reshape(-1))


def test_common_broadcasts_have_grids() -> None:
    assert grid([(2, 3, 4), (2, 3, 4)]) == (1, 24, ((0, 1), (0, 1)))
    assert grid([(5, 4), (5, 1)]) == (5, 4, ((4, 1), (1, 0)))
    assert grid([(5, 4), (4,)]) == (5, 4, ((4, 1), (0, 1)))
    assert grid([(2, 3, 7, 7), (2, 3, 7, 1)]) == (42, 7, ((7, 1), (1, 0)))
    assert grid([(2, 3, 2), (2, 1, 2)]) is None


SHAPES = [(1, 1, 1), (4, 4, 4), (5, 67, 513), (3, 130, 1025), (0, 5, 3), (2, 0, 3), (7, 3, 0), (8, 128, 256),
          (9, 129, 31)]


@needs_numba
@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
@pytest.mark.parametrize("shape", SHAPES)
def test_matmul_is_bit_identical(dtype: type, shape: tuple[int, int, int]) -> None:
    n, k, m = shape
    rng = np.random.default_rng(n + k + m)
    a, b = words(rng, n, k).astype(dtype), words(rng, k, m).astype(dtype)
    found = kernels_named("numpy").matmul(a, b)
    np.testing.assert_array_equal(found, kernels_named("numba").matmul(a, b))
    onto, bits = words(rng, n * m), 8 * a.itemsize
    for name in KERNELS:
        total = kernels_named(name).joint((a, a), (b, b), onto.copy(), bits)
        assert total.dtype == np.uint64
        np.testing.assert_array_equal(total & mask(bits), ((found + found) + onto.reshape(n, m)) & mask(bits))


@needs_numba
@given(bits=st.sampled_from([1, 31, 48, 51, 52, 53, 63]), n=st.integers(0, 9), k=st.integers(0, 140),
       m=st.integers(0, 140), extreme=st.booleans(), seed=st.integers(0, 999))
def test_low_bits_of_a_product(bits: int, n: int, k: int, m: int, extreme: bool, seed: int) -> None:
    """Mod 2^bits, whatever stands above in the words that come."""
    rng = np.random.default_rng(seed)
    a, b = words(rng, n, k), words(rng, k, m)
    if extreme:
        a, b = a | np.uint64(2**64 - 2**20), b | np.uint64(2**64 - 2**20)
    kernels, mask = kernels_named("numba"), np.uint64(2**bits - 1)
    whole = kernels_named("numpy").plain_matmul(a, b)
    np.testing.assert_array_equal(kernels.matmul(a, b, bits) & mask, whole & mask)


PRODUCTS_ELSEWHERE = """
import numpy as np
from secformer.mpc.kernels.cpu.products import multiply
from secformer.mpc.kernels.cpu.processor import FUSED, WIDE
assert (WIDE, FUSED) == WANTED, (WIDE, FUSED)
rng = np.random.default_rng(0)
for dtype in (np.uint64, np.uint32):
    for n, k, m in ((6, 130, 300), (1, 1, 1)):
        a, b = (rng.integers(0, 2**32, s, dtype=np.uint64).astype(dtype) * dtype(2**31 + 1) for s in ((n, k), (k, m)))
        for low in (False, True):
            c = np.ones((n, m), dtype)
            multiply(a, b, c, 0, m, low)
            assert np.array_equal(c, a @ b + dtype(1))
"""


@needs_numba
@pytest.mark.parametrize("said", [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_FEATURES": ""}])
def test_products_of_a_processor_without_wide_vectors(said: dict[str, str], tmp_path: Path) -> None:
    code = PRODUCTS_ELSEWHERE.replace("WANTED", "(False, False)")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), **said}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


KEYS = bytes(range(32)), bytes(range(1, 33))


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [1, 7, 8, 9, 16, 17, 24, 31, 32, 33, 48, 53, 56, 57, 63, 64])
def test_masks_are_bit_identical(bits: int, size: int) -> None:
    rng = np.random.default_rng(bits)
    value, mine, octets = words(rng, size), words(rng, size), words(rng, size).astype(np.uint8)
    payload = kernels_named("numpy").pack(words(rng, size), bits)
    kept = payload.copy()
    for name, *arguments in (
        ("uniform", KEYS[0], 3, size, bits),
        ("combined", [KEYS] * 3, [Mask(size, bits), Mask(size, bits, True), Mask(size, bits, False, True)]),
        ("correction", KEYS[1], value, bits), ("correction", KEYS[1], octets, 8, True),
        ("opened", mine, payload, bits), ("opened", mine, payload, bits, True),
    ):
        x, y = (getattr(kernels_named(n), name)(*arguments) for n in ("numpy", "numba"))
        for a, b in zip(*(v if isinstance(v, list) else [v] for v in (x, y)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name, strict=True)
    np.testing.assert_array_equal(payload, kept)  # it is the peer's


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("block", "down", "place", "last"),
                         [(8, 15, 0, False), (8, 0, 4, True), (1, 3, 2, False), (8, 56, 2, False), (5, 1, 0, True)])
def test_outcomes_are_bit_identical(size: int, block: int, down: int, place: int, last: bool) -> None:
    rng = np.random.default_rng(block)
    tables, v = words(rng, size, max(1, (1 << block) // 8)).astype(np.uint8), words(rng, size)
    shares = words(rng, size + 9)
    found = []
    for name in ("numpy", "numba"):
        mine, rows = shares.copy(), tables.copy()
        kernels_named(name).outcome(tables, v, down, block, place, last, mine[4 : 4 + size])
        kernels_named(name).flip_bits(rows, v & np.uint64((1 << block) - 1))
        found.append((mine, rows))
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "width"), [(2, 64), (9, 9), (16, 64), (24, 32), (24, 24), (33, 64), (64, 64)])
def test_outcome_tables_are_bit_identical(size: int, window: int, width: int) -> None:
    kind = Relu(size, window, width)
    rng = np.random.default_rng(window)
    r, alpha = words(rng, size, bits=window), words(rng, size, bits=kind.outcome_bits)
    x, y = (kernels_named(n).outcome_tables(r, alpha, window, len(kind.blocks), kind.columns)
            for n in ("numpy", "numba"))
    np.testing.assert_array_equal(x, y)


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 9, 16, 24, 33])
@pytest.mark.parametrize("place", [0, 5])
def test_rows_of_less_are_bit_identical(size: int, window: int, place: int) -> None:
    kind = Less(size, window, 48)
    rng = np.random.default_rng(window)
    r, alpha, e = words(rng, size, bits=window), words(rng, size, bits=kind.alpha_bits), words(rng, size)
    e = reduced(e, kind.outcome_bits)
    found = []
    for kernels in map(kernels_named, ("numpy", "numba")):
        rows, share = kernels.outcome_rows(r, alpha, window, len(kind.blocks)), words(np.random.default_rng(1), size)
        kernels.pick(rows.reshape(size, kind.table_bytes), e, place, share)
        found.append((rows, share))
    for x, y in zip(*found, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 3, 6, 7, 8, 9, 10])
@pytest.mark.parametrize("start", [0, 3, 64, 77])
def test_bits_of_thresholds_are_bit_identical(size: int, window: int, start: int) -> None:
    rng = np.random.default_rng(size + window)
    tables = words(rng, size, max(1, (1 << window - 1) // 8)).astype(np.uint8)
    u, planes = words(rng, size, bits=window), words(rng, 3, (start + size) // 64 + 2)
    r, alpha, bits = words(rng, size, bits=window), words(rng, size // 64 + 1), words(rng, size)
    thresholds = [0, 2**64 - 5, 3]
    found = []
    for kernels in map(kernels_named, ("numpy", "numba")):
        mine = planes.copy()
        kernels.below(tables, u, thresholds, window, start, mine)
        sums = [kernels.counted(bits, alpha, u, c, window, columns, length, first) for c in thresholds
                for first in (True, False) for columns in {1, max(size, 1)} for length in {columns, -(-columns // 3)}]
        found.append([mine, kernels.signs(r, alpha, window), *sums])
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@needs_numba
def test_what_is_compiled_is_chosen() -> None:
    backend = Backend("numpy", np, 1)
    assert kernels_for(backend).name == "numba"
    assert kernels_for(backend, compiled=False).name == "numpy"


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [*range(3, 12), 24, 38, 52])
def test_turn_and_gather_are_bit_identical(size: int, bits: int) -> None:
    a, b = kernels_named("numpy"), kernels_named("numba")
    rng = np.random.default_rng(size * bits)
    u = words(rng, size, bits=bits)
    for x, y in zip(a.turn(u, bits), b.turn(u, bits), strict=True):
        np.testing.assert_array_equal(x.view(np.uint64), y.view(np.uint64))  # zeros have signs too
    tables, e = words(rng, size, 8, 1 + bits % 3), words(rng, size, bits=3)
    np.testing.assert_array_equal(a.gather(tables, e), b.gather(tables, e))


@needs_numba
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [1, 7, 8, 9, 16, 22, 24, 31, 32, 40, 47, 48, 56, 63, 64])
def test_packing_is_bit_identical(size: int, bits: int) -> None:
    a, b = kernels_named("numpy"), kernels_named("numba")
    x = words(np.random.default_rng(size), size)
    np.testing.assert_array_equal(a.pack(x, bits), b.pack(x, bits))
    np.testing.assert_array_equal(a.unpack(a.pack(x, bits), size, bits), b.unpack(a.pack(x, bits), size, bits))


# ---- packing --------------------------------------------------------------------------------------------------------


@examples(150)
@given(
    name=st.sampled_from(KERNELS),
    bits=st.integers(1, 64),
    size=st.sampled_from([0, 1, 2, 3, 5, 64, 129]),
    seed=st.integers(0, 999),
    offset=st.integers(0, 7),
)
def test_pack_round_trip_is_reduction(name: str, bits: int, size: int, seed: int, offset: int) -> None:
    k = kernels_named(name)
    x = words(np.random.default_rng(seed), size)
    payload = k.pack(x, bits)
    assert payload.dtype == np.uint8
    assert payload.size == size * -(-bits // 8)
    moved = np.zeros(payload.size + offset, dtype=np.uint8)[offset:]  # wherever a payload starts in its buffer
    moved[:] = payload
    np.testing.assert_array_equal(k.unpack(moved, size, bits), reduced(x, bits))


def test_pack_flattens_and_takes_any_shape(kernels: Kernels) -> None:
    x = words(np.random.default_rng(1), 3, 4).T
    np.testing.assert_array_equal(kernels.unpack(kernels.pack(x, 40), 12, 40), reduced(x.reshape(-1), 40))


@pytest.mark.parametrize("bits", [1, 5, 8, 13, 22, 24, 31, 33, 48, 61, 64])
def test_pack_drops_bits_above(kernels: Kernels, bits: int) -> None:
    """A mask covers `bits` bits: the rest of the last byte must not travel."""
    carried = wire_words(kernels.pack(np.full(9, 2**64 - 1, dtype=np.uint64), bits), bits)
    assert carried.tolist() == [2**bits - 1] * 9


@pytest.mark.parametrize("bits", [8, 24, 32, 40, 48, 56])
def test_payloads_lie_anywhere_and_may_be_read_only(bits: int, kernels: Kernels) -> None:
    x, mine = words(np.random.default_rng(bits), 2, 7)
    payload = kernels.pack(x, bits)
    for off in range(5):
        moved = np.concatenate([np.zeros(off, np.uint8), payload])[off:]
        for each in (moved, np.frombuffer(moved.tobytes(), np.uint8)):
            np.testing.assert_array_equal(kernels.unpack(each, 7, bits), reduced(x, bits))
            np.testing.assert_array_equal(kernels.opened(mine, each, bits), reduced(x + mine, bits))


def test_unpack_ignores_bits_above(kernels: Kernels) -> None:
    payload = np.full(3 * 5, 255, dtype=np.uint8)
    assert kernels.unpack(payload, 5, 22).tolist() == [2**22 - 1] * 5


# ---- the turn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [3, 4, 8, 21, 24, 38, 52])
def test_turn_is_accurate_and_exact_at_the_quarters(kernels: Kernels, bits: int) -> None:
    rng, full = np.random.default_rng(bits), 1 << bits
    some = [0, 1, full // 8, full // 8 - 1, full // 4, full // 2, 3 * full // 4, full - 1, full - full // 8]
    u = np.concatenate([np.array(some, dtype=np.uint64), rng.integers(0, full, size=2000, dtype=np.uint64)])
    cos, sin = kernels.turn(u, bits)
    angle = u.astype(np.longdouble) * (2 * np.longdouble("3.14159265358979323846264338327950288") / full)
    assert np.abs(cos - np.cos(angle)).max() < 2.0**-51
    assert np.abs(sin - np.sin(angle)).max() < 2.0**-51
    assert cos[[0, 4, 5, 6]].tolist() == [1.0, 0.0, -1.0, 0.0]
    assert sin[[0, 4, 5, 6]].tolist() == [0.0, 1.0, 0.0, -1.0]


@pytest.mark.parametrize("count", [16, 64, 256])
def test_harmonics_stay_within_half_a_unit(kernels: Kernels, count: int) -> None:
    bits, frac = 24, 20
    rng = np.random.default_rng(3)
    r = np.concatenate([np.arange(40, dtype=np.uint64), rng.integers(0, 1 << bits, size=200, dtype=np.uint64)])
    got = kernels.harmonics(r, bits, count, frac).view(np.int64)
    k = np.arange(1, count + 1)[:, None]
    angle = 2 * math.pi * ((k * r.astype(np.int64)) % (1 << bits)) / (1 << bits)
    expected = np.concatenate([np.cos(angle), np.sin(angle)]) * 2.0**frac
    assert np.abs(got - expected).max() <= 0.5 + 1e-3


# ---- powers of e ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frac", [0, 5, 16, 19, 23, 30])
def test_growth_is_accurate_and_exact_at_nothing(kernels: Kernels, frac: int) -> None:
    rng, top = np.random.default_rng(frac), 16 << frac
    v = np.concatenate([np.array([0, 1, top - 1, top], dtype=np.uint64), rng.integers(0, top, 50_000, dtype=np.uint64)])
    expected = np.exp(v.astype(np.longdouble) / np.longdouble(2.0**frac))
    got = kernels.growth(v, frac)
    assert got[0] == 1.0
    assert (np.abs(got - expected) < expected * 2.0**-45).all()


@pytest.mark.parametrize(("bits", "period"), [(8, 5), (9, 6), (9, 8)])
def test_every_exponent_and_every_mask_of_a_short_period(kernels: Kernels, bits: int, period: int) -> None:
    """Exhaustive: a public power of e times an entry of the table is e^x for all x of the domain, whatever the mask."""
    keep, full, frac = bits - period, 1 << bits, 41
    top = 2 << keep
    low = top - full + (16 << keep)  # above it, the exponent of the entry that is looked up fits whatever is public
    x, r = (g.reshape(-1) for g in np.meshgrid(np.arange(low, top + 1), np.arange(full), indexing="ij"))
    mask = r.astype(np.uint64)
    table = kernels.powers(mask, bits, period, top, frac)
    got = np.zeros(x.size, dtype=np.int64)
    kernels.exponential(((x + r) % full).astype(np.uint64), bits, period, table, 18, got.view(np.uint64))
    expected = np.exp(x / 2.0**keep)
    error = np.abs(got * 2.0**-59 - expected)
    assert (error <= math.exp(16.0) * 2.0**-42 + expected * 2.0**-18.99).all()


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(9))
def test_tables_answer_every_question(kernels: Kernels, block: int) -> None:
    """Exhaustive: for all r and v, the xor of two shares of a one-hot table says [v = r] and [v < r]."""
    side = 1 << block
    r, v = (g.reshape(-1).astype(np.uint64) for g in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    mine = np.random.default_rng(block).integers(0, 256, size=(side * side, max(1, side // 8)), dtype=np.uint8)
    theirs = mine.copy()
    kernels.flip_bits(theirs, r)
    (e0, l0), (e1, l1) = kernels.look_up(mine, v), kernels.look_up(theirs, v)
    np.testing.assert_array_equal(e0 ^ e1, (v == r).astype(np.uint8))
    np.testing.assert_array_equal(l0 ^ l1, (v < r).astype(np.uint8))


@pytest.mark.parametrize("window", [2, 3, 5, 8])
def test_values_that_reach_thresholds_are_counted(kernels: Kernels, window: int) -> None:
    """Exhaustive over a small window: every mask, every value, whatever the shares of tables and bits."""
    side, half = 1 << window, 1 << window - 1
    r, x = (g.reshape(-1) for g in np.meshgrid(np.arange(side), np.arange(-half, half), indexing="ij"))
    rng, n = np.random.default_rng(window), side * side
    u, mask = (x + r).astype(np.uint64) & np.uint64(side - 1), r.astype(np.uint64)
    mine = words(rng, n, max(1, half // 8)).astype(np.uint8)
    theirs = mine.copy()
    kernels.flip_bits(theirs, mask & np.uint64(half - 1))
    alpha = words(rng, 1, -(-n // 64))
    planes, others = alpha.copy(), np.zeros_like(alpha)
    middle = n // 3  # two pieces, which share a byte
    for rows, plane in ((mine, planes), (theirs, others)):
        kernels.below(rows[:middle], u[:middle], [0], window, 0, plane)
        kernels.below(rows[middle:], u[middle:], [0], window, middle, plane)
    e, bits = (planes ^ others)[0], kernels.signs(mask, alpha[0], window)
    share = words(rng, n)

    def counts(length: int) -> np.ndarray:
        return np.asarray(kernels.counted(bits - share, e, u, 0, window, side, length, True)
                          + kernels.counted(share, e, u, 0, window, side, length, False))

    reaching = (x >= 0).reshape(side, side)
    assert (counts(side) == half).all()  # half of all values are 0 or more, under every mask
    for length in range(1, side):
        expected = [reaching[:, a : a + length].sum(axis=1) for a in range(0, side, length)]
        np.testing.assert_array_equal(counts(length), np.concatenate(expected))


def test_gather_picks_entries(kernels: Kernels) -> None:
    tables = np.arange(5 * 4 * 3, dtype=np.uint64).reshape(5, 4, 3)
    e = np.array([0, 3, 1, 2, 3], dtype=np.uint64)
    np.testing.assert_array_equal(kernels.gather(tables, e), np.stack([tables[i, int(e[i])] for i in range(5)], axis=1))


# ---- truncation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 3, 4])
@pytest.mark.parametrize("width", [5, 8, 64])
def test_lift_identity_for_every_value_and_masks(kernels: Kernels, window: int, width: int) -> None:
    """Exhaustive over small windows: whatever z and the parties' masks, what comes out is z mod 2^width."""
    bound, each = 1 << (window - 2), np.arange(1 << window)
    z, mask0, mask1 = (g.reshape(-1).astype(np.uint64) for g in np.meshgrid(np.arange(-bound, bound), each, each))
    rng = np.random.default_rng(window)
    low = np.uint64(2 ** (width - window) - 1)
    z0, share0 = words(rng, z.size), words(rng, 2 * z.size) & low
    share1 = (kernels.wraps(mask0 + mask1, window) - share0) & low
    masked0, masked1 = z0 + mask0 + np.uint64(bound), z - z0 + mask1
    u = (masked0 + masked1) & np.uint64(2**window - 1)
    out0 = kernels.lifted(u, Masked(masked0, z0), share0, window, True)
    out1 = kernels.lifted(u, Masked(masked1, z - z0), share1, window, False)
    assert not ((out0 + out1 - z) & np.uint64(2**width - 1)).any()
