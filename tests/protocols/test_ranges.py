"""Ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.guards import Interval
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.ranges import Range, bits, bounded, roomiest, rounded_out

reals = st.floats(-1e4, 1e4, allow_subnormal=False)


@given(reals, reals)
def test_reach(a: float, b: float) -> None:
    r = Range(min(a, b), max(a, b))
    assert r.reach == max(abs(a), abs(b))


@given(reals, reals, st.sampled_from([0.25, 1.0, 2.0]))
def test_rounded_out_contains(a: float, b: float, step: float) -> None:
    r = Range(min(a, b), max(a, b))
    out = rounded_out(r, step)
    assert out.low <= r.low and r.high <= out.high
    assert r.low - out.low <= step and out.high - r.high <= step
    assert out.low % step == 0.0 and out.high % step == 0.0


@given(st.floats(1e-6, 1e9))
def test_bits(value: float) -> None:
    assert 2.0 ** (bits(value) - 1) < value <= 2.0 ** bits(value)
    assert bits(-value) == bits(value)


def test_bits_of_zero() -> None:
    assert bits(0.0) == 0


@given(st.integers(-20, 40), st.integers(0, 9))
def test_the_roomiest_magnitude_costs_nothing(least: int, more: int) -> None:
    """One more would cost a byte in one of the windows."""
    fixed = FixedPoint()

    def windows(m: int) -> tuple[int, ...]:
        return fixed.window(16, m), fixed.window(16, m + more)

    found = roomiest(least, windows) if least + more <= 46 else least
    assert found >= least
    if least + more <= 46:
        assert windows(found) == windows(least)
    if found + more < 46:
        assert windows(found + 1) != windows(found) or least + more > 46


def test_room_ends_where_words_do() -> None:
    fixed = FixedPoint()
    assert roomiest(28, lambda m: (fixed.window(32, m),)) == 30
    with pytest.raises(RangeError, match="words have 64"):
        roomiest(31, lambda m: (fixed.window(32, m),))


@pytest.mark.parametrize("reach, room, magnitude", [(0.1, 0, 6), (50.0, 0, 6), (60.0, 0, 14), (4.0, 7, 14),
                                                    (4.0, 99, 14), (16_000.0, 0, 14)])
def test_a_promise_is_as_loose_as_its_bytes_allow(reach: float, room: int, magnitude: int) -> None:
    """An eighth of the length lies beyond each end. At most, it is what the words hold."""
    s = PlainSession()
    x = bounded(s.accept([1.0], frac=32, width=48), s, Range(-reach, reach), "input", room=room)
    assert x.magnitude == magnitude and x.interval is None
    with s.guarding({1: [0]}, 1):
        x = bounded(x, s, Range(0.0, 8.0), "input")
        assert x.interval == Interval(-1.0, 9.0, ": input")


def test_ranges_that_words_do_not_hold() -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=r"'input' reaches 16400, but the layer before it holds values below 2\^14"):
        bounded(s.accept([1.0], frac=32, width=48), s, Range(0.0, 16_400.0), "input")
