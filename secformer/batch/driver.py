"""The driver: opens chunks of rows, keeps every cell's queue full, and writes each chunk when its last answer is there.

One thread decides everything. Workers tell how their calls ended through a queue.

Memory: rows of open chunks and their answers, whose number depends on the number of cells alone.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from secformer.batch.chunks import Chunk, alone, table_of
from secformer.batch.crew import Crew, Hire, Outcomes
from secformer.batch.folder import JobFolder
from secformer.batch.known import Known
from secformer.batch.pool import Item, Pool
from secformer.batch.sources import Piece, Source
from secformer.batch.stations import AHEAD, Station
from secformer.batch.stopped import AGAIN, Stopped
from secformer.batch.tasks import Answers, Unit
from secformer.batch.work import Job
from secformer.batch.worker import Failed, Kind, Opener
from secformer.cells.drained import Drained
from secformer.cells.listing import CellList

ROWS = 4096    # rows of open chunks for each cell, at most
READY = 2      # how many times what all cells may hold should wait for them
TICK = 0.2     # seconds between looks at what nobody announces
TELL = 0.5     # seconds between reports
LEAST = 8      # a call at the job's end has at least this part of a usual one's positions
HOPELESS = 10  # failures of cells, after the first `SUSPECT` with this row alone, after which a row has an error


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    rows      that are written, in all runs; `answered`: those that cells have answered in this run
    share     of the input that is written, from 0 to 1; `before`: when this run began
    waiting   why nothing goes on; "" if something does
    """

    rows: int
    answered: int
    share: float
    before: float
    seconds: float
    waiting: str

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None while that cannot be told."""
        done = self.share - self.before
        return self.seconds * (1.0 - self.share) / done if done > 0 else None


Tell = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Reports to nobody."""


@dataclass(frozen=True)
class Call:
    """What a cell was handed: rows, or a probe where there are none."""

    station: Station
    items: Sequence[Item] = field(repr=False)


class Driver:
    """One run of a job. After `run`: `rows` and `chunks` of the whole input; of this run, `answered`, `bytes`,
    `seconds` and the stations."""

    def __init__(self, job: Job, cells: CellList, model: Known, source: Source, schema: pa.Schema, folder: JobFolder,
                 tell: Tell):
        self._job, self._cells, self._model, self._schema, self._folder = job, cells, model, schema, folder
        self._pieces: Iterator[Piece] | None = source.chunks(job.chunk)
        self.stations = [Station(cell.name, cell.client.batch_tokens, cell.client.in_flight) for cell in cells]
        self._drained, self._tell = Drained(job.cells.absolute()), tell
        self._pool, self._open = Pool(), dict[int, Chunk]()
        self._calls, self._number = dict[int, Call](), 0
        self._outcomes: Outcomes = queue.SimpleQueue()
        self.rows = self.chunks = self.answered = self.bytes = 0
        self._written = 0
        self._share = self._before = self._read = 0.0
        self._began = self._told = self._hope = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def run(self, hire: Hire, opener: Opener) -> None:
        """Answers all rows that have no part yet. Raises Stopped, InputError, and SettingsError."""
        self._fill()
        if not self._open and self._pieces is None:
            return
        crew = hire({cell.name: cell.client for cell in self._cells}, self._job.task, opener, self._outcomes)
        try:
            self._began = self._hope = time.monotonic()
            while self._open or self._pieces is not None:
                self._fill()
                self._hand_out(crew)
                self._report()
                self._wait()
        finally:
            crew.close()
        self._report(last=True)

    # ---- rows ----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Opens chunks until enough rows wait."""
        most = ROWS * (len(self.stations) + 1)
        while self._pieces is not None and (not self._open or (
                self._pool.positions < self._enough and sum(map(len, self._open.values())) < most)):
            piece = next(self._pieces, None)
            if piece is None:
                self._pieces = None
                return
            self._begin(piece)

    @property
    def _enough(self) -> int:
        """Positions that should wait."""
        return READY * sum(each.room * (each.lanes + AHEAD) for each in self.stations if each.serves)

    def _begin(self, piece: Piece) -> None:
        """A chunk: opened, unless its part is there."""
        number, first, size = self.chunks, self.rows, len(piece.rows)
        share, self._read = piece.end - self._read, piece.end
        self.chunks, self.rows = number + 1, first + size
        if self._folder.has(number):
            self._written += size
            self._share += share
            self._before += share
            return
        chunk = self._open[number] = Chunk(number, first, piece, share)
        found = chunk.read(self._job.columns, self._units)
        if self._job.strict:
            self._refuse(chunk)
        self._pool.add(Item(number, place, unit) for place, unit in found)
        self._close(chunk)

    def _units(self, texts: Sequence[tuple[str, ...]], rows: Sequence[int]) -> list[Unit]:
        return self._job.task.units(self._model.tokenizer, texts, rows, self._model.truncation)

    def _refuse(self, chunk: Chunk) -> None:
        """Raises Stopped for the first row that has a problem."""
        for place, problem in enumerate(chunk.problems):
            if problem is not None:
                raise Stopped(f"row {chunk.first + place} (counted from 0) cannot be answered: {problem}. Mend it, or "
                              f"leave --strict out: then such rows get an error, and the job goes on")

    def _close(self, chunk: Chunk) -> None:
        """Writes a chunk of which nothing is left."""
        if not chunk.left:
            self._folder.write(chunk.number, chunk.table(self._schema))
            self._written += len(chunk)
            self._share += chunk.share
            del self._open[chunk.number]

    # ---- calls ---------------------------------------------------------------------------------------------------

    def _hand_out(self, crew: Crew) -> None:
        """Gives every cell what it may have."""
        names = self._drained.names()
        for station in self.stations:
            station.drained = station.name in names
        ending = self._pieces is None and self._pool.positions < self._enough // READY
        while wanting := [each for each in self.stations if each.wants(ending)]:
            station = min(wanting, key=lambda each: len(each.calls) / each.lanes)
            if not station.trusty:
                self._ask(crew, station, [], [self._job.task.probe(self._model.tokenizer)])
                continue
            if not (items := self._pool.take(self._room(station, ending))):
                return
            self._ask(crew, station, items, [item.unit for item in items])

    def _room(self, station: Station, ending: bool) -> int:
        """Positions of a cell's next call. At the job's end, what is left is shared out among the cells."""
        if not ending:
            return station.room
        lanes = sum(each.lanes for each in self.stations if each.serves)
        return min(station.room, max(station.room // LEAST, -(-self._pool.positions // max(1, lanes))))

    def _ask(self, crew: Crew, station: Station, items: Sequence[Item], units: Sequence[Unit]) -> None:
        self._number += 1
        self._calls[self._number] = Call(station, items)
        station.calls.add(self._number)
        crew.ask(station.name, self._number, units)

    def _wait(self) -> None:
        """Takes in how calls ended, if any did."""
        try:
            number, outcome = self._outcomes.get(timeout=TICK)
            while True:
                self._ended(number, outcome)
                number, outcome = self._outcomes.get_nowait()
        except queue.Empty:
            pass
        if any(each.serves for each in self.stations):
            self._hope = time.monotonic()
        elif time.monotonic() - self._hope > self._job.patience:
            raise Stopped(f"no cell has served for {self._job.patience:g} s ({self._waiting}); mend them, or list "
                          f"others. Then {AGAIN}")

    def _ended(self, number: int, outcome: Answers | Failed) -> None:
        call = self._calls.pop(number)
        station, items = call.station, call.items
        station.calls.discard(number)
        if isinstance(outcome, Answers):
            station.served(len(items))
            self.bytes += outcome.bytes
            self.answered += len(items)
            self._take(items, outcome)
        elif outcome.kind is Kind.OURS:
            raise Stopped(f"cell {station.name}: {outcome.problem}; what was done stays")
        elif outcome.kind is Kind.BUSY:
            station.busy(outcome.problem, outcome.after)
            self._pool.give_back(items)
        elif outcome.kind is Kind.ROWS and items:
            self._rows_failed(items, outcome.problem)
        else:
            station.failed(outcome.problem)
            self._lost(items, outcome.problem)

    def _take(self, items: Sequence[Item], answers: Answers) -> None:
        """Gives answers to their chunks."""
        if not items:
            return
        table, by_chunk = table_of(answers), dict[int, list[int]]()
        for i, item in enumerate(items):
            by_chunk.setdefault(item.chunk, []).append(i)
        for number, own in by_chunk.items():
            chunk = self._open[number]
            chunk.take([items[i].place for i in own], table if len(by_chunk) == 1 else table.take(pa.array(own)))
            self._close(chunk)

    def _rows_failed(self, items: Sequence[Item], problem: str) -> None:
        """Rows that the model does not take: halved until each is known that makes a call fail."""
        if len(items) > 1:
            self._pool.give_back(items, halved=True)
        else:
            self._fail(items[0], alone(problem))

    def _lost(self, items: Sequence[Item], problem: str) -> None:
        """Rows whose cell failed: others get them. A cell serves or answers a probe before it gets rows, so a row that
        cells fail on again and again, and alone, is what makes them fail."""
        for item in items:
            item.failures += 1
        if len(items) == 1 and items[0].failures >= HOPELESS:
            self._fail(items[0], f"cells failed {HOPELESS} times while they had this row, lastly so: {problem}")
        else:
            self._pool.give_back(items)

    def _fail(self, item: Item, problem: str) -> None:
        chunk = self._open[item.chunk]
        chunk.fail(item.place, problem)
        if self._job.strict:
            self._refuse(chunk)
        self._close(chunk)

    # ---- reports -------------------------------------------------------------------------------------------------

    @property
    def _waiting(self) -> str:
        """Why no cell serves; "" if one does."""
        if any(each.serves for each in self.stations):
            return ""
        return "; ".join(f"{each.name}: {'drained' if each.drained else each.problem}" for each in self.stations)

    def _report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._told >= TELL:
            self._told = now
            self._tell(Progress(self._written, self.answered, 1.0 if last else self._share, self._before, self.seconds,
                                self._waiting))
