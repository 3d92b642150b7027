"""Tokens that are guessed ahead, so that one pass of the model can confirm several of them.

A pass over the last token and k drafted ones gives k + 1 rows of logits. The choices from these rows are exactly those
of k + 1 passes of one token each, as far as they agree with the draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from secformer.models.generation.sampling import Choice, Chooser
from secformer.mpc.errors import SettingsError, ShapeError


class Drafter(Protocol):
    """Guesses the next tokens, in the client's plaintext: by looking them up, or with a small public model."""

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `ids`, the tokens of the prompt and those generated; often none."""
        ...


@dataclass(frozen=True)
class LookUp:
    """Guesses that the text repeats itself: what followed the last few tokens when they came before, follows again.

    longest   how many of the last tokens are looked up at first; then one fewer each time, until some are found
    shortest  the fewest that are looked up

    Raises SettingsError for numbers that are not positive, or out of order.
    """

    longest: int = 3
    shortest: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise SettingsError(f"the numbers of tokens to look up must hold 1 <= shortest <= longest, got shortest "
                                f"{self.shortest} and longest {self.longest}")

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        """What followed the latest earlier occurrence of the longest run of last tokens that has one."""
        known = np.asarray(ids, np.int64)
        for length in range(min(self.longest, len(known) - 1), self.shortest - 1, -1):
            runs = np.lib.stride_tricks.sliding_window_view(known[:-1], length)
            if (found := np.flatnonzero((runs == known[-length:]).all(axis=1))).size:
                return _continued(known.tolist(), int(found[-1]) + length, most)
        return []


def _continued(ids: list[int], start: int, most: int) -> list[int]:
    """The tokens from `start` on. Behind the last one, the copy goes on with itself, as a text that repeats does."""
    copied: list[int] = []
    for place in range(start, start + most):
        copied.append(ids[place] if place < len(ids) else copied[place - len(ids)])
    return copied


def accepted(chooser: Chooser, logits: np.ndarray, ids: Sequence[int], drafted: Sequence[int]) -> list[Choice]:
    """The choices that a pass over drafted tokens gives: the drafted ones that it confirms, then one more.

    logits   (k + 1, V): row j belongs to the token that follows `ids` and the first j drafted ones
    ids      the tokens so far, without drafted ones
    drafted  k tokens, or none

    The last choice is never checked by a draft: its token is the input of the next pass. Raises ShapeError for another
    number of rows, and what `Chooser.choose` raises.
    """
    if len(logits) != len(drafted) + 1:
        raise ShapeError(f"{len(drafted)} drafted tokens need {len(drafted) + 1} rows of logits, got {len(logits)}")
    known, choices = list(ids), []
    for row, guess in zip(logits, (*drafted, None), strict=True):
        choices.append(chooser.choose(row, known))
        if choices[-1].token != guess:
            break
        known.append(choices[-1].token)
    return choices
