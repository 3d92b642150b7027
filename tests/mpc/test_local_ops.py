"""What costs nothing: alignment, scaling, sums, shapes; and bringing values in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, ULP, Raw, Words, compute, examples, kernels_named, run, words_of

from secformer.mpc.errors import RangeError, SecformerError, SettingsError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.operators import LocalOperators
from secformer.mpc.session import CLIENT
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

REACH = 2.0**13


def units(rng: np.random.Generator, *shape: int, reach: float = REACH) -> np.ndarray:
    """Values that fixed point holds exactly, with extremes."""
    x = rng.uniform(-reach, reach, size=shape)
    x = np.where(rng.random(shape) < 0.2, rng.choice([0.0, ULP, -ULP, reach - ULP, ULP - reach], size=shape), x)
    return np.rint(x / ULP) * ULP


def test_what_is_free() -> None:
    """What `operators` has sends nothing. What sends is a verb of the session."""
    free = {name for name, f in vars(LocalOperators).items() if callable(f) and not name.startswith("_")}
    assert free == {"public", "add", "subtract", "negate", "scale", "sum", "concatenate", "broadcast_to", "transpose"}


# ---- alignment ------------------------------------------------------------------------------------------------------


@examples(40)
@given(
    fracs=st.tuples(st.integers(-8, 40), st.integers(-8, 40)),
    widths=st.tuples(st.integers(20, 64), st.integers(20, 64)),
    seed=st.integers(0, 999),
    minus=st.booleans(),
)
def test_addition_aligns_exactly(fracs: tuple[int, int], widths: tuple[int, int], seed: int, minus: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-1000, 1000, size=12).astype(object) for _ in range(2))
    got: Raw = compute(
        lambda s, x, y: x - y if minus else x + y,
        Words(words_of(a), fracs[0], widths[0]),
        Words(words_of(b), fracs[1], widths[1]),
        raw=True,
    )
    frac = max(fracs)
    assert got.frac == frac
    assert got.width == min(64, *(w + frac - f for f, w in zip(fracs, widths, strict=True)))
    total = (a << frac - fracs[0]) + (b << frac - fracs[1]) * (-1 if minus else 1)
    np.testing.assert_array_equal(got.words, words_of([int(t) % 2**got.width for t in total]))


@pytest.mark.parametrize("frac", [0, 8, 16, 32])
def test_public_numbers_of_every_kind_add(frac: int) -> None:
    values = np.array([-3.0, 0.0, 2.0])
    x = Words(words_of([int(v) << frac for v in values]), frac, 48)
    cases: list[tuple[Any, Any]] = [
        (lambda s, x: x + 1, values + 1),
        (lambda s, x: 1 + x, values + 1),
        (lambda s, x: x - 1, values - 1),
        (lambda s, x: 1 - x, 1 - values),
        (lambda s, x: x + 0.5, values + 0.5),
        (lambda s, x: 0.25 - x, 0.25 - values),
        (lambda s, x: x + np.array([1, 2, 3]), values + np.array([1, 2, 3])),
        (lambda s, x: np.array([1.5, 2, 3]) - x, [1.5, 2, 3] - values),
        (lambda s, x: np.float64(2.5) + x, values + 2.5),
        (lambda s, x: np.int32(7) - x, 7 - values),
        (lambda s, x: -x, -values),
        (lambda s, x: x + True, values + 1),
    ]
    for program, expected in cases:
        got: Raw = compute(program, x, raw=True)
        np.testing.assert_array_equal(got.value, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64, np.int8, np.bool_])
def test_subtracting_small_or_unsigned_integers(dtype: type) -> None:
    """Negating a uint8 wraps at 256, and -128 has no int8 negative: the engine must not inherit that."""
    c = np.array([1, 0, 1]).astype(dtype) if dtype is np.bool_ else np.array([3, 0, 100]).astype(dtype)
    if dtype is np.int8:
        c[1] = -128
    x = np.array([1.5, -2.0, 0.0])
    got = compute(lambda s, x: x - c, x)
    np.testing.assert_array_equal(got, x - c.astype(np.float64))


def test_integers_added_to_bits_keep_them_bits() -> None:
    got: Raw = compute(lambda s, b: 1 - b, Words(words_of([0, 1, 1]), 0, 48), raw=True)
    assert (got.frac, got.width) == (0, 48)
    assert got.words.tolist() == [1, 0, 0]


# ---- scaling --------------------------------------------------------------------------------------------------------


@examples(30)
@given(c=st.integers(-1000, 1000), seed=st.integers(0, 99), as_array=st.booleans())
def test_integers_scale_exactly(c: int, seed: int, as_array: bool) -> None:
    x = units(np.random.default_rng(seed), 10, reach=8.0)
    got = compute(lambda s, x: x * (np.full(10, c) if as_array else c), x)
    np.testing.assert_array_equal(got, x * c)


@pytest.mark.parametrize("exponent", [-30, -16, -3, -1, 0, 1, 5, 13])
@pytest.mark.parametrize("sign", [1, -1])
def test_powers_of_two_only_move_the_point(exponent: int, sign: int) -> None:
    x = units(np.random.default_rng(exponent + 50), 20, reach=2.0 ** (13 - max(0, exponent)))
    factor = sign * 2.0**exponent
    (got,), outcome = run(lambda s, x: factor * x, x, raw=True)
    assert outcome.cost.rounds == 0
    assert got.frac == 16 - exponent
    np.testing.assert_array_equal(got.value, x * factor)
    settled = compute(lambda s, x: x * factor, x)
    assert np.abs(settled - x * factor).max() < ULP


@examples(40)
@given(c=st.floats(2.0**-40, 2.0**13).flatmap(lambda v: st.sampled_from([v, -v])), seed=st.integers(0, 99))
def test_other_factors_are_rounded_relatively(c: float, seed: int) -> None:
    """A factor keeps at least as many significant bits as values have fractional ones, where the words have room."""
    x = units(np.random.default_rng(seed), 20, reach=min(2.0**13, 2.0**13 / abs(c)) if abs(c) > 1 else 2.0**13)
    got = compute(lambda s, x: x * c, x)
    rounded = max(abs(c) * 2.0**-16, 2.0**-33)
    assert np.abs(got - x * c).max() <= np.abs(x).max() * rounded + ULP


@pytest.mark.parametrize(
    "c", [1e-300, 1e-12, 3e-9, 5e-324, 2.0**-47, 2.0**-60]
)
def test_tiny_factors_give_nearly_nothing(c: float) -> None:
    x = np.array([1.0, -8000.0])
    assert np.abs(compute(lambda s, x: x * c, x) - x * c).max() <= ULP


@pytest.mark.parametrize("c", [1e6, 2.0**20, 3.5e4])
def test_large_factors_of_small_values(c: float) -> None:
    x = np.array([ULP, -3 * ULP, 0.0, 7 * ULP])
    assert np.abs(compute(lambda s, x: x * c, x) / (x * c + (x == 0)) - (x != 0)).max() < 2.0**-15


def test_factors_of_many_sizes_in_one_array() -> None:
    c = np.array([1000.0, 1.0, -0.001, 0.0])
    x = np.array([1.0, 2.0, 3.0, 4.0])
    got = compute(lambda s, x: x * c, x)
    assert np.abs(got - x * c).max() <= 1000 * 2.0**-16 * 4


def test_zero_scales_to_zero() -> None:
    for zero in (0, 0.0, np.zeros(3)):
        np.testing.assert_array_equal(
            compute(lambda s, x, zero=zero: x * zero, np.array([1.0, -2.0, 3.0])), np.zeros(3)
        )


def test_scaling_broadcasts_either_way() -> None:
    x, c = np.array([1.0, -2.0]), np.array([[0.3], [2.0], [-1.7]])
    got = compute(lambda s, x: c * x, x)
    assert got.shape == (3, 2)
    assert np.abs(got - c * x).max() < 1e-4


@pytest.mark.parametrize("c", [np.nan, np.inf, -np.inf, np.array([1.0, np.nan])])
def test_factors_that_are_not_numbers_are_refused(c: Any) -> None:
    with pytest.raises(RangeError, match="finite"):
        compute(lambda s, x: x * c, np.zeros(2))


def test_scaling_a_pending_product_settles_it_first() -> None:
    x = np.array([1.5, -3.0, 100.0])
    (got,), outcome = run(lambda s, x: s.square(x) * 0.3, x)
    assert outcome.plan.rounds == 3
    assert np.abs(got - 0.3 * x * x).max() <= 0.05


# ---- sums and shapes ------------------------------------------------------------------------------------------------


@examples(25)
@given(axis=st.integers(-3, 2), keepdims=st.booleans(), seed=st.integers(0, 99), name=st.sampled_from(KERNELS))
def test_sum_and_mean(axis: int, keepdims: bool, seed: int, name: str) -> None:
    x = units(np.random.default_rng(seed), 2, 3, 4, reach=100.0)
    (total, mean), _ = run(
        lambda s, x: [x.sum(axis, keepdims), s.sum(x, axis, True) * 1 - x.mean(axis, True) * 0],
        x,
        kernels=kernels_named(name),
    )
    np.testing.assert_array_equal(total, x.sum(axis, keepdims=keepdims))
    assert mean.shape == x.sum(axis, keepdims=True).shape
    got = compute(lambda s, x: x.mean(axis, keepdims), x)
    assert np.abs(got - x.mean(axis, keepdims=keepdims)).max() < 400 * 2.0**-16


def test_shapes_follow_numpy() -> None:
    x = units(np.random.default_rng(1), 2, 3, 4)
    cases: list[tuple[Any, Any]] = [
        (lambda s, x: x[1], x[1]),
        (lambda s, x: x[..., 1:], x[..., 1:]),
        (lambda s, x: x[:, None, ::2], x[:, None, ::2]),
        (lambda s, x: x.reshape(6, 4), x.reshape(6, 4)),
        (lambda s, x: x.reshape(-1), x.reshape(-1)),
        (lambda s, x: x.transpose(2, 0, 1), x.transpose(2, 0, 1)),
        (lambda s, x: x.swapaxes(-1, 0), x.swapaxes(-1, 0)),
        (lambda s, x: s.broadcast_to(x[:1], (5, 3, 4)), np.broadcast_to(x[:1], (5, 3, 4))),
        (lambda s, x: s.concatenate([x, x[:, :1]], axis=1), np.concatenate([x, x[:, :1]], axis=1)),
        (lambda s, x: s.concatenate([x, x], axis=-1), np.concatenate([x, x], axis=-1)),
    ]
    for program, expected in cases:
        np.testing.assert_array_equal(compute(program, x), expected)

    def facts(s: Any, x: Share) -> Share:
        assert (x.shape, x.ndim, x.size, len(x)) == ((2, 3, 4), 3, 24, 2)
        return x

    compute(facts, x)


def test_concatenation_aligns_and_takes_the_narrower_width() -> None:
    a, b = Words(words_of([4, -4]), 2, 40), Words(words_of([3]), 0, 64)
    got: Raw = compute(lambda s, a, b: s.concatenate([a, b]), a, b, raw=True)
    assert (got.frac, got.width) == (2, 40)
    assert got.value.tolist() == [1.0, -1.0, 3.0]


def test_scalars_without_axes() -> None:
    """Words wrap by design: NumPy's warnings about scalars are not for the user."""

    def program(s: Any, x: Share, y: Share) -> list[Share]:
        return [
            s.mul(x, y),
            s.square(x) - 1.0,
            -x + y * 3,
            s.relu(x, bound=8.0),
            s.less(x, [1.0], bound=8.0)[0],
            x.reshape(1).sum(0),
        ]

    results, _ = run(program, np.array(-3.0), np.array(2.5))
    for got, expected in zip(results, [-7.5, 8.0, 10.5, 0.0, 1.0, -3.0], strict=True):
        assert got.shape == ()
        assert abs(float(got) - expected) <= ULP


def test_empty_arrays_go_through_every_verb() -> None:
    from secformer.mpc.functions import Exponential, Series

    f = Series(6, (0.0, 1.0), (0.0, 0.0))

    def program(s: Any, x: Share) -> list[Share]:
        return [
            s.mul(x, x),
            s.matmul(x.transpose(), x),
            s.matmul(x, x.transpose()),
            s.series(x, [f])[0],
            s.exponential(x, Exponential(5, 0.0)),
            s.relu(x, bound=2.0),
            s.less(x, [0.0], bound=2.0)[0],
            x * 0.3,
            x.sum(1),
            s.select(s.less(x, [0.0], bound=2.0)[0], x, x),
        ]

    results, _ = run(program, np.zeros((3, 0)))
    assert [r.shape for r in results] == [(3, 0), (0, 0), (3, 3), *[(3, 0)] * 5, (3,), (3, 0)]
    assert not results[2].any()


# ---- in and out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("to", [0, 1, CLIENT])
def test_share_and_reveal_by_each_owner(owner: int, to: Any, pair: Any) -> None:
    x = units(np.random.default_rng(owner), 3, 5)

    def program(s: Any, mine: Any) -> Any:
        return s.reveal(s.share(mine, owner, shape=(3, 5)), to)

    inputs = (x, None) if owner == 0 else (None, x)
    outcome = World(connect=pair).run(program, *inputs)
    a, b = outcome.results
    if to == CLIENT:
        np.testing.assert_array_equal((a + b).view(np.int64) / 2.0**16, x)
    else:
        np.testing.assert_array_equal((a, b)[to], x)
        assert (a, b)[1 - to] is None
    assert outcome.cost.rounds == outcome.plan.rounds == (1 if to == CLIENT else 2)


def test_share_broadcasts_to_the_public_shape() -> None:
    def program(s: Any, mine: Any) -> Any:
        return s.reveal(s.share(mine, 0, shape=(2, 3)), 0)

    np.testing.assert_array_equal(World().run(program, np.array([1.0, 2.0, 3.0])).results[0], [[1, 2, 3]] * 2)


def test_the_party_without_the_value_must_say_its_shape() -> None:
    with pytest.raises(ShapeError, match="public shape"):
        World().run(lambda s, x: s.share(x, 1), None, np.zeros(3))


@pytest.mark.parametrize("x", [np.array([np.nan]), np.array([2.0**47]), np.array([-np.inf])])
def test_values_that_fixed_point_cannot_hold_are_refused(x: np.ndarray) -> None:
    with pytest.raises(RangeError, match="16 fractional bits"):
        World(deadline=5).run(lambda s, x: s.reveal(s.share(x, 0, shape=(1,)), 0), x)


def test_an_unknown_owner_or_receiver_is_refused() -> None:
    with pytest.raises(SettingsError, match="0, 1 or CLIENT"):
        World(deadline=1).run(lambda s, x: s.reveal(s.public(np.ones(2)), "everyone"))
    with pytest.raises(SettingsError):
        World(deadline=0.5).run(lambda s, x: s.share(np.ones(2), 2))


def test_public_values_are_values_and_mix_with_shares() -> None:
    c = np.array([1.25, -2.0])
    (a, b, p), _ = run(
        lambda s, x: [s.public(c), s.public(0.5, shape=(2,)) + x, s.mul(s.public(c), x)], np.array([4.0, 8.0])
    )
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, [4.5, 8.5])
    assert np.abs(p - c * [4.0, 8.0]).max() <= ULP


@pytest.mark.parametrize(("frac", "width"), [(0, 8), (3, 11), (16, 24), (16, 31), (20, 40), (32, 48), (10, 64)])
def test_reveal_lifts_settles_and_aligns(frac: int, width: int) -> None:
    magnitude = min(14, width - frac - 2)
    value = 2.0 ** (magnitude - 1)
    x = Words(words_of([int(value * 2.0**frac), int(-value * 2.0**frac), 0]), frac, width)
    got = compute(lambda s, x: Share(s, x.data, x.frac, x.width, magnitude), x)
    np.testing.assert_array_equal(got, [value, -value, 0.0])


def test_accepted_words_are_not_shared_with_the_caller() -> None:
    """A caller that overwrites its buffer later must not change a share that was made from it."""
    words = np.arange(4, dtype=np.uint64) << np.uint64(16)

    def program(s: Any, mine: np.ndarray) -> Any:
        share = s.accept(mine)
        if getattr(s, "party", None) is not None:
            mine[:] = 0
        return s.reveal(share, CLIENT)

    a, b = World().run(program, words.copy(), np.zeros(4, dtype=np.uint64)).results
    np.testing.assert_array_equal(a + b, words)


def test_an_operand_keeps_its_words() -> None:
    """Large narrow rows are neither widened nor copied before they are multiplied."""
    mine = np.arange(6, dtype=np.uint32).reshape(2, 3)
    theirs, weight = np.uint32(0) - mine, np.arange(6, dtype=np.uint64).reshape(3, 2)
    mine[1, 2] += 1  # so the rows are 0, but for a 1

    def program(s: Any, x: np.ndarray) -> Any:
        rows = s.accept(x, frac=0, width=32, operand=True)
        assert getattr(s, "party", None) is None or rows.data is x
        kept = s.open_weight(weight if x is mine else np.zeros((3, 2), np.uint64), frac=0, width=32)
        return s.lift(s.matmul(rows[:, 1:], s.open_weight(weight[1:] * np.uint64(x is mine), frac=0, width=32)),
                      s.matmul(rows, kept))

    a, b = World(backend="numpy").run(program, mine, theirs).results
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.data + y.data, [[0, 0], [4, 5]])


def test_accepting_anything_but_words_is_refused() -> None:
    """Floats cast to words would silently become other values."""
    with pytest.raises(SecformerError):
        World(deadline=2).run(lambda s, x: s.reveal(s.accept(np.array([1.5, -2.0])), CLIENT))


@pytest.mark.parametrize("fixed", [FixedPoint(4, 20), FixedPoint(24, 14), FixedPoint(18, 12)])
def test_other_formats(fixed: FixedPoint) -> None:
    x = np.array([1.5, -2.25, 0.0])
    (a, b), _ = run(lambda s, x: [x * 2.0 + 1, x - 0.25], x, fixed=fixed)
    np.testing.assert_array_equal(a, x * 2 + 1)
    np.testing.assert_array_equal(b, x - 0.25)


@pytest.mark.parametrize("c", [100.0, -3.3, 1.5, 1000.25])
def test_factors_above_one_move_the_promise(c: float) -> None:
    """A share of 0 or 1 promises magnitude 1; a hundred times it must not be truncated in that window."""
    x = np.array([-1.0, 1.0, 0.5])
    got = compute(lambda s, x: s.less(x, [0.0], bound=4.0)[0] * c, x)
    assert np.abs(got - (x < 0) * c).max() <= 2.0**-8


@pytest.mark.parametrize("name", KERNELS)
def test_a_weight_as_a_share(name: str) -> None:
    """The value that was opened under the mask, not the mask; no round, no byte online."""
    w, x = np.random.default_rng(3).uniform(-4, 4, (2, 3, 5))

    def program(s: Any, w: Share, x: Share) -> list[Share]:
        held = s.held(s.open_weight(w.data))
        return [held, s.concatenate([held, x])]

    (held, joined), outcome = run(program, w, x, world=World(kernels=kernels_named(name)))
    assert np.abs(held - w).max() < ULP and np.abs(joined - np.concatenate([w, x])).max() < ULP
    assert outcome.cost.rounds == 0
