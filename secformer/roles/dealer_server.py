"""The dealer as a server process: it gives each party its seed, and party 1 its corrections.

It never receives a share or an opened value.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.names import LIVE, STORED, RunKey, run_name
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.errors import Desync, PeerEnded, StoreError
from secformer.mpc.kernels import kernels_for
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.listener import PEERS, Listener
from secformer.mpc.net.tls import TLSChannel
from secformer.mpc.net.wire import Tag
from secformer.mpc.script import Script
from secformer.mpc.segments import Channels, Runs, runs_on
from secformer.roles.asks import Deal, Greeting
from secformer.roles.audit import Auditing, Unaudited, opened
from secformer.roles.chain import DEALT, EPOCH
from secformer.roles.dealing import IDLE, MAX_PLAN, WEIGHTS
from secformer.roles.descriptors import dealer_room, raise_limit
from secformer.roles.epochs import Epoch, State, as_note
from secformer.roles.idling import Idle
from secformer.roles.logs import certificates_read, not_recorded, refusals
from secformer.roles.precedence import Streams
from secformer.roles.rotation import FIRST, Rotation
from secformer.roles.settings import DealerSettings
from secformer.roles.signals import share_the_interpreter, wait_for_signal
from secformer.roles.signing import Signer
from secformer.roles.traces import fields_of

if TYPE_CHECKING:
    from secformer.roles.monitoring import DealerMetrics

AHEAD = 1 << 26      # bytes of corrections that may be on their way from a GPU to the connection
EPOCHS = 4           # epochs for which the masks of the weights are kept in memory
CACHES = 1 << 12     # sessions of an epoch whose seeds are kept in memory
RESTING = PEERS // 2 # connections of one role that may wait for its next ask; the others are for new ones
ENDING = 5.0         # seconds in which asks that are served may end when the dealer stops
PATIENT = 2 * IDLE   # seconds for which they may: longer than a party keeps them
Keys = tuple[RunKey, RunKey]  # party 0's and party 1's, of one run or of its caches

log = logging.getLogger(__name__)


class Reports(Protocol):
    """Receives what the dealer reports, for its metrics. By itself it ignores everything."""

    def connected(self) -> None: return
    def serving(self, by: int) -> None: return
    def joined(self) -> None: return
    def new_epoch(self, why: str) -> None: return
    def burnt(self, space: str, count: int) -> None: return
    def dealt(self, space: str, runs: int, nbytes: int, seconds: float) -> None: return
    def failed(self, kind: str) -> None: return
    def refused(self, port: str, why: str) -> None: return


class DealerServer:
    """Listens from its construction until `close`.

    audit  opens the audit log, once the role's other files are known to be this process's
    """

    def __init__(self, settings: DealerSettings, audit: Callable[[], Auditing] = Unaudited,
                 reports: Reports | None = None):
        self._reports = reports or _Unmonitored()
        self._kernels = kernels_for(choose_backend(settings.backend, threads=settings.threads or None))
        self.credentials = Credentials(settings.tls, certificates_read)
        self._state = State(settings.state)
        self._rotation = Rotation(self._state, settings.epoch_days)
        self._dealers: OrderedDict[str, Dealer] = OrderedDict()
        self._caches: dict[str, OrderedDict[str, Keys]] = {}  # of sessions that go on, by epoch and name
        self._graph = settings.graph
        self._lanes: list[tuple[AbstractContextManager[Any], Runs]] = []  # free ones
        self._lock = threading.Lock()
        self._streams, self._idle = Streams(settings.max_streams, settings.deadline), Idle(RESTING, PATIENT)
        with ExitStack() as undo:
            undo.callback(self._state.close)
            self.audit = audit()
            undo.callback(self.audit.close)
            self._rotate()  # before anybody joins
            self._listener = Listener(settings.listen, ("party0", "party1"), self.credentials.server(), self._serve,
                                      refusals("dealer", self._reports.refused), deadline=settings.deadline,
                                      strangers=dealer_room(raise_limit(), settings.metrics is not None).strangers)
            undo.pop_all()
        self.port = self._listener.port
        log.info("listening", extra={"fields": {"port": self.port}})

    def tend(self) -> None:
        """Reads certificates that have changed, and replaces epochs that are due. Call it every now and then."""
        self.credentials.renew()
        try:
            with self._lock:
                self._rotate()
        except (StoreError, OSError) as error:  # such as a full disk: it is tried again
            log.error("epoch not replaced", extra={"fields": {"problem": str(error)}})

    def _rotate(self) -> None:
        """Runs that have begun go on in the old epoch, with masks and seeds of their own."""
        for model, _, old, new, why in self._rotation.replaced():
            self._dealers.pop(old.name, None)
            self._caches.pop(old.name, None)
            for _, runs in self._lanes:
                self._release(runs)
            self._began(model, new, why, old.name)

    def _began(self, model: str, epoch: Epoch, why: str, old: str = "") -> None:
        facts = {"model": model, "epoch": epoch.name, "instead of": old, "why": why}
        self.audit.append(EPOCH, facts)
        self._reports.new_epoch(why)
        log.info("new epoch", extra={"fields": facts})

    def close(self) -> None:
        """Stops listening, ends connections on which nothing is asked, and gives out no more serials."""
        self._listener.close()
        self._idle.close(ENDING)  # so that a restart of the dealer breaks off no run
        with self._lock:
            self._state.close()

    def _serve(self, channel: TLSChannel) -> None:
        """Answers a party's asks, one after the other, until it hangs up or asks nothing for a long time."""
        self._reports.connected()
        greeting: Greeting | None = None
        try:
            while greeting is None or self._idle.wait(channel):
                ask = channel.hear(most=MAX_PLAN)
                with self._idle.served(channel), self._serving():
                    channel.check()  # the ask may have come long after the handshake
                    greeting = greeting or Greeting.read(ask, channel.role)
                    self._answer(channel, greeting, ask)
        except PeerEnded:
            return

    @contextmanager
    def _serving(self) -> Iterator[None]:
        self._reports.serving(1)
        try:
            yield
        except Exception as error:
            self._reports.failed(type(error).__name__)
            raise
        finally:
            self._reports.serving(-1)

    def _answer(self, channel: TLSChannel, greeting: Greeting, ask: dict[str, Any]) -> None:
        if ask.get("ask") == "join":
            self._join(channel, greeting, bool(ask.get("runs")))
        elif ask.get("ask") == "deal":
            self._deal(channel, greeting, Deal.read(ask, greeting.plans, channel.role))
        else:
            raise Desync(f"{channel.role} asks for {ask.get('ask')!r}; the dealer answers join and deal")

    def _join(self, channel: TLSChannel, greeting: Greeting, runs: bool) -> None:
        rank = 0 if channel.role == "party0" else 1
        with self._lock:
            epoch, _ = self._epoch(greeting)
            if runs:
                self._state.join(epoch, rank)
            note = as_note(epoch, rank, runs=runs)
        channel.tell(note)
        if runs:  # else it only looks whether the epoch is over, or stores material
            self._reports.joined()

    def _epoch(self, greeting: Greeting) -> tuple[Epoch, Dealer]:
        """The epoch of the model that a party has named, and a dealer that holds the masks of its weights. If the model
        has no epoch yet, a new one begins."""
        plan, model = greeting.weights, greeting.model
        epoch = self._state.epoch(model, plan.digest)
        if epoch is None:
            epoch = self._state.fresh(model, plan.digest)
            self._began(model, epoch, FIRST)
        if epoch.name not in self._dealers:
            self._dealers[epoch.name] = self._dealer(epoch, plan)
            while len(self._dealers) > EPOCHS:
                name, _ = self._dealers.popitem(last=False)
                self._caches.pop(name, None)
                for _, runs in self._lanes:
                    self._release(runs)
        self._dealers.move_to_end(epoch.name)
        return epoch, self._dealers[epoch.name]

    def _dealer(self, epoch: Epoch, provisioning: Plan) -> Dealer:
        dealer = Dealer((epoch.seeds[0], epoch.seeds[1]), self._kernels)
        with self._kernels.backend.lane(), np.errstate(over="ignore"):  # words wrap by design
            dealer.deal(provisioning, WEIGHTS, _Nobody("nobody"))
        return dealer

    def _deal(self, channel: TLSChannel, greeting: Greeting, asked: Deal) -> None:
        if problem := self.audit.problem:
            raise Desync(f"the dealer may deal nothing now: {problem}")
        plan, epoch, space, count = asked.plan, asked.epoch, asked.space, asked.count
        facts = {"request": asked.request, "model": greeting.model, "plan": plan.digest, "epoch": epoch,
                 "space": space, "count": count}
        with self._streams.place(space, channel) as out:
            outcome, started = "failed", time.monotonic()
            try:
                with self._lock:
                    known, dealer = self._epoch(greeting)
                    if known.name != epoch:
                        raise Desync(f"the model's epoch is {known.name} at the dealer but {epoch} at party 1; join "
                                     f"again")
                    if space == STORED and known.joined != {0, 1}:
                        raise Desync("the parties must have joined the epoch before runs are stored: they need the "
                                     "seeds. Start both parties, and deal when they are ready")
                    caches = self._kept(asked) if space == LIVE else None  # a store knows no sessions
                    first = max(self._state.last(known, space), asked.after) + 1
                    seeds = self._state.burn(known, space, first, count)
                self._reports.burnt(space, count)
                facts |= {"serial": first, "bytes": count * plan.dealer_bytes}
                channel.tell({"serial": first})
                with self._computing() as runs:
                    script = Script(plan, plan.dealt if asked.cache is None else "")  # a recording knows no caches
                    for serial in range(first, first + count):
                        channel.check()
                        name = run_name(epoch, space, serial, asked.nonces, plan.digest)
                        keys = RunKey(name, seeds[0].take(serial)), RunKey(name, seeds[1].take(serial))
                        if asked.cache == "":
                            caches = self._opened(epoch, keys)
                        self._dealt(runs, dealer, script, keys, out, caches)
                outcome = "dealt"
                self._reports.dealt(space, count, count * plan.dealer_bytes, time.monotonic() - started)
            finally:
                with self._lock:
                    self._state.erase()
                self.audit.append(DEALT, facts | {"outcome": outcome, "seconds": round(time.monotonic() - started, 3)})
        log.info("dealt", extra={"fields": {
            "request": asked.request, **fields_of(asked.trace), "epoch": epoch, "space": space, "serial": first,
            "count": count, "bytes": count * plan.dealer_bytes, "seconds": round(time.monotonic() - started, 3)}})

    def _kept(self, asked: Deal) -> Keys | None:
        """The keys of the caches that a run takes, which a run before has opened. Forgets those of sessions that have
        ended. Raises Desync for caches that are not known here."""
        known, cache = self._caches.setdefault(asked.epoch, OrderedDict()), asked.cache
        for name in [name for name in known if name not in asked.kept]:
            del known[name]
        if not cache:
            return None
        if cache not in known:
            raise Desync(f"the dealer does not know the caches {cache[:16]!r}: it was started again since the session "
                         f"was opened, or there was no such session; begin a new one")
        return known[cache]

    def _opened(self, epoch: str, keys: Keys) -> Keys:
        """The keys of the caches that this run opens."""
        caches = keys[0].caches, keys[1].caches
        with self._lock:
            ended = epoch not in self._dealers  # since the run began
            known = OrderedDict[str, Keys]() if ended else self._caches.setdefault(epoch, OrderedDict())
            known[keys[0].name] = caches
            while len(known) > CACHES:
                known.popitem(last=False)
        return caches

    @contextmanager
    def _computing(self) -> Iterator[Runs]:
        """A lane that nobody computes in, and its runs: the lane that was used last, which knows most programs."""
        with self._lock:
            lane, runs = self._lanes.pop() if self._lanes else (
                self._kernels.backend.lane(), runs_on(self._kernels, self._graph, not_recorded, AHEAD))
        try:
            with lane, np.errstate(over="ignore"):  # words wrap by design
                yield runs
        finally:
            with self._lock:
                self._release(runs)
                self._lanes.append((lane, runs))

    def _release(self, runs: Runs) -> None:
        """Lets go of what was recorded for dealers that are not kept any more: it holds their masks."""
        kept = list(self._dealers.values())
        runs.forget(lambda name: name[0] not in kept)

    def _dealt(self, runs: Runs, dealer: Dealer, script: Script, keys: Keys, channel: Channel,
               caches: Keys | None) -> None:
        """The dealer is part of the program's name: its recordings read the masks that it holds."""
        name, seeds = keys[0].name, (keys[0].seed, keys[1].seed)

        def play(channels: Channels, _: Any) -> tuple[None, None]:
            if caches is None:
                dealer.deal(script.plan, name, channels["party1"], seeds=seeds)
            else:
                dealer.deal(script.plan, name, channels["party1"], caches[0].name, seeds=seeds,
                            cache_seeds=(caches[0].seed, caches[1].seed))
            return None, None

        runs.run((dealer, script.name), script, seeds, name, {"party1": channel}, None, play)


class _Unmonitored(Reports):
    """A dealer without metrics."""


class _Nobody(Channel):
    """The channel for a plan without corrections: nothing may pass."""

    def send(self, tag: Tag, payload: Any) -> None:
        raise Desync("masks of weights have no corrections")

    def receive(self, tag: Tag, nbytes: int) -> Any:
        raise Desync("nobody answers")

    def abort(self, reason: str) -> None: ...

    def close(self) -> None: ...


def run_dealer(settings: DealerSettings) -> None:
    """Serves until SIGINT or SIGTERM; SIGHUP reads the certificates again. Raises SettingsError,
    StoreError, BackendUnavailable at the start."""
    share_the_interpreter()
    with ExitStack() as ends:
        ends.callback(lambda: log.info("ended"))
        metrics = _metrics(lambda: not server.audit.problem) if settings.metrics is not None else None
        server = DealerServer(settings, partial(
            opened, settings.audit, settings.audit_folder, "dealer", Signer(settings.tls), settings.audit_mb), metrics)
        ends.callback(server.audit.close)
        ends.callback(server.close)
        if metrics is not None and settings.metrics is not None:
            from secformer.roles.health import Monitored

            metrics.show_audit(server.audit)
            metrics.certificate(server.credentials.until)
            ends.callback(Monitored(settings.metrics, lambda: server.audit.problem, metrics).close)
        wait_for_signal(server.tend)


def _metrics(ready: Callable[[], bool]) -> DealerMetrics:
    """A dealer without metrics does not need the packages that they need."""
    from secformer.roles.monitoring import DealerMetrics

    return DealerMetrics(ready)
