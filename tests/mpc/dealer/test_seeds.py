"""Seeds by serial: each is given once, and what is held afterwards opens none that was given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.dealer.seeds import DEPTH, SERIALS, Seeds
from secformer.mpc.errors import RangeError, ReusedRandomness
from secformer.mpc.prg import derive

ROOT = bytes(range(32))


def seeds(root: bytes = ROOT) -> Seeds:
    return Seeds({(0, DEPTH): root})


def walked(serial: int) -> bytes:
    """The seed of a serial, down from the root."""
    key = ROOT
    for level in reversed(range(DEPTH)):
        key = derive(key, "below", serial >> level & 1)
    return key


def below(key: bytes, depth: int) -> set[bytes]:
    """All keys that a key gives, so many levels down."""
    found, level = {key}, {key}
    for _ in range(depth):
        level = {derive(k, "below", side) for k in level for side in (0, 1)}
        found |= level
    return found


@given(st.lists(st.integers(0, 40) | st.integers(0, SERIALS - 1), max_size=12))
def test_each_seed_is_given_once(order: list[int]) -> None:
    held, given = seeds(), dict[int, bytes]()
    for serial in order:
        if serial in given:
            with pytest.raises(ReusedRandomness, match=f"the seed of serial {serial} is not here any more"):
                held.take(serial)
        else:
            given[serial] = held.take(serial)
            assert given[serial] == walked(serial)
    assert len(set(given.values())) == len(given)
    gone = {s for s in order if any(a <= s < b for a, b in held.left())}
    assert not gone, "what was given is not left"
    again = Seeds.of_rows(json.loads(json.dumps(held.rows())))
    assert again.rows() == held.rows() and again.left() == held.left()


def test_what_is_held_gives_no_seed_that_was_taken() -> None:
    """All keys within reach of what is held, near the taken serials: none is theirs. Before, all were."""
    serials = range(5, 9)
    wanted = {walked(serial) for serial in serials}
    held = Seeds({(0, 4): walked_to(4)})
    assert wanted <= set().union(*(below(key, height) for (_, height), key in held._keys.items()))
    for serial in serials:
        held.take(serial)
    reach = set().union(*(below(key, height) for (_, height), key in held._keys.items()))
    assert not wanted & reach and {walked(4), walked(9)} <= reach


def walked_to(height: int) -> bytes:
    """The key of the first subtree of that height."""
    key = ROOT
    for _ in range(DEPTH - height):
        key = derive(key, "below", 0)
    return key


def test_ranges_are_cut_and_dropped() -> None:
    held = seeds()
    part = held.cut(3, 5)
    assert part.left() == [(3, 8)] and held.left() == [(0, 3), (8, SERIALS)]
    assert [part.take(s) for s in range(3, 8)] == [walked(s) for s in range(3, 8)] and part.left() == []
    assert held.drop(0, 2) and not held.drop(0, 2) and held.left() == [(2, 3), (8, SERIALS)]
    with pytest.raises(ReusedRandomness):
        held.cut(2, 2)
    assert held.left() == [(2, 3), (8, SERIALS)], "what is refused takes nothing"
    assert len(held.rows()) <= 2 * DEPTH


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (SERIALS, 1), (SERIALS - 1, 2), (0, 0)])
def test_what_is_no_serial(first: int, count: int) -> None:
    with pytest.raises(RangeError, match="serials are 0 to"):
        seeds().cut(first, count)


def test_the_last_serial() -> None:
    held = seeds()
    assert held.take(SERIALS - 1) == walked(SERIALS - 1) and held.left() == [(0, SERIALS - 1)]


@pytest.mark.parametrize("rows", [
    [[0, DEPTH + 1, "00" * 32]], [[1, 1, "00" * 32]], [[0, 1, "00" * 31]], [[0, 1, "0 " * 32]], [[True, 0, "00" * 32]],
    [[0, 1, "00" * 32], [1, 0, "00" * 32]], [[2, 0, "00" * 32], [0, 0, "00" * 32]], [[0, 1]], [3], 3, None,
    [["0", 0, "00" * 32]], [[-1, 0, "00" * 32]], [[SERIALS, 0, "00" * 32]],
])
def test_rows_that_are_none(rows: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Seeds.of_rows(rows)


def test_no_key_is_printed() -> None:
    held = seeds()
    held.take(3)
    assert repr(held) == f"Seeds({DEPTH} subtrees)" and Seeds.fresh().rows() != Seeds.fresh().rows()
