"""LayerNorm, by series and by Goldschmidt, over variances from tiny to large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples, kernels_named
from protocols_lab import PENDING, Run, norm_site

from secformer.mpc.errors import RangeError
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.layernorm import (
    Plan,
    layernorm_by,
    layernorm_exact,
    layernorm_goldschmidt,
    layernorm_series,
)
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import RECIPES, Recipe

EPS = 1e-12
BOTH = [layernorm_series, layernorm_goldschmidt]
Case = tuple[np.ndarray, np.ndarray, np.ndarray, Site]


def case(seed: int, n: int, c: int, low: float, high: float, mean: float) -> Case:
    """Rows whose variances cover [low, high] exactly, gamma, beta, and the range with a profile's margin."""
    rng = np.random.default_rng(seed)
    x = layernorm_exact(rng.normal(size=(n, c)), 0.0) * np.sqrt(np.geomspace(low, high, n))[:, None]
    x += mean * rng.normal(size=(n, 1))
    gamma, beta = rng.uniform(-2.0, 2.0, c), rng.normal(size=c)
    return x, gamma, beta, norm_site(x, gamma, variance=Range(low / 1.5, high * 1.5))


def program(protocol: Callable[..., Share], at: Site, eps: float = EPS) -> Callable[..., Share]:
    return lambda s, x, gamma, beta: protocol(s, x, gamma, beta, eps, at)


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("c, low, high", [(768, 0.3, 3.0), (384, 0.003, 0.03), (128, 0.1, 20.0), (1024, 1.0, 60.0),
                                          (100, 3.0, 3000.0), (2, 0.5, 2.0),
                                          (768, 2.0, 5880.0), (1024, 10.0, 5000.0)])
def test_layernorm(run: Run, protocol: Callable[..., Share], c: int, low: float, high: float) -> None:
    x, gamma, beta, at = case(1, 24, c, low, high, 0.5)
    got = run(program(protocol, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= 1e-3


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_without_beta(twin: Run, recipe: Recipe) -> None:
    """0.0 in its place gives what zeros give."""
    x, gamma, beta, at = case(1, 5, 12, 0.3, 3.0, 0.5)
    with_zeros = twin(program(recipe.layernorm, at), x, gamma, 0.0 * beta, fracs=[PENDING, 16, 16])
    without = twin(lambda s, x, gamma: recipe.layernorm(s, x, gamma, 0.0, EPS, at), x, gamma, fracs=[PENDING, 16])
    np.testing.assert_array_equal(without, with_zeros)


@pytest.mark.parametrize("low, high, bound", [(0.3, 3.0, 1.5e-4), (0.003, 0.03, 1.5e-4), (0.1, 100.0, 2e-4)])
def test_layernorm_series_is_near_the_last_place(run: Run, low: float, high: float, bound: float) -> None:
    x, gamma, beta, at = case(2, 24, 384, low, high, 0.1)
    got = run(program(layernorm_series, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= bound


@given(st.integers(1, 9), st.integers(2, 200), st.floats(-8.0, 6.0), st.floats(0.0, 9.0), st.integers(0, 99))
@examples(25)
@pytest.mark.parametrize("protocol", BOTH)
def test_layernorm_any_shape(
    twin: Run, protocol: Callable[..., Share], n: int, c: int, start: float, octaves: float, seed: int
) -> None:
    x, gamma, beta, at = case(seed, n, c, 2.0**start, 2.0 ** (start + octaves), 1.0)
    got = twin(program(protocol, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    exact = layernorm_exact(x, EPS) * gamma
    assert np.abs(got - exact - beta).max() <= 5e-4 * max(1.0, np.abs(exact).max())


def test_eps_counts(twin: Run) -> None:
    """A large eps changes the answer, as it does in plain LayerNorm."""
    x, gamma, beta, at = case(3, 6, 16, 0.5, 2.0, 0.0)
    got = twin(program(layernorm_series, at, eps=0.25), x, gamma, beta, fracs=[PENDING, 16, 16])
    np.testing.assert_allclose(got, layernorm_exact(x, 0.25) * gamma + beta, atol=2e-4)
    assert np.abs(got - layernorm_exact(x, 0.0) * gamma - beta).max() > 0.01


def test_the_mean_is_taken_off_exactly(run: Run) -> None:
    """A constant that is large beside the deviations does not show."""
    x, gamma, beta, at = case(4, 8, 96, 0.2, 2.0, 0.0)
    at = {**at, "input": Range(190.0, 210.0), "row_sum": Range(96 * 195.0, 96 * 205.0)}
    got = run(program(layernorm_series, at), x + 200.0, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= 2e-4


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("at, message", [
    ({"variance": None}, "needs the range of 'variance'"), ({"variance": Range(-1.0, 1.0)}, "must be positive"),
    ({"variance": Range(0.0, 0.0)}, "must be positive"), ({"variance": Range(2.0, 1.0)}, "low <= high"),
    ({"input": None}, "needs the range of 'input'"), ({"gain": None}, "needs the range of 'gain'"),
    ({"gain": Range(0.0, 0.0)}, "must be positive"),
    ({"gain": Range(1.0, 2.0**40), "input": Range(-0.001, 0.001)}, "results reach 2"),
    ({"input": Range(-(2.0**47), 0.0)}, "reaches 1.40737e.14, but"),
])
def test_bad_ranges(protocol: Callable[..., Share], at: dict[str, Range | None], message: str) -> None:
    s = PlainSession()
    x, gamma, beta, known = case(5, 2, 4, 1.0, 1.0, 0.0)
    here = {name: r for name, r in {**known, **at}.items() if r is not None}
    with pytest.raises(RangeError, match=message):
        protocol(s, s.accept(x), s.accept(gamma), s.accept(beta), EPS, here)


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("gain", [15.0, 50.0, 200.0])
@pytest.mark.parametrize("c, reach", [(40, 8.0), (768, 60.0), (1024, 2000.0)])
def test_outlier_dimensions(run: Run, protocol: Callable[..., Share], gain: float, c: int, reach: float) -> None:
    """One channel reaches far in every row, and one has a large gain, as in large pretrained models. The result is near
    relative to the gain."""
    rng = np.random.default_rng(6)
    x, gamma = rng.normal(size=(24, c)), rng.uniform(0.5, 1.5, c)
    x[:, 3] = np.linspace(-reach, reach, 24)
    gamma[3], gamma[7] = gain, -gain
    variance = x.var(axis=-1)
    at = norm_site(x, gamma, variance=Range(variance.min() / 1.5, variance.max() * 1.5))
    got = run(program(protocol, at), x, gamma, np.full(c, -7.5), fracs=[PENDING, 16, 16])
    exact = layernorm_exact(x, EPS) * gamma - 7.5
    assert np.abs(got - exact).max() <= 5e-4 * np.abs(exact).max()


@given(st.integers(1, 1100), st.floats(-6.0, 13.9), st.floats(0.0, 20.0), st.floats(-16.0, 8.0), st.sampled_from([
    1e-12, 1e-5, 0.25]))
def test_no_product_wraps_while_inputs_stay_within_their_range(
    c: int, reach: float, depth: float, gain: float, eps: float
) -> None:
    """The largest variance of such inputs has half of them at either end; whatever variances were measured, its square
    and the deviations times the gain are below what is promised, and a word holds that."""
    s = PlainSession()
    x, end = s.accept(np.zeros((1, c)), frac=PENDING, width=48), 2.0**reach
    at = {"input": Range(-end, end), "gain": Range(2.0**gain, 2.0**gain),
          "variance": Range(end**2 * 2.0**-depth / 3.0, end**2 * 2.0**-depth)}
    plan = Plan.of(s.fixed, x, eps, at)
    largest = end * 2.0**plan.near
    assert largest <= 2.0**plan.input_bits
    assert c**2 * (largest**2 + eps * 4.0**plan.near) <= 2.0**plan.square_bits <= 2.0**30
    assert 2.0 * largest * 2.0**gain <= 2.0**plan.deviation_bits
    assert c * 2.0**plan.deviation_bits <= 2.0**30
    assert plan.result_bits + plan.lift + plan.root_bits <= 30


def test_far_variances_do_not_wrap_on_shares(run: Run) -> None:
    """A variance far above its range, of inputs within theirs: the deviations and the variance that reach the inverse
    root are right, so that a check there sees them."""
    c, seen = 64, dict[Any, Share]()
    x = np.where(np.arange(c) % 2, 30.0, -30.0) * np.ones((2, 1))
    at = {"input": Range(-30.0, 30.0), "gain": Range(2.0, 2.0), "variance": Range(0.5, 1.0)}

    def root(s: Any, v: Share, domain: Range, *, scale_bits: int) -> Share:
        seen[s] = v
        return s.public(1.0, v.shape)

    def whole(s: Any, x: Share, gamma: Share, beta: Share) -> Share:
        plan = Plan.of(s.fixed, x, EPS, at)
        layernorm_by(s, x, gamma, beta, EPS, at, root)
        (v,) = s.settle(seen[s] * 2.0 ** -(plan.square_bits - 8))
        return v * 2.0 ** (plan.square_bits - 8 - 2 * plan.near)

    got = run(whole, x, np.full(c, 2.0), np.zeros(c), fracs=[PENDING, 16, 16])
    np.testing.assert_allclose(got, c**2 * 900.0, rtol=1e-4)


@pytest.mark.parametrize("recipe", [r for r in RECIPES.values() if not r.exact], ids=lambda r: r.name)
def test_a_guard_marks_rows_whose_variance_leaves_its_range(recipe: Recipe) -> None:
    """Inputs stay within their reach, variances do not: an iteration may then converge to the negative root, of which
    v r^2 is 1, too."""
    channels, rng = 64, np.random.default_rng(0)
    at = {"input": Range(-8.0, 8.0), "variance": Range(0.2, 1.0), "gain": Range(1.0, 1.0)}
    variances = np.concatenate([np.linspace(1.01, 16.0, 120), np.linspace(0.02, 0.2, 40), np.linspace(0.3, 0.6, 40)])
    x = np.clip(rng.choice([-1.0, 1.0], size=(variances.size, channels)) * np.sqrt(variances)[:, None], -7.9, 7.9)

    def program(s: Session, x: Any) -> Any:
        def shared(v: np.ndarray) -> Share:
            return s.share(v if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=v.shape)

        with s.guarding({len(x): np.arange(len(x))}, len(x)) as guard:
            y = recipe.layernorm(s, shared(x), shared(np.ones(channels)), shared(np.zeros(channels)), 1e-12, at)
        return s.reveal(y, CLIENT), guard.words

    (a, mine), (b, theirs) = World(kernels=kernels_named("numpy")).run(program, x, x).results
    error = np.abs((a + b).view(np.int64) / 2.0**16 - layernorm_exact(x, 1e-12)).max(axis=1)
    marked = (mine + theirs)[:, 0] != 0
    assert (error > 0.05).sum() > 50 and not (~marked & (error > 0.05)).any()
    assert not marked[-40:].any()
