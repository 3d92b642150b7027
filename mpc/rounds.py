"""Verbs that are put off, so that they open what they open in one round.

A verb that is put off gives data that come later. Whoever asks for these makes the round run: all that was put off,
together. A session asks for data at the same places at both parties, in the recorder and in the twin, so all of them
have the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from secformer.mpc.errors import ProtocolError

Shape = tuple[int, ...]
Job = Callable[[], Any]  # what a verb does: it gives a list of data, or what makes these
Steps = Generator[None, None, Any]  # each puts verbs off, then waits for their round; what it returns is the result


class Later:
    """Data of that shape, which are there once their round has run."""

    __slots__ = ("_found", "_round", "shape")

    def __init__(self, shape: Shape, round_: Round):
        self.shape, self._round, self._found = shape, round_, None

    def found(self) -> Any:
        """The data. Raises ProtocolError where their round failed."""
        if self._found is None:
            self._round.run()
        if self._found is None:
            raise ProtocolError("the round that computes this has failed")
        return self._found

    def come(self, found: Any) -> None:
        """The round has run."""
        self._found = found


@dataclass
class Beside:
    """The result of steps that run beside a program, once they are `over`."""

    result: Any = None
    over: bool = False


class Round:
    """What was put off and did not run yet.

    together  runs jobs in one round, and gives the data of each
    """

    def __init__(self, together: Callable[[Sequence[Job]], Sequence[Sequence[Any]]]):
        self._together = together
        self._waiting: list[tuple[Job, list[Later]]] = []
        self._next: list[Callable[[], None]] = []

    @property
    def waits(self) -> bool:
        """Whether anything was put off."""
        return bool(self._waiting)

    def put_off(self, job: Job, shapes: Sequence[Shape]) -> list[Later]:
        """The data, of these shapes, that a job of one round will give."""
        later = [Later(tuple(shape), self) for shape in shapes]
        self._waiting.append((job, later))
        return later

    def when_over(self, then: Callable[[], None]) -> None:
        """Calls `then`, once, when what waits has run."""
        self._next.append(then)

    def run(self) -> None:
        """Runs what was put off, if anything was."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            for (_, later), data in zip(waiting, self._together([job for job, _ in waiting]), strict=True):
                for each, found in zip(later, data, strict=True):
                    each.come(found)
        steps, self._next = self._next, []
        for step in steps:
            step()
