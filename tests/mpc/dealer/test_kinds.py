"""Every kind's law, written down a second time in plain integers; chunk borders; what travels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from mpc_lab import (
    KERNELS,
    SEEDS,
    Sink,
    combined,
    dealt,
    kernels_named,
    looks_uniform,
    reduced,
    wire_words,
    words_of,
)

from secformer.mpc.dealer.comparisons import Comparison, Less, Relu
from secformer.mpc.dealer.kinds import (
    CHUNK,
    PARCEL_BYTES,
    Coin,
    ExpMask,
    Field,
    Guards,
    Kind,
    Lift,
    SeriesMask,
    WeightMask,
    Witness,
    chunks,
    together,
)
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard, MatMul, UnknownFactor
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.thresholds import Empty, Reached
from secformer.mpc.errors import ProtocolError
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.prg import Stream

Values = dict[str, np.ndarray]
Weights = dict[int, np.ndarray]


# ---- the laws -------------------------------------------------------------------------------------------------------


Guarded = Lift | SeriesMask | ExpMask | Comparison | Witness | Reached


def guard_law(kind: Guarded, values: Values) -> None:
    tables_law(kind.guards, values, values["mask"].tolist(), "guard")


def tables_law(guards: Guards, values: Values, masks: list[int], name: str) -> None:
    """In plain integers: bit U is 0 where every value that is opened with that index lies in the interval. Masks are
    added."""
    parts = together(len(masks), guards)
    words = [values[f"{name}{p}"].view(np.uint64).reshape(len(part), len(masks)) for p, part in enumerate(parts)]
    assert sum(map(len, words)) == len(guards)
    for (shift, low, span), tables in zip(guards, (own.tolist() for part in words for own in part), strict=True):
        ring = 1 << (shift + 6)
        for r, table in zip(masks, tables, strict=True):
            for index in range(64):
                first, last = ((index << shift) - r - low) % ring, (((index + 1) << shift) - 1 - r - low) % ring
                assert (table >> index) & 1 == (not first <= last <= span)


def witness_law(kind: Witness, values: Values, weights: Weights) -> None:
    guard_law(kind, values)


def coin_law(kind: Coin, values: Values, weights: Weights) -> None:
    assert values["mask"].size == kind.count


def unknown_factor_law(kind: UnknownFactor, values: Values, weights: Weights) -> None:
    expected = values["mask"].astype(object) @ values["factor"].astype(object).reshape(kind.rows, kind.columns)
    np.testing.assert_array_equal(values["product"], words_of(expected))


def matmul_law(kind: MatMul, values: Values, weights: Weights) -> None:
    operands = [
        values[f"mask{i}"].astype(object).reshape(shape) if w is None else weights[w] if isinstance(w, int)
        else weights[w[0]][..., w[1] : w[2]]
        for i, (shape, w) in enumerate(zip(kind.shapes, kind.weights, strict=True))
    ]
    for i, r in enumerate(operands):
        tables_law(kind.guards_of(i), values, (-r.reshape(-1)).tolist(), f"guard{i}.")
    for p, (i, j, width) in enumerate(kind.pairs):
        expected = np.matmul(operands[i], operands[j])
        assert expected.size == values[f"product{p}"].size
        np.testing.assert_array_equal(values[f"product{p}"], reduced(words_of(expected).reshape(-1), width))


def hadamard_law(kind: Hadamard, values: Values, weights: Weights) -> None:
    a, m = [], []
    for i, shape in enumerate(kind.shapes):
        k, r = kind.window(i), values[f"mask{i}"].astype(object).reshape(shape)
        a.append(-(r % 2**k) if k else r)
        m.append(r // 2 ** (k - 1) % 2 if k else None)
        flat = r.reshape(-1)
        tables_law(kind.guards_of(i), values, (flat if k else -flat).tolist(), f"guard{i}.")
        assert (f"wraps{i}" in values) == (0 < k < kind.bits[i])
        if 0 < k < kind.bits[i]:
            lift_law(Lift(r.size, k, kind.bits[i]), {"mask": flat, "wraps": values[f"wraps{i}"]}, weights)
    for p, (i, j, width) in enumerate(kind.pairs):
        k, o = kind.window(i), kind.window(j)
        terms = {"product": (a[i] * a[j], width)}
        if i == j:
            terms["left"] = (m[i] * (2 * a[i] + 2**k), width - k) if k else (None, 0)
        else:
            terms["left"] = (m[i] * a[j], width - k) if k else (None, 0)
            terms["right"] = (a[i] * m[j], width - o) if o else (None, 0)
            terms["both"] = (m[i] * m[j], width - k - o) if k and o else (None, 0)
        for name in ("product", "left", "right", "both"):
            expected, bits = terms.get(name, (None, 0))
            assert (f"{name}{p}" in values) == (bits > 0), (name, bits)
            if bits > 0:
                np.testing.assert_array_equal(values[f"{name}{p}"], reduced(words_of(expected).reshape(-1), bits))
        what_the_terms_are_for(kind, values, p)


def what_the_terms_are_for(kind: Hadamard, values: Values, p: int) -> None:
    """x y modulo 2^width from what is opened of x and y and from the dealt terms alone, at both ends of what a window
    holds, and at zero."""
    i, j, width = kind.pairs[p]
    shape = np.broadcast_shapes(kind.shapes[i], kind.shapes[j])
    for part in ((-1, -1), (1, 1), (-1, 1), (0, 1), (1, 0), (-1, 0)) if i != j else ((-1,), (0,), (1,)):
        x = {v: end * (2 ** ((kind.window(v) or kind.bits[v]) - 2) - 1)
             for v, end in zip(dict.fromkeys((i, j)), part, strict=True)}
        e, rest, wraps = {}, {}, {}
        for v in x:
            k, r = kind.window(v), values[f"mask{v}"].astype(object).reshape(kind.shapes[v])
            u = (x[v] + r + 2 ** (k - 2)) % 2**k if k else x[v] - r
            e[v], wraps[v] = (u - 2 ** (k - 2), (1 - u // 2 ** (k - 1)) * 2**k) if k else (u, 0 * u)
            rest[v] = x[v] - e[v]
        total = e[i] * x[j] + e[j] * rest[i]
        factors = {"product": 1, "left": wraps[i], "right": wraps[j], "both": wraps[i] * wraps[j]}
        for name, factor in factors.items():
            if f"{name}{p}" in values:
                total = total + factor * values[f"{name}{p}"].astype(object).reshape(shape)
        assert not np.asarray((total - x[i] * x[j]) % 2**width, dtype=object).any()


def lift_law(kind: Lift, values: Values, weights: Weights) -> None:
    """Both wraps of a value v below 2^(window - 1): what must be added to u - r to give v, in units of 2^window."""
    guard_law(kind, values)
    wide = kind.width - kind.window
    assert ("wraps" in values) == (wide > 0)
    if wide > 0:
        r = [int(v) for v in values["mask"]]
        assert all(v < 2 ** (kind.window + 1) for v in r)
        low, high = values["wraps"].reshape(2, -1).tolist()
        for mask, wraps in zip(r, zip(low, high, strict=True), strict=True):
            for v in {0, 1, 2 ** (kind.window - 1) - 1, 2 ** (kind.window - 1) // 3}:
                u = (v + mask) % 2**kind.window
                wrap = wraps[u >> (kind.window - 1)]
                assert (u - mask + (wrap << kind.window) - v) % 2**kind.width == 0


def series_law(kind: SeriesMask, values: Values, weights: Weights) -> None:
    borders = [*range(0, kind.count, kind.chunk), kind.count]
    k = np.arange(1, kind.harmonics + 1, dtype=np.int64)[:, None]
    bits = kind.bits - kind.spare
    guard_law(kind, values)
    for j, (start, stop) in enumerate(pairwise(borders)):
        r = values["mask"][start:stop].astype(np.int64)
        angle = 2 * math.pi * ((k * r) % (1 << bits)).astype(np.float64) / 2.0**bits
        shift = np.uint64(64 - kind.width)
        got = ((values[f"words{j}"] << shift).view(np.int64) >> shift.astype(np.int64)).reshape(2, kind.harmonics, -1)
        assert np.abs(got - np.stack([np.cos(angle), np.sin(angle)]) * 2.0**kind.frac).max(initial=0) < 0.501


def exp_law(kind: ExpMask, values: Values, weights: Weights) -> None:
    """In exact integers of 2^-keep, keep = bits - spare - period_bits, up to the exponential itself."""
    borders = [*range(0, kind.count, kind.chunk), kind.count]
    keep, period = kind.bits - kind.spare - kind.period_bits, 1 << (kind.bits - kind.spare)
    guard_law(kind, values)
    for j, (start, stop) in enumerate(pairwise(borders)):
        r = values["mask"][start:stop].astype(np.int64)
        got = values[f"table{j}"].view(np.int64).reshape(-1, stop - start)
        assert got.shape[0] == kind.entries == 2**kind.period_bits // 16
        for entry, row in enumerate(got):
            b = kind.top - (kind.top - (16 * entry * 2**keep - r)) % period  # the largest up to top
            assert ((b <= kind.top) & (b > kind.top - period)).all()
            expected = np.exp(b.astype(np.longdouble) / 2**keep) * 2**kind.frac
            assert (np.abs(row - expected) <= 0.501 + expected * 2.0**-45).all()


def comparison_law(kind: Comparison, values: Values, weights: Weights) -> None:
    borders = [*range(0, kind.count, kind.chunk), kind.count]
    assert sum(kind.blocks) == kind.window - 1
    guard_law(kind, values)
    assert all(b <= 8 for b in kind.blocks)
    r = values["mask"].astype(np.int64)
    blocks, left = [], kind.window - 1
    for b in kind.blocks:
        left -= b
        blocks.append((r >> left) & ((1 << b) - 1))
    for j, (start, stop) in enumerate(pairwise(borders)):
        for b, value in enumerate(blocks):
            rows = np.unpackbits(values[f"equal{j}.{b}"].reshape(stop - start, -1), axis=1, bitorder="little")
            expected = np.arange(rows.shape[1])[None, :] == value[start:stop, None]
            np.testing.assert_array_equal(rows.astype(bool), expected)
        outcomes = np.arange(1 << kind.outcome_bits)
        below, tied = np.zeros_like(outcomes), np.ones_like(outcomes)
        for b in range(len(kind.blocks)):  # lexicographic: the first block that is not equal decides
            below |= tied & (outcomes >> 2 * b) & 1
            tied &= (outcomes >> 2 * b + 1) & 1
        (less_law if isinstance(kind, Less) else relu_law)(kind, values, below, j, start, stop)


def less_law(kind: Less, values: Values, below: np.ndarray, j: int, start: int, stop: int) -> None:
    msb, entries = values["mask"][start:stop].astype(np.int64) >> (kind.window - 1), np.arange(below.size)
    for t in range(kind.thresholds):
        drawn = values[f"alpha{t}"][start:stop].astype(np.int64)
        alpha, beta = drawn % below.size, drawn >> kind.outcome_bits
        assert beta.max(initial=0) <= 1
        rows = np.unpackbits(values[f"table{j}.{t}"].reshape(stop - start, -1), axis=1, bitorder="little")
        expected = (msb ^ beta)[:, None] ^ below[alpha[:, None] ^ entries]
        np.testing.assert_array_equal(rows[:, : below.size], expected)
        np.testing.assert_array_equal(values[f"bit{t}"][start:stop], beta.astype(np.uint64))


def relu_law(kind: Relu, values: Values, below: np.ndarray, j: int, start: int, stop: int) -> None:
    r, full = values["mask"][start:stop].astype(np.int64), 1 << kind.window
    table = values[f"table{j}"].reshape(stop - start, below.size, -1)
    alpha = values["alpha0"][start:stop].astype(np.int64)
    for entry in range(below.size):
        lower = below[alpha ^ entry]
        negative = (r >> (kind.window - 1)) ^ lower
        wrap = lower * full if kind.width > kind.window else 0
        columns = [negative, (1 - negative) * (r - wrap)]
        if kind.width > kind.window:
            columns.append(negative * r)
        assert table.shape[2] == len(columns)
        for c, column in enumerate(columns):
            np.testing.assert_array_equal(table[:, entry, c], reduced(column.astype(np.uint64), kind.width))


def one_hot(rows: np.ndarray, at: np.ndarray, side: int) -> None:
    """Rows of bytes with one bit set, of `side`."""
    bits = np.unpackbits(rows.reshape(at.size, -1), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits, np.arange(bits.shape[1])[None, :] == at[:, None])
    assert bits.shape[1] == max(8, side)


def reached_law(kind: Reached, values: Values, weights: Weights) -> None:
    guard_law(kind, values)
    r, half = values["mask"].astype(np.int64), 1 << (kind.window - 1)
    for j, (start, stop) in enumerate(pairwise([*range(0, kind.count, kind.chunk), kind.count])):
        one_hot(values[f"equal{j}"], r[start:stop] % half, half)
    for t in range(kind.thresholds):
        alpha = np.unpackbits(values[f"alpha{t}"].view(np.uint8), bitorder="little")
        assert alpha.size % 64 == 0 and 0 <= alpha.size - kind.count < 64
        np.testing.assert_array_equal(values[f"bit{t}"], alpha[: kind.count] ^ (r // half))


def empty_law(kind: Empty, values: Values, weights: Weights) -> None:
    places, full = kind.thresholds * kind.segments, 2**kind.segments
    r = values["mask"].astype(np.int64).reshape(places, kind.count)
    assert all(alpha < 2**places for alpha in values["alpha"].tolist())
    for q in range(places):
        tables = [values[name] for name in values if name.startswith(f"equal{q}.")]
        if kind.count:
            one_hot(np.concatenate(tables), r[q], 1 << kind.window)
    for t in range(kind.thresholds):
        table = values[f"table{t}"].reshape(kind.count, full)
        for row, alpha in zip(table, values["alpha"].tolist(), strict=True):
            expected = [(e ^ (alpha >> t * kind.segments) % full) != full - 1 for e in range(full)]
            assert row.tolist() == expected


def weight_law(kind: WeightMask, values: Values, weights: Weights) -> None:
    assert set(values) == {"mask"}
    weights[kind.index] = values["mask"].astype(object).reshape(kind.shape)


LAWS: dict[type, Callable[..., None]] = {
    Hadamard: hadamard_law,
    MatMul: matmul_law,
    Lift: lift_law,
    SeriesMask: series_law,
    ExpMask: exp_law,
    Less: comparison_law,
    Relu: comparison_law,
    Reached: reached_law,
    Empty: empty_law,
    WeightMask: weight_law,
    Witness: witness_law,
    Coin: coin_law,
    UnknownFactor: unknown_factor_law,
}
GUARDS = ((2, 5, 90), (10, 300, 20_000))  # shift, low, span: rings of 2^8 and 2^16


def hadamard(*shapes: tuple[int, ...], bits: int, pairs: Sequence[tuple[int, int, int]], lifts: tuple[int, ...] = (),
             guards: tuple[Guards, ...] = ()) -> Hadamard:
    return Hadamard(shapes, (bits,) * len(shapes), tuple(pairs), (None,) * len(shapes), guards, lifts)


PLANS: list[list[Kind]] = [
    [hadamard((5,), (5,), bits=48, pairs=[(0, 1, 48)])],
    [hadamard((2, 3, 4), (3, 1), bits=64, pairs=[(0, 1, 64)])],
    [hadamard((1, 4), (3, 1), (4,), bits=48, pairs=[(0, 1, 48), (1, 2, 40), (2, 2, 8), (0, 0, 48)])],
    [hadamard((7,), bits=24, pairs=[(0, 0, 24)])],
    [hadamard((), (3,), bits=48, pairs=[(0, 1, 48)])],
    [hadamard((0,), (0,), bits=48, pairs=[(0, 1, 48)])],
    [hadamard((2, 0), (1,), bits=17, pairs=[(0, 1, 13)])],
    # operands that are lifted: left, right, both, a square; windows that leave no room for a term; broadcasting
    [hadamard((9,), (9,), bits=48, pairs=[(0, 1, 48)], lifts=(32, 0))],
    [hadamard((9,), (9,), bits=48, pairs=[(0, 1, 48)], lifts=(0, 24))],
    [hadamard((9,), (9,), bits=48, pairs=[(0, 1, 48)], lifts=(16, 24))],
    [hadamard((9,), (9,), bits=40, pairs=[(0, 1, 40)], lifts=(16, 24))],
    [hadamard((300,), (300,), bits=64, pairs=[(0, 1, 64)], lifts=(5, 3))],
    [hadamard((99,), bits=48, pairs=[(0, 0, 48)], lifts=(32,))],
    [hadamard((99,), bits=64, pairs=[(0, 0, 64)], lifts=(2,))],
    [hadamard((4, 5), (4, 1), (5,), bits=48, pairs=[(0, 1, 48), (0, 0, 40), (2, 0, 24), (1, 2, 33), (0, 1, 16)],
              lifts=(24, 0, 9))],
    [hadamard((2, 1, 3), (4, 1), bits=56, pairs=[(0, 1, 56), (1, 1, 20)], lifts=(16, 20))],
    [hadamard((6,), (6,), bits=48, pairs=[(0, 1, 48), (1, 0, 30), (1, 1, 32)], lifts=(48, 32))],
    [hadamard((), (3,), bits=48, pairs=[(0, 1, 48), (0, 0, 48)], lifts=(24, 32))],
    [hadamard((0,), (0, 1), bits=48, pairs=[(0, 1, 48), (0, 0, 48)], lifts=(24, 32))],
    [hadamard((40,), (40,), bits=48, pairs=[(0, 1, 48), (1, 1, 48)], lifts=(24, 0), guards=(GUARDS, GUARDS[1:]))],
    [hadamard((40,), (40,), bits=48, pairs=[(0, 1, 48)], guards=((), GUARDS))],
    [MatMul(((3, 5), (5, 2)), (48, 48), ((0, 1, 48),), (None, None))],
    [MatMul(((3, 5), (5, 2)), (48, 48), ((0, 1, 48),), (None, None), (GUARDS, GUARDS[:1]))],
    [MatMul(((2, 3, 1), (2, 1, 4)), (64, 64), ((0, 1, 64),), (None, None))],
    [MatMul(((3, 3),), (48,), ((0, 0, 48),), (None,))],
    [MatMul(((4, 7), (7, 3)), (32, 32), ((0, 1, 32),), (None, None))],
    [MatMul(((4, 7), (7, 3)), (24, 24), ((0, 1, 20),), (None, None))],
    [MatMul(((2, 0), (0, 3)), (48, 48), ((0, 1, 48),), (None, None))],
    [
        WeightMask(0, (5, 3), 64),
        WeightMask(1, (5, 2), 24),
        WeightMask(2, (5, 4), 40),
        MatMul(
            ((4, 5), (5, 3), (5, 2), (5, 4)), (48, 48, 24, 40), ((0, 1, 48), (0, 2, 24), (0, 3, 40)), (None, 0, 1, 2)
        ),
        MatMul(((1, 5), (5, 3)), (16, 16), ((0, 1, 16),), (None, 0)),
    ],
    [
        WeightMask(0, (2, 3, 5), 64),
        MatMul(((2, 4, 3), (2, 3, 5), (2, 3, 2)), (48, 48, 48), ((0, 1, 48), (0, 2, 48)), (None, 0, (0, 1, 3))),
    ],
    *[
        [Lift(17, window, width)]
        for window, width in [
            (64, 64),
            (63, 64),
            (25, 56),
            (26, 48),
            (2, 64),
            (8, 64),
            (22, 23),
            (16, 64),
            (3, 4),
            (32, 32),
            (40, 24),
        ]
    ],
    [Lift(0, 16, 48)],
    *[
        [SeriesMask(n, bits, k, width)]
        for n, bits, k, width in [
            (9, 24, 16, 48),
            (1, 3, 1, 24),
            (5, 22, 4, 64),
            (0, 24, 8, 48),
            (30, 38, 33, 40),
            (4, 21, 128, 45),
        ]
    ],
    *[
        [Relu(n, w, width) if values else Less(n, w, width, t)]
        for n, w, t, width, values in [
            (6, 24, 1, 48, False),
            (5, 24, 3, 48, False),
            (4, 24, 1, 64, True),
            (4, 24, 1, 24, True),
            (3, 33, 1, 64, True),
            (7, 10, 2, 32, False),
            (3, 33, 2, 40, False),
            (9, 11, 1, 11, True),
            (8, 9, 1, 64, True),
            (8, 2, 1, 48, False),
            (8, 1, 1, 48, False),
            (8, 1, 1, 64, True),
            (3, 25, 1, 48, True),
            (0, 24, 2, 48, False),
            (2, 17, 1, 17, True),
        ]
    ],
    *[[SeriesMask(n, 24, 1, 48)] for n in (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1)],
    *[[Less(n, 4, 48)] for n in (CHUNK - 1, CHUNK, CHUNK + 1)],
    [Less(CHUNK + 2, 12, 16, 2)],
    [Relu(CHUNK + 1, 10, 10)],
    [SeriesMask(50, 24, 3, 48, chunk=7)],
    [SeriesMask(9, 24, 3, 40, 17)],
    *[
        [ExpMask(n, bits, period, top, frac)]
        for n, bits, period, top, frac in [
            (9, 24, 5, 0, 41),
            (30, 24, 5, (2 << 19) + (1 << 15), 41),
            (1, 24, 6, 1 << 18, 41),
            (0, 24, 8, 1 << 16, 41),
            (8, 24, 8, 5000, 41),
            (300, 8, 5, 16, 41),
            (300, 8, 5, 0, 41),
            (300, 9, 6, 1, 30),
            (4, 32, 9, 2 << 23, 41),
            (5, 21, 5, 1 << 16, 20),
            (6, 40, 10, 3 << 20, 41),
            (7, 5, 5, 0, 41),
        ]
    ],
    *[[ExpMask(n, 24, 5, 1 << 16, 41)] for n in (CHUNK - 1, CHUNK, CHUNK + 1)],
    [ExpMask(50, 24, 7, 1 << 15, 41, chunk=7)],
    [Relu(50, 12, 16, chunk=7)],
    [Less(50, 12, 16, 2, chunk=7)],
    *[[Reached(n, window, width, t)] for n, window, width, t in [(9, 8, 4, 3), (64, 8, 8, 1), (65, 10, 10, 2),
                                                                 (200, 2, 1, 1), (5, 3, 9, 9), (0, 8, 4, 2)]],
    [Reached(50, 8, 8, 2, chunk=7)],
    *[[Reached(n, 5, 8, 2)] for n in (CHUNK - 1, CHUNK, CHUNK + 1)],
    *[[Empty(n, window, width, t)] for n, window, width, t in [(9, 4, 64, 3), (1, 1, 12, 1), (40, 8, 16, 9),
                                                               (3, 12, 48, 64), (0, 5, 64, 2), (70, 2, 1, 5)]],
    [Empty(50, 9, 64, 2, chunk=7)],
    [Empty(5, 10, 20, 2, chunk=1)],
    *[[Empty(n, 8, 32, t, segments)] for n, t, segments in ((9, 3, 2), (4, 16, 4), (7, 1, 3), (0, 2, 2))],
    [Empty(CHUNK + 3, 3, 16, 1)],
    *[[Witness(n, bits, guards)] for n, bits, guards in [(60, 16, GUARDS), (0, 24, GUARDS), (9, 64, GUARDS[:1]),
                                                       (200, 6, ((0, 61, 40),)), (5, 40, ())]],
    [Coin(4)],
    [Coin(0)],
    [UnknownFactor(8, 4)],
    [UnknownFactor(1, 3)],
    [Lift(40, 24, 64, GUARDS)],
    [Lift(9, 32, 32, GUARDS[:1])],
    [SeriesMask(30, 24, 3, 48, spare=2, guards=GUARDS)],
    [SeriesMask(9, 24, 3, 48, chunk=4, guards=GUARDS[1:])],
    [ExpMask(30, 24, 5, 1 << 15, 41, spare=2, guards=GUARDS)],
    [Less(20, 24, 48, 2, guards=GUARDS)],
    [Relu(20, 24, 64, guards=GUARDS[:1])],
    [Reached(20, 10, 8, 2, guards=((2, 5, 90),))],
]


@pytest.mark.parametrize("kinds", PLANS, ids=lambda kinds: "+".join(map(repr, kinds))[:90])
@pytest.mark.parametrize("name", KERNELS)
def test_the_shares_obey_the_law(kinds: list[Kind], name: str) -> None:
    sources = dealt(kinds, name)
    weights: Weights = {}
    for kind in kinds:
        LAWS[type(kind)](kind, combined(sources, kind), weights)


def test_every_kind_has_its_law_tested() -> None:
    def leaves(cls: type) -> set[type]:
        return {cls} if not cls.__subclasses__() else set().union(*(leaves(c) for c in cls.__subclasses__()))

    assert leaves(Kind) == set(LAWS) == {type(kind) for kinds in PLANS for kind in kinds}


# ---- masks and corrections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", PLANS, ids=lambda kinds: "+".join(map(repr, kinds))[:90])
def test_corrections_are_what_the_kind_says(kinds: list[Kind]) -> None:
    sink = Sink()
    Dealer(SEEDS, kernels_named("numpy")).deal(Plan(tuple(kinds)), 0, sink)
    assert (
        sum(payload.size for _, payload in sink.log)
        == sum(kind.corrections for kind in kinds)
        == Plan(tuple(kinds)).dealer_bytes
    )
    assert [(tag, payload.size) for tag, payload in sink.log] == list(Plan(tuple(kinds)).corrections())
    named = [(index, f.name, f.bits, f.count) for index, kind in enumerate(kinds) for f in kind.derived()]
    assert named == [(t.step, t.verb, t.bits, t.count) for t, _ in sink.fields(kinds)]
    assert all(payload.size == tag.count * whole_bytes(tag.bits) for tag, payload in sink.fields(kinds))


@pytest.mark.parametrize("kinds", PLANS, ids=lambda kinds: "+".join(map(repr, kinds))[:90])
def test_layouts_say_what_the_kind_says(kinds: list[Kind]) -> None:
    for kind in kinds:
        fields, found = list(kind.fields()), kind.layout
        assert found is kind.layout and list(found.fields.items()) == [(f.name, f) for f in fields]
        assert found.parcels == tuple(kind.parcels())
        assert [f for parcel in found.parcels for f in parcel.fields] == [f for f in fields if f.derived]
        assert all(f in found.parcel[f.name].fields for f in fields)
        masks = [(f, m) for parcel in found.masks for f, m in zip(parcel.fields, parcel.masks, strict=True)]
        assert [(m.length, m.bits, m.xor, m.carries) for _, m in masks] == [
            (f.count, f.bits, f.xor, f.carries) for f, _ in masks]
        assert sorted(f.name for f, _ in masks) == sorted(f.name for f in fields if not f.derived)
        assert all(len(parcel.fields) == 1 for parcel in found.masks if any(f.cache is not None for f in parcel.fields))


def test_equal_kinds_of_a_plan_are_one_value() -> None:
    first, second, other = Lift(4, 16, 48), Lift(4, 16, 48), Lift(5, 16, 48)
    plan = Plan((first, other, second))
    assert plan.kinds == (first, other, second)
    assert plan.kinds[0] is plan.kinds[2] is not plan.kinds[1]
    assert plan.digest == Plan((second, other, first)).digest != Plan((first, second, other)).digest


def test_fields_travel_together_but_not_chunks() -> None:
    """One message for all fields of a correlation; one for each chunk of material that is used chunk by chunk."""
    def names(kind: Kind) -> list[list[str]]:
        return [[f.name for f in parcel.fields] for parcel in kind.parcels()]

    guards = ((3, 1, 7),)
    assert names(hadamard((4,), (4,), bits=48, pairs=[(0, 1, 48), (0, 0, 48)], lifts=(16, 0))) == [
        ["wraps0", "product0", "left0", "product1", "left1"]]
    assert names(Lift(4, 16, 48, guards)) == [["wraps", "guard0"]]
    assert names(SeriesMask(9, 24, 2, 48, chunk=4, guards=guards)) == [["guard0", "words0"], ["words1"], ["words2"]]
    assert names(Relu(5, 16, 64, chunk=4)) == [["equal0.0", "equal0.1"], ["equal1.0", "equal1.1"], ["table0"],
                                               ["table1"]]
    assert names(Less(4, 24, 48, 2)) == [["equal0.0", "equal0.1", "equal0.2", "table0.0", "table0.1", "bit0", "bit1"]]
    assert names(Reached(9, 8, 5, 2, chunk=4)) == [["equal0"], ["equal1"], ["equal2", "bit0", "bit1"]]
    assert names(Coin(4)) == []
    big = hadamard((PARCEL_BYTES // 6,), bits=48, pairs=[(0, 0, 48), (0, 0, 40)])
    assert names(big) == [["product0"], ["product1"]]


ODD = [
    Lift(400, 5, 64),
    Lift(400, 43, 64),
    Lift(400, 26, 61),
    SeriesMask(50, 24, 4, 45),
    Relu(60, 11, 11),
    Less(60, 11, 11),
    Reached(60, 8, 5, 3),
    Empty(60, 5, 11, 3),
    Empty(60, 8, 11, 3, 2),
    hadamard((400,), bits=13, pairs=[(0, 0, 13)]),
    hadamard((400,), (400,), bits=45, pairs=[(0, 1, 45), (1, 1, 43)], lifts=(13, 22)),
]


@pytest.mark.parametrize("kind", ODD, ids=repr)
def test_corrections_carry_no_bit_above_their_width(kind: Kind) -> None:
    """value - share is masked by a share below 2^bits only: what travels above that would tell party 1 of the mask."""
    sink = Sink()
    Dealer(SEEDS, kernels_named("numpy")).deal(Plan((kind,)), 0, sink)
    for tag, payload in sink.fields((kind,)):
        field = next(f for f in kind.fields() if f.name == tag.verb)
        if not field.xor:
            assert not (wire_words(payload, tag.bits) >> np.uint64(tag.bits) if tag.bits < 64 else np.zeros(1)).any()


@pytest.mark.parametrize(
    "kind",
    [
        Lift(20_000, 16, 48),
        Lift(20_000, 2, 64),
        SeriesMask(2000, 24, 5, 48),
        ExpMask(2000, 24, 6, 1 << 18, 41),
        hadamard((20_000,), bits=48, pairs=[(0, 0, 48)]),
        hadamard((20_000,), (20_000,), bits=48, pairs=[(0, 1, 48)], lifts=(16, 24)),
        hadamard((20_000,), bits=48, pairs=[(0, 0, 48)], lifts=(24,)),
        Less(2000, 24, 48),
        Relu(200, 24, 64),
        Relu(300, 24, 24),
        Reached(3000, 8, 6, 3),
        Empty(3000, 6, 16, 3),
    ],
    ids=repr,
)
def test_corrections_and_masks_look_uniform(kind: Kind) -> None:
    """Whatever the derived values are (mostly 0 and 1 in tables), party 1 receives noise; party 0 expands noise."""
    sink = Sink()
    Dealer(SEEDS, kernels_named("numpy")).deal(Plan((kind,)), 0, sink)
    by_field: dict[tuple[str, int], list[np.ndarray]] = {}
    for tag, payload in sink.fields((kind,)):
        by_field.setdefault((tag.verb.rstrip("0123456789."), tag.bits), []).append(wire_words(payload, tag.bits))
    for (_, bits), found in by_field.items():
        assert looks_uniform(np.concatenate(found), bits)
    sources = dealt([kind])
    material = sources[0].take(kind)
    for field in kind.fields():
        mine = material.draw(field.name)
        if field.count > 5000:
            assert looks_uniform(mine, field.bits)


def test_masks_differ_between_fields_correlations_runs_and_parties() -> None:
    kind = Lift(50, 16, 48)
    drawn = []
    for serial in (0, 1):
        sources = dealt([kind, kind], serial=serial)
        for _ in range(2):
            for source in sources:
                m = source.take(kind)
                drawn += [m.draw("mask").tobytes(), m.draw("wraps").tobytes()]
    assert len(set(drawn)) == len(drawn)


def test_dealing_is_determined_by_the_seeds_and_the_serial() -> None:
    def corrections(seeds: tuple[bytes, bytes], serial: int, name: str) -> list[bytes]:
        sink = Sink()
        plan = Plan((Less(9, 24, 48), SeriesMask(9, 24, 3, 48), Lift(9, 16, 48)))
        Dealer(seeds, kernels_named(name)).deal(plan, serial, sink)
        return [payload.tobytes() for _, payload in sink.log]

    first = corrections(SEEDS, 0, KERNELS[0])
    assert first == corrections(SEEDS, 0, KERNELS[-1])
    for other in (corrections(SEEDS, 1, "numpy"), corrections(SEEDS[::-1], 0, "numpy")):
        assert not any(a == b for a, b in zip(first, other, strict=True))


def test_a_weight_that_was_never_provisioned_is_refused() -> None:
    kind = MatMul(((2, 3), (3, 1)), (48, 48), ((0, 1, 48),), (None, 5))
    with pytest.raises(ProtocolError, match="weight 5 was never provisioned"):
        Dealer(SEEDS, kernels_named("numpy")).deal(Plan((kind,)), 0, Sink())


def test_a_standing_mask_lasts_over_runs() -> None:
    k, sink = kernels_named("numpy"), Sink()
    standing = WeightMask(0, (3, 2), 64)
    kind = MatMul(((2, 3), (3, 2)), (48, 48), ((0, 1, 48),), (None, 0))
    dealer = Dealer(SEEDS, k)
    dealer.deal(Plan((standing,)), 0, sink)
    dealer.deal(Plan((kind,)), 1, sink)
    weight = combined(dealt([standing]), standing)["mask"].reshape(3, 2)
    mask, product = kind.fields()

    def share(rank: int, field: Field) -> np.ndarray:
        return Stream(SEEDS[rank], "run", 1, 0, field.name).words(field.count, field.bits)

    a = reduced(share(0, mask) + share(1, mask), 48).reshape(2, 3)
    got = share(0, product) + k.unpack(sink.log[-1][1], 4, 48)
    expected = words_of(np.matmul(a.astype(object), weight.astype(object))).reshape(-1)
    np.testing.assert_array_equal(reduced(got, 48), reduced(expected, 48))


def test_chunks_cover_once() -> None:
    for count in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK):
        parts = list(chunks(count))
        assert [i for start, stop in parts for i in (start, stop)][1:-1:2] == [p[1] for p in parts[:-1]]
        assert sum(stop - start for start, stop in parts) == count
        assert all(0 < stop - start <= CHUNK for start, stop in parts)
