"""The float64 twin and the plan recorder: the same programs, the same scales, no memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import F16, ULP, compute, examples, kernels_named, run

from secformer.mpc.dealer.products import MatMul
from secformer.mpc.errors import Desync, RangeError, SecformerError, SettingsError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.ops.book import Reader, Writer
from secformer.mpc.party import Party
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.shares import Share

F = Series(5, (0.5, 1.0, -0.25), (0.0, 0.5, 0.125), linear=0.5)


def everything(s: Any, x: Share) -> list[Share]:
    """A bit of every verb, from x in (-4, 4) of shape (n, 3)."""
    p = s.mul(x, x[::-1])
    q = s.matmul(x, x.transpose())
    bit = s.less(x, [0.5], bound=8.0)[0]
    m = s.maximum(x, 1, bound=8.0)
    picked = s.select(bit, x, -x)
    curve = s.series(p * 0.25, [F])[0]
    return [
        s.exponential(x - 4.0, Exponential(5, 0.25)),
        p,
        q,
        bit,
        s.lift(m)[0],
        picked,
        curve,
        s.relu(x - 1.0, bound=8.0),
        s.mul(s.square(x), curve),
        x.mean(0) * 3,
        s.concatenate([p, x]),
        (p + x) * 0.5,
    ]


@examples(10)
@given(n=st.integers(1, 5), seed=st.integers(0, 999))
def test_the_twin_keeps_the_books_of_the_secure_session(n: int, seed: int) -> None:
    x = np.rint(np.random.default_rng(seed).uniform(-4, 4, size=(n, 3)) / ULP) * ULP
    twin = PlainSession()
    shares = everything(twin, twin.accept(x))
    recorder = PlanRecorder()
    ghosts = everything(recorder, recorder.accept(ghost(x.shape)))
    results, _ = run(everything, x, raw=True)
    for plain, shape, secure in zip(shares, ghosts, results, strict=True):
        assert (plain.frac, plain.width) == (shape.frac, shape.width) == (secure.frac, secure.width)
        assert plain.magnitude == shape.magnitude
        assert plain.shape == shape.shape == secure.words.shape
        assert np.abs(secure.value - plain.data).max() < 40 * ULP


# ---- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [128.0, -128.0, 1e9, np.nan, np.inf])
def test_a_value_beyond_its_promise_is_refused_by_the_strict_twin(bad: float) -> None:
    def program(s: Any, x: Share) -> Any:
        with s.scope("layer 3"), s.scope("gelu"):
            return s.settle(s.square(x, magnitude=14))

    twin = PlainSession()
    program(twin, twin.accept(np.array([127.99])))
    with pytest.raises(RangeError, match=r"layer 3/gelu: a truncation window holds \|v\| < 2\^14"):
        program(twin, twin.accept(np.array([1.0, bad])))
    loose = PlainSession(strict=False)
    program(loose, loose.accept(np.array([bad])))


@pytest.mark.parametrize("verb", [lambda s, x: s.less(x, [0.0], bound=4.0), lambda s, x: s.relu(x, bound=4.0)])
def test_a_value_beyond_a_comparison_is_refused_by_the_strict_twin(verb: Callable[[Any, Share], Any]) -> None:
    twin = PlainSession()
    verb(twin, twin.accept(np.array([3.99, -3.99])))
    with pytest.raises(RangeError, match="a comparison"):
        verb(twin, twin.accept(np.array([0.0, -4.01])))


def test_differences_beyond_a_maximum_are_refused_by_the_strict_twin() -> None:
    twin = PlainSession()
    with pytest.raises(RangeError, match="a comparison"):
        twin.maximum(twin.accept(np.array([20.0, -20.0])), 0, bound=16.0)


def test_what_the_strict_twin_accepts_the_parties_compute() -> None:
    """Right at the edge of every check the secure answer is still right."""
    reach = 128.0 - 2 * ULP
    x = np.array([reach, -reach, 0.0])
    twin = PlainSession()
    expected = twin.settle(twin.square(twin.accept(x)))[0].data
    assert np.abs(compute(lambda s, x: s.settle(s.square(x))[0], x) - expected).max() <= ULP


def test_the_twin_needs_every_value() -> None:
    with pytest.raises(RangeError, match="holds every value"):
        PlainSession().share(None, 1, shape=(3,))


def test_apply_is_only_in_the_twin() -> None:
    twin = PlainSession()
    np.testing.assert_array_equal(twin.apply(np.exp, twin.accept(np.zeros(2))).data, [1.0, 1.0])
    np.testing.assert_array_equal(twin.values(twin.accept(np.arange(2))), [0.0, 1.0])
    party = SecureSession(Party(0, F16, kernels_named("numpy")))
    for s, data in ((PlanRecorder(), ghost((2,))), (party, np.zeros(2, dtype=np.uint64))):
        refused = rf"in the float64 twin only; this is a {type(s).__name__}\. .* 'faithful'"
        with pytest.raises(SettingsError, match=refused):
            s.apply(np.exp, s.accept(data))
        with pytest.raises(SettingsError, match=refused):
            s.values(s.accept(data))


@pytest.mark.parametrize("session", [PlainSession, PlanRecorder])
def test_a_book_s_numbers_count_inside_only(session: Callable[[], Session]) -> None:
    s, f = session(), Series(4, (0.0, 1.0), (0.0, 0.0))
    for book in (writer := Writer(), Reader([f])):
        with s.agreeing(book):
            s.series(s.public(1.0), [f])
    s.series(s.public(1.0), [f])
    assert writer.series == [f]
    with pytest.raises(Desync), s.agreeing(Reader([])):
        s.series(s.public(1.0), [f])
    s.series(s.public(1.0), [f])  # the book is closed after an error too


def test_weights_of_a_failed_run_are_taken_back() -> None:
    first, second = PlainSession(), PlainSession()
    w = np.eye(2)
    first.open_weight(w)
    second.open_weight(w)
    with first.taking_back(second):
        first.open_weight(w)
        second.open_weight(w)
    assert first.weights == second.weights == 2
    with pytest.raises(ZeroDivisionError), first.taking_back(second):
        first.open_weight(w)
        second.open_weight(w)
        raise ZeroDivisionError
    assert first.weights == second.weights == 2
    first.forget_weights()
    assert first.open_weight(w).index == 0


@pytest.mark.parametrize("session", [PlainSession, PlanRecorder])
def test_a_weight_is_a_matrix(session: Callable[[], Session]) -> None:
    s = session()
    with pytest.raises(ShapeError, match=r"a \(K, N\) matrix, .* got \(3,\)"):
        s.open_weight(np.zeros(3))
    assert s.weights == 0


# ---- the recorder ---------------------------------------------------------------------------------------------------


def test_recording_huge_shapes_takes_no_memory() -> None:
    def program(s: Any) -> None:
        x = s.share(None, 0, shape=(10**6, 10**4))
        w = s.open_weight(ghost((10**4, 10**4)))
        y = s.matmul(x, w)
        y = s.mul(y, y) * 0.5 + y
        y = s.series(y, [F])[0].reshape(10**4, 10**6).transpose(1, 0)[:, ::2].swapaxes(0, 1)
        s.exponential(y, Exponential(9, 0.25))
        y = s.relu(y - y.mean(0), bound=64.0)
        m = s.maximum(s.concatenate([y, y], 0), 0, bound=64.0, precision=3)
        s.less(s.broadcast_to(m, (10**5, 10**6)), [0.0], bound=64.0)
        s.settle(s.public(1.0, shape=(10**6, 10**4)) * 0.3)

    tracemalloc.start()
    try:
        plan = PlanRecorder().record(program)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24
    assert isinstance(plan.kinds[1], MatMul)
    assert plan.bytes > 10**10


def test_recording_twice_gives_the_same_plan() -> None:
    recorder = PlanRecorder()

    def program(s: Any) -> None:
        everything(s, s.accept(ghost((4, 3))))

    assert recorder.record(program) == recorder.record(program) == PlanRecorder().record(program)
    assert recorder.record(program).digest != PlanRecorder(FixedPoint(15)).record(program).digest


@pytest.mark.parametrize(
    "program",
    [
        lambda s: s.square(s.accept(ghost((2,))), magnitude=40),
        lambda s: s.relu(s.accept(ghost((2,))), bound=2.0**40),
        lambda s: s.matmul(s.accept(ghost((2, 3))), s.accept(ghost((2, 3)))),
        lambda s: s.accept(ghost((2,))) * np.inf,
        lambda s: s.series(s.accept(ghost((2,))), [Series(4, (0.0,), (0.0,), linear=0.1)]),
        lambda s: s.exponential(s.accept(ghost((2,))), Exponential(5, 3.0)),
        lambda s: s.mul(s.accept(ghost((2,))), PlanRecorder().accept(ghost((2,)))),
    ],
)
def test_mistakes_show_while_recording(program: Callable[[Any], Any]) -> None:
    with pytest.raises(SecformerError):
        PlanRecorder().record(program)


def test_an_unknown_receiver_shows_while_recording() -> None:
    with pytest.raises(SettingsError, match="CLIENT"):
        PlanRecorder().record(lambda s: s.reveal(s.accept(ghost((2,))), 7))


def test_recorded_reveals_have_their_shape() -> None:
    recorder = PlanRecorder()
    assert recorder.reveal(recorder.accept(ghost((2, 5))), CLIENT).shape == (2, 5)
    assert recorder.reveal(recorder.accept(ghost((2, 5))), 0).shape == (2, 5)
