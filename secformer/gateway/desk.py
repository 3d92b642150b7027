"""A model's desk: requests wait here, are joined, and are asked of whichever cell is free.

While a cell is busy, what comes in waits; when it is free, it takes as much of that as goes into one call. A request
that fails together with others is asked again alone, so that it fails alone. A cell whose parties fail hands its
requests to another cell; they fail only when every cell has. A cell that has failed, and one that is drained, leaves
requests to the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from secformer.cells.alike import require_alike
from secformer.cells.listing import CellList
from secformer.gateway.cells import WRITERS, Cell, cell_of, cells_of
from secformer.gateway.refusals import AllDrained, Closing, Gone
from secformer.models.data.tokenizer import Reading
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import InputError, ProtocolError, RangeError

Named = tuple[str, str | Path]  # what callers call a model, and a client's settings file that leads to it
LINGER = 0.003  # seconds for which a free cell waits for more requests to join the first
LOOK = 0.5      # seconds between looks at what nobody announces

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """Texts that wait for an answer, and the cells that could not give one."""

    read: Reading = field(repr=False)
    answer: Future[SecureOutput] = field(default_factory=Future)
    tried: set[Cell] = field(default_factory=set)
    begun: bool = False

    @property
    def tokens(self) -> int:
        return sum(map(len, self.read.rows))

    def begin(self) -> bool:
        """Whether somebody still waits for the answer. From the first time on, it cannot be cancelled."""
        self.begun = self.begun or self.answer.set_running_or_notify_cancel()
        return self.begun


class Desk:
    """One model and its cells. Each cell has a thread that asks it. Thread-safe.

    name     what callers call the model
    made     when the desk was opened, in seconds since 1970
    reading  held while the tokenizer is used, which is not thread-safe
    """

    def __init__(self, name: str, cells: Sequence[Cell]):
        """Raises ModelError for cells that hold different models."""
        require_alike([(cell.name, cell.traits) for cell in cells],
                      f"Both are named {name!r}; name them differently: --settings NAME=FILE, --cells NAME=FILE")
        self.name, self.cells, self.made = name, tuple(cells), int(time.time())
        self.architecture, self.tokenizer = cells[0].model.architecture, cells[0].model.tokenizer
        self.reading = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [threading.Thread(target=self._work, args=(cell,), name=f"cell {i} of {name}", daemon=True)
                         for i, cell in enumerate(self.cells)]
        for thread in self._threads:
            thread.start()

    @property
    def problem(self) -> str:
        """Why the model cannot be asked, as far as the last requests tell; "" if it can."""
        problems = [cell.problem for cell in self.cells]
        return f"{self.name}: no cell answers ({', '.join(dict.fromkeys(problems))})" if all(problems) else ""

    # ---- whole answers -------------------------------------------------------------------------------------------

    def submit(self, read: Reading) -> Job:
        """Queues texts. Raises Closing, AllDrained."""
        job = Job(read)
        with self._changed:
            self._require_open()
            self._require_undrained()
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def _work(self, cell: Cell) -> None:
        while jobs := self._next(cell):
            self._ask(cell, jobs)

    def _next(self, cell: Cell) -> list[Job]:
        """What a free cell asks next: at least one request, and as many as go into a call. Nothing: the desk closes."""
        with self._changed:
            while not self._closing:
                if self._fitting(cell):
                    self._changed.wait_for(lambda: self._closing or self._tokens(cell) >= cell.room, LINGER)
                    if taken := self._taken(cell):
                        return taken
                else:
                    self._give_up()
                    self._changed.wait(LOOK if self._waiting else None)
            return []

    def _fitting(self, cell: Cell) -> list[Job]:
        return [job for job in self._waiting if self._may(cell, job.tried)]

    def _tokens(self, cell: Cell) -> int:
        return sum(job.tokens for job in self._fitting(cell))

    def _may(self, cell: Cell, tried: Collection[Cell]) -> bool:
        """Whether a cell may try: one that is away leaves requests to others that can serve them."""
        return cell not in tried and not cell.drained() and not (cell.watch.away and any(
            not other.watch.away and not other.drained() for other in self.cells if other not in tried))

    def _give_up(self) -> None:
        """Ends requests that wait for drained cells only. Holds the lock."""
        for job in [job for job in self._waiting if not self.untried(job.tried)]:
            self._waiting.remove(job)
            if job.begin():
                job.answer.set_exception(AllDrained(self.name))

    def _taken(self, cell: Cell) -> list[Job]:
        taken: list[Job] = []
        room = cell.room
        for job in self._fitting(cell):
            if taken and job.tokens > room:
                break  # whoever came first is first
            self._waiting.remove(job)
            if job.begin():
                taken.append(job)
                room -= job.tokens
        return taken

    def _ask(self, cell: Cell, jobs: Sequence[Job]) -> None:
        try:
            out = cell.model(Reading([row for job in jobs for row in job.read.rows]))
        except (InputError, RangeError) as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
            else:
                for job in jobs:
                    self._ask(cell, [job])
        except ProtocolError as error:
            self.failed(cell, error)
            self._again(jobs, cell, error)
        except Exception as error:
            for job in jobs:
                job.answer.set_exception(error)
        else:
            self.served(cell)
            start = 0
            for job in jobs:
                stop = start + len(job.read.rows)
                job.answer.set_result(out.part(start, stop))
                start = stop

    def _again(self, jobs: Sequence[Job], cell: Cell, error: ProtocolError) -> None:
        """Hands requests to the cells that have not tried them, where there are any."""
        with self._changed:
            for job in jobs:
                job.tried.add(cell)
                if self._closing or not self.untried(job.tried):
                    job.answer.set_exception(Closing(str(error)) if self._closing else error)
            self._waiting.extendleft(job for job in reversed(jobs) if not job.answer.done())
            self._changed.notify_all()

    # ---- texts that are generated --------------------------------------------------------------------------------

    @contextmanager
    def place(self, tried: Collection[Cell], left: threading.Event) -> Iterator[Cell]:
        """A cell that has not tried, for one text: the one that generates fewest. Waits while all generate `WRITERS`.

        Raises Closing; AllDrained; and Gone when nobody waits for the text any more.
        """
        with self._changed:
            while not (free := [cell for cell in self.cells if self._may(cell, tried) and cell.writing < WRITERS]):
                self._require_open()
                if left.is_set():
                    raise Gone
                if not self.untried(tried):
                    raise AllDrained(self.name)
                self._changed.wait(LOOK)
            self._require_open()
            cell = min(free, key=lambda each: each.writing)
            cell.writing += 1
        try:
            yield cell
        finally:
            with self._changed:
                cell.writing -= 1
                self._changed.notify_all()

    # ---- how cells do --------------------------------------------------------------------------------------------

    def untried(self, tried: Collection[Cell]) -> bool:
        """Whether there is a cell that has not tried, and is not drained."""
        return any(cell not in tried and not cell.drained() for cell in self.cells)

    def failed(self, cell: Cell, error: ProtocolError) -> None:
        with self._changed:
            if not self._closing:
                cell.watch.failed(error)

    def served(self, cell: Cell) -> None:
        cell.watch.served()

    # ---- the end -------------------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        return self._closing

    def _require_undrained(self) -> None:
        if not self.untried(()):
            raise AllDrained(self.name)

    def _require_open(self) -> None:
        if self._closing:
            raise Closing("this gateway is shutting down")

    def drain(self) -> None:
        """Refuses what waits, and what comes from now on. What runs goes on."""
        with self._changed:
            self._closing = True
            waiting = [job for job in self._waiting if job.begin()]
            self._waiting.clear()
            self._changed.notify_all()
        for job in waiting:
            job.answer.set_exception(Closing("this gateway is shutting down"))

    def close(self) -> None:
        """Ends what runs, and hangs up. Closing twice is allowed."""
        self.drain()
        for cell in self.cells:
            cell.close()
        for thread in self._threads:
            thread.join()


def desks_of(named: Sequence[Named], lists: Sequence[tuple[str, CellList]] = ()) -> list[Desk]:
    """A desk for each name, with a cell for each of its files, and all cells of its lists; without a name, a model is
    called as its class is. Nothing is sent. Raises SettingsError, ModelError."""
    cells: list[tuple[str, Cell]] = []
    desks: list[Desk] = []
    try:
        for name, file in named:
            cell = cell_of(file)
            cells.append((name or cell.model.architecture.spec.architecture, cell))
        for name, listed in lists:
            cells += [(name or cell.model.architecture.spec.architecture, cell) for cell in cells_of(listed)]
        for name in dict.fromkeys(name for name, _ in cells):
            desks.append(Desk(name, [cell for own, cell in cells if own == name]))
    except BaseException:
        for desk in desks:
            desk.close()
        for _, cell in cells:
            cell.close()
        raise
    return desks
