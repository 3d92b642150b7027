"""Blocks in the twin: heads are split and joined without loss, layers find their own parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row
from secformer.models.data.inputs import Request, TokenInputs
from secformer.models.data.parameters import Parameters, load_weights
from secformer.models.data.shares import uniform
from secformer.models.data.tensors import TABLE, Part, Tensor
from secformer.models.families.blocks import (
    Forward,
    added,
    attending,
    entering,
    join_heads,
    layernorm,
    linear,
    look_up,
    projecting,
    split_heads,
)
from secformer.mpc.errors import SettingsError
from secformer.mpc.fixed import FixedPoint, encode
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.layernorm import layernorm_exact
from secformer.protocols.ranges import Range, Site, with_air
from secformer.protocols.recipes import EXACT, FAITHFUL, MPCFORMER, Recipe

lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def batch_of(sizes: list[int]) -> Batch:
    return Batch(tuple(Row(np.arange(n) % 3, np.zeros(n, np.int64), np.ones(n, np.int64)) for n in sizes))


def tokens(batch: Batch, width: int) -> np.ndarray:
    """Every entry another number."""
    return np.arange(float(batch.tokens * width)).reshape(batch.tokens, width)


@given(lengths, st.integers(1, 3), st.integers(1, 4))
def test_joining_undoes_splitting(sizes: list[int], heads: int, d: int) -> None:
    """With padding and without it."""
    s, batch = PlainSession(), batch_of(sizes)
    x = s.accept(tokens(batch, heads * d))
    there = split_heads(x, batch, heads)
    assert there.shape == (batch.size, heads, batch.longest, d)
    np.testing.assert_array_equal(join_heads(there, batch).data, x.data)


@given(lengths, st.integers(1, 3), st.integers(1, 4))
def test_a_head_has_its_columns_of_every_token_of_its_text(sizes: list[int], heads: int, d: int) -> None:
    """Beyond a text's end stands its first token."""
    s, batch = PlainSession(), batch_of(sizes)
    x = tokens(batch, heads * d)
    there = split_heads(s.accept(x), batch, heads).data
    for i, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        for h in range(heads):
            mine = x[start : start + length, h * d : (h + 1) * d]
            np.testing.assert_array_equal(there[i, h, :length], mine)
            np.testing.assert_array_equal(there[i, h, length:], np.broadcast_to(mine[0], (batch.longest - length, d)))


def forward(s: PlainSession, batch: Batch, sites: dict[str, Site] | None = None, **tensors: np.ndarray) -> Forward:
    """A pass with these parameters (two underscores for a dot)."""
    named = {name.replace("__", "."): values for name, values in tensors.items()}
    matrices = {n: s.open_weight(v) for n, v in named.items() if v.ndim == 2}
    vectors = {n: s.accept(v) for n, v in named.items() if v.ndim == 1}

    def at(site: str) -> Site:
        if sites is None or site not in sites:
            raise SettingsError(f"no site {site}")
        return sites[site]

    return Forward(batch, Parameters(matrices, vectors), EXACT, at)


def test_linear() -> None:
    s, batch = PlainSession(), batch_of([3])
    w, b = np.arange(6.0).reshape(2, 3), np.array([1.0, -1.0, 0.5])
    f = forward(s, batch, here__weight=w, here__bias=b, there__weight=-w, there__bias=b * 7)
    x = tokens(batch, 2)
    np.testing.assert_array_equal(linear(s, s.accept(x), f, "here").data, x @ w + b)
    np.testing.assert_array_equal(linear(s, s.accept(x), f, "here", bias=False).data, x @ w)
    assert linear(s, s.accept(x), f, "here", bias=False, magnitude=s.fixed.whole).width == 64


def test_layernorm_runs_at_its_own_site_with_its_own_parameters() -> None:
    s, batch = PlainSession(), batch_of([2, 1])
    gamma, beta = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 0.0, -1.0])
    at = {"input": Range(-9.0, 9.0), "gain": Range(4.0, 4.0), "variance": Range(1.0, 2.0)}
    f = forward(s, batch, {"layer.0.norm": at}, layer__0__norm__weight=gamma,
                layer__0__norm__bias=beta, layer__1__norm__weight=beta, layer__1__norm__bias=gamma)
    x = tokens(batch, 4)
    found = layernorm(s, s.accept(x), f, "layer.0.norm", 0.25).data
    np.testing.assert_allclose(found, layernorm_exact(x, 0.25) * gamma + beta)
    found = layernorm(s, s.accept(x), f, "layer.0.norm", 0.25, bias=False).data
    np.testing.assert_allclose(found, layernorm_exact(x, 0.25) * gamma)
    with pytest.raises(SettingsError, match=r"no site layer\.1\.norm"):
        layernorm(s, s.accept(x), f, "layer.1.norm", 0.25)


@pytest.mark.parametrize("segments", [0, 2])
def test_one_hot_rows_look_up_words_and_segments(segments: int) -> None:
    s, inputs = PlainSession(), TokenInputs(3, segments, 8, 4)
    table = np.arange(float((3 + segments) * 4)).reshape(3 + segments, 4)
    batch = Batch((Row(np.array([2, 0, 1]), np.array([0, 1, 1]) * (segments > 0), np.ones(3, np.int64)),))
    f = forward(s, batch, **{TABLE.replace(".", "__"): table})
    found = look_up(s, s.accept(inputs.one_hot(batch, np.float64), frac=0), f).data
    expected = table[batch.ids] + (table[3 + batch.segments] if segments else 0.0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("at_once", "block", "rounds"), [(1 << 22, 1 << 23, 1), (22, 6, 3), (1, 3, 5), (33, 21, 2)])
def test_a_look_up_in_blocks_finds_the_same_words(monkeypatch: pytest.MonkeyPatch, at_once: int, block: int,
                                                  rounds: int) -> None:
    """Blocks of tokens and of words bound the memory; the sums are the encoded rows, the same bytes."""
    monkeypatch.setattr("secformer.models.families.blocks.AT_ONCE", at_once)
    monkeypatch.setattr("secformer.models.data.parameters.BLOCK", block)
    rng, inputs = np.random.default_rng(0), TokenInputs(9, 2, 8, 3)
    table = rng.normal(0, 2, (11, 3))
    batch = Batch((Row(rng.integers(0, 9, 5), np.array([0, 0, 1, 1, 1]), np.ones(5, np.int64)),))
    layout = {TABLE: Tensor((Part(("t",), (11, 3)),), 0, True, 24)}
    world, mask = World(backend="numpy"), uniform(bytes(32), TABLE, (11, 3), 24)
    words = (encode(table, 16).astype(np.uint32) - mask, mask)

    class Held:
        def __init__(self, mine: np.ndarray):
            self.layout, self.mine = layout, mine

        def get(self, name: str) -> np.ndarray:
            return self.mine

    found: dict[Session, Parameters] = {}

    def load(s: Session, tensors: Held) -> None:
        found[s] = load_weights(s, tensors)

    world.run(load, *map(Held, words))

    def program(s: Session, request: Request) -> Share:
        rows = s.accept(request.words(), frac=0, width=24, operand=True)
        return look_up(s, rows, Forward(batch, found[s], EXACT, lambda site: {}))

    outcome = world.run(program, *inputs.private_halves(batch, 24, bytes(range(32))))
    mine, theirs = outcome.results
    wanted, modulus = encode(table, 16), np.uint64(1 << 24)
    sums = wanted[batch.ids] + wanted[9 + batch.segments]
    np.testing.assert_array_equal((mine.data + theirs.data) % modulus, sums % modulus)
    assert mine.width == theirs.width == 24  # what takes the sums lifts them
    assert outcome.cost.rounds == rounds
    assert outcome.cost.bytes == 2 * 3 * 5 * 11  # three bytes per entry of a row, from each party


# ---- magnitudes of linear layers -------------------------------------------------------------------------------------

FORMATS = st.sampled_from([FixedPoint(), FixedPoint(12), FixedPoint(20, 10)])
ends = st.floats(-500.0, 500.0)


def guarded(fixed: FixedPoint, at: Site, ask: Callable[[Session], int]) -> int:
    """What a guarded session decides."""
    s = PlainSession(fixed)
    with s.guarding({1: np.zeros(1, np.int64)}, 1):
        return ask(s)


@given(FORMATS, ends, ends)
def test_a_product_holds_its_range_and_uses_all_that_its_bytes_hold(fixed: FixedPoint, a: float, b: float) -> None:
    r, s = Range(min(a, b), max(a, b)), PlainSession(fixed)
    m = entering(s, {"input": r})
    assert with_air(r).reach <= 2.0**m
    width = fixed.window(2 * fixed.frac, m)
    assert m == fixed.whole or fixed.window(2 * fixed.frac, m + 1) == width + 8
    # no byte more than needed
    assert m <= 7 or with_air(r).reach > 2.0 ** (m - 8) or width == fixed.window(2 * fixed.frac, 1)


@given(FORMATS, ends, ends, st.floats(1.0, 2000.0))
def test_guarded_no_value_outside_looks_like_one_inside(fixed: FixedPoint, a: float, b: float, most: float) -> None:
    """Either no text reaches so far, or values outside must be as many as the session's format allows."""
    r = Range(min(a, b), max(a, b))
    air, most = with_air(r), max(most, r.reach)
    known = guarded(fixed, {"input": r, "most": Range(most, most)}, lambda s: entering(s, {
        "input": r, "most": Range(most, most)}))
    unknown = guarded(fixed, {"input": r}, lambda s: entering(s, {"input": r}))
    assert known <= unknown
    assert 2.0 ** (unknown + 2) >= min(32.0 * (air.high - air.low), 2.0 ** (fixed.magnitude + 2))
    ring = 2.0 ** (known + 2)  # what is opened, in units of values
    assert ring >= min(most + air.reach, 32.0 * (air.high - air.low), 2.0 ** (fixed.magnitude + 2))


@pytest.mark.parametrize(("fixed", "at", "bits"), [
    (FixedPoint(), Range(-12.0, 9.0), 40), (FixedPoint(12), Range(-12.0, 9.0), 32),
    (FixedPoint(), Range(0.0, 64.0), 48),
    (FixedPoint(12), Range(-60.0, 3.0), 40), (FixedPoint(), Range(-3e4, 0.0), 56), (FixedPoint(), None, 48),
    (FixedPoint(12), None, 40)], ids=str)
def test_windows(fixed: FixedPoint, at: Range | None, bits: int) -> None:
    m = entering(PlainSession(fixed), {} if at is None else {"input": at})
    assert fixed.window(2 * fixed.frac, m) == bits


def test_queries_keys_and_values_hold_what_no_text_exceeds() -> None:
    s = PlainSession(FixedPoint(12))
    assert projecting(s, {"most": Range(45.0, 45.0)}) == 6 and projecting(s, {"most": Range(65.0, 65.0)}) == 14
    assert projecting(s, {}) == projecting(s, {"most": Range(1e6, 1e6)}) == 14


@pytest.mark.parametrize(("recipe", "more", "magnitude"), [
    (FAITHFUL, {"spread": Range(-60.0, 0.0)}, 6), (MPCFORMER, {}, 14), (EXACT, None, 14)],
    ids=["faithful", "mpcformer", "exact"])
@pytest.mark.parametrize("most", [None, 20.0])
def test_scores_are_not_bounded_by_what_bounds_values(recipe: Recipe, more: Site | None, magnitude: int,
                                                      most: float | None) -> None:
    """A product of 2^6 opens 256, a fourth of what a guard wants of these scores. An exponential opens as much anyway;
    where the scores' own truncation is checked, they get what the guard wants, whatever bounds queries and keys."""
    at: dict[str, Range] = {} if more is None else {"score": Range(-30.0, 20.0), **more}
    at |= {} if most is None else {"most": Range(most, most)}
    f = Forward(batch_of([2]), Parameters({}), recipe, lambda site: at)
    assert guarded(FixedPoint(), at, lambda s: attending(s, f, at)) == magnitude


@pytest.mark.parametrize("reach", [3.0, 40.0, 1e5])
def test_a_sum_is_promised_what_its_layernorm_takes(reach: float) -> None:
    s, batch = PlainSession(), batch_of([2])
    at = {"input": Range(-reach, reach)}
    f = forward(s, batch, {"norm": at}, here__weight=np.eye(3), here__bias=np.ones(3))
    x, y = s.accept(tokens(batch, 3)), s.accept(-tokens(batch, 3))
    found = added(s, x, y, f, "here", "norm")
    np.testing.assert_array_equal(found.data, np.ones((2, 3)))
    assert found.magnitude == entering(s, at) and found.width == s.fixed.window(32, found.magnitude)
