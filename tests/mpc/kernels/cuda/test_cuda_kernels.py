"""CUDA kernels against the reference, bit by bit: odd sizes, extremes, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from factors_lab import SHAPES, WINDOWS, Shapes, same_products

from secformer.mpc.dealer.comparisons import Less, Relu
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.cuda.bundles import WATCHED
from secformer.mpc.kernels.cuda.device import SOURCES
from secformer.mpc.kernels.cuda.guards import GUARDS, SLICE, Guards
from secformer.mpc.kernels.words import Dropped, Mask, Masked, Piece
from secformer.mpc.points import keys_of
from secformer.mpc.prg import Stream

SIZES = [0, 1, 7, 64, 255, 257, 1025, 2049]
EXTREMES = np.array([0, 1, 2**63, 2**63 - 1, 2**64 - 1, 2**32, 2**32 - 1], dtype=np.uint64)
KEY, OTHER = bytes(range(100, 132)), bytes(range(7, 39))
BITS = [1, 5, 8, 9, 16, 22, 24, 32, 33, 40, 47, 48, 56, 63, 64]


def words(seed: int, *shape: int, bits: int = 64) -> np.ndarray:
    """Random words with extremes strewn in, below 2^bits."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    where = rng.random(shape) < 0.3
    out[where] = rng.choice(EXTREMES, size=int(where.sum()))
    return out & np.uint64(2**bits - 1)


def parts(result: Any) -> tuple[Any, ...]:
    return tuple(part for one in result for part in parts(one)) if isinstance(result, tuple | list) else (result,)


def compared(cuda: Kernels, reference: Kernels) -> Callable[..., None]:
    """same(name, *arguments): both kernels answer alike. Arrays of words are given to the device first."""

    def same(name: str, *arguments: Any, **named: Any) -> None:
        give, take = cuda.backend.asarray, cuda.backend.to_host
        expected = getattr(reference, name)(*arguments, **named)
        on_device = [give(a) if isinstance(a, np.ndarray) and a.dtype.kind == "u" else a for a in arguments]
        got = getattr(cuda, name)(*on_device, **named)
        for x, y in zip(*map(parts, (got, expected)), strict=True):
            assert x.dtype == y.dtype
            kind = f"u{y.dtype.itemsize}"  # zeros have signs too
            np.testing.assert_array_equal(take(x).view(kind), y.view(kind))

    return same


@pytest.fixture
def same(cuda: Kernels, reference: Kernels) -> Callable[..., None]:
    return compared(cuda, reference)


@pytest.fixture
def same_in_any_order(ordered_cuda: Kernels, reference: Kernels) -> Callable[..., None]:
    return compared(ordered_cuda, reference)


# ---- randomness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 2**32 - 200])
@pytest.mark.parametrize("nbytes", [0, 1, 65, 8192, 8193])
def test_keystream(same_in_any_order: Callable[..., None], block: int, nbytes: int) -> None:
    same_in_any_order("keystream", KEY, block, nbytes)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("n", SIZES)
def test_what_expands_masks(same: Callable[..., None], bits: int, n: int) -> None:
    same("uniform", KEY, 3, n, bits)
    same("combined", [(KEY, OTHER)] * 3, [Mask(n, bits), Mask(n, bits, xor=True), Mask(n, bits, carries=True)])
    same("correction", KEY, words(n, n), bits)


def test_what_expands_masks_waits_for_the_pool(same_in_any_order: Callable[..., None]) -> None:
    for bits in (5, 24, 48):
        same_in_any_order("combined", [(KEY, OTHER), (OTHER, KEY)] * 9, [Mask(2100, bits), Mask(5, 9)] * 9)
        same_in_any_order("correction", KEY, words(2, 2100), bits)


@pytest.mark.parametrize("n", [0, 1, 5, 8191, 8192, 8193])
def test_corrections_of_bytes(same_in_any_order: Callable[..., None], n: int) -> None:
    same_in_any_order("correction", KEY, np.arange(n).astype(np.uint8), 8, xor=True)


@pytest.mark.parametrize("counts", [(1,), (0, 3, 0), (2049, 1, 7, 4097), tuple(range(40, 59)), ()], ids=str)
def test_several_arrays_of_shares_at_once(
    ordered_cuda: Kernels, reference: Kernels, same_in_any_order: Callable[..., None], counts: tuple[int, ...]
) -> None:
    """More than a launch takes, empty ones among them, in payloads where fields start anywhere."""
    pieces = [Piece(n, 8 if i % 3 == 2 else BITS[(3 * i + n) % len(BITS)], i % 3 == 2) for i, n in enumerate(counts)]
    keys = [bytes([i]) * 32 for i in range(len(pieces))]
    values = [words(i, p.length).astype(np.uint8 if p.raw else np.uint64) for i, p in enumerate(pieces)]
    give, take = ordered_cuda.backend.asarray, ordered_cuda.backend.to_host
    found, expected = ([take(a) for a in k.shares(keys, pieces)] for k in (ordered_cuda, reference))
    for x, y, p in zip(found, expected, pieces, strict=True):
        np.testing.assert_array_equal(x, y, strict=True)
        assert (x.size, x.dtype) == (p.length, np.uint8 if p.raw else np.uint64)
    if not pieces:
        return
    payload = take(ordered_cuda.corrections(keys, list(map(give, values)), pieces))
    np.testing.assert_array_equal(payload, reference.corrections(keys, values, pieces), strict=True)
    assert payload.size == sum(p.nbytes for p in pieces)
    for shift in (0, 3):
        moved = np.concatenate([np.zeros(shift, np.uint8), payload])[shift:]
        got = [take(a) for a in ordered_cuda.unpacked(give(moved), pieces)]
        for x, mine, value, p in zip(got, expected, values, pieces, strict=True):
            np.testing.assert_array_equal(x ^ mine if p.raw else x + mine & np.uint64(2**p.bits - 1),
                                          value if p.raw else value & np.uint64(2**p.bits - 1))
        for x, y in zip(got, reference.unpacked(moved, pieces), strict=True):
            np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize("counts", [(1,), (0, 3), (2049, 1, 7, 4097), tuple(range(40, 52))], ids=str)
def test_openings_are_sealed_and_unsealed(ordered_cuda: Kernels, reference: Kernels, counts: tuple[int, ...]) -> None:
    """Several items at once: masked where they are sealed, of words of any width, with bits dropped on the way, or
    masked before. What the peer does in plain steps opens them; both rests and the opened value are the words."""
    give, take, bits = ordered_cuda.backend.asarray, ordered_cuda.backend.to_host, [BITS[n % len(BITS)] for n in counts]
    types = (np.uint64, np.uint32, np.uint8)
    given = [words(i, n).astype(types[i % 3]) for i, n in enumerate(counts)]
    theirs = [words(50 + i, n) for i, n in enumerate(counts)]
    items: list[Any] = []
    for i, (x, b) in enumerate(zip(given, bits, strict=True)):
        drops = Dropped(give(x), 5 * i % 7, i % 2 == 1) if i % 4 != 3 else give(x)
        stream = Stream(KEY, i, kernels=ordered_cuda)
        stream.words(i, 64)  # a mask may start anywhere in its stream
        items.append((stream.sealing(drops, b, i << 60, away=i % 5 == 4, keeps=i % 2 == 0), b))
    items += [(Masked(give(theirs[0]), None), 24), (give(theirs[-1]), 64)]
    expected: list[Any] = []
    for i, (x, b) in enumerate(zip(given, bits, strict=True)):
        wide = x.astype(np.uint64)
        own = reference.dropped(wide, 5 * i % 7, i % 2 == 1) if i % 4 != 3 else wide
        stream = Stream(KEY, i, kernels=reference)
        stream.words(i, 64)
        r = stream.words(x.size, b)
        masked = own - r if i % 5 == 4 else own + r + np.uint64((i << 60) % 2**64)
        expected.append((Masked(masked, own, r if i % 5 == 4 else None), b))
    expected += [(Masked(theirs[0], theirs[0]), 24), (theirs[-1], 64)]
    payload = take(ordered_cuda.seal(items))
    np.testing.assert_array_equal(payload, reference.seal(expected), strict=True)
    for (item, _), (other, _) in zip(items[:-2], expected, strict=False):
        if item.keeps:
            np.testing.assert_array_equal(take(item.rest)[: item.size], other.rest)
    peers = words(99, payload.size, bits=8).astype(np.uint8)
    for xor in (False, True):
        for shift in (0, 3):  # the peer's payload starts wherever its message does
            moved = give(np.concatenate([np.zeros(shift, np.uint8), peers]))[shift:]
            got = ordered_cuda.unseal(items, give(payload), moved, xor)
            for x, y in zip(got, reference.unseal(expected, payload, peers, xor), strict=True):
                np.testing.assert_array_equal(take(x), y, strict=True)


def test_words_of_any_shape_are_sealed(cuda: Kernels, reference: Kernels) -> None:
    x, stream = words(1, 5, 6).T, Stream(KEY, "x", kernels=cuda)
    payload = cuda.backend.to_host(cuda.seal([(stream.sealing(cuda.backend.asarray(x), 24), 24)]))
    expected = reference.pack(x.reshape(-1) + Stream(KEY, "x", kernels=reference).words(30, 24), 24)
    np.testing.assert_array_equal(payload, expected)


# ---- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_packing_and_opening(
    same: Callable[..., None], reference: Kernels, bits: int, n: int, offset: int
) -> None:
    x = words(n + bits, n)
    payload = np.empty(n * -(-bits // 8) + offset, dtype=np.uint8)[offset:]  # wherever it starts in its message
    payload[...] = reference.pack(x, bits)
    if not offset:
        same("pack", x, bits)
        if bits <= 32:
            same("pack", x.astype(np.uint32), bits)
    same("unpack", payload, n, bits)
    mine = words(n, n)
    same("opened", mine, payload, bits)
    same("opened", mine, payload, bits, xor=True)


def test_bits_above_are_cut_off(same: Callable[..., None]) -> None:
    same("pack", np.full(9, 2**64 - 1, dtype=np.uint64), 22)
    same("unpack", np.full(9 * 3, 255, dtype=np.uint8), 9, 22)


@pytest.mark.parametrize("window", [2, 17, 25, 32, 48, 61, 63])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_lifts(
    same: Callable[..., None], cuda: Kernels, reference: Kernels, window: int, first: bool, n: int
) -> None:
    same("wraps", words(1, n, bits=window + 1), window)
    u, give = words(1, n, bits=window), cuda.backend.asarray
    for wraps in (words(4, 2 * n), None):
        for kept in (words(5, n), None):
            found, expected = (
                k.lifted(put(u), Masked(put(words(3, n)), put(words(2, n)), None if kept is None else put(kept)),
                         None if wraps is None else put(wraps), window, first)
                for k, put in ((cuda, give), (reference, np.asarray)))
            np.testing.assert_array_equal(cuda.backend.to_host(found), expected, strict=True)


@pytest.mark.parametrize("shapes", SHAPES, ids=repr)
@pytest.mark.parametrize("windows", WINDOWS)
def test_element_wise_products(
    cuda: Kernels, reference: Kernels, shapes: Shapes, windows: tuple[int, int]
) -> None:
    same_products(cuda, reference, shapes, windows)


@pytest.mark.parametrize(("a", "b"), [((7,), (7,)), ((300, 3), (3,)), ((5, 1), (1, 4)), ((2, 3, 4, 5), (2, 1, 4, 1)),
                                      ((0, 3), (1, 3)), ((), (6,))], ids=repr)
@pytest.mark.parametrize(("up", "more"), [(0, 0), (16, 0), (0, 63), (3, 9)])
def test_sums_at_one_scale(
    same: Callable[..., None], a: tuple[int, ...], b: tuple[int, ...], up: int, more: int
) -> None:
    x, y = np.asarray(words(1, *a)), np.asarray(words(2, *b))
    for minus in (False, True):
        same("added", x, up, y, more, minus)
        if a == b:
            same("added", x.T, up, y.T, more, minus)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bits", [1, 16, 63])
def test_bits_are_dropped(same: Callable[..., None], n: int, bits: int) -> None:
    same("dropped", words(n, n), bits, up=False)
    same("dropped", words(n, n), bits, up=True)
    same("dropped", words(n, 1, n, 2).transpose(2, 0, 1), bits, up=True)


# ---- rows of keys of point functions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 8, 15, 16, 17, 33, 64, 65, 127, 129, 1000])
def test_rows_of_point_keys(columns: int, cuda: Kernels, reference: Kernels) -> None:
    """Both parties' rows, for points at both ends and between; also where the rows are a part of a larger array."""
    tokens = np.unique(np.array([0, columns // 2, columns - 1, 16 % columns, 15 % columns]))
    for keys in keys_of(tokens, columns, KEY):
        expected = np.zeros((len(keys), columns), np.uint64)
        reference.points(keys, expected)
        for more in (0, 3):
            out = cuda.xp.full((len(keys), columns + more), 7, dtype=np.uint64)
            cuda.points(keys, out[:, :columns])
            np.testing.assert_array_equal(cuda.backend.to_host(out)[:, :columns], expected)
            assert (cuda.backend.to_host(out)[:, columns:] == 7).all()


# ---- guards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("count", [1, 3, GUARDS, GUARDS + 1])
def test_tables_of_guards(same: Callable[..., None], n: int, count: int) -> None:
    for shift in (0, 9, 57):
        guards = [(shift + g % 2, 2 ** (shift + 6) - 1 - g, (21 + g) << shift) for g in range(count)]
        same("guard_tables", words(n, n), guards)
        same("guard_tables", words(n, n), guards, negated=True)


@pytest.mark.parametrize("count", [1, 3, GUARDS, GUARDS + 1])
@pytest.mark.parametrize(("rows", "columns"), [(3, 0), (1, 1), (7, 33), (2, SLICE), (1, 2 * SLICE + 1)])
def test_guards_are_looked_up(same_in_any_order: Callable[..., None], rows: int, columns: int, count: int) -> None:
    n = rows * columns
    for offset in (0, 3):
        payload = np.empty(8 * count * n + offset, dtype=np.uint8)[offset:]  # wherever it starts in its message
        payload[...] = words(1, count * n).view(np.uint8)
        same_in_any_order("breaches", payload, words(2, n), [58 - 3 * g for g in range(count)], words(3, count * n),
                          rows)


@pytest.mark.parametrize("count", [1, 3, WATCHED, WATCHED + 1])
@pytest.mark.parametrize(("rows", "columns"), [(3, 0), (1, 1), (7, 33), (2, 2048), (3, 2500), (1, 4100)])
def test_guards_are_weighed_with_words_of_a_stream(
    ordered_cuda: Kernels, reference: Kernels, rows: int, columns: int, count: int
) -> None:
    """In place, on a part of an array: what lies around it stays."""
    n, shifts = rows * columns, [(58 - 3 * g) % 59 for g in range(count)]
    for offset in (0, 3):
        payload = np.empty(8 * count * n + offset, dtype=np.uint8)[offset:]
        payload[...] = words(1, count * n).view(np.uint8)
        u, out, give = words(2, n), words(3, rows + 4), ordered_cuda.backend.asarray
        mine = give(out.copy())
        ordered_cuda.weigh(KEY, 9, give(payload), give(u), shifts, mine[2 : 2 + rows])
        reference.weigh(KEY, 9, payload, u, shifts, out[2 : 2 + rows])
        np.testing.assert_array_equal(ordered_cuda.backend.to_host(mine), out)


def test_one_launch_takes_all_guards_of_an_opening() -> None:
    launched: list[str] = []

    def counting(name: str) -> Callable[..., None]:
        return lambda *_: launched.append(name)

    guards = Guards(np, {name: counting(name) for name in SOURCES["guard"]})
    r, bits = words(0, 6), [3] * GUARDS
    guards.tables(r, ((3, 0, 9),) * GUARDS, False)
    guards.breaches(words(1, 6 * GUARDS).view(np.uint8), r, tuple(bits), words(2, 6 * GUARDS), 2)
    assert launched == ["guard_tables", "breaches"]
    launched.clear()
    guards.tables(r, ((3, 0, 9),) * (GUARDS + 1), False)
    guards.breaches(words(1, 6 * GUARDS + 6).view(np.uint8), r, (*bits, 4), words(2, 6 * GUARDS + 6), 2)
    assert launched == ["guard_tables", "guard_tables", "breaches", "breaches", "row_xors"]


# ---- series ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("bits", "count"), [(3, 1), (8, 5), (22, 32), (24, 16), (38, 7), (52, 64)])
def test_harmonics_and_series(same: Callable[..., None], n: int, bits: int, count: int) -> None:
    rng = np.random.default_rng(n + bits)
    u = words(n, n, bits=bits)
    same("turn", u, bits)
    same("harmonics", u, bits, count, 20)
    for functions in (1, 3, 6):
        cos, sin = rng.normal(size=(2, functions, count)) * 10.0 ** rng.integers(-6, 4, size=(2, functions, count))
        cos[0, 0] = sin[-1, 0] = 0.0
        same("series", u, bits, cos, sin, words(n, 2 * count, n), 18)


def test_every_position_of_a_small_turn(same: Callable[..., None]) -> None:
    for bits in range(3, 12):
        same("turn", np.arange(1 << bits, dtype=np.uint64), bits)


# ---- powers of e ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("bits", "period"), [(5, 5), (21, 5), (24, 5), (24, 6), (24, 8), (32, 9), (40, 9), (52, 6)])
def test_powers_and_exponentials(
    same: Callable[..., None], cuda: Kernels, reference: Kernels, n: int, bits: int, period: int
) -> None:
    keep = bits - period
    u, entries = words(n, n, bits=bits), 1 << (period - 4)
    same("growth", words(n, n) % np.uint64((16 << keep) + 1), keep)
    for top in (0.0, 0.3, 2.0):
        same("powers", u, bits, period, int(top * 2.0**keep), 41)
    expected, table = np.zeros(n, dtype=np.uint64), words(n + 1, entries, n)
    reference.exponential(u, bits, period, table, 18, expected)
    give, out = cuda.backend.asarray, cuda.backend.asarray(np.ones(n + 2, dtype=np.uint64))
    cuda.exponential(give(u), bits, period, give(table), 18, out[1 : n + 1])
    np.testing.assert_array_equal(cuda.backend.to_host(out), [1, *expected, 1])


def test_every_mask_of_a_short_period(same: Callable[..., None]) -> None:
    for bits, period in ((10, 5), (11, 6), (11, 9)):
        u = np.arange(1 << bits, dtype=np.uint64)
        same("growth", np.arange((16 << (bits - period)) + 1, dtype=np.uint64), bits - period)
        same("powers", u, bits, period, int(2.0 ** (bits - period)), 30)


# ---- comparison -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("block", [0, 1, 3, 4, 5, 7, 8])
def test_look_up(same: Callable[..., None], n: int, block: int) -> None:
    tables = words(n, n, max(1, (1 << block) // 8), bits=8).astype(np.uint8)
    same("look_up", tables, words(n, n, bits=block))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("block", "down", "place", "last"), [(8, 15, 0, False), (8, 0, 4, True), (1, 3, 2, False)])
def test_outcome(
    cuda: Kernels, reference: Kernels, n: int, block: int, down: int, place: int, last: bool
) -> None:
    """In place, and on a part of the shares: what lies around it stays."""
    tables = words(n, n, max(1, (1 << block) // 8), bits=8).astype(np.uint8)
    v, shares = words(1, n), words(2, n + 9)
    mine, give = cuda.backend.asarray(shares.copy()), cuda.backend.asarray
    cuda.outcome(give(tables), give(v), down, block, place, last, mine[4 : 4 + n])
    reference.outcome(tables, v, down, block, place, last, shares[4 : 4 + n])
    np.testing.assert_array_equal(cuda.backend.to_host(mine), shares)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("block", [1, 3, 5, 8])
def test_flip_bits(cuda: Kernels, reference: Kernels, n: int, block: int) -> None:
    tables = words(n, n, max(1, (1 << block) // 8), bits=8).astype(np.uint8)
    other, v = cuda.backend.asarray(tables.copy()), words(n, n, bits=block)
    reference.flip_bits(tables, v)
    cuda.flip_bits(other, cuda.backend.asarray(v))
    np.testing.assert_array_equal(cuda.backend.to_host(other), tables)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("entries", "columns"), [(2, 1), (8, 2), (32, 3)])
def test_gather(same: Callable[..., None], n: int, entries: int, columns: int) -> None:
    same("gather", words(n, n, entries, columns), words(n, n) % np.uint64(entries))


@pytest.mark.parametrize("n", [0, 1, 3, 65])
@pytest.mark.parametrize(("window", "width"), [(2, 64), (9, 9), (16, 64), (24, 32), (24, 24), (33, 64)])
def test_outcome_tables(same: Callable[..., None], n: int, window: int, width: int) -> None:
    kind = Relu(n, window, width)
    alpha = words(n, n, bits=kind.outcome_bits)
    same("outcome_tables", words(n, n, bits=window), alpha, window, len(kind.blocks), kind.columns)


@pytest.mark.parametrize("n", [0, 1, 3, 65])
@pytest.mark.parametrize("window", [2, 9, 16, 24, 33])
def test_rows_of_less(
    same: Callable[..., None], cuda: Kernels, reference: Kernels, n: int, window: int
) -> None:
    kind = Less(n, window, 48)
    alpha, e = words(n, n, bits=kind.alpha_bits), words(n, n, bits=kind.outcome_bits)
    same("outcome_rows", words(n, n, bits=window), alpha, window, len(kind.blocks))
    rows, expected = words(n, n, kind.table_bytes).astype(np.uint8), words(n, n)
    share = cuda.backend.asarray(expected.copy())
    reference.pick(rows, e, 3, expected)
    cuda.pick(cuda.backend.asarray(rows), cuda.backend.asarray(e), 3, share)
    np.testing.assert_array_equal(cuda.backend.to_host(share), expected)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("window", [2, 6, 7, 8, 10])
@pytest.mark.parametrize("start", [0, 5, 64])
def test_bits_of_thresholds(
    same: Callable[..., None], cuda: Kernels, reference: Kernels, n: int, window: int, start: int
) -> None:
    """In place, from any bit on: what lies around it stays."""
    tables, u = words(n, n, max(1, (1 << window - 1) // 8), bits=8).astype(np.uint8), words(1, n, bits=window)
    planes, give = words(2, 3, (start + n) // 64 + 2), cuda.backend.asarray
    mine, thresholds = give(planes.copy()), [0, 2**64 - 5, 3]
    cuda.below(give(tables), give(u), thresholds, window, start, mine)
    reference.below(tables, u, thresholds, window, start, planes)
    np.testing.assert_array_equal(cuda.backend.to_host(mine), planes)
    alpha = words(3, n // 64 + 1)
    same("signs", words(4, n, bits=window), alpha, window)
    for c in thresholds:
        same("reaching", words(5, n), alpha, u, c, window, c == 3)
        for columns in {1, max(n, 1)}:
            same("counted", words(5, n), alpha, u, c, window, columns, -(-columns // 3), c == 3)
