"""Those who answer the driver's calls: one worker per cell. Here they are threads of the driver; see `ray_crew`."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from secformer.batch.tasks import Task, Unit
from secformer.batch.worker import Failed, Kind, Opener, Outcome, Worker
from secformer.roles.settings import ClientSettings

Outcomes = queue.SimpleQueue[tuple[int, Outcome]]  # a call's number, and how it ended


class Crew(Protocol):
    """Takes calls; how each ends comes into the driver's queue, once."""

    def ask(self, cell: str, call: int, units: Sequence[Unit]) -> None:
        """Hands a call to a cell's worker. Calls of a cell begin in the order in which they were handed over."""

    def close(self) -> None:
        """Ends all workers; calls that run are abandoned."""


Hire = Callable[[Mapping[str, ClientSettings], Task, Opener, Outcomes], Crew]  # cells by name


class ThreadCrew:
    """Workers that are threads of this process."""

    def __init__(self, cells: Mapping[str, ClientSettings], task: Task, opener: Opener, outcomes: Outcomes):
        self._outcomes = outcomes
        self._workers = {name: Worker(settings, task, opener) for name, settings in cells.items()}
        self._threads = {name: ThreadPoolExecutor(settings.in_flight, thread_name_prefix=f"cell {name}")
                         for name, settings in cells.items()}

    def ask(self, cell: str, call: int, units: Sequence[Unit]) -> None:
        future = self._threads[cell].submit(self._workers[cell].ask, units)
        future.add_done_callback(lambda done: self._told(call, done))

    def _told(self, call: int, done: Future[Outcome]) -> None:
        if not done.cancelled():
            error = done.exception()
            self._outcomes.put((call, done.result() if error is None else Failed(Kind.OURS, repr(error))))

    def close(self) -> None:
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers.values():
            worker.close()
        for threads in self._threads.values():
            threads.shutdown(wait=True)
