"""The requests that wait at a party: each client's in their order, and the clients in turn."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from secformer.mpc.errors import SecformerError
from secformer.roles.messages import Answer, Half

REMEMBERED = 4096  # ids of ended requests that are remembered, to refuse duplicates
COUNTED = 256      # waiting requests whose shapes are looked at, to make material ahead


class QueueFull(SecformerError):
    """The queue already holds as many requests as may wait."""


class DuplicateRequest(SecformerError):
    """The id of a request was used before."""


class Expired(SecformerError):
    """A request was not answered within its deadline."""


class Alone(Expired):
    """The other party does not have its half of a request."""


@dataclass(frozen=True, eq=False)
class Job:
    """One party's half of a request, waiting or running."""

    half: Half
    client: str
    expires: float     # time.monotonic
    came: float = 0.0  # the same
    done: Future[Answer] = field(default_factory=Future)

    def begun(self) -> bool:
        """Marks it as running, which it may be already if it was put back. False if its client has given it up."""
        return self.done.running() or self.done.set_running_or_notify_cancel()

    def fail(self, error: SecformerError) -> None:
        """Ends a job that waits, unless its client has given it up."""
        if self.begun():
            self.done.set_exception(error)


class Jobs:
    """A queue. `candidates` lists the requests in fair order; `take` starts one. Thread-safe.

    most   requests that may wait; more are refused
    alone  seconds that a half may wait while the other party has no half of the same request
    """

    def __init__(self, most: int, alone: float = math.inf, clock: Callable[[], float] = time.monotonic):
        self._most, self._alone, self._clock = most, alone, clock
        self._linked = clock()
        self._met: set[str] = set()                  # waiting ones that the other party has, too
        self._arriving: Counter[str] = Counter()     # those whose bodies are not whole yet
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()  # by client; it is the first one's turn
        self._known: OrderedDict[str, None] = OrderedDict()
        self._changed = threading.Condition()

    def submit(self, half: Half, client: str, deadline: float) -> Future[Answer]:
        """Queues a half that must be answered within `deadline` seconds. The future holds its answer, or the error that
        ended it. Raises QueueFull, DuplicateRequest."""
        now = self._clock()
        job = Job(half, client, now + deadline, now)
        with self._changed:
            if half.request in self._known:
                raise DuplicateRequest(f"request {half.request} was sent before, and each request is answered once; "
                                       f"send it again under a new id")
            if self._count() >= self._most:
                raise QueueFull(f"{self._most} requests already wait; try again later")
            self._known[half.request] = None
            while len(self._known) > REMEMBERED + self._most:
                self._known.popitem(last=False)
            self._waiting.setdefault(client, deque()).append(job)
            self._changed.notify_all()
        return job.done

    def cancel(self, request: str) -> None:
        """Removes a request that has not started, because nobody waits for its answer any more."""
        with self._changed:
            job = self._remove(request)
        if job is not None:
            job.done.cancel()

    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            return self._count()

    def candidates(self, most: int, patience: float = 0.0, enough: Callable[[], bool] = lambda: False) -> list[str]:
        """Ids of the first `most` requests, clients in turn. Waits until there is one, but at most `patience` seconds,
        and not longer than until `enough()` holds (see `wake`). Ends requests that are past their deadline."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or enough(), timeout=patience)
            late = self._expire()
            ids = [job.half.request for job, _ in zip(self._in_turn(), range(most), strict=False)]
        for job in late:
            job.fail(Expired("the request waited until its deadline: the parties were busy, or the other party did not "
                             "receive its half; send it again"))
        return ids

    def clients(self, ids: Collection[str]) -> dict[str, str]:
        """Those of these ids that wait here, in the same order, with the clients that sent them."""
        with self._changed:
            sent = {job.half.request: job.client for jobs in self._waiting.values() for job in jobs}
        return {request: sent[request] for request in ids if request in sent}

    # ---- halves without their other half ------------------------------------------------------------------------

    @contextmanager
    def arriving(self, request: str) -> Iterator[None]:
        """The body of this request arrives: the other party may wait for it."""
        with self._changed:
            self._arriving[request] += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving[request] -= 1
                if not self._arriving[request]:
                    del self._arriving[request]

    def here(self) -> list[str]:
        """All ids of which this party has a half that waits or arrives."""
        with self._changed:
            return [*(job.half.request for job in self._in_turn()), *self._arriving]

    def linked(self) -> None:
        """The parties begin to tell each other what they have: so far, nobody could know who lacks a half."""
        with self._changed:
            self._met, self._linked = set(), self._clock()

    def compare(self, theirs: Collection[str]) -> None:
        """Learns of which requests the other party has a half, and ends those that have waited alone for too long."""
        have, now = frozenset(theirs), self._clock()
        with self._changed:
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            self._met = {job.half.request for job in waiting if job.half.request in have}
            alone = [job for job in waiting if job.half.request not in have
                     and now - max(job.came, self._linked) >= self._alone]
            for job in alone:
                self._remove(job.half.request)
        for job in alone:
            job.fail(Alone(f"the other party did not get its half of the request within {self._alone:g} s; send both "
                           f"halves again, at the same time and under a new id"))

    def alone(self) -> int:
        """How many halves wait of which the other party has no other half, as far as this party knows."""
        with self._changed:
            return self._count() - len(self._met)

    def halves(self, most: int = COUNTED) -> list[Half]:
        """The first halves that wait, clients in turn."""
        with self._changed:
            return [job.half for job, _ in zip(self._in_turn(), range(most), strict=False)]

    def wake(self) -> None:
        """Makes those who wait for candidates ask again whether it is enough."""
        with self._changed:
            self._changed.notify_all()

    def first_of(self, ids: Collection[str], patience: float) -> str | None:
        """The first of these ids that is in the queue. Waits up to `patience` seconds until there is one."""
        def found() -> str | None:
            here = {job.half.request for jobs in self._waiting.values() for job in jobs}
            return next((i for i in ids if i in here), None)

        with self._changed:
            return self._changed.wait_for(found, timeout=patience) if ids else None

    def take(self, request: str) -> Job | None:
        """Starts a request: removes it from the queue and moves its client to the end of the turn. None if the request
        is gone."""
        with self._changed:
            job = self._remove(request)
            if job is not None and job.client in self._waiting:
                self._waiting.move_to_end(job.client)
        return job if job is not None and job.begun() else None

    def put_back(self, job: Job) -> None:
        """Lets a request that was taken wait again, before all others."""
        with self._changed:
            self._waiting.setdefault(job.client, deque()).appendleft(job)
            self._waiting.move_to_end(job.client, last=False)
            self._changed.notify_all()

    def _in_turn(self) -> Iterator[Job]:
        for place in range(max(map(len, self._waiting.values()), default=0)):
            for jobs in self._waiting.values():
                if place < len(jobs):
                    yield jobs[place]

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _remove(self, request: str) -> Job | None:
        for client, jobs in self._waiting.items():
            for job in jobs:
                if job.half.request == request:
                    jobs.remove(job)
                    self._met.discard(request)
                    if not jobs:
                        del self._waiting[client]
                    return job
        return None

    def _expire(self) -> list[Job]:
        now = self._clock()
        late = [job for jobs in self._waiting.values() for job in jobs if job.expires <= now]
        for job in late:
            self._remove(job.half.request)
        return late
