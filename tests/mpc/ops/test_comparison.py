"""Comparison, relu and maximum: exact on words; with dropped bits, wrong only where the docstrings allow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, ULP, Raw, Words, compute, examples, kernels_named, reduced, run, words_of

from secformer.mpc.dealer.comparisons import Comparison
from secformer.mpc.dealer.kinds import CHUNK
from secformer.mpc.errors import RangeError, SecformerError
from secformer.mpc.fixed import FixedPoint, encode
from secformer.mpc.shares import Share


def around(bound: float, thresholds: list[float], rng: np.random.Generator, count: int = 30) -> np.ndarray:
    """Values in (-bound, bound): its extremes, a few units around every threshold, and random ones."""
    near = [c + d * ULP for c in [0.0, *thresholds] for d in (-2, -1, 0, 1, 2)]
    x = np.array([bound - ULP, ULP - bound, *near, *rng.uniform(-bound, bound, size=count)])
    x = np.rint(x / ULP) * ULP
    return x[np.abs(x) < bound]


@examples(40)
@given(
    bound=st.sampled_from([0.01, 0.5, 1.0, 3.0, 64.0, 100.0, 128.0, 4000.0, 30000.0]),
    count=st.integers(1, 4),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
    trivial=st.booleans(),
)
def test_less_is_exact(bound: float, count: int, seed: int, name: str, trivial: bool) -> None:
    rng = np.random.default_rng(seed)
    thresholds = (np.rint(rng.uniform(-bound, bound, size=count) / ULP) * ULP).tolist()
    x = around(bound, thresholds, rng)
    results, outcome = run(
        lambda s, x: s.less(x, thresholds, bound=bound),
        x,
        raw=True,
        seed=seed,
        kernels=kernels_named(name),
        trivial=trivial,
    )
    for got, c in zip(results, thresholds, strict=True):
        assert (got.frac, got.width) == (0, 48)
        np.testing.assert_array_equal(got.words, (x < c).astype(np.uint64))
    (kind,) = outcome.plan.kinds
    assert isinstance(kind, Comparison)
    assert kind.window == 17 + max(0, math.ceil(math.log2(bound + max(map(abs, thresholds)))))
    assert outcome.cost.rounds == 3


def test_less_with_the_widest_window_and_thresholds_at_the_bound() -> None:
    bound = 2.0**15
    thresholds = [bound, -bound, bound - ULP]
    x = around(bound, [], np.random.default_rng(0))
    results, outcome = run(lambda s, x: s.less(x, thresholds, bound=bound), x, raw=True)
    assert outcome.plan.kinds[0].window == 33
    for got, c in zip(results, thresholds, strict=True):
        np.testing.assert_array_equal(got.words, (x < c).astype(np.uint64))


@pytest.mark.parametrize("precision", [0, 1, 3, 8])
def test_less_with_dropped_bits_errs_only_near_the_threshold(precision: int) -> None:
    rng, bound = np.random.default_rng(precision), 60.0  # not a power of two: the window has room to spare
    thresholds = [0.0, 5.0, -17.0]
    x = np.concatenate(
        [
            rng.uniform(-bound, bound, size=2000),
            *(c + rng.uniform(-2, 2, size=500) * 2.0**-precision for c in thresholds),
        ]
    )
    x = np.rint(x / ULP) * ULP
    results, _ = run(lambda s, x: s.less(x, thresholds, bound=bound, precision=precision), x, raw=True)
    for got, c in zip(results, thresholds, strict=True):
        wrong = got.words != (x < c).astype(np.uint64)
        assert np.all(np.abs(x - c)[wrong] < 2.0**-precision)
        assert np.all(got.words <= 1)


def test_thresholds_that_the_precision_cannot_hold() -> None:
    rng = np.random.default_rng(8)
    c = 0.3125 - ULP  # 2.5 units of the precision, just below
    for c in (0.3125 + ULP, 0.3125 - ULP, 0.4375 + ULP):
        x = np.rint((c + rng.uniform(-2, 2, size=4000) * 2.0**-3) / ULP) * ULP
        got = compute(lambda s, x, c=c: s.less(x, [c], bound=5, precision=3)[0], x, raw=True)
        wrong = got.words != (x < c).astype(np.uint64)
        assert np.abs(x - c)[wrong].max(initial=0) < 2.0**-3


@pytest.mark.parametrize("precision", [0, 3, 8])
def test_extremes_with_dropped_bits(precision: int) -> None:
    """Dropping bits of both shares may round down past -bound; the window must have room for that."""
    bound = 64.0
    x = np.array([ULP - bound, ULP - bound + 2 * ULP, bound - ULP] * 20)

    def program(s: Any, x: Share) -> list[Share]:
        return [s.less(x, [0.0], bound=bound, precision=precision)[0], s.relu(x, bound=bound, precision=precision)]

    (less, relu), _ = run(program, x)
    np.testing.assert_array_equal(less, x < 0)
    assert np.abs(relu - np.maximum(x, 0)).max() < 2 * 2.0**-precision


def test_maximum_of_extremes_with_dropped_bits() -> None:
    bound = 64.0
    x = np.array([[bound - ULP, ULP - bound], [ULP - bound, bound - ULP]] * 10)
    got = compute(lambda s, x: s.lift(s.maximum(x, 1, bound=bound, precision=3))[0], x)
    assert np.abs(got - (bound - ULP)).max() <= 2 * 2.0**-3


@examples(30)
@given(
    bound=st.sampled_from([0.25, 1.0, 8.0, 100.0, 4000.0, 2.0**15, 2.0**16 - 1]),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
    shape=st.sampled_from([(40,), (3, 5), (2, 1, 7), (0,), (1,)]),
    trivial=st.booleans(),
)
def test_relu_is_exact(bound: float, seed: int, name: str, shape: tuple[int, ...], trivial: bool) -> None:
    rng = np.random.default_rng(seed)
    pool = around(bound, [], rng)
    x = rng.choice(pool, size=shape)
    got: Raw = compute(
        lambda s, x: s.relu(x, bound=bound), x, raw=True, seed=seed, kernels=kernels_named(name), trivial=trivial
    )
    assert (got.frac, got.width) == (16, 64)
    np.testing.assert_array_equal(got.words, encode(np.maximum(x, 0.0), 16))


@examples(15)
@given(frac=st.integers(4, 24), seed=st.integers(0, 99))
def test_comparisons_in_every_format(frac: int, seed: int) -> None:
    rng, unit = np.random.default_rng(seed), 2.0**-frac
    bound = 2.0 ** min(8, 62 - 2 * frac)
    x = np.rint(rng.uniform(-bound + unit, bound - unit, size=30) / unit) * unit
    fixed = FixedPoint(frac, min(12, 62 - 2 * frac))
    (less, relu), _ = run(lambda s, x: [s.less(x, [0.0], bound=bound)[0], s.relu(x, bound=bound)], x, fixed=fixed)
    np.testing.assert_array_equal(less, x < 0)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))


def test_relu_and_less_of_pending_values_need_no_truncation() -> None:
    x = np.rint(np.random.default_rng(1).uniform(-10, 10, size=300) / ULP) * ULP

    def program(s: Any, x: Share) -> list[Share]:
        p = s.mul(x, s.public(1.0, shape=x.shape))
        return [s.relu(p, bound=10.0), s.less(p, [0.0], bound=10.0)[0]]

    (relu, less), outcome = run(program, x, raw=True)
    assert [type(k).__name__ for k in outcome.plan.kinds] == ["Hadamard", "Relu", "Less"]
    assert np.abs(relu.value - np.maximum(x, 0)).max() < 2 * ULP
    wrong = less.words != (x < 0).astype(np.uint64)
    assert np.all(np.abs(x)[wrong] < ULP)


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_chunk_borders(values: bool, count: int) -> None:
    x = np.rint(np.linspace(-0.9, 0.9, count) / ULP) * ULP

    def program(s: Any, x: Share) -> Share:
        return s.relu(x, bound=1.0, precision=4) if values else s.less(x, [0.5], bound=1.0, precision=4)[0]

    got = compute(program, x, raw=True)
    if values:
        assert np.abs(got.value - np.maximum(x, 0)).max() < 2.0**-3
    else:
        far = np.abs(x - 0.5) > 2.0**-4
        np.testing.assert_array_equal(got.words[far], (x < 0.5)[far])


# ---- maximum --------------------------------------------------------------------------------------------------------


@examples(25)
@given(
    n=st.integers(1, 17),
    axis=st.integers(-3, 2),
    seed=st.integers(0, 999),
    bound=st.sampled_from([1.0, 64.0, 100.0, 16000.0]),
    trivial=st.booleans(),
)
def test_maximum_is_exact_modulo_its_width(n: int, axis: int, seed: int, bound: float, trivial: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = [2, 3, 2]
    shape[axis] = n
    x = rng.choice(around(bound, [], rng), size=shape)
    (narrow, lifted), outcome = run(
        lambda s, x: [(m := s.maximum(x, axis, bound=bound)), s.lift(m)[0]], x, raw=True, trivial=trivial, seed=seed
    )
    expected = x.max(axis=axis, keepdims=True)
    assert narrow.words.shape == expected.shape
    np.testing.assert_array_equal(narrow.words, reduced(encode(expected, 16), narrow.width))
    np.testing.assert_array_equal(lifted.value, expected)
    kinds = [k for k in outcome.plan.kinds if isinstance(k, Comparison)]
    assert len(kinds) == math.ceil(math.log2(n))
    assert sum(k.count for k in kinds) == (n - 1) * x.size // n


@examples(20)
@given(n=st.integers(2, 40), precision=st.integers(0, 6), seed=st.integers(0, 999))
def test_coarse_maximum_is_within_its_bound(n: int, precision: int, seed: int) -> None:
    rng, bound = np.random.default_rng(seed), 60.0
    x = np.rint(rng.uniform(-bound, bound, size=(4, n)) / ULP) * ULP
    x[0] = x[0, 0] + rng.integers(0, 3, size=n) * ULP  # nearly equal: every comparison may go wrong
    got = compute(lambda s, x: s.lift(s.maximum(x, 1, bound=bound, precision=precision))[0], x)
    error = np.abs(got - x.max(axis=1, keepdims=True)).max()
    assert error <= (1 + math.log2(n)) * 2.0**-precision
    assert error < 2 * 2.0**-precision  # comparisons of what is left are exact: only the dropping counts


def test_scores_minus_a_coarse_maximum_feed_a_series() -> None:
    """The softmax pattern: right modulo the width of the coarse maximum is enough for a period below it."""
    from secformer.mpc.functions import Series

    rng, bound = np.random.default_rng(3), 15.0
    x = np.rint(rng.uniform(-bound, bound, size=(5, 9)) / ULP) * ULP
    f = Series(5, (0.5, 1.0, 0.25), (0.0, -0.5, 0.125))

    def program(s: Any, x: Share) -> list[Share]:
        m = s.maximum(x, 1, bound=bound, precision=3)
        return [s.series(x - m, [f])[0], s.lift(m)[0]]

    (got, m), _ = run(program, x)
    assert np.abs(got - f(x - m)).max() < 1e-3


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_windows_that_are_too_wide_are_refused() -> None:
    for program in (
        lambda s, x: s.relu(x, bound=2.0**17),
        lambda s, x: s.less(x, [2.0**16], bound=1.0)[0],
        lambda s, x: s.maximum(x, 0, bound=2.0**16),
    ):
        with pytest.raises(RangeError, match="Lower the bound or the precision"):
            compute(program, np.zeros(3))


def test_a_share_narrower_than_the_window_is_refused() -> None:
    with pytest.raises(RangeError, match="at most 20"):
        compute(lambda s, x: s.relu(x, bound=64.0), Words(words_of([1, 2]), 16, 20))


@pytest.mark.parametrize(
    "program",
    [
        lambda s, x: s.relu(x, bound=0.0),
        lambda s, x: s.relu(x, bound=-1.0),
        lambda s, x: s.relu(x, bound=math.nan),
        lambda s, x: s.relu(x, bound=math.inf),
        lambda s, x: s.less(x, [], bound=1.0),
        lambda s, x: s.less(x, [math.nan], bound=1.0)[0],
    ],
)
def test_impossible_bounds_and_thresholds_are_refused(program: Any) -> None:
    with pytest.raises(SecformerError):
        compute(program, np.zeros(3))
