"""Ranges and their checks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.errors import RangeError
from secformer.protocols.ranges import Range, bits, measured, positive, rounded_out

reals = st.floats(-1e4, 1e4, allow_subnormal=False)


@given(reals, reals, st.floats(1.0, 4.0))
def test_widened_contains(a: float, b: float, factor: float) -> None:
    r = Range(min(a, b), max(a, b))
    wide = r.widened(factor)
    assert wide.low <= r.low and wide.high >= r.high
    assert wide.high - wide.low == pytest.approx(factor * (r.high - r.low), abs=1e-6)
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


def test_measured() -> None:
    at = {"input": Range(-1.0, 2.0)}
    assert measured(at, "input") is at["input"]
    with pytest.raises(RangeError, match=r"'score'.*got \['input'\].*secformer profile"):
        measured(at, "score")
    for low, high in ((2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)):
        with pytest.raises(RangeError, match="finite with low <= high"):
            measured({"input": Range(low, high)}, "input")


def test_positive() -> None:
    assert positive({"v": Range(0.0, 1.0)}, "v").high == 1.0
    for low, high in ((-1.0, 1.0), (0.0, 0.0)):
        with pytest.raises(RangeError, match="must be positive"):
            positive({"v": Range(low, high)}, "v")
