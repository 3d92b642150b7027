"""A party's engine: keeps the link to the other party, opens the weights once, and runs requests in slots.

The engine has a thread of its own beside the web server, and a thread for each slot. Any fault between the parties ends
the link and the running requests. The engine then makes a new link; the opened weights stay.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from secformer.models.data.batch import blind_batch
from secformer.models.families.program import CHECK, Results
from secformer.models.run.public import PublicModel
from secformer.models.run.served import PartyModel
from secformer.models.run.served_steps import slot_bytes
from secformer.models.run.share_file import ShareFile
from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.names import RunKey
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import Desync, InputError, PeerLost, SecformerError, SettingsError, StoreError
from secformer.mpc.kernels import kernels_for
from secformer.mpc.meter import Cost, Meter
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.listener import Listener
from secformer.mpc.net.tls import TLSChannel
from secformer.mpc.party import Party
from secformer.mpc.script import Script
from secformer.mpc.segments import Channels, runs_on
from secformer.mpc.sessions.secure import SecureSession
from secformer.roles import filling
from secformer.roles.cycle import Cycle, Needs
from secformer.roles.dealing import WEIGHTS
from secformer.roles.descriptors import party_room, raise_limit
from secformer.roles.epoch_watch import EpochWatch
from secformer.roles.failures import NOT_ONE_HOT, AtLimit, NoRoom, general
from secformer.roles.halves import words_of
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import HEARTBEAT, compare, hello, stored_of
from secformer.roles.linking import Link, Meeting, connect_link
from secformer.roles.logs import certificates_read, not_recorded, refusals
from secformer.roles.messages import Answer, Ran
from secformer.roles.precedence import Precedence
from secformer.roles.reporting import Reports
from secformer.roles.sessions import Sessions
from secformer.roles.settings import PartySettings
from secformer.roles.slots import Renewed, Slots, Work
from secformer.roles.supply import Supply
from secformer.roles.traces import fields_of

RETRY = 0.2, 5.0  # seconds between attempts to link: at first, at most

log = logging.getLogger(__name__)


class Engine:
    """One party, from its share file to its halves of answers."""

    def __init__(self, settings: PartySettings, jobs: Jobs, reports: Reports):
        """Reads the share file; party 0 also begins to listen. Raises ModelError, SettingsError."""
        share = ShareFile(settings.model)
        if share.rank != settings.rank:
            raise SettingsError(f"{settings.model} is party {share.rank}'s share file, but these are the settings of "
                                f"party {settings.rank}; each party needs its own share file")
        self._settings, self._reports = settings, reports
        self.credentials = Credentials(settings.tls, certificates_read)
        self._rank, self._public, self._shares = share.rank, share.public, share.shares
        self._kernels = kernels_for(choose_backend(settings.backend, threads=settings.threads or None))
        self._parties = [Party(self._rank, share.public.fixed, self._kernels) for _ in range(settings.in_flight)]
        self._lanes = [self._kernels.backend.lane() for _ in self._parties]  # by slot, as the parties
        self._runs = [runs_on(self._kernels, settings.graph, not_recorded) for _ in self._parties]
        self._model = PartyModel(share.public, *map(SecureSession, self._parties),
                                 traced=any(runs.recording for runs in self._runs))
        self._supply = Supply(settings, share.public.digest, self._model.provisioning, self._kernels.backend.buffer,
                              self.credentials.client())
        self._running = Precedence()  # requests go before material ahead
        self._filler = filling.Filler(settings, lambda: self._supply.joined, self._supply.client,
                                      self._supply.precedence, self._running, jobs.halves, reports)
        decoder = share.public.decoder
        self.sessions = Sessions(settings, self._model.text, slot_bytes(decoder) if decoder is not None else 1)
        self._watch = EpochWatch(self._supply.outdated)
        self._opened = ""  # the epoch in which the weights were opened
        self._stop, self._jobs = threading.Event(), jobs
        self._cycle = Cycle(jobs, self._supply, self, self._stop, settings.deadline - settings.dealer_wait,
                            settings.half_deadline / 4)
        self._meeting = Meeting()
        self._link: Link | None = None
        self._generation = 0  # of the certificate that the link was made with
        self._slots: Slots[TLSChannel] | None = None  # of the last link
        self._listener: Listener | None = None
        if self._rank == 0:
            try:
                self._listener = Listener(settings.link, ("party1",), self.credentials.server(), self._meeting.came,
                                          refusals("link", reports.refused), deadline=settings.deadline,
                                          strangers=party_room(settings, raise_limit()).strangers)
            except BaseException:
                self._supply.close()
                raise

    @property
    def public(self) -> PublicModel:
        return self._public

    def running(self) -> int:
        """How many requests run."""
        return self._slots.busy if self._slots is not None else 0

    def epoch(self) -> str:
        """The name of the epoch that this party has joined; "" before that."""
        return joined.name if (joined := self._supply.joined) is not None else ""

    def run(self) -> None:
        """Serves until `stop`. Runs once."""
        if self._rank == 1:  # which tells the other party
            self._watch.start()
        self._filler.start()
        try:
            self._run()
        finally:
            self._watch.close()
            self._filler.close()
            self._supply.close()

    def _run(self) -> None:
        pause, renewed = RETRY[0], False
        while not self._stop.is_set():
            quiet, renewed = renewed, False
            told = (lambda reason: None) if quiet else self._waiting  # while a link is renewed, requests may come
            try:
                told("waiting for the dealer or a known epoch")
                self._join(quiet)
                told("waiting for the other party")
                self._generation = self.credentials.generation
                self._link = link = self._meet()
                self._greet(link, told)
                log.info("linked", extra={"fields": {"epoch": self._opened}})
                pause = RETRY[0]
                self._reports.ready()
                with Slots(link.slots, self._compute, self._end_link) as slots:
                    self._slots = slots
                    (self._cycle.lead if self._rank == 0 else self._cycle.follow)(link.control, slots)
            except Renewed:
                log.info("link renewed")
                self._close_link("a new link is made")
                renewed = True
            except (SecformerError, OSError) as error:
                self._end_link(str(error))
                if not self._stop.is_set():
                    self._reports.not_ready(str(error), general(error))
                    log.warning("link lost", extra={"fields": {"problem": str(error)}})
                    self._stop.wait(pause)
                    pause = min(2 * pause, RETRY[1])
            except Exception as error:
                log.exception("unexpected")
                self._end_link(f"unexpected {type(error).__name__}")
                self._stop.wait(pause)
        self._end_link("this party is shutting down")

    def _join(self, again: bool) -> None:
        """Learns the epoch. Sessions of another one end: the dealer has forgotten the masks of their caches."""
        self._watch.joining()
        try:
            self._supply.join(again)
        except SecformerError as error:
            self._meeting.refuse(str(error))
            raise
        self.report_material()
        if self._opened and self._opened != self._supply.epoch.name:
            self.sessions.end_all("the dealer has begun a new epoch")

    def stop(self) -> None:
        """Ends `run`. A running request fails."""
        self._stop.set()
        if self._listener is not None:
            self._listener.close()
        if (link := self._link) is not None:
            link.abort("this party is shutting down")

    def _waiting(self, what: str) -> None:
        self._reports.not_ready(what, what)

    # ---- the link -------------------------------------------------------------------------------------------------

    def _meet(self) -> Link:
        if self._rank == 1:
            return connect_link(self._settings.link, self.credentials.client(), self._settings.in_flight,
                                patience=HEARTBEAT, deadline=self._settings.deadline)
        while not self._stop.is_set():
            if (link := self._meeting.wait(HEARTBEAT / 10)) is not None:
                return link
        raise PeerLost("this party is shutting down")

    def _end_link(self, reason: str) -> None:
        """Makes all connections of the link fail, and ends all sessions. Any thread may call this, and more than
        once."""
        self.sessions.end_all("the link of the two parties was lost")
        self._close_link(reason)

    def _close_link(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort(reason)
        self._jobs.wake()

    def _greet(self, link: Link, told: Callable[[str], None]) -> None:
        """Compares what must be the same at both parties, and opens the weights unless both still hold them opened."""
        epoch, control = self._supply.epoch.name, link.control
        mine = hello(self._public, self._model.provisioning, epoch, rank=self._rank, opened=self._opened == epoch,
                     in_flight=self._settings.in_flight, numbers=self._public.numbers,
                     stored=self._supply.stored())
        control.tell(mine)
        theirs = control.hear()
        compare(mine, theirs, control.peer)
        if self._rank == 1:
            self._supply.check(stored_of(theirs, control.peer), control.peer)
        if len(link.slots) != self._settings.in_flight:
            raise Desync(f"{control.peer} has made {len(link.slots)} connections for requests, but in_flight is "
                         f"{self._settings.in_flight}; do both sides run the same version?")
        if mine["opened"] and theirs.get("opened") is True:
            return
        told("opening the weights")
        started, meter = time.perf_counter(), Meter()
        self._opened = ""
        for runs in self._runs:
            runs.forget()  # what was recorded reads the weights as they were opened
        with self._computing(0):
            self._begin(0, control, RunKey(WEIGHTS, self._supply.seed), self._model.provisioning, None, meter)
            self._model.load_weights(self._shares)
        self._opened = epoch
        self._reports.opened(self._public.digest, epoch)
        cost = meter.close(started)
        log.info("weights opened", extra={"fields": {"epoch": epoch, "seconds": round(time.perf_counter() - started, 3),
                                                     "bytes": cost.offline_bytes}})

    def _begin(self, slot: int, peer: Channel, key: RunKey, plan: Plan, corrections: Channel | None, meter: Meter,
               caches: RunKey | None = None) -> None:
        cache, seed = (None, None) if caches is None else (caches.name, caches.seed)
        source = Source(key.seed, key.name, plan, corrections, self._kernels, meter, cache, seed)
        self._parties[slot].begin(peer, source, meter)

    @contextmanager
    def _computing(self, slot: int) -> Iterator[None]:
        end = self._running.begin()
        try:
            with self._lanes[slot], np.errstate(over="ignore"):  # words wrap by design
                yield
        finally:
            end()
            self._parties[slot].end()

    # ---- requests -------------------------------------------------------------------------------------------------

    def needs(self, job: Job) -> Needs:
        """The correlations that a request needs, and the step of a session, if it is one."""
        if job.half.step is None:
            plan = self._model.plan(blind_batch(job.half.lengths, job.half.mask))
            self._filler.note(plan, job.half)
            return Needs(plan)
        stepping = self.sessions.asked(job.half, job.client)
        return Needs(self._model.step_plan(stepping.shape), stepping)

    def kept(self) -> list[str]:
        """The names of the caches of all sessions that go on."""
        return self.sessions.names()

    def begin(self, work: Work) -> None:
        """Both parties have agreed to run this, and it starts next."""
        self._reports.took(work.taken.space)
        if work.stepping is not None:
            self.sessions.begin(work.stepping, work.key)

    def refused(self, job: Job, problem: SecformerError) -> None:
        """The request will not run. A session whose step does not run is ended, here and at the other party, unless the
        step may be asked for again."""
        if job.half.step is not None and not isinstance(problem, AtLimit | NoRoom):
            self.sessions.end(job.client, job.half.step.session, f"a step was refused: {problem}")

    def renewal(self) -> bool:
        """Whether this party shows another certificate than when the link was made, or knows that the epoch is over.
        Raises AuthError where one of the other party's certificates does not hold any more."""
        if (link := self._link) is not None:
            link.check()
        return self._watch.over or self.credentials.generation != self._generation

    def rest(self) -> None:
        """Does what is due while nothing waits."""
        self.sessions.expire()
        self._supply.rest()
        self.report_material()  # `secformer deal` may have added some

    def _compute(self, slot: int, peer: TLSChannel, work: Work) -> None:
        """Runs the program of a request with the other party, and gives the job this party's half of the answer."""
        job, taken = work.job, work.taken
        batch = blind_batch(job.half.lengths, job.half.mask)
        channels = {"peer": peer} if work.corrections is None else {"peer": peer, "dealer": work.corrections}
        started, clock = time.monotonic(), time.perf_counter()
        session = work.stepping.session if work.stepping is not None else None

        def play(channels: Channels, words: Any) -> tuple[Results, Cost]:
            started, meter = time.perf_counter(), Meter()
            self._begin(slot, channels["peer"], work.key, work.plan, channels.get("dealer"), meter,
                        session.caches if session is not None else None)
            if session is not None and session.turn is not None:
                return self._model.step(session.text, session.turn, words, slot), meter.close(started)
            return self._model.answer(batch, words, slot), meter.close(started)

        with self._computing(slot):
            script = self._model.script(batch) if session is None else Script(work.plan)
            ran = self._runs[slot].run((self._opened, script.name), script, (work.key.seed,), work.key.name, channels,
                                       words_of(job.half, batch, self._public.inputs, self._kernels), play)
        cost = ran.facts.lasting(time.perf_counter() - clock) if ran.repeated else ran.facts
        if session is not None:
            self.sessions.done(session)
        results = dict(ran.results)
        if np.any(results.pop(CHECK, 0)):  # the other party refuses, too, unless it deviates
            return self._reject(work)
        told = Ran(self._opened, taken.run, work.key.name, work.plan.digest, started - job.came - work.material,
                   work.material, time.monotonic() - started)
        job.done.set_result(Answer(results, self._public.fixed.frac, cost, told))
        self._reports.answered(cost)
        log.info("answered", extra={"fields": {
            "request": taken.request, **fields_of(job.half.trace), "client": job.client, "run": taken.run, "slot": slot,
            "tokens": batch.tokens, "seconds": round(cost.seconds, 3), "bytes": cost.bytes, "rounds": cost.rounds,
            "waiting": round(told.waiting, 3), "material": round(told.material, 3),
            **({"session": session.run} if session is not None else {})}})

    def _reject(self, work: Work) -> None:
        """Gives no answer to rows that are not one-hot. The link stays: only the client is at fault."""
        job, error = work.job, InputError(NOT_ONE_HOT)
        log.warning("rows refused", extra={"fields": {"request": work.taken.request, **fields_of(job.half.trace),
                                                      "client": job.client, "run": work.taken.run}})
        self.refused(job, error)
        job.done.set_exception(error)

    def report_material(self) -> None:
        """Reports what the store holds: requests use it up, and `secformer deal` adds to it at any time."""
        if self._rank != 1:
            return
        try:
            self._reports.material(self._supply.left())
        except StoreError as error:  # parties can do without a store; a request that needs it says so
            log.warning("store unreadable", extra={"fields": {"problem": str(error)}})
