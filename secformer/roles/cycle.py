"""The request cycle of the two parties: party 0 offers, party 1 takes, and both compute in a slot (see `link`)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from secformer.mpc.dealer.ahead import read_ahead
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, ProtocolError, SecformerError
from secformer.mpc.net.tls import TLSChannel
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import HEARTBEAT, LATE_HALF, OFFERED, Offer, Taken, hear_offer, hear_taken
from secformer.roles.slots import Slots, Work, answering
from secformer.roles.supply import Supply


class Computer(Protocol):
    """What the cycle needs of the party's engine."""

    def plan(self, job: Job) -> Plan:
        """The correlations that a request needs."""

    def report_material(self) -> None:
        """Reports what the store holds."""


class Cycle:
    """One party's side of the cycle, request after request, until `stop` is set or the link fails.

    One thread agrees on all requests, one after the other, so that serials are used in ascending order. The requests
    themselves run in slots.

    patience  seconds that party 1 waits for the slot that party 0 offers
    """

    def __init__(self, jobs: Jobs, supply: Supply, computer: Computer, stop: threading.Event, patience: float):
        self._jobs, self._supply, self._computer, self._stop = jobs, supply, computer, stop
        self._patience = patience

    def lead(self, link: TLSChannel, slots: Slots[Any]) -> None:
        """Party 0: offers the requests that wait here while a slot is free, and checks what party 1 takes."""
        while not self._stop.is_set():
            slot = slots.free(HEARTBEAT)
            most, patience = (OFFERED, HEARTBEAT) if slot is not None else (0, 0.0)
            ids = self._jobs.candidates(most, patience, lambda: slots.failed)
            slots.check()
            Offer(tuple(ids), self._supply.last(), slot).tell(link)
            taken = hear_taken(link)
            if taken is None:
                continue
            if slot is None:
                raise Desync(f"{link.peer} takes a request that was not offered; do both sides run the same version?")
            job = self._jobs.take(taken.request)
            with answering(job):
                problem = self._objection(job, taken)
                link.tell({"go": not problem, "error": problem})
                if job is not None and problem:
                    job.done.set_exception(ProtocolError(problem))
                elif job is not None:
                    slots.start(slot, Work(job, taken, self._computer.plan(job)))

    def follow(self, link: TLSChannel, slots: Slots[Any]) -> None:
        """Party 1: takes the first offered request that waits here too, and brings its corrections."""
        while not self._stop.is_set():
            offer = hear_offer(link)
            request = self._jobs.first_of(offer.requests, LATE_HALF)
            job = self._jobs.take(request) if request is not None else None
            if job is None or offer.slot is None:
                self._jobs.candidates(0)  # ends requests past their deadline
                if not offer.requests:
                    self._computer.report_material()  # `secformer deal` may have added some
                link.tell({"take": None})
                continue
            with answering(job):
                slots.wait_free(offer.slot, self._patience)
                taken = self._agreed(link, job, offer.slot, offer.last, slots)
            self._computer.report_material()
            if taken.error and self._supply.outdated():
                raise Desync("the dealer has begun a new epoch; both parties join it")

    def _agreed(self, link: TLSChannel, job: Job, slot: int, last: Mapping[str, int], slots: Slots[Any]) -> Taken:
        """Party 1: takes a request and, if party 0 agrees, starts it. Then the slot closes its corrections."""
        work, taken = self._supplied(job, last)
        started = False
        try:
            taken.tell(link)
            answer = link.hear()
            if answer.get("go") is True and work is not None:
                slots.start(slot, work)
                started = True
            else:
                job.done.set_exception(ProtocolError(str(answer.get("error"))))
        finally:
            if work is not None and work.corrections is not None and not started:
                work.corrections.close()
        return taken

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

    def _supplied(self, job: Job, last: Mapping[str, int]) -> tuple[Work | None, Taken]:
        """A taken request with its corrections, or with the reason why there are none."""
        request = job.half.request
        try:
            plan = self._computer.plan(job)
            space, serial, corrections = self._supply.take(plan, last)
            taken = Taken(request, job.half.shape_digest, plan.digest, space, serial)
            return Work(job, taken, plan, read_ahead(corrections, plan)), taken
        except (SecformerError, OSError) as error:
            return None, Taken(request, error=str(error))
