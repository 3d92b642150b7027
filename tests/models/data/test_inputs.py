"""Inputs as a client shares them: both halves add up to the input, and party 1's half follows from a seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row
from secformer.models.data.inputs import TokenInputs
from secformer.mpc.backend import choose_backend
from secformer.mpc.fixed import encode
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.ring import WORD_BITS, word_type

KERNELS = NumpyKernels(choose_backend("numpy"))
SEED, OTHER = bytes(range(32)), bytes(range(1, 33))
WIDTHS = (24, 32, 64)


@st.composite
def cases(draw: st.DrawFn) -> tuple[TokenInputs, Batch]:
    """Sizes from one word and no segment on, and texts from one token on."""
    inputs = TokenInputs(draw(st.integers(1, 9)), draw(st.integers(0, 3)), 8, draw(st.integers(1, 7)))
    rows = []
    for length in draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)):
        ids = draw(st.lists(st.integers(0, inputs.words - 1), min_size=length, max_size=length))
        most = max(0, inputs.segments - 1)
        segments = draw(st.lists(st.integers(0, most), min_size=length, max_size=length))
        rows.append(Row(np.array(ids), np.array(segments), np.ones(length, np.int64)))
    return inputs, Batch(tuple(rows))


def text(*ids: int) -> Batch:
    return Batch((Row(np.array(ids), np.zeros(len(ids), np.int64), np.ones(len(ids), np.int64)),))


@given(cases())
def test_a_row_has_a_one_at_its_word_and_at_its_segment(case: tuple[TokenInputs, Batch]) -> None:
    inputs, batch = case
    rows = inputs.one_hot(batch, np.int8)
    assert rows.shape == (batch.tokens, inputs.words + inputs.segments) and rows.dtype == np.int8
    for row, word, segment in zip(rows, batch.ids, batch.segments, strict=True):
        there = {int(word)} | ({inputs.words + int(segment)} if inputs.segments else set())
        assert set(np.flatnonzero(row).tolist()) == there and row.sum() == len(there)


@given(cases(), st.sampled_from(WIDTHS))
def test_private_halves_add_up_to_the_rows(case: tuple[TokenInputs, Batch], width: int) -> None:
    inputs, batch = case
    first, second = inputs.private_halves(batch, width, SEED)
    a, b = first.words(), second.words()
    assert a.dtype == b.dtype == word_type(width)
    np.testing.assert_array_equal(a + b, inputs.one_hot(batch, a.dtype))
    for half, words in ((first, a), (second, b)):
        assert half.private and half.width == width and half.shape == words.shape == (batch.tokens, inputs.columns)


@given(cases())
def test_the_keys_of_both_parties_expand_to_the_rows(case: tuple[TokenInputs, Batch]) -> None:
    """In every span that parties check, there is one 1 then; one party's segments follow from no secret alone."""
    inputs, batch = case
    first, second = inputs.keys(batch, SEED)
    rows = inputs.rows(first, KERNELS) + inputs.rows(second, KERNELS)
    np.testing.assert_array_equal(rows, inputs.one_hot(batch, np.uint64))
    for start, stop in inputs.spans:
        assert (rows[:, start:stop].sum(axis=1) == 1).all()
    assert sum(stop - start for start, stop in inputs.spans) == inputs.columns
    again = inputs.keys(batch, OTHER)[0]
    assert not np.array_equal(first.points.seeds, again.points.seeds)
    assert not inputs.segments or not np.array_equal(first.segments, again.segments)


@given(cases(), st.sampled_from(WIDTHS))
def test_the_second_half_is_what_a_party_expands(case: tuple[TokenInputs, Batch], width: int) -> None:
    """A served party 1 is sent the seed only: what it expands must be the client's, word by word."""
    inputs, batch = case
    second = inputs.private_halves(batch, width, SEED)[1].words()
    np.testing.assert_array_equal(second, inputs.expanded(batch, width, SEED))


@given(cases(), st.sampled_from([12, 16, 20]), st.integers(0, 99))
def test_client_halves_add_up_to_the_encoded_sums(case: tuple[TokenInputs, Batch], frac: int, seed: int) -> None:
    inputs, batch = case
    sums = np.random.default_rng(seed).normal(0.0, 3.0, (batch.tokens, inputs.hidden))
    first, second = inputs.client_halves(batch, sums, frac, SEED)
    np.testing.assert_array_equal(first.words() + second.words(), encode(sums, frac))
    np.testing.assert_array_equal(second.words(), inputs.expanded_sums(batch, SEED))  # what a served party 1 expands
    for half in (first, second):
        assert not half.private and half.width == WORD_BITS
        assert half.shape == half.words().shape == (batch.tokens, inputs.hidden)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_second_half_says_nothing_about_the_text(width: int) -> None:
    """It depends on the seed and on the number of tokens; the first half takes the difference."""
    inputs = TokenInputs(5, 2, 8, 3)
    (a0, a1), (b0, b1) = (inputs.private_halves(t, width, SEED) for t in (text(0, 1, 2), text(4, 3, 4)))
    np.testing.assert_array_equal(a1.words(), b1.words())
    assert not np.array_equal(a0.words(), b0.words())
    assert not np.array_equal(a1.words(), inputs.expanded(text(0, 1, 2), width, OTHER))


def test_the_two_ways_never_share_a_mask() -> None:
    """One seed's rows and sums of the same shape are masked by different streams."""
    inputs = TokenInputs(5, 2, 8, 7)
    sums = np.zeros((3, 7))
    masks = [inputs.private_halves(text(0, 1, 2), WORD_BITS, SEED)[1].words(),
             inputs.client_halves(text(0, 1, 2), sums, 16, SEED)[1].words()]
    assert masks[0].shape == masks[1].shape and not (masks[0] == masks[1]).any()


def test_halves_are_made_when_asked_for_and_are_the_same_each_time() -> None:
    inputs = TokenInputs(5, 2, 8, 3)
    for half in (*inputs.private_halves(text(1, 2), 24, SEED), *inputs.client_halves(text(1, 2), np.ones((2, 3)), 16,
                                                                                     SEED)):
        first, again = half.words(), half.words()
        assert first is not again
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("private", [True, False])
def test_ghosts_have_the_shape_and_never_make_the_words(private: bool) -> None:
    def never() -> np.ndarray:
        raise AssertionError("the words were made")

    inputs = TokenInputs(30_000, 2, 512, 768)
    request = inputs.private_request(text(1, 2, 3), 24, never) if private else inputs.client_request(text(1, 2, 3),
                                                                                                   never)
    ghost = request.ghost()
    assert (ghost.shape, ghost.private, ghost.width) == (request.shape, private, 24 if private else WORD_BITS)
    assert ghost.words().shape == ((3, 30_002) if private else (3, 768))
    assert not ghost.words().any() and ghost.words().strides == (0, 0)
