"""Texts that a model cannot hold: told one by one, while the others are answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from secformer.mpc.errors import InputError, RangeError
from secformer.views.texts import Refused, Texts

T = TypeVar("T")
ITS_OWN = "text 0"  # what an error calls the only text of a run
PROBE = "a"         # a text that every model can hold


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What a run says about the texts that it could hold. `result` is None where there is no such text."""

    texts: Texts
    result: T | None
    refused: tuple[Refused, ...]


def answered(run: Callable[[Any], T], texts: Texts) -> Answered[T]:
    """Runs the texts together. Where that fails, finds the texts that make it fail, and runs the others.

    A run that fails on any text, because of the model, raises its own InputError or RangeError.
    """
    try:
        return Answered(texts, run(texts), ())
    except (InputError, RangeError) as error:
        first = error
    problems: dict[int, str] = {}
    _find(run, texts, 0, len(texts), first, problems)
    kept: Any = [text for i, text in enumerate(texts) if i not in problems]
    if not kept:
        probe: Any = [PROBE if isinstance(texts[0], str) else (PROBE, PROBE)]
        run(probe)  # raises if no text could be run at all
    refused = tuple(Refused(i, problem) for i, problem in sorted(problems.items()))
    return Answered(kept, run(kept) if kept else None, refused)


def _find(run: Callable[[Any], Any], texts: Texts, start: int, end: int, error: Exception,
          problems: dict[int, str]) -> None:
    """Adds the texts from `start` to `end` that fail alone. `error` is how these texts fail together."""
    if end - start == 1:
        told = str(error)
        problems[start] = (f"text {start}{told.removeprefix(ITS_OWN)}" if told.startswith(ITS_OWN)
                           else f"text {start}: the model cannot hold its values: {told}")
        return
    middle = (start + end) // 2
    for low, high in ((start, middle), (middle, end)):
        try:
            run(texts[low:high])
        except (InputError, RangeError) as half:
            _find(run, texts, low, high, half, problems)


def told(refused: tuple[Refused, ...], texts: Texts) -> str:
    """One line for the end of a command: how many texts were left out."""
    some = ", ".join(str(each.number) for each in refused[:8]) + (", ..." if len(refused) > 8 else "")
    return (f"{len(refused)} of {len(texts)} text(s) could not be run (number {some}, counted from 0); the lines above "
            f"say why")
