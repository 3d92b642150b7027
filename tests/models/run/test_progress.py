"""Progress: parts of a whole, sites as they are reached, and who is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.run.progress import part, shown, silent, sites_told
from secformer.protocols.ranges import Range, Site

Told = tuple[str, int, int]


@given(st.integers(1, 5), st.integers(1, 5))
def test_parts_make_a_whole(parts: int, total: int) -> None:
    told: list[Told] = []
    for number in range(parts):
        tell = part(lambda *some: told.append(some), number, parts)
        for done in range(1, total + 1):
            tell("step", done, total)
    assert told == [("step", i, parts * total) for i in range(1, parts * total + 1)]


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 4))
def test_parts_nest(outer: int, inner: int, done: int) -> None:
    """As a comparison does: recipes, of each its runs, of each its batches."""
    told: list[Told] = []
    part(part(lambda *some: told.append(some), outer, 3), inner, 3)("x", done, 4)
    assert told == [("x", outer * 12 + inner * 4 + done, 36)]


def ranges(site: str) -> Site:
    return {site: Range(0.0, 1.0)}


def test_sites_are_told_as_they_are_reached() -> None:
    told: list[Told] = []
    at = sites_told(ranges, lambda *some: told.append(some), 3)
    assert [at(name) for name in "abcde"] == [ranges(name) for name in "abcde"]
    at("b")  # asked twice, by a linear layer and by the protocol behind it: told once
    # a program that asks more often than it says never goes beyond the total
    assert told == [("a", 0, 3), ("b", 1, 3), ("c", 2, 3), ("d", 3, 3), ("e", 3, 3)]


def test_silence_costs_nothing() -> None:
    assert part(silent, 1, 2) is silent
    assert sites_told(ranges, silent, 3) is ranges


def test_who_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    def mine(what: str, done: int, total: int) -> None:
        raise AssertionError("not called by opening")

    with shown(mine) as tell:
        assert tell is mine
    with shown(False) as tell:
        assert tell is silent
    assert capfd.readouterr() == ("", "")
    with shown(True) as tell:
        assert tell is not silent
        tell("layer.0.gelu", 1, 2)
        tell("layer.1.gelu", 2, 2)
    out, err = capfd.readouterr()
    assert out == "" and err != ""


def test_an_interruption_passes_through_the_bar() -> None:
    with pytest.raises(KeyboardInterrupt), shown(True):
        raise KeyboardInterrupt
