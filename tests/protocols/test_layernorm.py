"""LayerNorm, by series and by Goldschmidt, over variances from tiny to large."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import Words, examples, kernels_named
from mpc_lab import run as run_at_parties
from protocols_lab import PENDING, Run, norm_site

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import encode
from secformer.mpc.guarding import Guarded
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.layernorm import (
    Plan,
    layernorm_by,
    layernorm_exact,
    layernorm_goldschmidt,
    layernorm_series,
)
from secformer.protocols.quantities import opened
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


# ---- row sums, and what three rounds cost ---------------------------------------------------------------------------


def sums_case(n: int, c: int, low: float, high: float, sums: Range) -> Case:
    """As `case`, but row sums reach both ends of a range that is as tight as it may be."""
    x, gamma, beta, at = case(7, n, c, low, high, 0.0)
    x += np.linspace(sums.low, sums.high, n)[:, None] / c
    return x, gamma, beta, {**norm_site(x, gamma, variance=at["variance"]), "row_sum": sums}


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("c, sums", [(48, Range(-30.0, 65.0)), (768, Range(-64.0, 64.0)), (768, Range(4000.0, 5000.0)),
                                     (2, Range(0.0, 0.0))])
def test_row_sums_at_the_ends_of_their_range(run: Run, protocol: Callable[..., Share], c: int, sums: Range) -> None:
    x, gamma, beta, at = sums_case(12, c, 0.3, 3.0, sums)
    got = run(program(protocol, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= 1e-3


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("known", [True, False])
def test_x_that_is_too_narrow_for_its_row_sums(protocol: Callable[..., Share], known: bool) -> None:
    """It settles first, and so does x whose row sums nobody measured."""
    x, gamma, beta, at = sums_case(6, 96, 0.3, 3.0, Range(-500.0, 900.0))
    if not known:
        at = {name: r for name, r in at.items() if name != "row_sum"}
    words = Words(encode(x, PENDING), PENDING, 41), Words(encode(gamma, 16), 16, 64), Words(encode(beta, 16), 16, 64)
    (got,), _ = run_at_parties(program(protocol, at), *words)
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= 1e-3


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("c", [1, 2, 5, 130])
def test_constant_rows_and_gains_of_zero(run: Run, protocol: Callable[..., Share], c: int) -> None:
    """Rows without a deviation give beta, and so does a gain of 0, while eps keeps the root finite."""
    x, zeros, beta = np.linspace(-3.0, 5.0, 6)[:, None] * np.ones(c), np.zeros(c), np.linspace(-1.0, 1.0, c)
    at = norm_site(x, zeros, variance=Range(0.0, 1.0))
    for gamma, gain in ((np.full(c, 1.5), 2.0), (zeros, at["gain"].high)):
        here = {**at, "gain": Range(gain, gain)}
        got = run(program(protocol, here, eps=0.25), x, gamma, beta, fracs=[PENDING, 16, 16])
        assert np.abs(got - beta).max() <= 2e-4


@pytest.mark.parametrize("total, wrong", [
    (-200.0, False), (-100.0, False), (100.0, False), (200.0, False), (-330.0, True), (330.0, True), (-500.0, True),
    (600.0, True), (1010.0, True), (1024.0, True), (-1024.0, True), (2.0**16, True), (-(2.0**16), True)])
def test_a_guard_marks_row_sums_that_are_not_held(total: float, wrong: bool) -> None:
    """While x, its variance and the root stay within theirs. Sums of x / 4 are opened in 8 bits, so modulo 1024 of x.
    The guard marks a row from a total of about 250 on. Below, where the opening holds a total outside of its measured
    range, the result is right."""
    n, c, sums = 8, 1024, Range(-50.0, 50.0)
    x, gamma, beta, at = sums_case(n, c, 0.5, 2.0, sums)
    x[3] += (total - x[3].sum()) / c
    at = {**at, "input": Range(-80.0, 80.0)}

    def whole(s: Session, given: Any) -> Any:
        with s.guarding({n: np.arange(n)}, n, Guarded(apart=True)) as guard:
            shares = (s.accept(v, frac=f, width=w) for v, f, w in zip(given, (PENDING, 16, 16), (48, 64, 64),
                                                                      strict=True))
            (y,) = s.settle(layernorm_series(s, *shares, EPS, at))
        return guard.words, y.data

    words = [encode(v, f) for v, f in ((x, PENDING), (gamma, 16), (beta, 16))]
    masks = [np.random.default_rng(1).integers(0, 2**64, size=w.shape, dtype=np.uint64) for w in words]
    (mine, y), (theirs, more) = World().run(whole, masks, [w - m for w, m in zip(words, masks, strict=True)]).results
    assert (mine + theirs != 0).any(axis=1).tolist() == [wrong and i == 3 for i in range(n)]
    error = np.abs((y + more).view(np.int64) / 2.0**16 - layernorm_exact(x, EPS) * gamma - beta).max(axis=1)
    assert error[[i for i in range(n) if i != 3 or not wrong]].max() <= 1e-3


def plan_of(n: int, c: int, at: Site, width: int = 48, guarded: bool = False) -> tuple[int, float, Share]:
    """Rounds of `layernorm_series`, bytes per element of x that each party sends but for gamma's, and its result."""
    found: list[Share] = []

    def whole(s: Any) -> None:
        with s.guarding({n: np.arange(n)}, n) if guarded else nullcontext():
            x, gamma = s.accept(ghost((n, c)), frac=PENDING, width=width), s.accept(ghost((c,)))
            found.append(layernorm_series(s, x, gamma, s.accept(ghost((c,))), EPS, at))

    plan = PlanRecorder().record(whole)
    return plan.rounds, (plan.bytes / 2 - 8 * c) / (n * c), found[0]


def symmetric(reach: float, variance: Range, sums: float) -> Site:
    return {"input": Range(-reach, reach), "gain": Range(1.0, 1.0), "variance": variance, "row_sum": Range(-sums, sums)}


@pytest.mark.parametrize("reach, variance, sums, width, rounds, sent", [
    (4.0, Range(0.3, 3.0), 60.0, 48, 3, 6), (60.0, Range(0.3, 3.0), 60.0, 48, 3, 7),
    (4.0, Range(0.1, 300.0), 60.0, 48, 7, 7), (4.0, Range(0.3, 3.0), 60.0, 40, 4, 9),
])
def test_prices(reach: float, variance: Range, sums: float, width: int, rounds: int, sent: int) -> None:
    """The docstring's; a guard opens a byte more of inputs that reach far, and the last three rounds are its own."""
    at = symmetric(reach, variance, sums)
    found, per_element, y = plan_of(128, 768, at, width)
    assert found == rounds and sent - 0.01 <= per_element <= sent + 0.1
    assert y.width == 64 and y.frac > 16, "pending, in whole words"
    found, per_element, _ = plan_of(128, 768, at, width, guarded=True)
    assert found == rounds + 3 and sent - 0.01 <= per_element <= sent + 0.15 + (reach > 32.0)


@pytest.mark.parametrize("sums", [10.0, 60.0, 900.0])
def test_a_product_of_the_declared_magnitude_is_opened_as_it_is(sums: float) -> None:
    """One bit less, and it settles first: a round more."""
    at, fixed = symmetric(4.0, Range(0.3, 3.0), sums), PlainSession().fixed
    for protocol in BOTH:
        least = opened(protocol, fixed, at)
        assert least == math.ceil(math.log2(sums * 1.25))
    rounds = [plan_of(4, 96, at, PENDING + 2 + m)[0] for m in (least + 1, least, least - 1)]
    assert rounds == [3, 3, 4]
    assert opened(layernorm_series, fixed, {name: r for name, r in at.items() if name != "row_sum"}) == 1
