"""Which keys each query meets: blocks cover the band and no more, and attention in blocks is attention with a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.models.data.batch import Batch, Row
from secformer.models.families.local import Meeting, alone_as_mean, block_size
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.quantities import ATTENTION, real_scores
from secformer.protocols.ranges import Range, bits
from secformer.protocols.recipes import EXACT, FAITHFUL

masks = st.lists(st.lists(st.booleans(), min_size=1, max_size=17).filter(any), min_size=1, max_size=3)
H, D = 2, 3


def batch_of(rows: list[list[bool]]) -> Batch:
    """Texts with these masks; as in a batch of ours, nothing stands behind the last attended token."""
    cut = [row[: len(row) - row[::-1].index(True)] for row in rows]
    return Batch(tuple(Row(np.zeros(len(r), np.int64), np.zeros(len(r), np.int64), np.array(r, np.int64)) for r in cut))


def attention(batch: Batch, q: np.ndarray, k: np.ndarray, v: np.ndarray, reach: int) -> np.ndarray:
    """Text by text and head by head, with whole matrices; the mean of all where there is nothing to attend to."""
    out = np.zeros_like(q)
    for start, row in zip(batch.starts, batch.rows, strict=True):
        here, t = slice(start, start + len(row)), np.arange(len(row))
        real = (np.abs(t[:, None] - t) <= reach) & (row.mask == 1)
        for h in range(H):
            c = slice(h * D, (h + 1) * D)
            e = np.where(real, np.exp(q[here, c] @ k[here, c].T), 0.0)
            e[~real.any(axis=1)] = 1.0
            out[here, c] = e / e.sum(axis=1, keepdims=True) @ v[here, c]
    return out


def computed(batch: Batch, meeting: Meeting, q: np.ndarray, k: np.ndarray, v: np.ndarray, recipe: Any = EXACT) -> Any:
    """The same by blocks, in the twin; and the quantities that softmax met."""
    s = PlainSession(strict=recipe is not EXACT)
    shares = [s.accept(x) for x in (q, k, v)]
    queries, keys, values = (f(x, H) for f, x in zip((meeting.of_queries, meeting.of_keys, meeting.of_keys), shares,
                                                     strict=True))
    scores = s.matmul(queries, keys.swapaxes(-1, -2))
    mask = meeting.real(H)
    real = mask if mask.ndim == 4 else mask[:, None, None, :]
    given_ = real_scores(np, scores.data, real), values.data, real
    at = {each.name: Range(float(x.min()), float(x.max())) for each in ATTENTION for x in [each.of(np, *given_)]}
    context = meeting.joined(recipe.softmax(s, scores, values, mask, at), H)
    return alone_as_mean(s, context, shares[2], meeting, batch).data, at


def drawn(batch: Batch, seed: int = 0) -> tuple[np.ndarray, ...]:
    return tuple(np.random.default_rng(seed).normal(size=(3, batch.tokens, H * D)))


@given(masks, st.integers(0, 6), st.integers(1, 17), st.integers(0, 9))
@examples(60)
def test_blocks_are_the_band(rows: list[list[bool]], reach: int, block: int, seed: int) -> None:
    """Whatever their size: padding, gaps, tokens that nothing is near, blocks that no text fills."""
    batch = batch_of(rows)
    q, k, v = drawn(batch, seed)
    meeting = Meeting.within(batch, reach, D, block=min(block, batch.longest))
    found, _ = computed(batch, meeting, q, k, v)
    np.testing.assert_allclose(found, attention(batch, q, k, v, reach), atol=1e-12)


@given(masks)
@examples(10)
def test_everywhere_is_a_reach_that_holds_all(rows: list[list[bool]]) -> None:
    batch = batch_of(rows)
    q, k, v = drawn(batch)
    meeting = Meeting.everywhere(batch)
    assert meeting.real(H) is batch.mask and not meeting.alone.any()
    np.testing.assert_allclose(computed(batch, meeting, q, k, v)[0], attention(batch, q, k, v, 99), atol=1e-12)


@given(masks, st.integers(0, 4), st.integers(1, 6))
@examples(30)
def test_every_row_is_one_that_a_text_has(rows: list[list[bool]], reach: int, block: int) -> None:
    """So scores and sums stay within the ranges that were measured without blocks and without padding."""
    batch = batch_of(rows)
    q, k, v = drawn(batch)
    alone = []
    for start, row in zip(batch.starts, batch.rows, strict=True):
        one, mine = Batch((row,)), (x[start : start + len(row)] for x in (q, k, v))
        alone.append(computed(one, Meeting.within(one, reach, D, block=len(row)), *mine)[1])
    together = computed(batch, Meeting.within(batch, reach, D, block=min(block, batch.longest)), q, k, v)[1]
    for name, r in together.items():
        assert min(a[name].low for a in alone) - 1e-9 <= r.low and r.high <= max(a[name].high for a in alone) + 1e-9


def test_on_a_recipe_of_shares() -> None:
    batch = batch_of([[True] * 23, [False] * 9 + [True] * 4, [True] * 5])
    q, k, v = drawn(batch)
    meeting = Meeting.within(batch, 3, D)
    assert meeting.queries.shape[1] > 1 and meeting.alone.sum() == 6
    found, _ = computed(batch, meeting, q, k, v, FAITHFUL)
    assert np.abs(found - attention(batch, q, k, v, 3)).max() <= 3e-4


@pytest.mark.parametrize("longest, block, keys", [(1, 1, 1), (64, 64, 64), (256, 256, 256), (300, 75, 203),
                                                  (512, 86, 214), (1024, 79, 207), (8192, 82, 210)])
def test_the_cheapest_blocks(longest: int, block: int, keys: int) -> None:
    """Of ModernBERT's reach and heads; short texts are one block, with a mask. At powers of two, those that the plan
    recorder finds."""
    assert block_size(longest, 64, 64) == block
    batch = batch_of([[True] * longest])
    meeting = Meeting.within(batch, 64, 64)
    assert meeting.mask.shape == (1, -(-longest // block), block, keys)


@given(st.integers(1, 2000), st.integers(0, 200), st.integers(1, 128))
@examples(200)
def test_lengths_of_one_class_have_keys_of_one_class(longest: int, reach: int, size: int) -> None:
    """What is fitted for row sums depends on a power of two above the number of keys, and books are for powers of two
    above lengths."""
    top = 2 ** bits(longest)
    keys = [min(t, block_size(t, reach, size) + 2 * reach) for t in (longest, top)]
    assert bits(keys[0]) == bits(keys[1]) and 1 <= block_size(longest, reach, size) <= longest


def test_the_first_axis_counts_texts() -> None:
    """The guard tells texts apart by it."""
    batch = batch_of([[True] * 23, [True] * 2])
    meeting, s = Meeting.within(batch, 3, D), PlainSession()
    x = s.accept(np.zeros((batch.tokens, H * D)))
    n, w, k = *meeting.queries.shape[1:], meeting.keys.shape[2]
    assert meeting.of_queries(x, H).shape == (2, H * n, w, D) and meeting.of_keys(x, H).shape == (2, H * n, k, D)
    assert meeting.real(H).shape == (2, H * n, w, k)


def test_a_check_stays_with_values_that_are_mixed() -> None:
    """A mean among attention's results does not take away what a guard checks them for."""
    batch = batch_of([[False] * 9 + [True] * 4])
    meeting, s = Meeting.within(batch, 3, D), PlainSession()
    with s.guarding(batch.owners, batch.size):
        x = s.accept(np.zeros((batch.tokens, H * D)), frac=32)
        checked = s.checked(x, -1.0, 1.0, "value")
        assert alone_as_mean(s, checked, s.accept(x.data), meeting, batch).interval is checked.interval is not None
        assert alone_as_mean(s, checked, x, Meeting.everywhere(batch), batch) is checked


def test_fillers_stand_where_their_first_token_does() -> None:
    """They are neither queries, which would meet other keys than that token does, nor keys."""
    ones = [Row(np.arange(n), np.zeros(n, np.int64), np.ones(n, np.int64)) for n in (9, 20)]
    batch = Batch(tuple(row.filled(24) for row in ones))
    meeting = Meeting.within(batch, 2, 6, 4)
    first, filler = np.repeat(batch.starts, batch.lengths), ~batch.own[batch.present]
    assert filler.sum() == 19 and not meeting.alone.any()
    assert not filler[meeting.queries].any() and not filler[meeting.keys][meeting.mask.any(axis=2)].any()
    np.testing.assert_array_equal(meeting.places[filler], meeting.places[first[filler]])
    assert len(set(meeting.places[~filler].tolist())) == 29


@pytest.mark.parametrize("reach", [None, 0, 2, 4])
def test_keys_behind_a_prefix(reach: int | None) -> None:
    """Each query meets those of the prefix's tokens that are within reach, and its own text's as before."""
    batch = batch_of([[True] * 7, [True] * 3])
    alone = Meeting.within(batch, 7 if reach is None else reach, D, block=4, causal=True)
    found = alone.behind(3, batch, reach)
    (b, n, w), k = alone.queries.shape, alone.keys.shape[2]
    assert found.keys.shape == (b, n, 3 + k) and found.mask.shape == (b, n, w, 3 + k)
    assert (found.keys[..., :3] == np.arange(3)).all()
    np.testing.assert_array_equal(found.keys[..., 3:], alone.keys + 3)
    np.testing.assert_array_equal(found.mask[..., 3:], np.broadcast_to(alone.mask, (b, n, w, k)))
    places = batch.positions[alone.queries]
    wanted = [[3 + place - i <= (99 if reach is None else reach) for i in range(3)] for place in places.reshape(-1)]
    np.testing.assert_array_equal(found.mask[..., :3].reshape(-1, 3), wanted)
