"""The request cycle of the two parties: party 0 offers, party 1 takes, and both compute (see `link`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from secformer.mpc.dealer.ahead import read_ahead
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, ProtocolError, SecformerError
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.tls import TLSChannel
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import HEARTBEAT, LATE_HALF, OFFERED, Taken, hear_offer, hear_taken
from secformer.roles.supply import Supply


class Computer(Protocol):
    """What the cycle needs of the party's engine."""

    def plan(self, job: Job) -> Plan:
        """The correlations that a request needs."""

    def compute(self, link: TLSChannel, job: Job, taken: Taken, corrections: Channel | None) -> None:
        """Runs a request with the other party and gives the job its result."""

    def report_material(self) -> None:
        """Reports what the store holds."""


class Cycle:
    """One party's side of the cycle, request after request, until `stop` is set or the link fails."""

    def __init__(self, jobs: Jobs, supply: Supply, computer: Computer, stop: threading.Event):
        self._jobs, self._supply, self._computer, self._stop = jobs, supply, computer, stop

    def lead(self, link: TLSChannel) -> None:
        """Party 0: offers the requests that wait here, and checks what party 1 takes."""
        while not self._stop.is_set():
            ids = self._jobs.candidates(OFFERED, HEARTBEAT)
            link.tell({"requests": ids, "last": self._supply.last()})
            taken = hear_taken(link)
            if taken is None:
                continue
            job = self._jobs.take(taken.request)
            with _answering(job):
                problem = self._objection(job, taken)
                link.tell({"go": not problem, "error": problem})
                if job is not None and problem:
                    job.done.set_exception(ProtocolError(problem))
                elif job is not None:
                    self._computer.compute(link, job, taken, None)

    def follow(self, link: TLSChannel) -> None:
        """Party 1: takes the first offered request that waits here too, and brings its corrections."""
        while not self._stop.is_set():
            ids, last = hear_offer(link)
            request = self._jobs.first_of(ids, LATE_HALF)
            job = self._jobs.take(request) if request is not None else None
            if job is None:
                self._jobs.candidates(0)  # ends requests past their deadline
                if not ids:
                    self._computer.report_material()  # `secformer deal` may have added some
                link.tell({"take": None})
                continue
            with _answering(job):
                taken, corrections = self._supplied(job, last)
                try:
                    taken.tell(link)
                    answer = link.hear()
                    if answer.get("go") is True:
                        self._computer.compute(link, job, taken, corrections)
                    else:
                        job.done.set_exception(ProtocolError(str(answer.get("error"))))
                finally:
                    if corrections is not None:
                        corrections.close()
            if taken.error and self._supply.outdated():
                raise Desync("the dealer has begun a new epoch; both parties join it")

    def _objection(self, job: Job | None, taken: Taken) -> str:
        """Why a taken request may not run, or "" if it may; then its serial is burnt."""
        if job is None:
            return "its client has left, or it no longer waits at party 0"
        if taken.error:
            return f"party 1: {taken.error}"
        for what, mine, theirs in (("shape", job.half.shape_digest, taken.shape),
                                   ("plan", self._computer.plan(job).digest, taken.plan)):
            if mine != theirs:
                return f"the halves of the request differ: {what} {mine} at party 0, {theirs} at party 1"
        try:
            self._supply.burn(taken.space, taken.serial)
        except SecformerError as error:
            return f"party 0: {error}"
        return ""

    def _supplied(self, job: Job, last: Mapping[str, int]) -> tuple[Taken, Channel | None]:
        """A taken request with the channel of its corrections, or with the reason why there are none."""
        request = job.half.request
        try:
            plan = self._computer.plan(job)
            space, serial, corrections = self._supply.take(plan, last)
            return Taken(request, job.half.shape_digest, plan.digest, space, serial), read_ahead(corrections, plan)
        except (SecformerError, OSError) as error:
            return Taken(request, error=str(error)), None


@contextmanager
def _answering(job: Job | None) -> Iterator[None]:
    """Passes an error that ends a request to its client; a request that was answered keeps its answer."""
    try:
        yield
    except BaseException as error:
        if job is not None and not job.done.done():
            job.done.set_exception(error if isinstance(error, SecformerError) else
                                   ProtocolError(f"unexpected {type(error).__name__}; see the parties' logs"))
        raise
