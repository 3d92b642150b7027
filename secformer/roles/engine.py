"""A party's engine: keeps the link to the other party, opens the weights once, and runs requests one after the other.

It runs in a thread of its own beside the web server. Whatever goes wrong between the parties ends the link and the
request that ran; the link is made anew, the weights stay.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from secformer.models.party import PartyModel, blind_batch
from secformer.models.provisioned import PublicModel, ShareFile
from secformer.models.sharing import uniform
from secformer.models.tokens import Batch
from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.ahead import read_ahead
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.source import Source
from secformer.mpc.dealer.store import SPACE, Store
from secformer.mpc.errors import Desync, PeerLost, ProtocolError, SecformerError, SettingsError, StoreError
from secformer.mpc.kernels import kernels_for
from secformer.mpc.meter import Cost, Meter
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.tls import Listener, TLSChannel, client_context, connect, server_context
from secformer.mpc.party import Party
from secformer.mpc.secure import SecureSession
from secformer.roles.dealer_server import WEIGHTS
from secformer.roles.dealing import DealerClient
from secformer.roles.epochs import LIVE, Epoch, State
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import HEARTBEAT, LATE_HALF, OFFERED, Taken, compare, hear_offer, hear_taken, hello
from secformer.roles.messages import Answer
from secformer.roles.settings import PartySettings

JOIN_PATIENCE = 2.0    # seconds that the dealer gets to answer where an epoch is known already
RETRY = 0.2, 5.0       # seconds between attempts to link: at first, at most

log = logging.getLogger(__name__)


class Reports(Protocol):
    """Whom the engine tells how it goes."""

    def ready(self) -> None: ...
    def not_ready(self, reason: str) -> None: ...
    def answered(self, cost: Cost) -> None: ...
    def material(self, left: dict[str, int]) -> None: ...


class Engine:
    """One party, from its share file to its halves of answers."""

    def __init__(self, settings: PartySettings, jobs: Jobs, reports: Reports):
        """Reads the share file and listens, where the party is 0. Raises ModelError, SettingsError."""
        share = ShareFile(settings.model)
        if share.rank != settings.rank:
            raise SettingsError(f"{settings.model} is party {share.rank}'s share file, these settings are party "
                                f"{settings.rank}'s; each party has its own")
        if not settings.dealer_wait < settings.deadline:
            raise SettingsError(f"dealer_wait ({settings.dealer_wait:g} s) must be below deadline "
                                f"({settings.deadline:g} s), which the other party waits")
        self._settings, self._jobs, self._reports = settings, jobs, reports
        self._rank, self._public, self._shares = share.rank, share.public, share.shares
        kernels = kernels_for(choose_backend(settings.backend, threads=settings.threads or None))
        self._party = Party(self._rank, share.public.fixed, kernels)
        self._model = PartyModel(share.public, SecureSession(self._party))
        self._state = State(settings.state)
        self._dealer = DealerClient(settings.dealer, client_context(settings.tls), share.public.digest,
                                    self._model.provisioning, deadline=settings.deadline)
        self._epoch: Epoch | None = None
        self._opened = ""  # the epoch that the weights are opened in
        self._stop = threading.Event()
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

    # ---- the link -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until `stop`."""
        with self._party.kernels.backend.lane(), np.errstate(over="ignore"):  # words wrap by design
            self._run()

    def _run(self) -> None:
        pause = RETRY[0]
        while not self._stop.is_set():
            try:
                self._reports.not_ready("waiting for the dealer or a known epoch")
                self._join()
                self._reports.not_ready("waiting for the other party")
                self._link = self._meet()
                self._greet(self._link)
                log.info("linked", extra={"fields": {"epoch": self._opened}})
                pause = RETRY[0]
                self._reports.ready()
                (self._lead if self._rank == 0 else self._follow)(self._link)
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
        """Ends `run`, at once between requests and by failing the running one otherwise."""
        self._stop.set()
        if self._listener is not None:
            self._listener.close()
        if (link := self._link) is not None:
            link.abort("this party is shutting down")

    def _join(self) -> None:
        """Learns the epoch: from the dealer, or, while it is away, from disk."""
        known = self._state.epoch(self._public.digest, self._model.provisioning.digest)
        try:
            epoch = self._dealer.join(patience=JOIN_PATIENCE if known else self._settings.dealer_wait)
        except PeerLost:
            if known is None:
                raise
            epoch = known
        if self._rank not in epoch.seeds:
            raise ProtocolError("the dealer gave another party's seed; check which certificate this party shows")
        if epoch != known:
            self._state.keep(self._public.digest, self._model.provisioning.digest, epoch)
        self._epoch = epoch
        self._tell_material()

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
        """Party 1 has come: the engine takes over, and what link there was is dead."""
        if (old := self._link) is not None:
            old.abort("party 1 has linked anew")
        self._links.put(channel)
        channel.ended.wait()

    def _refused(self, where: str, problem: str) -> None:
        log.warning("connection refused or lost", extra={"fields": {"from": where, "problem": problem}})

    def _end_link(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort(reason)

    def _greet(self, link: TLSChannel) -> None:
        """Compares what must be the same, and opens the weights where either party does not hold them so."""
        epoch = self._known_epoch()
        mine = hello(self._public, self._model.provisioning, epoch.name, rank=self._rank,
                     opened=self._opened == epoch.name)
        link.tell(mine)
        theirs = link.hear()
        compare(mine, theirs, link.peer)
        if mine["opened"] and theirs.get("opened") is True:
            return
        self._reports.not_ready("opening the weights")
        started, meter = time.perf_counter(), Meter()
        self._opened = ""
        self._begin(link, WEIGHTS, self._model.provisioning, None, meter)
        self._model.provision(self._shares)
        self._opened = epoch.name
        cost = meter.close(started)
        log.info("weights opened", extra={"fields": {"seconds": round(time.perf_counter() - started, 3),
                                                     "bytes": cost.offline_bytes}})

    def _begin(self, link: Channel, run: str, plan: Plan, corrections: Channel | None, meter: Meter) -> None:
        seed = self._known_epoch().seeds[self._rank]
        self._party.begin(link, Source(seed, run, plan, corrections, self._party.kernels, meter), meter)

    def _known_epoch(self) -> Epoch:
        if self._epoch is None:
            raise ProtocolError("this party has not joined an epoch")
        return self._epoch

    # ---- requests -------------------------------------------------------------------------------------------------

    def _lead(self, link: TLSChannel) -> None:
        epoch, last = self._known_epoch().name, self._state.serials.last
        while not self._stop.is_set():
            ids = self._jobs.candidates(OFFERED, HEARTBEAT)
            link.tell({"requests": ids, "last": {LIVE: last(epoch, LIVE)}})
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
                    self._compute(link, job, taken, None)

    def _objection(self, job: Job | None, taken: Taken) -> str:
        """Why a taken request may not run, "" if it may; burns its serial."""
        if job is None:
            return "its client has left, or it is no longer waiting at party 0"
        if taken.error:
            return f"party 1: {taken.error}"
        batch = blind_batch(job.half.lengths, job.half.mask)
        for what, mine, theirs in (("shape", job.half.shape_digest, taken.shape),
                                   ("plan", self._model.plan(batch).digest, taken.plan)):
            if mine != theirs:
                return f"the halves of the request differ: {what} {mine} at party 0, {theirs} at party 1"
        try:
            self._burn(taken.space, taken.serial)
        except SecformerError as error:
            return f"party 0: {error}"
        return ""

    def _follow(self, link: TLSChannel) -> None:
        while not self._stop.is_set():
            ids, last = hear_offer(link)
            request = self._jobs.first_of(ids, LATE_HALF)
            job = self._jobs.take(request) if request is not None else None
            if job is None:
                self._jobs.candidates(0)  # ends those past their deadline
                if not ids:
                    self._tell_material()  # `secformer deal` may have added some
                link.tell({"take": None})
                continue
            with _answering(job):
                taken, corrections = self._supplied(job, last)
                try:
                    taken.tell(link)
                    answer = link.hear()
                    if answer.get("go") is True:
                        self._compute(link, job, taken, corrections)
                    else:
                        job.done.set_exception(ProtocolError(str(answer.get("error"))))
                finally:
                    if corrections is not None:
                        corrections.close()
            if taken.error and self._moved_on():
                raise Desync("the dealer has begun a new epoch; both parties join it")

    def _supplied(self, job: Job, last: dict[str, int]) -> tuple[Taken, Channel | None]:
        """Correlated randomness for a request, from the store or the dealer, its serial burnt; or what is wrong."""
        request, epoch = job.half.request, self._known_epoch()
        try:
            plan = self._model.plan(blind_batch(job.half.lengths, job.half.mask))
            space, found = SPACE, self._store().take(plan)
            if found is None:
                space, after = LIVE, max(last.get(LIVE, -1), self._state.serials.last(epoch.name, LIVE))
                found = self._dealer.deal(epoch, LIVE, after, plan, patience=self._settings.dealer_wait)
            serial, corrections = found
            try:
                self._burn(space, serial)
            except BaseException:
                corrections.close()
                raise
            return Taken(request, job.half.shape_digest, plan.digest, space, serial), read_ahead(corrections, plan)
        except (SecformerError, OSError) as error:
            return Taken(request, error=str(error)), None

    def _burn(self, space: str, serial: int) -> None:
        """Stored serials come in the order in which requests ask for their plans, live ones in their own."""
        epoch, serials = self._known_epoch().name, self._state.serials
        if space == SPACE:
            serials.burn_alone(epoch, space, serial)
        elif space == LIVE:
            serials.burn(epoch, space, serial)
        else:
            raise Desync(f"the other party names the space {space!r}; there are {LIVE} and {SPACE}")

    def _moved_on(self) -> bool:
        """Whether the dealer has begun a new epoch: it lost its state, or somebody removed it."""
        try:
            return self._dealer.join(patience=JOIN_PATIENCE) != self._epoch
        except (SecformerError, OSError):
            return False

    def _store(self) -> Store:
        epoch = self._known_epoch()
        return Store(self._settings.store, epoch.seeds[self._rank], epoch.name)

    def _compute(self, link: TLSChannel, job: Job, taken: Taken, corrections: Channel | None) -> None:
        """Runs the program of a request with the other party; its half of the answer, or the error, goes to the job."""
        batch = blind_batch(job.half.lengths, job.half.mask)
        started, meter = time.perf_counter(), Meter()
        self._begin(link, taken.run, self._model.plan(batch), corrections, meter)
        results = self._model.answer(batch, self._words(job, batch))
        cost = meter.close(started)
        job.done.set_result(Answer(results, self._public.fixed.frac, cost))
        self._reports.answered(cost)
        self._tell_material()
        log.info("answered", extra={"fields": {"request": taken.request, "client": job.client, "run": taken.run,
                                               "tokens": batch.tokens, "seconds": round(cost.seconds, 3),
                                               "bytes": cost.bytes, "rounds": cost.rounds}})

    def _words(self, job: Job, batch: Batch) -> np.ndarray:
        if job.half.words is not None:
            return np.asarray(job.half.words)
        shape = (batch.tokens, self._public.spec.vocab + self._public.spec.types)
        return uniform(job.half.seed or b"", "one-hot", shape, self._public.width)

    def _tell_material(self) -> None:
        if self._rank != 1:
            return
        try:
            self._reports.material(self._store().left())
        except StoreError as error:  # what is stored is a help, not a need: requests say so when they meet it
            log.warning("store unreadable", extra={"fields": {"problem": str(error)}})


@contextmanager
def _answering(job: Job | None) -> Iterator[None]:
    """The client hears of whatever ends its request; one that was answered keeps its answer."""
    try:
        yield
    except BaseException as error:
        if job is not None and not job.done.done():
            job.done.set_exception(error if isinstance(error, SecformerError) else
                                   ProtocolError(f"unexpected {type(error).__name__}; see the parties' logs"))
        raise


def in_thread(work: Callable[[], Any], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
