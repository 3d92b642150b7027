"""What a client makes of the guard's word: which texts cannot be trusted, and what is done about it.

B texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from secformer.models.families.program import GUARD
from secformer.mpc.errors import Untrusted

SHOWN = 3  # the most places that a note names per text
SOMEWHERE = "somewhere in the model"  # the place, for a client that must not know it
TELL = "values left the ranges that the model was measured for, so the answer may be wrong; tell the model's owner"
ADVICE = ("values left the ranges that the model was measured for, so the answer may be wrong; measure the model on "
          "such texts: secformer profile MODEL --texts FILE")
Breaches = tuple[str, ...]  # where values of a text left their ranges: empty for a text that can be trusted


def named(answers: Mapping[str, np.ndarray], places: Sequence[str] = ()) -> dict[str, Any]:
    """Answers of a batch, with the guard's word (B, places) as Breaches per text. Without `places`, only that there are
    any."""
    found: dict[str, Any] = dict(answers)
    if GUARD in found:
        rows = np.empty(len(found[GUARD]), dtype=object)
        for i, row in enumerate(found[GUARD]):
            left = [places[j] if places else SOMEWHERE for j in np.flatnonzero(row).tolist()]
            rows[i] = tuple(dict.fromkeys(left))
        found[GUARD] = rows
    return found


def note(number: int | None, breaches: Breaches) -> str:
    """What a user is told of a text; `number` counts from 0, and is None where there is only one."""
    text, more = "the text" if number is None else f"text {number}", len(breaches) - SHOWN
    shown = ", ".join(breaches[:SHOWN]) + (f" and {more} more" if more > 0 else "")
    if breaches == (SOMEWHERE,):
        return f"{text} cannot be trusted: {TELL}"
    return f"{text} cannot be trusted ({shown}): {ADVICE}"


def refuse(left: Sequence[Breaches]) -> None:
    """Raises Untrusted where a text cannot be trusted."""
    if bad := [note(i, breaches) for i, breaches in enumerate(left) if breaches]:
        raise Untrusted("; ".join(bad))
