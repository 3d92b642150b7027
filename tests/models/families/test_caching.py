"""Slots and positions of a text that grows, and attention over caches: that of whole texts, whatever the steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.models.families import caching
from secformer.models.families.attending import Causal, prefix_names
from secformer.models.families.caching import Cached, Timeline, caches
from secformer.models.run.decoding import new_tokens
from secformer.mpc.errors import InputError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.recipes import EXACT

H, G, D = 4, 2, 3
moves = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=6)  # tokens that come, then go


@given(st.integers(0, 3), moves, st.one_of(st.none(), st.integers(0, 4)))
@examples(60)
def test_a_token_sees_what_its_text_has_before_it(first: int, steps: list[tuple[int, int]], reach: int | None) -> None:
    """Each position once, by the slot that it came in last; never a slot that was gone back on."""
    timeline, slot_of, used = Timeline(first), {i: i for i in range(first)}, first
    for new, gone in steps:
        capacity = timeline.capacity(new)
        positions = timeline.take(new)
        np.testing.assert_array_equal(positions, np.arange(len(slot_of), len(slot_of) + new))
        slot_of |= {int(p): used + i for i, p in enumerate(positions)}
        used += new
        assert timeline.used == used < capacity and capacity % caching.SLOTS == 0
        for p, row in zip(positions, timeline.seen(positions, capacity, reach), strict=True):
            near = [q for q in slot_of if q <= p and (reach is None or q >= p - reach)]
            assert sorted(np.flatnonzero(row)) == sorted(slot_of[q] for q in near)
        length = max(first, timeline.length - gone)
        timeline.back(length)
        slot_of = {p: slot for p, slot in slot_of.items() if p < length}
        assert timeline.length == length and timeline.used == used


def test_capacities() -> None:
    """The last slot is always masked, so programs of one capacity are one program."""
    timeline = Timeline()
    assert [timeline.capacity(n) for n in (1, 63, 64, 127, 128)] == [64, 64, 128, 128, 192]
    timeline.take(63)
    assert timeline.capacity(1) == 128


@pytest.mark.parametrize("length", [1, 6])
def test_lengths_to_go_back_to(length: int) -> None:
    timeline = Timeline(2)
    timeline.take(3)
    with pytest.raises(InputError, match="the first 2 of them public, can go back to 2 to 5 tokens; got"):
        timeline.back(length)
    assert timeline.length == 5


@given(st.integers(0, 4), moves, st.one_of(st.none(), st.integers(0, 4)), st.integers(0, 9))
@examples(40)
def test_steps_attend_as_whole_texts_do(first: int, steps: list[tuple[int, int]], reach: int | None,
                                        seed: int) -> None:
    """With a public prefix, with tokens that are gone back on, and with windows shorter than the text."""
    rng, s = np.random.default_rng(seed), PlainSession()
    weights = {name: s.open_weight(rng.normal(size=(first, G * D))) for name in prefix_names(0)} if first else {}
    parameters: Any = SimpleNamespace(matrices=weights)
    spec = SimpleNamespace(groups=G, size=D, layers=1)
    decoder: Any = SimpleNamespace(spec=spec)
    forward: Any = SimpleNamespace(recipe=EXACT, parameters=SimpleNamespace(matrix=weights.get))
    pairs, timeline = caches(s, decoder, parameters), Timeline(first)
    rows: list[tuple[np.ndarray, ...]] = []
    for new, gone in steps:
        capacity, positions = timeline.capacity(new), timeline.take(new)
        qkv = [rng.normal(size=(new, heads, D)) for heads in (H, G, G)]
        for cache in pairs[0]:
            cache.grow(capacity)
        attention = Cached(positions, pairs, lambda reach, p=positions, c=capacity: timeline.seen(p, c, reach))
        found = attention(s, *map(s.accept, qkv), forward, {}, 0, reach)
        rows += zip(*qkv, strict=True)
        whole = Causal(new_tokens([0] * len(rows)), first)
        wanted = whole(s, *(s.accept(np.stack(x)) for x in zip(*rows, strict=True)), forward, {}, 0, reach)
        np.testing.assert_allclose(s.values(found), s.values(wanted)[-new:], atol=1e-12)
        length = max(first, timeline.length - gone)
        timeline.back(length)
        del rows[length - first :]
