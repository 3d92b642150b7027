"""MPCFormer's, PUMA's and CrypTen's functions against their published formulas in float64; whole models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from mpc_lab import kernels_named
from protocols_lab import PENDING, Run, norm_site

from secformer.models.run.local import secure_bert
from secformer.models.run.local import twin as twin_of
from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.crypten import gelu_tanh, layernorm_newton, one_less_sigmoid, softmax_limit, tanh_sigmoid
from secformer.protocols.gelu import gelu_exact, gelu_segmented
from secformer.protocols.layernorm import layernorm_exact
from secformer.protocols.mpcformer import gelu_quad, softmax_2quad_newton, softmax_2relu
from secformer.protocols.puma import gelu_piecewise, layernorm_octaves, softmax_clipped
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import CRYPTEN, MPCFORMER, MPCFORMER_2RELU, PUMA, Recipe
from secformer.protocols.softmax import softmax_exact


def grid(reach: float, n: int = 2001) -> np.ndarray:
    return np.linspace(-reach, reach, n)


def on(run: Run, protocol: Callable[..., Share], x: np.ndarray, reach: float, frac: int = PENDING) -> np.ndarray:
    return run(lambda s, x: protocol(s, x, {"input": Range(-reach, reach)}), x, fracs=[frac])


# ---- the published formulas ------------------------------------------------------------------------------------------


def puma_gelu(x: np.ndarray) -> np.ndarray:
    p3 = ((-0.011034134030615728 * x - 0.11807612951181953) * x - 0.42226581151983866) * x - 0.5054031199708174
    p6 = (0.0018067462606141187 * x**6 - 0.037688200365904236 * x**4 + 0.3603292692789629 * x**2 + 0.5 * x
          + 0.008526321541038084)
    return np.select([x < -4.0, x < -1.95, x <= 3.0], [np.zeros_like(x), p3, p6], x)


def limit(x: np.ndarray, squarings: int) -> np.ndarray:
    return np.asarray((1.0 + x / 2.0**squarings) ** 2**squarings)


def crypten_sigmoid(x: np.ndarray) -> np.ndarray:
    """By sign, exponential and a reciprocal of three Newton steps from 0.75."""
    denominator = 1.0 + limit(-np.abs(x), 8)
    y = np.full_like(x, 0.75)
    for _ in range(3):
        y = y * (2.0 - denominator * y)
    return np.where(x < 0.0, 1.0 - y, y)


def crypten_tanh(x: np.ndarray) -> np.ndarray:
    return 2.0 * crypten_sigmoid(2.0 * x) - 1.0


def crypten_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + crypten_tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def mean(weights: np.ndarray, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    w = weights * mask[:, None, None, :]
    return np.asarray(w / w.sum(axis=-1, keepdims=True) @ values)


def below(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    real = np.where(mask[:, None, None, :], scores, -np.inf)
    return np.where(mask[:, None, None, :], scores - real.max(axis=-1, keepdims=True), 0.0)


def puma_softmax(scores: np.ndarray, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    x = below(scores, mask)
    return mean(np.where(x < -14.0, 0.0, limit(x, 5)), mask, values)


def crypten_softmax(scores: np.ndarray, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    return mean(limit(below(scores, mask), 8), mask, values)


def mpcformer_2quad(scores: np.ndarray, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    return mean((scores + 5.0) ** 2, mask, values)


def mpcformer_2relu(scores: np.ndarray, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    e, n = 2.0**-6, mask.sum(axis=-1)[:, None, None, None]
    relu = np.maximum(scores, 0.0) * mask[:, None, None, :]
    weights = (relu + e / n * mask[:, None, None, :]) / (relu.sum(axis=-1, keepdims=True) + e)
    return np.asarray(weights @ values)


# ---- element-wise ----------------------------------------------------------------------------------------------------

ELEMENTWISE = [
    (gelu_quad, lambda x: 0.125 * x * x + 0.25 * x + 0.5), (gelu_piecewise, puma_gelu), (gelu_tanh, crypten_gelu),
    (tanh_sigmoid, crypten_tanh),
]


@pytest.mark.parametrize("protocol, formula", ELEMENTWISE)
@pytest.mark.parametrize("reach", [0.1, 3.0, 7.9])
def test_the_published_formula(twin: Run, protocol: Callable[..., Share], formula: Callable[..., np.ndarray],
                               reach: float) -> None:
    x = grid(reach)
    x = x[np.abs(x) > 1e-9]  # CrypTen's sigmoid jumps at 0
    np.testing.assert_allclose(on(twin, protocol, x, reach), formula(x), atol=1e-5)


@pytest.mark.parametrize("protocol, formula", ELEMENTWISE)
def test_far_out(twin: Run, protocol: Callable[..., Share], formula: Callable[..., np.ndarray]) -> None:
    """Wherever the published formula still holds; GeLU by tanh is cut at 5, less what its reciprocal leaves there."""
    x = grid(18.0, 3000)
    got, expected = on(twin, protocol, x, 18.0), formula(x)
    assert (np.abs(got - expected) <= (1e-5 + 2e-5 * np.abs(x) * (protocol is gelu_tanh))).all()


@pytest.mark.parametrize("protocol, exact, bound", [(gelu_piecewise, gelu_exact, 2.1e-2), (gelu_tanh, gelu_exact, 2e-3),
                                                    (tanh_sigmoid, np.tanh, 1e-2)])
@pytest.mark.parametrize("reach", [0.5, 6.0, 26.0, 900.0])
def test_near_the_exact_function(run: Run, protocol: Callable[..., Share], exact: Callable[..., np.ndarray],
                                 bound: float, reach: float) -> None:
    x = np.concatenate([grid(reach), grid(min(reach, 6.0))])
    assert np.abs(on(run, protocol, x, reach) - exact(x)).max() <= bound


@pytest.mark.parametrize("protocol, bound", [(gelu_quad, 5e-4), (gelu_piecewise, 3e-4), (gelu_tanh, 5e-4),
                                             (tanh_sigmoid, 1e-3)])
@pytest.mark.parametrize("reach", [3.0, 26.0])
@pytest.mark.parametrize("frac", [16, PENDING])
def test_shares_agree_with_the_twin(run: Run, twin: Run, protocol: Callable[..., Share], bound: float, reach: float,
                                    frac: int) -> None:
    x = np.round(grid(reach) * 2.0**16) / 2.0**16
    for c in (-4.0, -1.95, 0.0, 3.0):  # where formulas jump, either side may be taken
        x = x[np.abs(x - c) > 2.0**-9]
    got = on(run, protocol, x, reach, frac)
    assert np.abs(got - on(twin, protocol, x, reach, frac)).max() <= bound


@pytest.mark.parametrize("at, left, right", [(-4.0, 0.0, 6.2663e-4), (-1.95, -4.915255e-2, -4.191998e-2),
                                             (3.0, 3.01586354, 3.0)])
def test_pumas_breakpoints_and_gaps(run: Run, at: float, left: float, right: float) -> None:
    """The pieces meet at -4, -1.95 and 3, where they miss each other by as much as the published coefficients say."""
    step = 2.0**-8
    got = on(run, gelu_piecewise, np.array([at - step, at + step]), 8.0)
    x = np.array([at - step, at + step])
    np.testing.assert_allclose(got, puma_gelu(x), atol=3e-4)
    np.testing.assert_allclose(puma_gelu(np.array([at - 1e-9, at + 1e-9])), [left, right], atol=1e-6)


def test_pumas_breakpoints_exactly(twin: Run) -> None:
    x = np.array([-4.0, -1.95, 3.0, np.nextafter(-4.0, -5.0), np.nextafter(-1.95, -2.0), np.nextafter(3.0, 4.0)])
    np.testing.assert_allclose(on(twin, gelu_piecewise, x, 8.0), puma_gelu(x), atol=1e-5)


def test_sigmoid(run: Run) -> None:
    w = np.linspace(0.01, 40.0, 1001)
    got = run(lambda s, w: one_less_sigmoid(s, w, 40.0), w, fracs=[PENDING])
    assert np.abs(got - 1.0 + crypten_sigmoid(w)).max() <= 1e-3


@pytest.mark.parametrize("protocol", [gelu_quad, gelu_piecewise, gelu_tanh, tanh_sigmoid])
def test_missing_ranges(protocol: Callable[..., Share]) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="needs the range of 'input'"):
        protocol(s, s.public(1.0, (3,)), {})


@pytest.mark.parametrize("protocol", [gelu_segmented, gelu_quad, gelu_piecewise, gelu_tanh, tanh_sigmoid])
def test_a_guard_marks_inputs_that_leave_their_range(protocol: Callable[..., Share]) -> None:
    """Where a product opens them: a little outside, and far, but nothing that lies at the very ends."""
    x = np.array([[3.0, -3.0], [0.0, 6.0], [1.0, -2.0], [20.0, 0.0]])

    def program(s: Session, x: np.ndarray) -> Any:
        mine = x if getattr(s, "party", None) is None or s.party.rank == 0 else None
        with s.guarding({4: np.arange(4)}, 4) as guard:
            pending = s.mul(s.share(mine, 0, shape=x.shape), s.public(np.ones(x.shape)))
            s.settle(protocol(s, pending, {"input": Range(-3.0, 3.0)}))
        return guard.words

    mine, theirs = World(kernels=kernels_named("numpy")).run(program, x, x).results
    for words in (mine + theirs, program(PlainSession(strict=False), x)):
        assert (np.asarray(words)[:, 0] != 0).tolist() == [False, True, False, True]


# ---- softmax ---------------------------------------------------------------------------------------------------------

SOFTMAX = [(softmax_clipped, puma_softmax), (softmax_limit, crypten_softmax), (softmax_2quad_newton, mpcformer_2quad),
           (softmax_2relu, mpcformer_2relu)]
CASES = [(1, 1, 1, 1, 1.0, 0.0), (2, 3, 7, 4, 0.3, 0.0), (3, 2, 33, 8, 3.0, 2.0), (1, 2, 128, 4, 5.0, 3.0)]
Case = tuple[np.ndarray, np.ndarray, np.ndarray, Site]


def case(b: int, h: int, t: int, d: int, spread: float, shift: float) -> Case:
    """Scores, values, a mask whose first text is full, and the ranges over real columns."""
    rng = np.random.default_rng(1)
    scores, values = shift + spread * rng.normal(size=(b, h, t, t)), rng.normal(size=(b, h, t, d))
    mask = np.arange(t) < np.concatenate([[t], rng.integers(1, t + 1, size=b - 1)])[:, None]
    real = [scores[i][..., mask[i]] for i in range(b)]
    spreads = [r - r.max(axis=-1, keepdims=True) for r in real]
    found = {
        "value": [values], "score": real, "spread": spreads, "exp_sum": [np.exp(x).sum(axis=-1) for x in spreads],
        "quad_sum": [((r + 5.0) ** 2).sum(axis=-1) for r in real],
        "relu_sum": [np.maximum(r, 0.0).sum(axis=-1) for r in real],
    }
    at = {k: Range(min(x.min() for x in v), max(x.max() for x in v)) for k, v in found.items()}
    return scores, values, mask, at


def attention(protocol: Callable[..., Share], mask: np.ndarray, at: Site) -> Callable[..., Share]:
    return lambda s, scores, values: protocol(s, scores, values, mask, at)


@pytest.mark.parametrize("protocol, formula", SOFTMAX)
@pytest.mark.parametrize("sizes", CASES)
def test_softmax_is_the_published_formula(twin: Run, protocol: Callable[..., Share], formula: Callable[..., np.ndarray],
                                          sizes: tuple[int, int, int, int, float, float]) -> None:
    scores, values, mask, at = case(*sizes)
    got = twin(attention(protocol, mask, at), scores, values, fracs=[PENDING, 16])
    np.testing.assert_allclose(got, formula(scores, mask, values), atol=2e-3 if protocol is softmax_2relu else 2e-4)


@pytest.mark.parametrize("protocol, formula", SOFTMAX)
@pytest.mark.parametrize("sizes", CASES)
def test_softmax_on_shares(run: Run, protocol: Callable[..., Share], formula: Callable[..., np.ndarray],
                           sizes: tuple[int, int, int, int, float, float]) -> None:
    """PUMA's and CrypTen's formulas depend on the coarse maximum a little: up to 2^-2 below the row's own."""
    scores, values, mask, at = case(*sizes)
    got = run(attention(protocol, mask, at), scores, values, fracs=[PENDING, 16])
    bound = 1.5e-2 if protocol in (softmax_clipped, softmax_limit) else 5e-3
    assert np.abs(got - formula(scores, mask, values)).max() <= bound


@pytest.mark.parametrize("protocol, bound", [(softmax_clipped, 0.12), (softmax_limit, 3e-2)])
@pytest.mark.parametrize("spread", [0.1, 5.0, 60.0, 400.0])
def test_softmax_near_the_exact_one(run: Run, protocol: Callable[..., Share], bound: float, spread: float) -> None:
    scores, values, mask, at = case(2, 1, 40, 4, spread, -3.0)
    got = run(attention(protocol, mask, at), scores, values, fracs=[PENDING, 16])
    assert np.abs(got - softmax_exact(scores, mask) @ values).max() <= bound


@pytest.mark.parametrize("protocol", [softmax_clipped, softmax_limit])
def test_log_sums_do_not_take_the_maximums_place(twin: Run, protocol: Callable[..., Share]) -> None:
    """A profile that was measured for another recipe has narrow log-sum-exps: the published formula keeps its maximum,
    near which its exponential is right."""
    scores, values, mask, at = case(1, 1, 64, 4, 0.3, 0.0)
    narrow = at | {"log_mean": Range(3.0, 5.0)}
    got, expected = (twin(attention(protocol, mask, a), scores, values, fracs=[PENDING, 16]) for a in (narrow, at))
    np.testing.assert_array_equal(got, expected)


def test_a_row_without_positive_scores_is_uniform(run: Run) -> None:
    scores, values, mask, _ = case(1, 1, 16, 3, 1.0, -9.0)
    at = {"value": Range(-5.0, 5.0), "score": Range(scores.min(), scores.max()), "relu_sum": Range(0.0, 0.0)}
    got = run(attention(softmax_2relu, mask, at), scores, values, fracs=[PENDING, 16])
    assert np.abs(got - values.mean(axis=-2, keepdims=True)).max() <= 2e-2


# ---- LayerNorm and whole models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol, bound", [(layernorm_newton, 5.5e-3), (layernorm_octaves, 4e-4)])
@pytest.mark.parametrize("c, low, high", [(768, 0.3, 3.0), (384, 0.003, 0.03), (128, 0.1, 20.0), (100, 3.0, 3000.0)])
def test_layernorm(run: Run, protocol: Callable[..., Share], bound: float, c: int, low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    x = layernorm_exact(rng.normal(size=(24, c)), 0.0) * np.sqrt(np.geomspace(low, high, 24))[:, None]
    x, gamma, beta = x + 0.5 * rng.normal(size=(24, 1)), rng.uniform(-2.0, 2.0, c), rng.normal(size=c)
    at = norm_site(x, gamma, variance=Range(low / 1.5, high * 1.5))
    got = run(lambda s, *v: protocol(s, *v, 1e-12, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    exact = layernorm_exact(x, 1e-12) * gamma
    assert np.abs(got - exact - beta).max() <= bound * np.abs(exact).max()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), "BertForSequenceClassification")


@pytest.mark.parametrize("recipe", [MPCFORMER, MPCFORMER_2RELU, PUMA, CRYPTEN], ids=lambda recipe: recipe.name)
def test_a_whole_model_agrees_with_its_twin(recipe: Recipe, tiny: Path) -> None:
    texts = ["the cat sat on the mat", "dog", "a bad film , not very good !"]
    got = secure_bert(tiny, texts, recipe=recipe, backend="numpy", untrained_recipe=True)
    expected = twin_of(tiny, texts, recipe=recipe.name, untrained_recipe=True)
    for mine, theirs in zip(got.last_hidden_state, expected.last_hidden_state, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-2)
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-2)
