"""What the verb reached refuses, how wide it opens, what the twin and the recorder say, what a guard sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import ULP, Words, compute, examples, rank_of, run, words_of

from secformer.mpc.dealer.thresholds import Empty, Reached
from secformer.mpc.errors import RangeError, SecformerError, ShapeError
from secformer.mpc.guarding import Guarded
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.mpc.thresholding import MOST_THRESHOLDS, window_of


@examples(200)
@given(st.integers(-40, 40), st.integers(0, 60), st.lists(st.integers(-60, 60), min_size=1, max_size=4),
       st.integers(0, 2))
def test_a_window_holds_every_difference_and_is_the_least(low: int, more: int, units: list[int], keep: int) -> None:
    high, scale = low + more, 2**keep
    window = window_of(low, high, units, keep, False)
    values = [v - c for v in (low * scale, high * scale) for c in units]

    def holds(bits: int) -> bool:
        return -(1 << bits - 1) <= min(values) and max(values) < 1 << bits - 1

    assert holds(window)
    assert window == 2 or not holds(window - 1)
    assert window_of(low, high, units, keep, True) >= window


@pytest.mark.parametrize(("low", "high", "precision", "bits"), [
    (-15.0, 15.0, 2, 8), (-16.75, 15.0, 2, 8), (-17.0, 15.0, 2, 9), (-16.76, 15.0, 2, 9), (-15.0, 46.75, 2, 8),
    (-15.0, 47.0, 2, 9), (-30.0, 30.0, 1, 8), (-30.0, 30.0, 3, 10), (0.0, 1.0, 0, 2), (15.0, 15.0, 1, 2)])
def test_windows_by_hand(low: float, high: float, precision: int, bits: int) -> None:
    """A threshold at 15 is 31.75 above -16.75: 127 units of 1/4, and one more for dropped bits, which 8 bits hold."""
    top = min(high, 15.0)
    plan = PlanRecorder().record(lambda s: s.reached(s.accept(ghost((2, 3))), [top], low=low, high=high,
                                                     precision=precision))
    assert [k.window for k in plan.kinds if isinstance(k, Reached)] == [bits]


def test_what_is_refused() -> None:
    def reach(x: Any, thresholds: Any = (0.0,), **named: Any) -> None:
        s = PlanRecorder()
        s.reached(s.accept(ghost(x)), thresholds, **{"low": -4.0, "high": 4.0, "precision": 3, **named})

    reach((2, 3))
    for bad in ({"low": 5.0}, {"high": np.inf}, {"low": np.nan}, {"width": 0}, {"width": 65}, {"thresholds": []},
                {"thresholds": [np.nan]}, {"thresholds": [0.0] * (MOST_THRESHOLDS + 1)}):
        with pytest.raises(SecformerError, match=r"finite"):
            reach((2, 3), **bad)
    for shape in ((), (2, 0)):
        with pytest.raises(ShapeError, match="at least one value"):
            reach(shape)
    for wide in ({"precision": 8}, {"precision": None}, {"high": 1e6}, {"thresholds": [900.0]}):
        with pytest.raises(RangeError, match=r"a window of \d+ bits; at most 10 are there. Lower the precision"):
            reach((2, 3), **wide)
    with pytest.raises(RangeError, match="at most 5 are there"):
        compute(lambda s, x: s.reached(x, [0.0], low=-4.0, high=4.0, precision=3)[0], Words(words_of([1, 2]), 16, 18))


def test_a_share_of_another_session_is_refused() -> None:
    s = PlainSession()
    with pytest.raises(ShapeError, match="another session"):
        PlainSession().reached(s.accept(np.zeros(3)), [0.0], low=-1.0, high=1.0)


# ---- the twin and the recorder --------------------------------------------------------------------------------------


def test_the_twin_and_the_recorder_keep_the_same_books() -> None:
    x = np.random.default_rng(0).integers(-8, 8, size=(3, 4, 5)) / 2.0

    def program(s: Any, x: Share) -> list[Share]:
        return s.reached(x + 2.0**-4, [0.25, 1.75, -2.25], low=-4.0, high=4.0, precision=3, width=40)

    twin, recorder = PlainSession(), PlanRecorder()
    plain, ghosts = program(twin, twin.accept(x)), program(recorder, recorder.accept(ghost(x.shape)))
    results, _ = run(program, x, raw=True)
    for a, b, c in zip(plain, ghosts, results, strict=True):
        assert (a.frac, a.width, a.magnitude) == (b.frac, b.width, b.magnitude) == (c.frac, c.width, 1) == (0, 40, 1)
        assert a.shape == b.shape == c.words.shape == (3, 4, 1)
        np.testing.assert_array_equal(a.data, c.value)


def test_plans_of_other_thresholds_differ_in_their_digest_alone() -> None:
    def plan(c: float, low: float = -4.0) -> Any:
        return PlanRecorder().record(lambda s: s.reached(s.accept(ghost((2, 3))), [c], low=low, high=4.0, precision=3))

    one, other = plan(1.0), plan(0.0)
    assert one.kinds == other.kinds and one.digest != other.digest
    assert plan(1.0).digest == one.digest
    assert [type(k) for k in one.kinds] == [Reached, Empty] and one.rounds == 4


@pytest.mark.parametrize("bad", [4.0 + ULP, -4.0 - ULP, np.nan, np.inf])
def test_the_strict_twin_refuses_values_outside_of_the_interval(bad: float) -> None:
    def program(s: Any, x: Share) -> Any:
        with s.scope("layer 3"):
            return s.reached(x, [0.0], low=-4.0, high=4.0, precision=3)

    x = np.array([[4.0, -4.0, 0.0]])
    twin = PlainSession()
    (bit,) = program(twin, twin.accept(x))
    assert bit.data.tolist() == [[1.0]]
    with pytest.raises(RangeError, match=r"layer 3: thresholds are compared with values in \[-4, 4\], got"):
        program(twin, twin.accept(np.append(x, [[bad]], axis=1)))
    loose = PlainSession(strict=False)
    program(loose, loose.accept(np.append(x, [[bad]], axis=1)))


# ---- guards ---------------------------------------------------------------------------------------------------------


def marks(x: np.ndarray, known: bool = False) -> tuple[np.ndarray, Any]:
    """Which texts a guard marks, at shares; and the run."""
    def program(s: Any, given: Any) -> Any:
        mine = given if rank_of(s) in (0, None) else None
        with s.guarding({len(x): np.arange(len(x))}, len(x), Guarded(apart=True)) as guard:
            s.reached(s.share(mine, 0, shape=x.shape), [5.0, 0.0], low=-9.0, high=9.0, precision=4, known=known)
        return guard.words

    outcome = World().run(program, x, x)
    plain = np.asarray(program(PlainSession(strict=False), x)) != 0
    marked = (outcome.results[0] + outcome.results[1]) != 0
    assert np.array_equal(marked, plain)
    return marked, outcome


def test_texts_with_values_outside_are_marked() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(-9.0, 9.0, size=(6, 30))
    x[0, :2] = -9.0, 9.0
    x[2, 5], x[4, 29] = 12.0, -13.0
    marked, outcome = marks(x)
    assert marked[:, 0].nonzero()[0].tolist() == [2, 4]
    kind = next(k for k in outcome.plan.kinds if isinstance(k, Reached))
    assert (kind.window, len(kind.guards)) == (10, 1)  # 12.25 + 5 is 276 units of 1/16
    unmarked, without = marks(x, known=True)
    assert unmarked.shape == (6, 0)
    assert next(k for k in without.plan.kinds if isinstance(k, Reached)).guards == ()


def test_a_guard_s_window_leaves_room_to_tell() -> None:
    """One threshold in the middle of a long interval: values fill the window, and a guard needs some beyond."""
    for length in range(100, 140):
        window_without = window_of(-length, length - 1, [0], 0, True)
        window = window_of(-length, length - 1, [0], 0, True, True)
        assert window in (window_without, window_without + 1)
    assert (window_of(-122, 122, [0], 0, True), window_of(-122, 122, [0], 0, True, True)) == (8, 9)
