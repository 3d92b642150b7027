"""Ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secformer.protocols.ranges import Range, bits, rounded_out

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
