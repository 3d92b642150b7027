"""When to draft: a step that verifies drafted tokens costs more than one without, so drafts must often be right."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from secformer.models.generation.drafting import Drafter

MOST = 7        # drafted tokens, so that a step has 8
RECENT = 4      # drafts that are looked back on
ENOUGH = 1.5    # tokens that they must have got right on average: a step of 8 costs up to 2.5 of one
PAUSE = 16      # steps without a draft, where they did not


class Drafts:
    """The drafts of one generation, by any drafter.

    words  of the model that verifies; a draft with other ids than 0..words-1 is not verified
    """

    def __init__(self, drafter: Drafter | None, words: int):
        self._drafter, self._words = drafter, words
        self._right: deque[int] = deque(maxlen=RECENT)
        self._pause = 0

    def draft(self, ids: Sequence[int], room: int) -> list[int]:
        """MOST tokens that may follow, or none: a step has one of two lengths, so it has one of two programs."""
        if self._drafter is None or room < MOST:
            return []
        if self._pause:
            self._pause -= 1
            return []
        found = self._drafter.draft(ids, MOST)
        return list(found) if len(found) == MOST and all(0 <= i < self._words for i in found) else []

    def learn(self, drafted: Sequence[int], right: int) -> None:
        """How many of the drafted tokens were right."""
        if not drafted:
            return
        self._right.append(right)
        if len(self._right) == RECENT and sum(self._right) < ENOUGH * RECENT:
            self._right.clear()
            self._pause = PAUSE
