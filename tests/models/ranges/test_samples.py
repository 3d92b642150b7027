"""The texts that ranges are measured on."""

from __future__ import annotations

import numpy as np
import pytest

from secformer.models.ranges.samples import (
    BUILTIN_TEXTS,
    MEDIUM,
    ODD,
    PAIRS,
    PROSE,
    REPEATED,
    SHORT,
    long_text,
    repetitions,
    token_rows,
)


def test_builtin_texts_are_varied() -> None:
    assert len(BUILTIN_TEXTS) >= 40
    assert any(isinstance(t, tuple) for t in BUILTIN_TEXTS)
    assert max(len(" ".join(t if isinstance(t, tuple) else (t,)).split()) for t in BUILTIN_TEXTS) >= 50


def test_every_sample_is_another_one() -> None:
    assert len(set(BUILTIN_TEXTS)) == len(BUILTIN_TEXTS) == len(PROSE) + len(ODD) + len(PAIRS)
    assert "" in ODD, "the empty text has the fewest tokens that a text may have"


@pytest.mark.parametrize("words", [1, 100, 512, 5000])
def test_a_long_text_is_as_long_as_asked(words: int) -> None:
    """And not much longer: it is tokenised whole before it is cut."""
    once = len(long_text(0).split())
    assert words <= len(long_text(words).split()) <= words + once
    assert all(sentence in long_text(words) for sentence in PROSE)


def test_words_are_repeated_at_several_lengths_up_to_the_longest() -> None:
    texts = repetitions(512)
    assert all(len(set(text.split())) == 1 for text in texts)
    assert {len(text.split()) for text in texts} == {SHORT, MEDIUM, 512}
    assert {text.split()[0] for text in texts} == set(REPEATED)


EMPTY = np.array([2, 3])


@pytest.mark.parametrize("words, longest", [(30522, 512), (39, 32), (4900, 128), (5, 3), (5, 2)])
def test_token_rows_fit_the_model(words: int, longest: int) -> None:
    """Between the special tokens of the empty text, from the whole vocabulary, and never longer than allowed."""
    rows = token_rows(EMPTY, words, longest)
    for row in rows:
        assert row.ids[0] == 2 and row.ids[-1] == 3 and 2 <= len(row) <= longest
        assert 0 <= row.ids.min() <= row.ids.max() < words
        assert row.mask.all() and not row.segments.any() and len(row.mask) == len(row.segments) == len(row)
    assert max(map(len, rows)) == min(longest, MEDIUM + 2)


def test_token_rows_are_the_same_every_time_and_reach_the_ends_of_the_vocabulary() -> None:
    first, again = (token_rows(EMPTY, 30522, 512) for _ in range(2))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    repeated = {int(row.ids[1]) for row in first if len(row) > 3 and len(set(row.ids[1:-1].tolist())) == 1}
    assert {0, 2, 3, 30521} <= repeated and len(repeated) > 12
    assert max(len(set(row.ids.tolist())) for row in first) > 100
