"""Chunks of rows that are open: what of their answers is there, and what is wrong with their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from secformer.batch.sources import PROBLEM, Piece
from secformer.batch.tasks import Answers, Unit
from secformer.mpc.errors import InputError

ROW, TRUSTED, ERROR = "row", "trusted", "error"  # columns of every output: the first, and the last two
Read = Callable[[Sequence[tuple[str, ...]], Sequence[int]], list[Unit]]  # texts, and numbers of their rows
ITS_OWN = "text 0"  # what an error calls the only text of a call


class Chunk:
    """Some neighbouring rows of the input.

    number, first  its place among the chunks, and the number of its first row, from 0
    share          how much of the input it is, from 0 to 1
    left           rows that have neither an answer nor a problem
    """

    def __init__(self, number: int, first: int, piece: Piece, share: float):
        self.number, self.first, self.share = number, first, share
        self._rows = piece.rows
        self.problems: list[str | None] = piece.rows.column(PROBLEM).to_pylist()
        self.left = len(self.problems)
        self._found: list[tuple[Sequence[int], pa.Table]] = []

    def __len__(self) -> int:
        return len(self.problems)

    def read(self, names: Sequence[str], read: Read) -> list[tuple[int, Unit]]:
        """The units of all rows that can be asked, with their places. The others get their problems."""
        columns = [self._rows.column(f"text {i}").to_pylist() for i in range(len(names))]
        good: list[int] = []
        for place, texts in enumerate(zip(*columns, strict=True)):
            if self.problems[place] is None:
                missing = [name for name, text in zip(names, texts, strict=True) if text is None]
                if missing:
                    self.problems[place] = f"{missing[0]!r} is null, not a text"
                else:
                    good.append(place)
        found: list[tuple[int, Unit]] = []
        self._try(good, list(zip(*columns, strict=True)), read, found)
        self.left = len(found)
        self._rows = self._rows.drop_columns([f"text {i}" for i in range(len(names))])
        return found

    def _try(self, places: list[int], texts: Sequence[tuple[str, ...]], read: Read,
             found: list[tuple[int, Unit]]) -> None:
        """Reads texts together; where that fails, in halves, down to the texts that make it fail."""
        if not places:
            return
        try:
            units = read([texts[place] for place in places], [self.first + place for place in places])
        except InputError as error:
            if len(places) == 1:
                self.problems[places[0]] = alone(str(error))
                return
            middle = len(places) // 2
            self._try(places[:middle], texts, read, found)
            self._try(places[middle:], texts, read, found)
        else:
            found += zip(places, units, strict=True)

    def fail(self, place: int, problem: str) -> None:
        """A row that no cell can answer."""
        self.problems[place] = problem
        self.left -= 1

    def take(self, places: Sequence[int], answers: pa.Table) -> None:
        """Answers of some rows."""
        self._found.append((places, answers))
        self.left -= len(places)

    def table(self, schema: pa.Schema) -> pa.Table:
        """All rows as they are written, when none is left. The first column has the rows' numbers, where no column of
        the input does."""
        columns = list(self._rows.drop_columns([PROBLEM]).columns)
        if schema.names[0] == ROW:
            columns.insert(0, pa.array(range(self.first, self.first + len(self)), pa.int64()))
        if self._found:
            at = np.full(len(self), -1)
            places = np.concatenate([np.asarray(each) for each, _ in self._found])
            at[places] = np.arange(len(places))
            columns += pa.concat_tables([answers for _, answers in self._found]).take(
                pa.array(at, pa.int64(), mask=at < 0)).columns
        else:
            columns += [pa.nulls(len(self), f.type) for f in list(schema)[len(columns):-1]]
        return pa.Table.from_arrays([*columns, pa.array(self.problems, pa.string())], schema=schema)


def table_of(answers: Answers) -> pa.Table:
    """A call's answers, one row per unit."""
    return pa.table({**answers.columns, TRUSTED: pa.array(answers.trusted, pa.bool_())})


def alone(problem: str) -> str:
    """What an error says of the only text of a call."""
    return f"the text{problem.removeprefix(ITS_OWN)}" if problem.startswith(ITS_OWN) else problem
