"""The texts that ranges are measured on."""

from __future__ import annotations

import pytest

from secformer.models.ranges.samples import BUILTIN_TEXTS, ODD, PAIRS, PROSE, long_text


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
