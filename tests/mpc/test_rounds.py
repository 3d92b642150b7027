"""Verbs that share a round: the same results, one round, and when it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpc_lab import ULP, tcp_pair, whether_zero
from mpc_lab import run as run_and_cost

from secformer.mpc.errors import PeerLost, ProtocolError, SettingsError
from secformer.mpc.functions import Series
from secformer.mpc.rounds import Round, Steps
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

SINE = Series(period_bits=4, cos=(0.0, 0.0), sin=(0.0, 1.0))
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3))


def three(s: Session, x: Share, y: Share) -> list[Share]:
    """A matrix product, an element-wise one and a series, which need nothing of each other."""
    return [s.matmul(x, y), s.square(x), *s.series(x, [SINE])]


def shared(s: Session, x: Share, y: Share) -> list[Share]:
    with s.one_round():
        return three(s, x, y)


def run(program: Callable[..., Any], *values: np.ndarray) -> list[np.ndarray]:
    return run_and_cost(program, *values)[0]


def plan_of(program: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
    return PlanRecorder().record(lambda s: program(s, *(s.accept(ghost(shape)) for shape in shapes)))


def test_results_are_those_of_one_verb_after_another() -> None:
    wanted = [X @ Y, X * X, np.sin(np.pi * X / 8.0)]
    for found, value in zip(run(shared, X, Y), wanted, strict=True):
        np.testing.assert_allclose(found, value, atol=16 * ULP)


def test_one_round_and_no_byte_more() -> None:
    one, each = plan_of(shared, X.shape, Y.shape), plan_of(three, X.shape, Y.shape)
    assert (one.rounds, each.rounds) == (1, 3)
    assert one.bytes == each.bytes
    assert one.kinds == each.kinds


def test_what_is_measured_is_what_was_recorded() -> None:
    words = [np.zeros(v.shape, dtype=np.uint64) for v in (X, Y)]

    def program(s: Session, given: Any) -> list[Any]:
        return [s.reveal(v, "client") for v in shared(s, *(s.accept(w) for w in given))]

    outcome = World().run(program, words, words)
    assert outcome.cost.rounds == outcome.plan.rounds
    assert outcome.plan.rounds == 4  # a truncation of each result


def test_a_result_that_is_needed_ends_the_round() -> None:
    """x y and x^2 go together, then (x y)^2 and the sine do."""
    def program(s: Session, x: Share, y: Share) -> list[Share]:
        with s.one_round():
            xy, xx = s.mul(x, y), s.square(x)
            return [s.square(xy), xx, *s.series(x, [SINE])]

    assert plan_of(program, X.shape, X.shape).rounds == 2
    found = run(program, X, X)
    for each, value in zip(found, [X**4, X**2, np.sin(np.pi * X / 8.0)], strict=True):
        np.testing.assert_allclose(each, value, atol=64 * ULP * (1.0 + X.max() ** 4))


@pytest.mark.parametrize("asks", [
    lambda s, v: v + 1.0, lambda s, v: v * 2.0, lambda s, v: v[0], lambda s, v: v.reshape(-1), lambda s, v: -v,
    lambda s, v: s.settle(v), lambda s, v: v.sum(-1), lambda s, v: v.promise(3), lambda s, v: v.transpose(1, 0),
    lambda s, v: s.concatenate([v, v]), lambda s, v: s.broadcast_to(v, (2, 5, 3)), lambda s, v: v.data,
])
def test_whatever_asks_for_data_runs_the_round(asks: Callable[[Session, Share], Any]) -> None:
    def program(s: Session, x: Share, y: Share) -> Share:
        with s.one_round():
            v = s.matmul(x, y)
            asks(s, v)
            return s.matmul(x, y)

    assert plan_of(program, X.shape, Y.shape).rounds >= 2
    np.testing.assert_allclose(run(program, X, Y)[0], X @ Y, atol=16 * ULP)


def test_shapes_and_scales_are_known_before() -> None:
    s = PlainSession()
    x, y = s.accept(X), s.accept(Y)
    with s.one_round():
        v = s.matmul(x, y)
        assert (v.shape, v.ndim, v.size, v.frac) == ((5, 3), 2, 15, 32)
        assert len(s._round._waiting) == 1, "nothing has run"  # type: ignore[union-attr]


def test_operands_are_truncated_where_they_are_given() -> None:
    def program(s: Session, x: Share, y: Share) -> list[Share]:
        with s.one_round():
            return [s.matmul(s.mul(x, x), y), s.square(x)]

    assert plan_of(program, X.shape, Y.shape).rounds == 3, "the product, its truncation, and both others"


def test_blocks_do_not_nest_and_end() -> None:
    s = PlainSession()
    x, y = s.accept(X), s.accept(Y)
    with s.one_round(), pytest.raises(SettingsError, match="one block at a time"), s.one_round():
        pass
    with pytest.raises(ZeroDivisionError), s.one_round():
        v = s.matmul(x, y)
        raise ZeroDivisionError
    assert s._round is None
    np.testing.assert_array_equal(s.matmul(x, y).data, X @ Y)
    np.testing.assert_array_equal(v.data, X @ Y)  # the twin can still compute what was put off


def test_a_round_that_failed_gives_nothing() -> None:
    def fails() -> Any:
        raise PeerLost("gone")

    waiting = Round(lambda jobs: [job() for job in jobs])
    (late,) = waiting.put_off(fails, [(2,)])
    with pytest.raises(PeerLost):
        waiting.run()
    with pytest.raises(ProtocolError, match="has failed"):
        late.found()


def test_nothing_put_off_takes_no_round() -> None:
    def program(s: Session, x: Share) -> None:
        with s.one_round():
            x + x

    assert plan_of(program, (3,)).rounds == 0


@pytest.mark.parametrize("shape", [(0, 4), (1, 4)])
def test_empty_and_single_rows(shape: tuple[int, int]) -> None:
    x = RNG.normal(size=shape)
    for found, value in zip(run(shared, x, Y), [x @ Y, x * x, np.sin(np.pi * x / 8.0)], strict=True):
        np.testing.assert_allclose(found, value, atol=16 * ULP)


# ---- beside a program -----------------------------------------------------------------------------------------------


def powers(s: Session, x: Share, log: list[str] | None = None) -> Steps:
    """x^2, then x^4: two rounds."""
    xx = s.square(x)
    yield
    if log is not None:
        log.append("step")
    found = s.square(xx)
    yield
    return found


def few(s: Session, x: Share, y: Share, verbs: int) -> list[Share]:
    each = lambda: s.matmul(x, y), lambda: s.square(x + 1.0), lambda: s.series(x, [SINE])[0]
    return [verb() for verb in each[:verbs]]


def beside(s: Session, x: Share, y: Share, verbs: int = 3) -> list[Share]:
    with s.beside(powers(s, x)) as found:
        assert not found.over
        out = few(s, x, y, verbs)
    assert found.over
    return [*out, found.result]


def after(s: Session, x: Share, y: Share, verbs: int = 3) -> list[Share]:
    return [*few(s, x, y, verbs), s.square(s.square(x))]


@pytest.mark.parametrize("verbs", [0, 1, 2, 3])
def test_steps_beside_a_program_share_its_rounds(verbs: int) -> None:
    """They take rounds of their own only where the program has too few."""
    one, each = (plan_of(lambda s, x, y, p=p: p(s, x, y, verbs), X.shape, Y.shape) for p in (beside, after))
    assert (one.rounds, each.rounds) == (max(verbs, 2), verbs + 2)
    assert one.bytes == each.bytes
    wanted = [X @ Y, (X + 1.0) ** 2, np.sin(np.pi * X / 8.0)][:verbs]
    found = run(lambda s, x, y: beside(s, x, y, verbs), X, Y)
    for value, right in zip(found, [*wanted, X**4], strict=True):
        np.testing.assert_allclose(value, right, atol=64 * ULP * (1.0 + X.max() ** 4))


def test_what_runs_beside_is_measured_as_it_was_recorded() -> None:
    words = [np.zeros(v.shape, dtype=np.uint64) for v in (X, Y)]

    def program(s: Session, given: Any) -> list[Any]:
        return [s.reveal(v, "client") for v in beside(s, *(s.accept(w) for w in given))]

    outcome = World().run(program, words, words)
    assert outcome.cost.rounds == outcome.plan.rounds == 3 + 4
    assert outcome.cost.bytes == outcome.plan.bytes


def test_a_block_of_one_round_takes_what_runs_beside_along() -> None:
    def program(s: Session, x: Share, y: Share) -> list[Share]:
        with s.beside(powers(s, x)) as found:
            out = shared(s, x, y)
            out += s.series(x, [SINE])
        return [*out, found.result]

    assert plan_of(program, X.shape, Y.shape).rounds == 2
    np.testing.assert_allclose(run(program, X, Y)[-1], X**4, atol=64 * ULP * (1.0 + X.max() ** 4))


def test_rounds_of_other_verbs_are_their_own() -> None:
    """A truncation shares no round; the steps wait for the product behind it."""
    log: list[str] = []

    def program(s: Session, x: Share, y: Share) -> None:
        with s.beside(powers(s, x, log)):
            s.settle(x * 0.3)
            log.append("settled")
            s.matmul(x, y)
            log.append("multiplied")

    assert plan_of(program, X.shape, Y.shape).rounds == 3
    assert log == ["settled", "step", "multiplied"]


def test_a_program_or_a_step_that_fails_leaves_nothing_waiting() -> None:
    s = PlainSession()
    x, y = s.accept(X), s.accept(Y)

    def fails() -> Steps:
        s.square(x)
        yield
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), s.beside(powers(s, x)):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), s.beside(fails()):
        s.matmul(x, y)
    assert s._round is None and not s._off
    np.testing.assert_array_equal(s.matmul(x, y).data, X @ Y)


def test_steps_that_open_nothing_end() -> None:
    def nothing() -> Steps:
        yield
        yield
        return 7

    with PlainSession().beside(nothing()) as found:
        pass
    assert found.result == 7


def test_many_verbs_share_a_round_over_sockets() -> None:
    """Where a header has little room for their names."""
    words = [np.zeros(v.shape, dtype=np.uint64) for v in (X, Y)]

    def program(s: Session, given: Any) -> list[Any]:
        x, y = (s.accept(w) for w in given)
        with s.beside(whether_zero(s, x)) as found:
            s.matmul(x, y)
            shared(s, x, y)
        return [found.result]

    outcome = World(connect=tcp_pair).run(program, words, words)
    assert outcome.cost.rounds == 3 and not np.any(outcome.results)
