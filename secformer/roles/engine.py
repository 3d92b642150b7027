"""A party's engine: keeps the link to the other party, opens the weights once, and runs requests one after the other.

The engine has a thread of its own beside the web server. Any fault between the parties ends the link and the running
request. The engine then makes a new link; the opened weights stay.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Protocol

import numpy as np

from secformer.models.data.batch import Batch, blind_batch
from secformer.models.run.public import PublicModel
from secformer.models.run.served import PartyModel
from secformer.models.run.share_file import ShareFile
from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import PeerLost, SecformerError, SettingsError, StoreError
from secformer.mpc.kernels import kernels_for
from secformer.mpc.meter import Cost, Meter
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.tls import Listener, TLSChannel, client_context, connect, server_context
from secformer.mpc.party import Party
from secformer.mpc.sessions.secure import SecureSession
from secformer.roles.cycle import Cycle
from secformer.roles.dealing import WEIGHTS
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import HEARTBEAT, Taken, compare, hello
from secformer.roles.messages import Answer
from secformer.roles.settings import PartySettings
from secformer.roles.supply import Supply

RETRY = 0.2, 5.0  # seconds between attempts to link: at first, at most

log = logging.getLogger(__name__)


class Reports(Protocol):
    """Receives what the engine reports: readiness, costs, and what the store holds."""

    def ready(self) -> None: ...
    def not_ready(self, reason: str) -> None: ...
    def answered(self, cost: Cost) -> None: ...
    def material(self, left: dict[str, int]) -> None: ...


class Engine:
    """One party, from its share file to its halves of answers."""

    def __init__(self, settings: PartySettings, jobs: Jobs, reports: Reports):
        """Reads the share file; party 0 also begins to listen. Raises ModelError, SettingsError."""
        share = ShareFile(settings.model)
        if share.rank != settings.rank:
            raise SettingsError(f"{settings.model} is party {share.rank}'s share file, but these are the settings of "
                                f"party {settings.rank}; each party needs its own share file")
        self._settings, self._reports = settings, reports
        self._rank, self._public, self._shares = share.rank, share.public, share.shares
        kernels = kernels_for(choose_backend(settings.backend, threads=settings.threads or None))
        self._party = Party(self._rank, share.public.fixed, kernels)
        self._model = PartyModel(share.public, SecureSession(self._party))
        self._supply = Supply(settings, share.public.digest, self._model.provisioning)
        self._opened = ""  # the epoch in which the weights were opened
        self._stop = threading.Event()
        self._cycle = Cycle(jobs, self._supply, self, self._stop)
        self._links: queue.Queue[TLSChannel] = queue.Queue()
        self._link: TLSChannel | None = None
        self._listener: Listener | None = None
        if self._rank == 0:
            self._listener = Listener(settings.link, ("party1",), server_context(settings.tls), self._linked,
                                      self._refused, deadline=settings.deadline)

    @property
    def public(self) -> PublicModel:
        """The public description of the model."""
        return self._public

    def run(self) -> None:
        """Serves until `stop`. Runs once."""
        try:
            with self._party.kernels.backend.lane(), np.errstate(over="ignore"):  # words wrap by design
                self._run()
        finally:
            self._supply.close()

    def _run(self) -> None:
        pause = RETRY[0]
        while not self._stop.is_set():
            try:
                self._reports.not_ready("waiting for the dealer or a known epoch")
                self._supply.join()
                self.report_material()
                self._reports.not_ready("waiting for the other party")
                self._link = self._meet()
                self._greet(self._link)
                log.info("linked", extra={"fields": {"epoch": self._opened}})
                pause = RETRY[0]
                self._reports.ready()
                (self._cycle.lead if self._rank == 0 else self._cycle.follow)(self._link)
            except (SecformerError, OSError) as error:
                self._end_link(str(error))
                if not self._stop.is_set():
                    self._reports.not_ready(str(error))
                    log.warning("link lost", extra={"fields": {"problem": str(error)}})
                    self._stop.wait(pause)
                    pause = min(2 * pause, RETRY[1])
            except Exception as error:
                log.exception("unexpected")
                self._end_link(f"unexpected {type(error).__name__}")
                self._stop.wait(pause)
        self._end_link("this party is shutting down")

    def stop(self) -> None:
        """Ends `run`. A running request fails."""
        self._stop.set()
        if self._listener is not None:
            self._listener.close()
        if (link := self._link) is not None:
            link.abort("this party is shutting down")

    # ---- the link -------------------------------------------------------------------------------------------------

    def _meet(self) -> TLSChannel:
        if self._rank == 1:
            return connect(self._settings.link, "party0", client_context(self._settings.tls), patience=HEARTBEAT,
                           deadline=self._settings.deadline)
        while not self._stop.is_set():
            try:
                return self._links.get(timeout=HEARTBEAT / 10)
            except queue.Empty:
                continue
        raise PeerLost("this party is shutting down")

    def _linked(self, channel: TLSChannel) -> None:
        """Passes a new connection of party 1 to the engine; the old link, if there is one, is dead."""
        if (old := self._link) is not None:
            old.abort("party 1 has made a new link")
        self._links.put(channel)
        channel.ended.wait()

    def _refused(self, where: str, problem: str) -> None:
        log.warning("connection refused or lost", extra={"fields": {"from": where, "problem": problem}})

    def _end_link(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort(reason)

    def _greet(self, link: TLSChannel) -> None:
        """Compares what must be the same at both parties, and opens the weights unless both still hold them opened."""
        epoch = self._supply.epoch.name
        mine = hello(self._public, self._model.provisioning, epoch, rank=self._rank, opened=self._opened == epoch)
        link.tell(mine)
        theirs = link.hear()
        compare(mine, theirs, link.peer)
        if mine["opened"] and theirs.get("opened") is True:
            return
        self._reports.not_ready("opening the weights")
        started, meter = time.perf_counter(), Meter()
        self._opened = ""
        self._begin(link, WEIGHTS, self._model.provisioning, None, meter)
        self._model.load_weights(self._shares)
        self._opened = epoch
        cost = meter.close(started)
        log.info("weights opened", extra={"fields": {"seconds": round(time.perf_counter() - started, 3),
                                                     "bytes": cost.offline_bytes}})

    def _begin(self, link: Channel, run: str, plan: Plan, corrections: Channel | None, meter: Meter) -> None:
        source = Source(self._supply.seed, run, plan, corrections, self._party.kernels, meter)
        self._party.begin(link, source, meter)

    # ---- requests -------------------------------------------------------------------------------------------------

    def plan(self, job: Job) -> Plan:
        """The correlations that a request needs."""
        return self._model.plan(blind_batch(job.half.lengths, job.half.mask))

    def compute(self, link: TLSChannel, job: Job, taken: Taken, corrections: Channel | None) -> None:
        """Runs the program of a request with the other party, and gives the job this party's half of the answer."""
        batch = blind_batch(job.half.lengths, job.half.mask)
        started, meter = time.perf_counter(), Meter()
        self._begin(link, taken.run, self.plan(job), corrections, meter)
        results = self._model.answer(batch, self._words(job, batch))
        cost = meter.close(started)
        job.done.set_result(Answer(results, self._public.fixed.frac, cost))
        self._reports.answered(cost)
        self.report_material()
        log.info("answered", extra={"fields": {"request": taken.request, "client": job.client, "run": taken.run,
                                               "tokens": batch.tokens, "seconds": round(cost.seconds, 3),
                                               "bytes": cost.bytes, "rounds": cost.rounds}})

    def _words(self, job: Job, batch: Batch) -> np.ndarray:
        if job.half.words is not None:
            return np.asarray(job.half.words)
        return self._public.expanded(batch, job.half.seed or b"")

    def report_material(self) -> None:
        """Reports what the store holds: requests use it up, and `secformer deal` adds to it at any time."""
        if self._rank != 1:
            return
        try:
            self._reports.material(self._supply.left())
        except StoreError as error:  # parties can do without a store; a request that needs it says so
            log.warning("store unreadable", extra={"fields": {"problem": str(error)}})
