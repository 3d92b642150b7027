"""RMSNorm over mean squares from tiny to large: its error, its price, its guard, and rows that differ too much."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from mpc_lab import kernels_named
from protocols_lab import PENDING, Run, squares_case

from secformer.mpc.errors import RangeError
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.quantities import GAIN, INPUT, MEAN_SQUARE, needed
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL
from secformer.protocols.rmsnorm import RMSNORM, rmsnorm, rmsnorm_exact

EPS = 1e-6


def case(seed: int, n: int, c: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray, Site]:
    """Rows whose mean squares cover [low, high] exactly, gains, and the ranges with a profile's margin."""
    x, at = squares_case(seed, n, c, low, high)
    return x, np.random.default_rng(seed + 100).uniform(-2.0, 2.0, c), {**at, "gain": Range(2.0, 2.0)}


def program(at: Site, eps: float = EPS) -> Callable[..., Share]:
    return lambda s, x, gamma: rmsnorm(s, x, gamma, eps, at)


@pytest.mark.parametrize("c, low, high", [(768, 0.3, 3.0), (576, 0.003, 0.03), (128, 0.1, 20.0), (1024, 1.0, 60.0),
                                          (100, 3.0, 3000.0), (2, 0.5, 2.0), (1, 0.5, 2.0), (769, 2.0, 5000.0)])
def test_rmsnorm(run: Run, c: int, low: float, high: float) -> None:
    x, gamma, at = case(1, 24, c, low, high)
    got = run(program(at), x, gamma, fracs=[PENDING, 16])
    wanted = rmsnorm_exact(x, EPS) * gamma
    assert np.abs(got - wanted).max() <= 1e-3 * max(1.0, np.abs(wanted).max() / 4.0)


def test_rows_of_heads(run: Run) -> None:
    """x (N, H, D), each head with gains of its own, as queries and keys have them."""
    x, _, at = case(2, 30, 16, 0.2, 5.0)
    gamma = np.random.default_rng(0).uniform(-2.0, 2.0, (5, 16))
    got = run(program(at), x.reshape(6, 5, 16), gamma, fracs=[PENDING, 16])
    assert np.abs(got - rmsnorm_exact(x.reshape(6, 5, 16), EPS) * gamma).max() <= 1e-3


def test_a_large_epsilon_and_rows_of_zeros(run: Run) -> None:
    x, gamma, at = np.zeros((4, 6)), np.ones(6), {"input": Range(-1.0, 1.0), "gain": Range(1.0, 1.0),
                                                  "mean_square": Range(0.0, 1.0)}
    x[2] = 0.7
    got = run(program(at, 0.25), x, gamma, fracs=[PENDING, 16])
    assert np.abs(got - rmsnorm_exact(x, 0.25)).max() <= 2e-4


@pytest.mark.parametrize("factor", [200.0, 700.0])
def test_one_row_much_larger_than_the_others(run: Run, factor: float) -> None:
    """As the first token of a decoder: segments take over from one series, up to 2^20."""
    x, gamma, at = case(3, 16, 96, 0.9, 1.1)
    x[0] *= factor
    at = {**at, "input": Range(-float(np.abs(x).max()), float(np.abs(x).max())),
          "mean_square": Range(0.9, 1.2 * factor**2)}
    got = run(program(at), x, gamma, fracs=[PENDING, 16])
    assert np.abs(got - rmsnorm_exact(x, EPS) * gamma).max() <= 3e-2


def test_rows_that_differ_too_much() -> None:
    _, _, at = case(3, 4, 8, 1.0, 2.0)
    with pytest.raises(RangeError, match=r"ratios up to 2\^20"):
        PlanRecorder().record(lambda s: rmsnorm(s, s.accept(ghost((4, 8))), s.accept(ghost((8,))), EPS,
                                                {**at, "input": Range(-99.0, 99.0), "mean_square": Range(1e-3, 3e3)}))


@pytest.mark.parametrize("guarded", [False, True])
def test_the_price(guarded: bool) -> None:
    """The docstring's; the last three rounds of a guarded block are its own."""
    n, c = 64, 128
    for low, high, rounds in ((0.3, 3.0, 3), (0.1, 600.0, 7)):
        at = {"input": Range(-4.0, 4.0), "gain": Range(1.0, 1.0), "mean_square": Range(low, high)}

        def whole(s: Any, at: Site = at) -> None:
            with s.guarding({n: np.arange(n)}, n) if guarded else nullcontext():
                y = rmsnorm(s, s.accept(ghost((n, c)), frac=PENDING, width=48), s.accept(ghost((c,))), EPS, at)
                assert y.width == 64 and y.frac > 16, "pending, in whole words"

        plan = PlanRecorder().record(whole)
        assert plan.rounds == rounds + 3 * guarded
        assert 5.9 <= (plan.bytes / 2 - 8 * c) / (n * c) <= 6.5


def test_a_guard_marks_rows_whose_mean_square_leaves_its_range() -> None:
    """Inputs stay within their reach, mean squares do not."""
    channels, rng = 64, np.random.default_rng(0)
    at = {"input": Range(-8.0, 8.0), "mean_square": Range(0.2, 1.0), "gain": Range(1.0, 1.0)}
    squares = np.concatenate([np.linspace(1.01, 16.0, 120), np.linspace(0.02, 0.2, 40), np.linspace(0.3, 0.6, 40)])
    x = rng.choice([-1.0, 1.0], size=(squares.size, channels)) * np.sqrt(squares)[:, None]

    def whole(s: Session, x: Any) -> Any:
        def shared(v: np.ndarray) -> Share:
            return s.share(v if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=v.shape)

        with s.guarding({len(x): np.arange(len(x))}, len(x)) as guard:
            y = rmsnorm(s, shared(x), shared(np.ones(channels)), EPS, at)
        return s.reveal(y, CLIENT), guard.words

    (a, mine), (b, theirs) = World(kernels=kernels_named("numpy")).run(whole, x, x).results
    error = np.abs((a + b).view(np.int64) / 2.0**16 - rmsnorm_exact(x, EPS)).max(axis=1)
    marked = (mine + theirs)[:, 0] != 0
    assert (error > 0.05).sum() > 50 and not (~marked & (error > 0.05)).any()
    assert not marked[-40:].any()


def test_the_function() -> None:
    assert needed(FAITHFUL.of(RMSNORM), ()) == (INPUT, GAIN, MEAN_SQUARE)
    assert EXACT.of(RMSNORM) is RMSNORM.exact


@pytest.mark.parametrize("reach, fits", [(2.0**15, True), (2.0**19, True), (2.0**21, False), (2.0**25, False)])
def test_words_that_are_too_coarse_for_the_least_row(twin: Run, reach: float, fits: bool) -> None:
    """They hold the squares of what x reaches, and round what is small."""
    x, at = np.full((3, 64), 4.0), {"input": Range(-reach, reach), "gain": Range(1.0, 1.0),
                                    "mean_square": Range(8.0, 2.0**20)}

    def found() -> np.ndarray:
        return twin(program(at), x, np.ones(64), fracs=[16, 16])

    if fits:
        np.testing.assert_allclose(found(), 1.0, atol=1e-3)
    else:
        with pytest.raises(RangeError, match="too coarse for rows whose mean square is 8"):
            found()
