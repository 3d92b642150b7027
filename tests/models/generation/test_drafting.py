"""Guesses from the text so far, and what a pass over guessed tokens gives: exactly the tokens of one pass each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.generation.drafting import LookUp, accepted
from secformer.models.generation.sampling import Chooser, Sampling
from secformer.mpc.errors import SettingsError, ShapeError


@pytest.mark.parametrize(("ids", "most", "drafted"), [
    ([1, 2, 3, 9, 1, 2, 3], 3, [9, 1, 2]),              # three tokens are found
    ([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 2, [8, 1]),     # the latest of two places
    ([1, 2, 7, 5, 2, 8, 1, 2], 2, [7, 5]),              # two tokens, though one is found later
    ([4, 9, 5, 9], 2, [5, 9]),                          # one token
    ([1, 2, 3, 4], 4, []),                              # nothing comes twice
    ([6, 6], 4, [6, 6, 6, 6]), ([1, 2, 1, 2, 1], 5, [2, 1, 2, 1, 2]),  # a text that repeats itself, beyond its end
    ([3], 4, []), ([], 4, []), ([1, 1], 0, []),
])
def test_look_up(ids: list[int], most: int, drafted: list[int]) -> None:
    assert LookUp().draft(ids, most) == drafted


def test_the_fewest_tokens_that_are_looked_up() -> None:
    assert LookUp(longest=3, shortest=2).draft([4, 9, 5, 9], 2) == []
    assert LookUp(longest=1).draft([1, 2, 7, 5, 2, 8, 1, 2], 2) == [8, 1]
    for longest, shortest in ((0, 1), (2, 3), (2, 0)):
        with pytest.raises(SettingsError, match=f"shortest {shortest} and longest {longest}"):
            LookUp(longest, shortest)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 9))
def test_a_draft_is_what_followed(ids: list[int], most: int) -> None:
    drafted = LookUp().draft(ids, most)
    assert len(drafted) in (0, most)
    if drafted:
        whole = ids + drafted
        assert any(whole[i : i + 1 + most] == whole[len(ids) - 1 :] for i in range(len(ids) - 1))


def rows(ids: list[int], vocabulary: int = 5) -> np.ndarray:
    """Logits of a model that sees the last two tokens."""
    return np.random.default_rng([*ids[-2:], 99]).normal(0, 2, vocabulary)


def one_by_one(sampling: Sampling, prompt: list[int], n: int) -> list[int]:
    ids, chooser = list(prompt), Chooser(sampling)
    for _ in range(n):
        ids.append(chooser.choose(rows(ids), ids).token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("sampling", [
    Sampling(), Sampling(repetition_penalty=1.4), Sampling(temperature=0.5, seed=3), Sampling(top_k=2, seed=4),
], ids=repr)
@pytest.mark.parametrize("most", [0, 1, 4])
def test_drafts_change_no_token(most: int, sampling: Sampling) -> None:
    prompt, n = [0, 1, 2, 3, 4, 0, 1], 40
    ids, chooser, passes = list(prompt), Chooser(sampling), 0
    while len(ids) < len(prompt) + n:
        drafted = LookUp().draft(ids, most)
        logits = np.array([rows(ids + drafted[:j]) for j in range(len(drafted) + 1)])
        ids += [choice.token for choice in accepted(chooser, logits, ids, drafted)]
        passes += 1
    assert ids[len(prompt) : len(prompt) + n] == one_by_one(sampling, prompt, n)
    assert passes == n if most == 0 else passes < n


def test_how_many_drafted_tokens_are_confirmed() -> None:
    logits = np.eye(4)[[2, 1, 3]]  # the model says 2, then 1, then 3
    for drafted, tokens in (([2, 1], [2, 1, 3]), ([2, 0], [2, 1]), ([0, 1], [2])):
        assert [c.token for c in accepted(Chooser(Sampling()), logits, [0], drafted)] == tokens
    with pytest.raises(ShapeError, match="1 drafted tokens need 2 rows of logits, got 3"):
        accepted(Chooser(Sampling()), logits, [0], [2])
