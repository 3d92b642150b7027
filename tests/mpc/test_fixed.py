"""Fixed point: round trips, edges, windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from mpc_lab import examples

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint, decode, encode


@examples(100)
@given(
    x=arrays(
        np.float64,
        array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        elements=st.floats(-(2.0**30), 2.0**30),
    ),
    frac=st.integers(0, 22),
)
def test_round_trip_is_within_half_a_unit(x: np.ndarray, frac: int) -> None:
    back = decode(encode(x, frac), frac)
    assert back.shape == x.shape
    assert np.all(np.abs(back - x) <= 2.0 ** -(frac + 1))


@examples(100)
@given(word=st.integers(-(2**52), 2**52), frac=st.integers(0, 40))
def test_representable_values_are_exact(word: int, frac: int) -> None:
    x = np.array([word / 2**frac])
    assert int(encode(x, frac).view(np.int64)[0]) == word
    assert decode(encode(x, frac), frac)[0] == x[0]


@examples(60)
@given(width=st.integers(1, 64), value=st.integers(-(2**63), 2**63 - 1))
def test_decode_reads_the_low_bits_as_twos_complement(width: int, value: int) -> None:
    expected = ((value + (1 << (width - 1))) % (1 << width)) - (1 << (width - 1))
    got = decode(np.array([value % 2**64], dtype=np.uint64), 0, width)[0]
    assert got == float(expected)


def test_rounds_to_nearest_even() -> None:
    assert encode(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), 0).view(np.int64).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("frac", [0, 4, 16, 24, 63])
def test_edges_of_the_words(frac: int) -> None:
    edge = 2.0 ** (63 - frac)
    inside = np.nextafter(edge, 0.0)
    assert decode(encode(np.array([inside, -inside]), frac), frac).tolist() == [inside, -inside]
    for bad in (edge, -edge, np.inf, -np.inf, np.nan):
        with pytest.raises(RangeError, match=f"{frac} fractional bits"):
            encode(np.array([0.0, bad]), frac)


def test_the_error_shows_the_worst_value() -> None:
    with pytest.raises(RangeError, match="a NaN"):
        encode(np.array([1.0, np.nan]), 16)
    with pytest.raises(RangeError, match=r"-1e\+20"):
        encode(np.array([1.0, -1e20]), 16)


def test_negative_fractional_bits_drop_integers() -> None:
    assert encode(np.array([1024.0, 1000.0]), -4).tolist() == [64, 62]  # 62.5 rounds to even


def test_empty_and_scalar() -> None:
    assert encode(np.zeros((0, 3)), 16).shape == (0, 3)
    assert int(encode(1.5, 16)) == 3 << 15
    assert decode(np.zeros((2, 0), dtype=np.uint64), 16).shape == (2, 0)


@examples(100)
@given(frac=st.integers(-4, 60), magnitude=st.integers(-4, 60))
def test_window_is_whole_bytes_with_headroom_or_refuses(frac: int, magnitude: int) -> None:
    fixed = FixedPoint()
    need = frac + magnitude + 2
    if need > 64:
        with pytest.raises(RangeError, match=f"needs {need} bits"):
            fixed.window(frac, magnitude)
    else:
        window = fixed.window(frac, magnitude)
        assert window % 8 == 0
        assert need <= window < need + 8


@pytest.mark.parametrize(("frac", "magnitude"), [(3, 5), (25, 5), (16, 0), (16, 31), (24, 15), (-1, 4)])
def test_impossible_formats_are_refused(frac: int, magnitude: int) -> None:
    with pytest.raises(RangeError):
        FixedPoint(frac, magnitude)


@pytest.mark.parametrize(("frac", "magnitude"), [(4, 1), (4, 54), (24, 14), (16, 30)])
def test_extreme_formats_are_accepted(frac: int, magnitude: int) -> None:
    assert FixedPoint(frac, magnitude).window(2 * frac, magnitude) <= 64
