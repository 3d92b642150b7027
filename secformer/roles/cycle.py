"""The request cycle of the two parties: party 0 offers, party 1 takes, and both compute in a slot (see `link`)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from secformer.mpc.dealer.ahead import read_ahead
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, PeerLost, SecformerError
from secformer.mpc.net.tls import TLSChannel
from secformer.roles.failures import ForClients, HalvesDiffer, for_client, kind_of, refusal
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import HEARTBEAT, LATE_HALF, OFFERED, Offer, Reply, Taken, hear_offer, hear_reply
from secformer.roles.sessions import Stepping
from secformer.roles.slots import Renewed, Slots, Work, answering
from secformer.roles.supply import Supply
from secformer.roles.traces import fields_of

TWO_CLIENTS = "the halves of the request come from two clients, but one client must send both: use one certificate"

log = logging.getLogger(__name__)


class EpochOver(Exception):
    """The dealer has begun a new epoch, and deals nothing in the old one any more."""


class Needs(NamedTuple):
    """What a request needs: correlations and, where it continues a text, the session's next step."""

    plan: Plan
    stepping: Stepping | None = None

    @property
    def state(self) -> str:
        return self.stepping.state if self.stepping is not None else ""

    @property
    def cache(self) -> str | None:
        """The name of the caches that it takes; "" for that of its own run, None where it takes none."""
        return self.stepping.session.run if self.stepping is not None else None


class Computer(Protocol):
    """What the cycle needs of the party's engine."""

    def needs(self, job: Job) -> Needs:
        """What a request needs. Raises SecformerError for one that cannot run."""

    def kept(self) -> Collection[str]:
        """The names of the caches of all sessions that go on."""

    def begin(self, work: Work) -> None:
        """Both parties have agreed to run this, and it starts next."""

    def refused(self, job: Job, problem: SecformerError) -> None:
        """The request will not run."""

    def renewal(self) -> bool:
        """Whether the link is to be made again once nothing runs, because this party shows another certificate now, or
        because the epoch is over. Raises AuthError where the other party's certificate does not hold any more."""

    def rest(self) -> None:
        """Does what is due while nothing waits."""

    def report_material(self) -> None:
        """Reports what the store holds."""


class Cycle:
    """One party's side of the cycle, request after request, until `stop` is set or the link fails.

    One thread agrees on all requests, one after the other, so that serials are used in ascending order. The requests
    themselves run in slots.

    patience  seconds that party 1 waits for the slot that party 0 offers
    compared  seconds after which the parties compare again which halves they have
    """

    def __init__(self, jobs: Jobs, supply: Supply, computer: Computer, stop: threading.Event, patience: float,
                 compared: float = HEARTBEAT):
        self._jobs, self._supply, self._computer, self._stop = jobs, supply, computer, stop
        self._patience, self._compared = patience, compared

    def lead(self, link: TLSChannel, slots: Slots[Any]) -> None:
        """Party 0: offers the requests that wait here while a slot is free, and checks what party 1 takes. Raises
        Renewed."""
        self._jobs.linked()
        due, asked = time.monotonic(), False
        while not self._stop.is_set():
            beat = min(HEARTBEAT, self._compared)
            renew = self._computer.renewal() or asked
            if renew and slots.idle(beat):
                Offer({}, self._supply.last(), renew=True).tell(link)
                raise Renewed
            slot = slots.free(beat) if not renew else None
            most, patience = (OFFERED, beat) if slot is not None else (0, 0.0)
            ids = self._jobs.candidates(most, patience, lambda: slots.failed)
            slots.check()
            here = tuple(self._jobs.here()) if time.monotonic() >= due else None
            offer = Offer(self._jobs.clients(ids), self._supply.last(), slot, here)
            offer.tell(link)
            reply = hear_reply(link)
            taken, asked = reply.taken, asked or reply.renew
            if here is not None and reply.here is not None:
                due = time.monotonic() + beat
                self._jobs.compare(reply.here)
            if taken is None:
                self._computer.rest()
                continue
            if slot is None:
                raise Desync(f"{link.peer} takes a request that was not offered; do both sides run the same version?")
            job = self._jobs.take(taken.request)
            with answering(job):
                work, problem = self._checked(job, offer, taken)
                link.tell({"go": problem is None} | ({} if problem is None else {
                    "error": str(problem), "kind": kind_of(problem)}))
                if work is not None:
                    self._computer.begin(work)
                    slots.start(slot, work)
                elif job is not None and problem is not None:
                    self._refuse(job, problem)
            self._supply.erase()  # while the slot computes

    def follow(self, link: TLSChannel, slots: Slots[Any]) -> None:
        """Party 1: takes the first offered request that waits here too, and brings its corrections. Raises Renewed."""
        self._jobs.linked()
        while not self._stop.is_set():
            offer = hear_offer(link)
            renew, here = self._computer.renewal(), None
            if offer.renew:
                slots.idle(self._patience)
                raise Renewed
            if offer.here is not None:
                self._jobs.compare(offer.here)
                here = tuple(self._jobs.here())
            request = self._jobs.first_of(offer.requests, LATE_HALF)
            job = self._jobs.take(request) if request is not None else None
            if job is None or offer.slot is None:
                self._jobs.candidates(0)  # ends requests past their deadline
                if not offer.requests:
                    self._computer.rest()
                Reply(None, here, renew).tell(link)
                continue
            with answering(job):
                slots.wait_free(offer.slot, self._patience)
                self._agreed(link, job, offer, slots, Reply(None, here, renew))
            self._supply.erase()  # while the slot computes
            self._computer.report_material()

    def _agreed(self, link: TLSChannel, job: Job, offer: Offer, slots: Slots[Any], reply: Reply) -> None:
        """Party 1: takes a request and, if party 0 agrees, starts it. Then the slot closes its corrections. Where the
        epoch is over, the request waits until both parties have joined the next one, with a new link."""
        try:
            work, taken = self._supplied(job, offer)
        except EpochOver:
            self._jobs.put_back(job)
            replace(reply, renew=True).tell(link)
            return
        started = False
        try:
            replace(reply, taken=taken).tell(link)
            answer = link.hear()
            if answer.get("go") is True and work is not None and offer.slot is not None:
                self._computer.begin(work)
                slots.start(offer.slot, work)
                started = True
            else:
                self._refuse(job, refusal(str(answer.get("kind")), str(answer.get("error"))))
        finally:
            if work is not None and work.corrections is not None and not started:
                work.corrections.close()

    def _refuse(self, job: Job, problem: SecformerError) -> None:
        self._computer.refused(job, problem)
        job.done.set_exception(problem)

    def _checked(self, job: Job | None, offer: Offer, taken: Taken) -> tuple[Work | None, SecformerError | None]:
        """Party 0: a taken request, whose serial is then burnt; or why it may not run. Its own nonce, which was drawn
        for this offer, enters the run's name: so no answer of party 1 leads to masks that were used before."""
        if job is None:
            return None, ForClients("its client has left, or it no longer waits at party 0")
        if taken.error:
            return None, refusal(taken.kind, f"party 1: {taken.error}")
        if taken.client != job.client:
            self._report(job, taken.client)
            return None, HalvesDiffer(TWO_CLIENTS)
        try:
            needs = self._computer.needs(job)
            for what, mine, theirs in (("shape", job.half.shape_digest, taken.shape),
                                       ("plan", needs.plan.digest, taken.plan)):
                if mine != theirs:
                    return None, HalvesDiffer(f"the halves of the request differ: {what} {mine} at party 0, {theirs} "
                                              f"at party 1; share the same texts with both, in one request")
            if needs.state != taken.state:
                raise ForClients("the parties do not keep the same of this session; begin a new one")
            key = self._supply.burn(taken.space, taken.serial, (offer.nonce, taken.nonce), needs.plan)
        except (SecformerError, OSError) as error:  # such as a full disk, which must not end the link either
            return None, refusal(kind_of(error), f"party 0: {for_client(error, job.half, job.client)}")
        return Work(job, taken, needs.plan, key, stepping=needs.stepping), None

    def _report(self, job: Job, other: str) -> None:
        """Logs the names of two clients, which neither of them is told."""
        log.warning("halves of two clients", extra={"fields": {
            "request": job.half.request, **fields_of(job.half.trace), "client": job.client,
            "client at the other party": other[:64]}})

    def _supplied(self, job: Job, offer: Offer) -> tuple[Work | None, Taken]:
        """A taken request with its corrections, or with the reason why there are none. Raises EpochOver."""
        request = job.half.request
        if offer.requests[request] != job.client:
            self._report(job, offer.requests[request])
            return None, Taken(request, error=TWO_CLIENTS, client=job.client, kind="halves")
        try:
            needs, started = self._computer.needs(job), time.monotonic()
            found = self._supply.take(needs.plan, offer.last, offer.nonce, needs.cache, self._computer.kept(), request,
                                       job.half.trace)
            taken = Taken(request, job.half.shape_digest, needs.plan.digest, found.space, found.serial,
                          state=needs.state, nonce=found.nonce, client=job.client)
            return Work(job, taken, needs.plan, found.key, read_ahead(found.corrections, needs.plan),
                        needs.stepping, time.monotonic() - started), taken
        except (SecformerError, OSError) as error:
            if isinstance(error, Desync) and self._supply.outdated():
                raise EpochOver from error
            away = "the dealer does not answer" if isinstance(error, PeerLost) else ""
            return None, Taken(request, error=for_client(error, job.half, job.client, away), client=job.client,
                               kind=kind_of(error))
