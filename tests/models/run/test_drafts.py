"""When to draft: as many tokens as a step verifies, or none; a pause where drafts were wrong."""

from __future__ import annotations

from collections.abc import Sequence

from text_lab import WORDS

from secformer.models.run.drafts import MOST, PAUSE, RECENT, Drafts


class Guess:
    """Drafts so many tokens, and counts how often it was asked."""

    def __init__(self, count: int = MOST):
        self.count, self.asked = count, 0

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        assert most == MOST
        self.asked += 1
        return [ids[-1]] * self.count


def test_all_of_a_draft_or_none() -> None:
    """So steps have two lengths only, and few plans."""
    assert Drafts(Guess(), WORDS).draft([3, 5], MOST) == [5] * MOST
    assert Drafts(Guess(MOST - 1), WORDS).draft([5], MOST) == []
    assert Drafts(None, WORDS).draft([5], MOST) == []


def test_a_draft_of_other_ids_is_not_verified() -> None:
    """The model has no words for them: a party would refuse the step, and the text would end."""
    for last, drafted in ((WORDS - 1, MOST), (WORDS, 0), (0, MOST), (-1, 0)):
        assert len(Drafts(Guess(), WORDS).draft([last], MOST)) == drafted


def test_no_draft_beyond_what_may_be_generated() -> None:
    guess = Guess()
    assert Drafts(guess, WORDS).draft([5], MOST - 1) == [] and not guess.asked


def test_a_pause_where_drafts_were_wrong() -> None:
    drafts, guess = Drafts(guess := Guess(), WORDS), guess
    for right in (0, 1, 2, 2):  # 5 of RECENT drafts, below 1.5 each
        assert drafts.draft([5], MOST)
        drafts.learn([5] * MOST, right)
    assert guess.asked == RECENT
    assert [bool(drafts.draft([5], MOST)) for _ in range(PAUSE + 1)] == [False] * PAUSE + [True]


def test_no_pause_where_drafts_pay() -> None:
    drafts = Drafts(Guess(), WORDS)
    for right in (0, 2, 2, 2, 0):  # 6 of the first RECENT, and of the last
        assert drafts.draft([5], MOST)
        drafts.learn([5] * MOST, right)
    assert drafts.draft([5], MOST)


def test_steps_without_a_draft_teach_nothing() -> None:
    drafts = Drafts(Guess(), WORDS)
    for _ in range(2 * RECENT):
        drafts.learn([], 0)
    assert drafts.draft([5], MOST)
