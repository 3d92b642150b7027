"""The dealer as a server process: it gives each party its seed, and party 1 its corrections.

It never receives a share or an opened value.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.store import SPACE
from secformer.mpc.errors import AuthError, Desync
from secformer.mpc.kernels import kernels_for
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Listener, TLSChannel
from secformer.mpc.net.wire import Tag
from secformer.mpc.script import Script
from secformer.mpc.segments import Channels, Runs, runs_on
from secformer.roles.audit import Auditing, Unaudited, opened
from secformer.roles.chain import DEALT
from secformer.roles.dealing import MAX_PLAN, WEIGHTS
from secformer.roles.epochs import LIVE, Epoch, State, as_note
from secformer.roles.logs import certificates_read, not_recorded
from secformer.roles.messages import ID_DIGITS, is_id
from secformer.roles.settings import DealerSettings
from secformer.roles.signals import share_the_interpreter, wait_for_signal
from secformer.roles.signing import Signer
from secformer.version import __version__

MOST_RUNS = 1 << 20  # runs that may be asked for at once
AHEAD = 1 << 26      # bytes of corrections that may be on their way from a GPU to the connection
EPOCHS = 4           # epochs for which the masks of the weights are kept in memory

log = logging.getLogger(__name__)


class DealerServer:
    """Listens from its construction until `close`."""

    def __init__(self, settings: DealerSettings, audit: Auditing | None = None):
        self._audit = audit or Unaudited()
        self._kernels = kernels_for(choose_backend(settings.backend, threads=settings.threads or None))
        self.credentials = Credentials(settings.tls, certificates_read)
        self._state = State(settings.state)
        self._dealers: OrderedDict[str, Dealer] = OrderedDict()
        self._graph = settings.graph
        self._lanes: list[tuple[AbstractContextManager[Any], Runs]] = []  # free ones
        self._lock = threading.Lock()
        self._dealing = threading.BoundedSemaphore(settings.max_streams)
        self._patience = settings.deadline
        self._listener = Listener(settings.listen, ("party0", "party1"), self.credentials.server(), self._serve,
                                  self._report, deadline=settings.deadline)
        self.port = self._listener.port
        log.info("listening", extra={"fields": {"port": self.port}})

    def close(self) -> None:
        """Stops listening, and gives out no more serials."""
        self._listener.close()
        with self._lock:
            self._state.close()

    def _report(self, where: str, problem: str) -> None:
        log.warning("connection refused or lost", extra={"fields": {"from": where, "problem": problem}})

    def _serve(self, channel: TLSChannel) -> None:
        ask = channel.hear(most=MAX_PLAN)
        channel.check()  # the ask may have come long after the handshake
        if ask.get("version") != __version__:
            raise Desync(f"the dealer runs version {__version__}, {channel.role} runs {ask.get('version')!r}; install "
                         f"the same version everywhere")
        if ask.get("ask") == "join":
            self._join(channel, ask)
        elif ask.get("ask") == "deal":
            self._deal(channel, ask)
        else:
            raise Desync(f"{channel.role} asks for {ask.get('ask')!r}; the dealer answers join and deal")

    def _join(self, channel: TLSChannel, ask: Mapping[str, Any]) -> None:
        with self._lock:
            epoch, _ = self._epoch(ask)
        channel.tell(as_note(epoch, 0 if channel.role == "party0" else 1))

    def _epoch(self, ask: Mapping[str, Any]) -> tuple[Epoch, Dealer]:
        """The epoch of the model that a note names, and a dealer that holds the masks of its weights. If the model has
        no epoch yet, a new one begins."""
        plan, model = Plan.from_dict(_field(ask, "weights", dict)), _field(ask, "model", str)
        if not (len(model) == 64 and set(model) <= set("0123456789abcdef")):
            raise Desync(f"a note must name the model by its digest, 64 hexadecimal digits; got {model!r}")
        epoch = self._state.epoch(model, plan.digest)
        if epoch is None:
            epoch = self._state.fresh(model, plan.digest)
            log.info("new epoch", extra={"fields": {"epoch": epoch.name, "model": model}})
        if epoch.name not in self._dealers:
            self._dealers[epoch.name] = self._dealer(epoch, plan)
            while len(self._dealers) > EPOCHS:
                self._dealers.popitem(last=False)
                for _, runs in self._lanes:
                    self._release(runs)
        self._dealers.move_to_end(epoch.name)
        return epoch, self._dealers[epoch.name]

    def _dealer(self, epoch: Epoch, provisioning: Plan) -> Dealer:
        if provisioning.dealer_bytes:
            raise Desync("the plan of provisioning must hold masks of weights only; do all roles run the same version?")
        dealer = Dealer((epoch.seeds[0], epoch.seeds[1]), self._kernels)
        with self._kernels.backend.lane(), np.errstate(over="ignore"):  # words wrap by design
            dealer.deal(provisioning, WEIGHTS, _Nobody("nobody"))
        return dealer

    def _deal(self, channel: TLSChannel, ask: Mapping[str, Any]) -> None:
        if channel.role != "party1":
            raise AuthError(f"only party 1 receives corrections; {channel.role} asked for them")
        plan, epoch, space = (Plan.from_dict(_field(ask, "plan", dict)), _field(ask, "epoch", str),
                              _field(ask, "space", str))
        count, after = _field(ask, "count", int), _field(ask, "after", int)
        if space not in (LIVE, SPACE) or not 1 <= count <= MOST_RUNS or after < -1:
            raise Desync(f"party1 asks for {count} run(s) of {space!r} after {after}; the dealer gives 1 to "
                         f"{MOST_RUNS} runs of {LIVE} or {SPACE} after -1 or more")
        request = _field(ask, "request", str)
        if request and not is_id(request):
            raise Desync(f"a request's id has {ID_DIGITS} hexadecimal digits, and a store's runs have none; party1 "
                         f"names {request[:64]!r}")
        if problem := self._audit.problem:
            raise Desync(f"the dealer may deal nothing now: {problem}")
        facts = {"request": request, "model": str(ask.get("model"))[:64], "plan": plan.digest, "epoch": epoch,
                 "space": space, "count": count}
        outcome, started = "failed", time.monotonic()
        if not self._dealing.acquire(timeout=self._patience):
            raise Desync("the dealer already serves as many requests as it may; try again later")
        try:
            with self._lock:
                known, dealer = self._epoch(ask)
                if known.name != epoch:
                    raise Desync(f"the model's epoch is {known.name} at the dealer but {epoch} at party 1; join again")
                first = max(self._state.serials.last(epoch, space), after) + 1
                cache = _cache(ask, first)
                self._state.serials.burn(epoch, space, first + count - 1)
            facts |= {"serial": first, "bytes": count * plan.dealer_bytes}
            channel.tell({"serial": first})
            with self._computing() as runs:
                script = Script(plan, plan.dealt if cache is None else "")  # a recording knows no caches
                for run in (f"{space}/{serial}" for serial in range(first, first + count)):
                    channel.check()
                    self._dealt(runs, dealer, script, run, channel, run if cache == "" else cache)
            outcome = "dealt"
        finally:
            self._dealing.release()
            self._audit.append(DEALT, facts | {"outcome": outcome, "seconds": round(time.monotonic() - started, 3)})
        log.info("dealt", extra={"fields": {"request": request, "epoch": epoch, "space": space, "serial": first,
                                            "count": count, "bytes": count * plan.dealer_bytes,
                                            "seconds": round(time.monotonic() - started, 3)}})

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

    def _dealt(self, runs: Runs, dealer: Dealer, script: Script, run: str, channel: TLSChannel,
               cache: str | None) -> None:
        """The dealer is part of the program's name: its recordings read the masks that it holds."""
        def play(channels: Channels, _: Any) -> tuple[None, None]:
            dealer.deal(script.plan, run, channels["party1"], cache)
            return None, None

        runs.run((dealer, script.name), script, dealer.seeds, run, {"party1": channel}, None, play)


class _Nobody(Channel):
    """The channel for a plan without corrections: nothing may pass."""

    def send(self, tag: Tag, payload: Any) -> None:
        raise Desync("masks of weights have no corrections")

    def receive(self, tag: Tag, nbytes: int) -> Any:
        raise Desync("nobody answers")

    def abort(self, reason: str) -> None: ...

    def close(self) -> None: ...


def _cache(ask: Mapping[str, Any], first: int) -> str | None:
    """The name of the caches that runs from serial `first` on take. Raises Desync for one that no run before has."""
    cache = ask.get("cache")
    if cache is None or cache == "":
        return cache
    space, _, serial = str(cache).partition("/")
    if space != LIVE or not (serial.isascii() and serial.isdigit()) or cache != f"{LIVE}/{int(serial)}" \
            or int(serial) >= first:
        raise Desync(f"caches are named by the run that opened them, {LIVE}/0 to {LIVE}/{first - 1}; party1 asks for "
                     f"{str(cache)[:40]!r}")
    return str(cache)


def _field(note: Mapping[str, Any], name: str, kind: type) -> Any:
    value = note.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Desync(f"a note must hold {name!r} as {kind.__name__}, got {type(value).__name__}; do both sides run the "
                     f"same version?")
    return value


def run_dealer(settings: DealerSettings) -> None:
    """Serves until SIGINT or SIGTERM; SIGHUP reads the certificates again. Raises SettingsError,
    StoreError, BackendUnavailable at the start."""
    share_the_interpreter()
    audit = opened(settings.audit, settings.audit_folder, "dealer", Signer(settings.tls), settings.audit_mb)
    server = DealerServer(settings, audit)
    try:
        wait_for_signal(server.credentials.renew)
    finally:
        server.close()
        audit.close()
        log.info("ended")
