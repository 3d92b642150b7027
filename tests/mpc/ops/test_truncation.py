"""Exact truncation over the wire: below one unit everywhere in the window, unbiased, a lift at shift 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, ULP, Raw, Words, compute, examples, integers, kernels_named, run, words_of

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.kernels import Kernels
from secformer.mpc.ops.truncate import drop
from secformer.mpc.scales import Truncation
from secformer.mpc.shares import Share


def truncate_all(
    jobs: list[tuple[np.ndarray, int, int]], kernels: Kernels | None = None, seed: int = 0
) -> list[Raw]:
    """Truncates every (words, shift, window) in one round."""

    def program(s: Any, *xs: Share) -> list[Share]:
        data = s._truncate([Truncation(x, shift, window, 64) for x, (_, shift, window) in zip(xs, jobs, strict=True)])
        return [Share(s, d, 0, 64, 14) for d in data]

    settings = {} if kernels is None else {"kernels": kernels}
    results, outcome = run(program, *(Words(z, 0) for z, _, _ in jobs), raw=True, seed=seed, **settings)
    assert outcome.cost.rounds == 1
    return results


def edges(window: int, rng: np.random.Generator, count: int = 40) -> list[int]:
    """Both extremes of |z| < 2^(window - 2), what is beside them and zero, and random values."""
    bound = 1 << (window - 2)
    some = {0, 1, -1, bound - 1, 1 - bound, bound // 2, -bound // 2, bound - 2, 2 - bound}
    random = [int(rng.integers(0, 2**63)) % (2 * bound - 1) - (bound - 1) for _ in range(count)]
    return [v for v in [*some, *random] if abs(v) < bound]


def check(z: list[int], shift: int, got: np.ndarray) -> None:
    for value, result in zip(z, integers(got), strict=True):
        assert abs(result * (1 << shift) - value) < (1 << shift), (value, shift, result)


@pytest.mark.parametrize("window", [2, 3, 8, 9, 24, 31, 32, 33, 40, 48, 56, 63, 64])
def test_every_shift_of_a_window_is_below_one_unit(kernels: Kernels, window: int) -> None:
    rng = np.random.default_rng(window)
    shifts = [s for s in sorted({0, 1, 7, 8, 15, 16, 22, 32, window - 3, window - 2}) if 0 <= s <= window - 2]
    values = [edges(window, rng) for _ in shifts]
    results = truncate_all([(words_of(z), s, window) for z, s in zip(values, shifts, strict=True)], kernels)
    for z, s, result in zip(values, shifts, results, strict=True):
        check(z, s, result.words)


@examples(25)
@given(window=st.integers(2, 64), seed=st.integers(0, 2**16), data=st.data())
def test_random_windows_and_shifts(window: int, seed: int, data: st.DataObject) -> None:
    shift = data.draw(st.integers(0, window - 2))
    z = edges(window, np.random.default_rng(seed), 100)
    (result,) = truncate_all([(words_of(z), shift, window)], seed=seed)
    check(z, shift, result.words)


@pytest.mark.parametrize("window", [8, 24, 48, 64])
def test_shift_zero_is_an_exact_lift(window: int) -> None:
    """Whatever stands above the window: only the low bits of the shares count."""
    rng = np.random.default_rng(window)
    z = edges(window, rng)
    junk = [int(v) << window for v in rng.integers(0, 2**63, size=len(z))] if window < 64 else [0] * len(z)
    (result,) = truncate_all([(words_of([v + j for v, j in zip(z, junk, strict=True)]), 0, window)])
    assert integers(result.words).tolist() == z


def test_multiples_of_the_unit_are_exact() -> None:
    z = [v << 16 for v in (-(2**13) + 1, -5, -1, 0, 1, 77, 2**13 - 1)]
    (result,) = truncate_all([(words_of(z), 16, 48)])
    assert integers(result.words).tolist() == [v >> 16 for v in z]


@pytest.mark.parametrize("z", [0x1234, 0x8000, -0x4001, (1 << 45) + 0xC000, -(1 << 45) + 0x3333])
def test_rounding_is_unbiased(z: int) -> None:
    n = 40_000
    (result,) = truncate_all([(words_of([z] * n), 16, 48)], seed=z % 1000)
    error = integers(result.words).astype(np.float64) - z / 2**16
    part = (z % 2**16) / 2**16
    assert abs(error.mean()) < 6 * np.sqrt(part * (1 - part) / n)
    assert set(integers(result.words).tolist()) == {z >> 16, (z >> 16) + 1}


@examples(25)
@given(frac=st.integers(4, 24), data=st.data(), seed=st.integers(0, 999))
def test_settling_in_every_format(frac: int, data: st.DataObject, seed: int) -> None:
    """A pending value of 2 frac bits, anywhere within the promised magnitude, settles below one unit."""
    magnitude = data.draw(st.integers(1, 62 - 2 * frac))
    bound = 1 << (2 * frac + magnitude)
    rng = np.random.default_rng(seed)
    z = [0, bound - 1, 1 - bound, *(int(v * (bound - 1)) for v in rng.uniform(-1, 1, size=50))]
    fixed = FixedPoint(frac, magnitude)
    got: Raw = compute(
        lambda s, x: s.settle(x)[0],
        Words(words_of(z), 2 * frac, fixed.window(2 * frac, magnitude)),
        fixed=fixed,
        raw=True,
    )
    assert (got.frac, got.width) == (frac, 64)
    check(z, frac, got.words)


@examples(50)
@given(window=st.integers(2, 64), data=st.data(), seed=st.integers(0, 2**16))
def test_dropped_bits_cost_less_than_a_unit(window: int, data: st.DataObject, seed: int) -> None:
    """However the shares lie: both rounded shares add up to z / 2^s rounded down or up, and exact multiples stay."""
    shift = data.draw(st.integers(0, window - 2))
    rng, left = np.random.default_rng(seed), 2 ** (window - shift)
    z = np.array([v % 2**64 for v in edges(window, rng)], dtype=np.uint64)
    z[::3] &= np.uint64(2**64 - 2**shift)
    mask = rng.integers(0, 2**64, size=z.size, dtype=np.uint64)
    mask[:4] = 0, 2**64 - 1, (1 << shift) - 1, 1 << shift
    totals = [k.plain(drop(z - mask, shift, up=False)) + k.plain(drop(mask, shift, up=True))
              for k in map(kernels_named, KERNELS)]
    for total in totals:
        np.testing.assert_array_equal(total, totals[0])
    for value, got in zip(z.tolist(), totals[0].tolist(), strict=True):
        down, up = value >> shift, -(-value >> shift)
        assert got % left in {down % left, up % left}


def test_only_what_is_kept_is_opened() -> None:
    _, outcome = run(lambda s, x: s.settle(s.square(x))[0], np.ones(5), raw=True)
    truncation = outcome.plan.kinds[1]
    assert (truncation.window, truncation.width, truncation.opened) == (32, 64, 5 * 4)


@pytest.mark.parametrize("width", [24, 33, 40, 48, 64])
def test_settled_words_are_as_wide_as_asked(kernels: Kernels, width: int) -> None:
    """What is narrower than the window that is left anyway is as wide as that."""
    x = np.array([1.5, -3.0, 100.0, -127.75, 0.0])
    (got,), outcome = run(lambda s, x: list(s.settle(s.square(x), width=width)), x, raw=True, kernels=kernels)
    lift = outcome.plan.kinds[1]
    assert (lift.window, lift.width, got.width) == (32, max(32, width), max(32, width))
    assert lift.corrections == 2 * x.size * max(0, -(-(width - 32) // 8))
    np.testing.assert_array_equal(got.value, x * x)


def test_operands_are_settled_to_their_products_width(kernels: Kernels) -> None:
    """A matrix product's, the widest of a round, each operand once."""
    values = np.array([[1.5, -3.0], [100.0, -127.75]])

    def program(s: Any, x: Share) -> list[Share]:
        p = s.square(x)
        return s.matmul_many([(p, x), (p, p)], magnitude=22)

    (cube, fourth), outcome = run(program, values, raw=True, kernels=kernels)
    _, *lifts, _ = outcome.plan.kinds
    assert [(type(k).__name__, k.width) for k in lifts] == [("Lift", 56)]
    assert outcome.plan.rounds == 3
    assert cube.width == fourth.width == 56
    np.testing.assert_array_equal(cube.value, values**2 @ values)


def test_settle_is_free_where_nothing_is_pending() -> None:
    x = np.array([1.5, -2.25])
    (a, b), outcome = run(lambda s, x: s.settle(x, x), x, raw=True)
    assert outcome.plan.kinds == ()
    assert outcome.cost.rounds == outcome.cost.bytes == 0
    np.testing.assert_array_equal(a.value, x)
    np.testing.assert_array_equal(b.value, x)


def test_one_share_given_twice_is_truncated_once_and_all_share_a_round() -> None:
    def program(s: Any, x: Share, y: Share) -> list[Share]:
        p, q = s.square(x), s.mul(x, y)
        return list(s.settle(p, q, p, x))

    x, y = np.array([1.5, -3.0]), np.array([0.25, 100.0])
    (p, q, again, same), outcome = run(program, x, y)
    assert [type(k).__name__ for k in outcome.plan.kinds] == ["Hadamard", "Hadamard", "Lift", "Lift"]
    assert outcome.plan.rounds == 3
    np.testing.assert_array_equal(p, again)
    np.testing.assert_array_equal(same, x)
    assert np.abs(p - x * x).max() <= ULP
    assert np.abs(q - x * y).max() <= ULP


def test_lift_brings_narrow_shares_to_whole_words() -> None:
    values = np.array([1.0, -1.0, 31.5, -31.5, 0.0])
    x = Words(words_of([int(v * 4) for v in values]), 2, 8)
    got: Raw = compute(lambda s, x: s.lift(Share(s, x.data, x.frac, x.width, 4))[0], x, raw=True)
    assert got.width == 64
    assert got.value[:2].tolist() == [1.0, -1.0]


def test_a_promise_that_the_width_cannot_hold_is_refused() -> None:
    with pytest.raises(RangeError, match="takes 48 bits to truncate; it has 40"):
        compute(lambda s, x: s.settle(x)[0], Words(np.zeros(2, dtype=np.uint64), 32, 40))
