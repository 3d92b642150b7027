"""Words of 64 + s bits against Python's integers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prototypes.authenticated.wide import Wide

EXTRAS = (0, 1, 7, 63, 64)
EDGES = sorted({(1 << bits) + delta for bits in (0, 1, 31, 32, 33, 63, 64, 65, 96, 127, 128) for delta in (-1, 0, 1)})
WORDS = st.integers(0, 2**128 - 1)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul], ids=lambda f: f.__name__)
def test_pairs_of_edges(operation: Callable[[Any, Any], Any], extra: int) -> None:
    a, b = zip(*product(EDGES, EDGES), strict=True)
    found = operation(Wide.of_ints(a, extra), Wide.of_ints(b, extra)).ints()
    assert found == [operation(x, y) % 2 ** (64 + extra) for x, y in zip(a, b, strict=True)]


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=9), st.sampled_from(EXTRAS))
def test_any_words(pairs: list[tuple[int, int]], extra: int) -> None:
    ring = 2 ** (64 + extra)
    a, b = (Wide.of_ints(side, extra) for side in zip(*pairs, strict=True))
    words = b.low
    assert (a * b).ints() == [x * y % ring for x, y in pairs]
    assert a.times(words).ints() == [x * (y % 2**64) % ring for x, y in pairs]
    assert (-a).ints() == [-x % ring for x, _ in pairs]
    assert a.total().ints() == [sum(x for x, _ in pairs) % ring]


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0, 2), (7,), (2, 3, 5)])
def test_shapes(shape: tuple[int, ...]) -> None:
    ones = Wide.of(np.full(shape, 2**64 - 1, np.uint64))
    size = int(np.prod(shape))
    assert (ones * ones).shape == shape and len(ones.tobytes()) == 16 * size
    assert ones.total().ints() == [size * (2**64 - 1)]


def test_a_row_meets_a_column() -> None:
    row, column = Wide.of_ints([2**64, 3]), Wide.of_ints([2**63, 5, 7])
    column = Wide(column.low[:, None], column.high[:, None])
    assert (row * column).ints() == [a * b % 2**128 for b in (2**63, 5, 7) for a in (2**64, 3)]


@pytest.mark.parametrize(("low", "high", "extra"), [
    (np.uint64(1), np.uint64(1), 64),                                  # no axis
    (np.ones(2, np.int64), np.ones(2, np.int64), 64),                  # signed
    (np.ones(2, np.uint64), np.ones(3, np.uint64), 64),                # two shapes
    (np.ones(2, np.uint64), np.ones(2, np.uint64), 65),                # wider than two words
])
def test_refuses_what_is_no_array_of_words(low: Any, high: Any, extra: int) -> None:
    with pytest.raises(ValueError, match=r"uint64 arrays|bits beyond 64"):
        Wide(low, high, extra)


def test_refuses_two_rings() -> None:
    with pytest.raises(ValueError, match="do not mix"):
        Wide.of_ints([1], 64) + Wide.of_ints([1], 0)
