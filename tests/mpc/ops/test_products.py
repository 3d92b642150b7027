"""Products: exact modulo their width over random shapes; weights, narrow words, shared operands, accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from mpc_lab import KERNELS, ULP, Raw, Words, compute, examples, kernels_named, reduced, run, words_of

from secformer.mpc.dealer.kinds import WeightMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard, MatMul
from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import FixedPoint, encode
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

REACH = 2.0**7 - ULP  # two of them make a product just below the promised 2^14


def values(rng: np.random.Generator, shape: tuple[int, ...], reach: float = REACH) -> np.ndarray:
    x = rng.uniform(-reach, reach, size=shape)
    edge = rng.random(shape) < 0.2
    return np.where(edge, rng.choice([0.0, ULP, -ULP, reach, -reach], size=shape), np.rint(x / ULP) * ULP)


def exact(a: np.ndarray, b: np.ndarray, width: int, multiply: Any = np.multiply, frac: int = 16) -> np.ndarray:
    """The product of the words as integers, mod 2^width."""
    x, y = (encode(v, frac).view(np.int64).astype(object) for v in (a, b))
    return reduced(words_of(multiply(x, y)), width)


@examples(40)
@given(
    shapes=mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=3, min_side=0, max_side=4),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
    trivial=st.booleans(),
)
def test_mul_is_exact_over_broadcast_shapes(shapes: Any, seed: int, name: str, trivial: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = (values(rng, s) for s in shapes.input_shapes)
    got: Raw = compute(
        lambda s, x, y: s.mul(x, y), x, y, raw=True, seed=seed, kernels=kernels_named(name), trivial=trivial
    )
    assert (got.frac, got.width) == (32, 48)
    assert got.words.shape == shapes.result_shape
    np.testing.assert_array_equal(got.words, exact(x, y, 48))


@examples(30)
@given(frac=st.integers(4, 24), data=st.data(), seed=st.integers(0, 999))
def test_mul_in_every_format_settles_within_one_unit(frac: int, data: st.DataObject, seed: int) -> None:
    magnitude = data.draw(st.integers(2, min(62 - 2 * frac, 48 - frac)))  # float64 still tells units apart
    rng, unit = np.random.default_rng(seed), 2.0**-frac
    reach = 2.0 ** (magnitude // 2) - unit
    x, y = (np.rint(rng.uniform(-reach, reach, size=20) / unit) * unit for _ in range(2))
    x[:2], y[:2] = (reach, -reach), reach
    got = compute(lambda s, x, y: s.mul(x, y), x, y, fixed=FixedPoint(frac, magnitude), seed=seed)
    assert np.abs(got - x * y).max() <= unit


@examples(30)
@given(
    shape=st.tuples(*[st.integers(0, 6)] * 3),
    batch=st.sampled_from([(), (1,), (2,), (2, 3)]),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
)
def test_matmul_is_exact(shape: tuple[int, int, int], batch: tuple[int, ...], seed: int, name: str) -> None:
    n, k, m = shape
    rng = np.random.default_rng(seed)
    x, y = values(rng, (*batch, n, k), 40.0), values(rng, (*batch, k, m), 40.0)
    got: Raw = compute(lambda s, x, y: s.matmul(x, y), x, y, raw=True, seed=seed, kernels=kernels_named(name))
    assert got.words.shape == (*batch, n, m)
    expected = exact(x, y, 48, np.matmul) if k else np.zeros((*batch, n, m), dtype=np.uint64)
    np.testing.assert_array_equal(got.words, expected)


def test_square_equals_mul_and_opens_once() -> None:
    x = values(np.random.default_rng(1), (50,))
    (a, b), outcome = run(lambda s, x: [s.square(x), s.mul(x, x)], x, raw=True)
    np.testing.assert_array_equal(a.words, exact(x, x, 48))
    np.testing.assert_array_equal(a.words, b.words)
    assert [k.shapes for k in outcome.plan.kinds if isinstance(k, Hadamard)] == [((50,),)] * 2


def test_a_matrix_times_itself() -> None:
    """The same share on both sides opens once; matrix products do not commute, so a e is not e a."""
    x = values(np.random.default_rng(2), (4, 4), 30.0)
    got: Raw = compute(lambda s, x: s.matmul(x, x), x, raw=True)
    np.testing.assert_array_equal(got.words, exact(x, x, 48, np.matmul))


def test_mul_many_opens_shared_operands_once() -> None:
    rng = np.random.default_rng(3)
    x, y, z = values(rng, (3, 4)), values(rng, (4,)), values(rng, (3, 1))

    def program(s: Any, x: Share, y: Share, z: Share) -> list[Share]:
        return s.mul_many([(x, y), (y, z), (x, x), (z, x), (y, y), (x, y)])

    results, outcome = run(program, x, y, z, raw=True)
    for got, (a, b) in zip(results, [(x, y), (y, z), (x, x), (z, x), (y, y), (x, y)], strict=True):
        np.testing.assert_array_equal(got.words, exact(a, b, 48))
    (kind,) = outcome.plan.kinds
    assert isinstance(kind, Hadamard)
    assert kind.shapes == ((3, 4), (4,), (3, 1))
    assert outcome.cost.rounds == 1
    assert outcome.cost.bytes == 2 * 6 * (12 + 4 + 3)


def test_mul_many_lifts_pending_operands_in_its_own_round() -> None:
    x, y = np.array([1.5, -2.0]), np.array([3.0, 0.5])

    def program(s: Any, x: Share, y: Share) -> list[Share]:
        p, q = s.mul_many([(x, y), (y, y)])
        return s.mul_many([(p, q), (p, x)])

    (a, b), outcome = run(program, x, y)
    assert outcome.cost.rounds == 2 + 2  # products, products of products; two reveals settle one each
    assert np.abs(a - x * y * y * y).max() <= 8 * ULP
    assert np.abs(b - x * y * x).max() <= 8 * ULP


@pytest.mark.parametrize("magnitude", [4, 9, 14, 22, 30])
def test_a_stated_magnitude_sets_the_window(magnitude: int) -> None:
    reach = np.floor(2.0 ** (magnitude / 2 + 16)) * ULP - ULP
    x = np.array([reach, -reach, 0.5, ULP])
    y = np.array([reach, reach, -0.5, ULP])
    (got,), outcome = run(lambda s, x, y: s.mul(x, y, magnitude=magnitude), x, y)
    width = -(-(34 + magnitude) // 8) * 8
    assert outcome.plan.kinds[0].pairs == ((0, 1, width),)
    assert outcome.plan.kinds[1].window == width - 16  # what is settled is opened without the bits that are dropped
    assert np.abs(got - x * y).max() <= ULP


def test_a_product_that_no_word_holds_is_refused() -> None:
    with pytest.raises(RangeError, match="needs 65 bits"):
        compute(lambda s, x: s.square(x, magnitude=31), np.ones(2))


# ---- weights --------------------------------------------------------------------------------------------------------


def with_weights(
    weights: list[tuple[np.ndarray, int, int]], x: Words, name: str = KERNELS[-1], fixed: FixedPoint | None = None
) -> tuple[list[Raw], Any]:
    """x @ W for each weight (integers, frac, width), provisioned and used in one run."""

    def program(s: Any, x: Share, *ws: Share) -> list[Share]:
        kept = [s.open_weight(w.data, frac=frac, width=width) for w, (_, frac, width) in zip(ws, weights, strict=True)]
        return s.matmul_many([(x, w) for w in kept])

    return run(
        program, x, *(Words(words_of(w), 0) for w, _, _ in weights), raw=True, kernels=kernels_named(name), fixed=fixed
    )


@examples(25)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    widths=st.lists(st.sampled_from([16, 24, 32, 40, 48, 64]), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
)
def test_weights_of_every_width_are_exact_modulo_it(
    shape: tuple[int, int, int], widths: list[int], seed: int, name: str
) -> None:
    n, k, m = shape
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**22), 2**22, size=(n, k)).astype(object)
    ws = [rng.integers(-(2**20), 2**20, size=(k, m)).astype(object) for _ in widths]
    results, outcome = with_weights(
        [(w, 0, width) for w, width in zip(ws, widths, strict=True)], Words(words_of(x)), name
    )
    for got, w, width in zip(results, ws, widths, strict=True):
        right = 48 if width == 64 else width
        assert got.width == right
        np.testing.assert_array_equal(got.words, reduced(words_of(x @ w), right))
    used = outcome.plan.kinds[-1]
    assert isinstance(used, MatMul)
    assert used.opened == n * k * max(r // 8 for r in (48 if w == 64 else w for w in widths))


@pytest.mark.parametrize("width", [24, 32])
@pytest.mark.parametrize("x_width", [24, 32, 64])
def test_narrow_shares_times_narrow_weights(kernels: Any, width: int, x_width: int) -> None:
    """Private embeddings: a one-hot row times a table, wrong above the narrower width and right below it."""
    rng = np.random.default_rng(width + x_width)
    table = rng.integers(-(2**14), 2**14, size=(9, 5)).astype(object)
    hot = np.eye(9, dtype=object)[[3, 0, 8, 3]]
    (got,), _ = with_weights([(table, 16, width)], Words(words_of(hot), 0, x_width), kernels.name)
    assert (got.frac, got.width) == (16, min(width, x_width))
    np.testing.assert_array_equal(got.words, reduced(words_of(hot @ table), got.width))


def test_a_narrow_product_is_lifted_and_revealed() -> None:
    table = np.array([[1.5, -3.25], [100.0, -100.0]])

    def program(s: Any, hot: Share, table: Share) -> Share:
        return s.matmul(hot, s.open_weight(table.data, width=32), magnitude=7)

    got = compute(program, Words(words_of([[0, 1], [1, 0], [1, 1]]), 0), table)
    np.testing.assert_array_equal(got, [table[1], table[0], table[0] + table[1]])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("frac", "magnitude"), [(8, 14), (4, 8), (6, 18)])
def test_weights_in_formats_whose_products_fit_32_bits(name: str, frac: int, magnitude: int) -> None:
    rng = np.random.default_rng(frac)
    x, w = rng.integers(-9, 9, size=(3, 5)).astype(object), rng.integers(-9, 9, size=(5, 3)).astype(object)
    fixed = FixedPoint(frac, magnitude)
    (got,), _ = with_weights([(w, frac, 64)], Words(words_of(x), frac), name, fixed)
    assert got.width <= 32
    np.testing.assert_array_equal(got.words, reduced(words_of(x @ w), got.width))


def test_a_weight_serves_many_runs_and_pays_once(pair: Any) -> None:
    rng = np.random.default_rng(4)
    w, table = values(rng, (6, 3), 5.0), {}
    world = World(kernels=kernels_named(KERNELS[-1]), connect=pair)

    def load(s: Any, words: np.ndarray) -> None:
        table[s] = s.open_weight(words)

    mask = rng.integers(0, 2**64, size=w.shape, dtype=np.uint64)
    loaded = world.run(load, mask, encode(w, 16) - mask)
    assert (loaded.cost.bytes, loaded.cost.offline_bytes, loaded.cost.offline_rounds) == (0, 2 * 8 * 18, 1)
    for _ in range(3):
        x = values(rng, (2, 6), 5.0)
        got, outcome = run(lambda s, x: s.matmul(x, table[s]), x, world=world)
        assert np.abs(got[0] - x @ w).max() <= ULP
        assert outcome.cost.offline_bytes == 0


# ---- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (2, 3)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 2, 3), (3, 2)),
        ((2, 2, 3), (3, 3, 2)),
        ((2, 3), (1, 3, 2)),
        ((1, 2, 3), (2, 3, 2)),
    ],
)
def test_matrices_that_do_not_fit_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="equal batch axes"):
        compute(lambda s, x, y: s.matmul(x, y), np.zeros(a), np.zeros(b))


@pytest.mark.parametrize("name", KERNELS)
def test_a_stack_of_matrices_and_columns_of_it(name: str) -> None:
    """Products pay for the columns that they take, and x is opened once for both."""
    rng = np.random.default_rng(8)
    x, w = (rng.integers(-(2**20), 2**20, size=shape).astype(object) for shape in ((3, 4, 5), (3, 5, 7)))

    def program(s: Any, x: Share, w: Share) -> list[Share]:
        kept = s.open_weight(w.data, frac=0)
        assert kept.columns(0, 7) is kept and kept.columns(2, 5).shape == (3, 5, 3)
        return s.matmul_many([(x, kept), (x, kept.columns(2, 5))])

    (whole, some), outcome = run(program, Words(words_of(x)), Words(words_of(w), 0), raw=True,
                                 kernels=kernels_named(name))
    expected = reduced(words_of(np.matmul(x, w)), 48)
    np.testing.assert_array_equal(whole.words, expected)
    np.testing.assert_array_equal(some.words, expected[..., 2:5])
    used = outcome.plan.kinds[-1]
    assert used.opened == x.size * 6 and used.corrections == (3 * 4 * 7 + 3 * 4 * 3) * 6


@pytest.mark.parametrize("name", KERNELS)
def test_a_weight_serves_transposed_too(name: str) -> None:
    """A table that rows are looked up in, and that gives a tied head's logits: one opening, two products."""
    rng = np.random.default_rng(8)
    x, y, w = (rng.uniform(-1, 1, shape) for shape in ((2, 7), (2, 4), (7, 4)))

    def program(s: Any, x: Share, y: Share, w: Share) -> list[Share]:
        kept = s.open_weight(w.data)
        turned = kept.transposed()
        assert turned.shape == (4, 7) and turned.index == (kept.index, 0, 4, 1)
        with pytest.raises(ShapeError, match="a whole weight is transposed"):
            turned.transposed()
        return s.matmul_many([(x, kept), (y, turned)])

    (found, logits), out = run(program, x, y, w, kernels=kernels_named(name))
    assert np.abs(found - x @ w).max() < 20 * ULP and np.abs(logits - y @ w.T).max() < 20 * ULP
    assert sum(isinstance(kind, WeightMask) for kind in out.plan.kinds) == 1
    assert Plan.from_dict(out.plan.as_dict()) == out.plan


@pytest.mark.parametrize("columns", [(-1, 2), (2, 2), (0, 4), (3, 1)])
def test_columns_that_are_not_there_are_refused(columns: tuple[int, int]) -> None:
    s = PlainSession()
    w = s.open_weight(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="within its 3"):
        w.columns(*columns)
    with pytest.raises(ShapeError, match="of a whole weight"):
        w.columns(0, 2).columns(0, 1)


def test_a_batch_times_a_weight_is_refused() -> None:
    with pytest.raises(ShapeError):
        compute(lambda s, x, w: s.matmul(x, s.open_weight(w.data)), np.zeros((2, 3, 4)), np.zeros((4, 2)))


def test_select_takes_either_side_exactly() -> None:
    rng = np.random.default_rng(5)
    x, y = values(rng, (40,), 4000.0), values(rng, (40,), 4000.0)
    bits = rng.integers(0, 2, size=40)
    got = compute(lambda s, b, x, y: s.select(b, x, y), Words(words_of(bits), 0, 48), x, y)
    np.testing.assert_array_equal(got, np.where(bits == 1, x, y))


def test_select_between_pending_values() -> None:
    x, y, bits = np.array([3.5, -2.0, 7.0]), np.array([1.5, 4.0, -6.0]), np.array([1, 0, 1])
    got = compute(lambda s, b, x, y: s.select(b, s.mul(x, y), s.square(y)), Words(words_of(bits), 0, 48), x, y)
    assert np.abs(got - np.where(bits == 1, x * y, y * y)).max() <= 4 * ULP


def test_bits_times_bits_and_bits_times_values() -> None:
    bits, others, x = np.array([1, 0, 1, 0]), np.array([1, 1, 0, 0]), np.array([1.5, -2.0, 3.0, 9.0])

    def program(s: Any, b: Share, c: Share, x: Share) -> list[Share]:
        return [s.mul(b, c), s.mul(b, x), s.mul(b, x, magnitude=28)]

    (a, b, c), _ = run(program, Words(words_of(bits), 0, 48), Words(words_of(others), 0, 48), x)
    np.testing.assert_array_equal(a, bits * others)
    np.testing.assert_array_equal(b, bits * x)
    np.testing.assert_array_equal(c, bits * x)  # wider than a bit's words: the bit is lifted first
