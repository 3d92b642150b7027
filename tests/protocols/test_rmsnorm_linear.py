"""RMSNorm and a linear layer together: its error, its price, its guard, results beyond their bound, small gains."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from mpc_lab import kernels_named
from protocols_lab import PENDING, Run, squares_case

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import encode
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.quantities import INPUT, MEAN_SQUARE, needed
from secformer.protocols.ranges import Range, Site, bits
from secformer.protocols.recipes import EXACT, FAITHFUL
from secformer.protocols.rmsnorm import rmsnorm_exact
from secformer.protocols.rmsnorm_linear import FINER, RMSNORM_LINEAR, few, rmsnorm_linear

EPS = 1e-6
MANY = 400  # rows


def weights(seed: int, c: int, m: int, length: float = 1.0) -> np.ndarray:
    """Columns of about that length."""
    return np.random.default_rng(seed).normal(0.0, length / np.sqrt(c), (c, m))


def answer(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.asarray(rmsnorm_exact(x, EPS) @ w)


def bound(wanted: np.ndarray) -> int:
    return max(1, bits(float(np.abs(wanted).max())))


def program(at: Site, magnitude: int) -> Callable[..., Share]:
    return lambda s, x, w: rmsnorm_linear(s, x, s.open_weight(w.data), EPS, magnitude, at)


@pytest.mark.parametrize("n, c, m, low, high", [
    (24, 576, 40, 0.003, 0.03), (24, 128, 300, 0.1, 20.0), (24, 768, 30, 2.0, 5000.0), (5, 1, 3, 0.5, 2.0),
    (1, 100, 7, 3.0, 3.0), (MANY, 16, 256, 0.3, 3.0), (MANY, 13, 300, 2.0, 700.0)])
def test_a_norm_and_its_layer(run: Run, n: int, c: int, m: int, low: float, high: float) -> None:
    x, at = squares_case(1, n, c, low, high)
    w = weights(2, c, m)
    wanted = answer(x, w)
    assert few(n, c, m) == (n < MANY)
    got = run(program(at, bound(wanted)), x, w * 2.0**FINER, fracs=[PENDING, 16])
    assert np.abs(got - wanted).max() <= 3e-4 * max(1.0, np.abs(wanted).max() / 4.0)


@pytest.mark.parametrize("n", [24, MANY])
def test_small_gains_are_rounded_finer(n: int) -> None:
    """The weight's rounding is what counts then."""
    x, at = squares_case(1, n, 64, 0.5, 2.0)
    w, s = weights(2, 64, 300, 0.02), PlainSession()
    held = np.rint(w * 2.0 ** (16 + FINER)) / 2.0**16
    y = rmsnorm_linear(s, s.accept(x, frac=PENDING, width=48), s.open_weight(held), EPS, 1, at)
    assert np.sqrt(np.square(s.values(y) - answer(x, w)).mean()) < 1.2 * 8.0 * 2.0 ** (-16 - FINER) / np.sqrt(12.0)


def test_rows_that_differ_much(run: Run) -> None:
    """As the first token of a decoder: segments take over from one series, beside the product."""
    x, at = squares_case(3, 16, 96, 0.9, 1.1)
    x[0] *= 200.0
    at = {**at, "input": Range(-float(np.abs(x).max()), float(np.abs(x).max())), "mean_square": Range(0.9, 6e4)}
    w = weights(2, 96, 8)
    got = run(program(at, 3), x, w * 2.0**FINER, fracs=[PENDING, 16])
    assert np.abs(got - answer(x, w)).max() <= 2e-2


@pytest.mark.parametrize("n", [1, 64, MANY])
@pytest.mark.parametrize("guarded", [False, True])
def test_the_price(guarded: bool, n: int) -> None:
    """The docstring's; the last three rounds of a guarded block are its own."""
    c, m = 128, 512
    for low, high, more in ((0.3, 3.0, 0), (0.1, 600.0, 4)):
        at = {"input": Range(-4.0, 4.0), "mean_square": Range(low, high)}

        def whole(s: Any, at: Site = at) -> None:
            weight = s.open_weight(ghost((c, m)))
            with s.guarding({n: np.arange(n)}, n) if guarded else nullcontext():
                y = rmsnorm_linear(s, s.accept(ghost((n, c)), frac=PENDING, width=48), weight, EPS, 6, at)
                assert y.frac > 16 and y.magnitude == 6, "pending"

        plan = PlanRecorder().record(whole)
        assert plan.rounds == 1 + (3 if n < MANY else 5) + more + 3 * guarded  # the first opens the weight
        sent = (plan.bytes / 2 - 8 * c * m) / n
        least = c * (3 + 6) + m * 4 if n < MANY else c * (3 + 3 + 3 + 6)
        assert least + 4 <= sent <= least + c * (more > 0) + c * (n == MANY) + 64 + 32 / n


def test_few_rows_are_those_that_pay() -> None:
    """For a round that is saved, so many bytes; a layer that is hardly wider than its input always pays."""
    assert few(10**9, 576, 2 * 576) and few(16, 576, 3072) and not few(17, 576, 3072)
    assert few(1, 4096, 28672) and not few(2, 4096, 28672)


def in_both(x: np.ndarray, w: np.ndarray, magnitude: int, at: Site) -> tuple[np.ndarray, np.ndarray]:
    """The result for settled rows, and which of them a guard marks."""
    def whole(s: Session, x: Any) -> Any:
        first = getattr(s, "party", None) is None or s.party.rank == 0
        weight = s.open_weight(encode(w * 2.0**FINER, 16) * np.uint64(first))
        with s.guarding({len(x): np.arange(len(x))}, len(x)) as guard:
            y = rmsnorm_linear(s, s.share(x if first else None, 0, shape=x.shape), weight, EPS, magnitude, at)
        return s.reveal(y, CLIENT), guard.words

    (a, mine), (b, theirs) = World(kernels=kernels_named("numpy")).run(whole, x, x).results
    return (a + b).view(np.int64) / 2.0**16, (mine + theirs)[:, 0] != 0


@pytest.mark.parametrize("outputs", [16, 700])
def test_a_guard_marks_rows_whose_mean_square_leaves_its_range(outputs: int) -> None:
    """Inputs stay within their reach, mean squares do not."""
    channels, rng = 64, np.random.default_rng(0)
    at = {"input": Range(-8.0, 8.0), "mean_square": Range(0.2, 1.0)}
    squares = np.concatenate([np.linspace(1.01, 16.0, 120), np.linspace(0.02, 0.2, 40), np.linspace(0.3, 0.6, 40)])
    x = rng.choice([-1.0, 1.0], size=(squares.size, channels)) * np.sqrt(squares)[:, None]
    w = weights(2, channels, outputs)
    assert few(len(x), channels, outputs) == (outputs == 16)
    found, marked = in_both(x, w, 3, at)
    error = np.abs(found - answer(x, w)).max(axis=1)
    assert (error > 0.05).sum() > 50 and not (~marked & (error > 0.05)).any()
    assert not marked[-40:].any()


@pytest.mark.parametrize(("each", "most"), [(8, np.inf), (120, 8.0)])
def test_results_beyond_their_bound_stay_beyond(each: int, most: float) -> None:
    """Whoever takes them sees that they are out of range, whatever became of them; those within are right. Where the
    weight comes last, this holds as far as the window of its product does."""
    at = {"input": Range(-8.0, 8.0), "mean_square": Range(0.05, 4.0)}
    x = np.random.default_rng(1).normal(0.0, 1.0, (200, 64)) * np.geomspace(0.3, 1.5, 200)[:, None]
    w = weights(2, 64, 5 * each) * 2.0 ** np.arange(-2, 3).repeat(each)
    assert few(200, *w.shape) == (each == 8)
    wanted = answer(x, w)
    found, marked = in_both(x, w, 1, at)
    beyond = (np.abs(wanted) > 2.0) & (np.abs(wanted) < most)
    assert not marked.any() and 0.1 < beyond.mean() < 0.5
    assert (np.abs(found[beyond]) > 1.99).all() and np.abs(found - wanted)[np.abs(wanted) < 2.0].max() < 1e-3


def test_words_that_do_not_hold_the_product() -> None:
    at = {"input": Range(-500.0, 500.0), "mean_square": Range(0.05, 40000.0)}

    def recorded(magnitude: int) -> None:
        PlanRecorder().record(lambda s: rmsnorm_linear(s, s.accept(ghost((4, 8))), s.open_weight(ghost((8, 3))), EPS,
                                                       magnitude, at))

    recorded(14)
    with pytest.raises(RangeError, match=r"values below 2\^24, for rows whose mean square is 0.05 to 40000; words"):
        recorded(24)


def test_the_function() -> None:
    assert needed(FAITHFUL.of(RMSNORM_LINEAR), ()) == (INPUT, MEAN_SQUARE)
    assert EXACT.of(RMSNORM_LINEAR) is RMSNORM_LINEAR.exact
    s, x, w = PlainSession(), np.random.default_rng(0).normal(size=(3, 5)), weights(1, 5, 4)
    y = EXACT.of(RMSNORM_LINEAR)(s, s.accept(x), s.open_weight(w * 2.0**FINER), EPS, 9, {})
    np.testing.assert_allclose(s.values(y), answer(x, w))
