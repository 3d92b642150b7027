"""Party 1 fills its store by itself: material ahead for the shapes that its clients ask for, below a limit in bytes."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from secformer.mpc.dealer.locking import Lock
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.shelved import run_bytes
from secformer.mpc.dealer.store import Store, file_bytes, writing
from secformer.mpc.errors import PeerLost, SecformerError, StoreError
from secformer.roles.dealing import JOIN_PATIENCE, DealerClient
from secformer.roles.demand import SHAPES, Demand, Want, shape_of, shapes_of
from secformer.roles.epochs import Epoch
from secformer.roles.messages import Half
from secformer.roles.precedence import Precedence
from secformer.roles.settings import PartySettings
from secformer.roles.storing import store_runs

MB = 1_000_000        # bytes
PIECE = 1 << 26       # bytes of a file that is asked for at once, unless one run has more
PARTS = 8             # files into which a small limit is divided: a file leaves the disk with its last run
LONGER = 4           # times as long as another plan's runs last, those of a plan make room for them
RESERVE = 1 << 28     # bytes of the disk that are left free: the state folder may lie on the same one
PATIENCE = 5.0        # seconds for which a piece waits while requests get their material from the dealer, or run
BRIEF = 0.05          # seconds for which one message waits while requests run: they take most of the processors
GAP = 0.1             # seconds between two pieces, in which `secformer deal` may have the store
BEAT = 5.0            # seconds between two looks at the store, where no request comes
RETRY = 1.0, 60.0     # seconds until the next attempt after a failure: at first, at most
ENDING = 3.0          # seconds in which the filler must end

log = logging.getLogger(__name__)


class Reports(Protocol):
    """Receives what the filler reports."""

    def ahead(self, nbytes: int, runs: int) -> None: ...
    def filled(self, runs: int) -> None: ...
    def not_filled(self, kind: str) -> None: ...


class Filler:
    """A thread that asks the dealer for runs, in small pieces, while the store holds fewer bytes than `ahead_mb` and
    there are plans in demand. Live requests go first. Without `ahead_mb`, and at party 0, it does nothing.

    epoch       the epoch that the party has joined; None before
    dealer      makes a connection to the dealer for the pieces that follow each other
    dealing     counts the runs of requests that are being dealt to this party
    running     counts those that this party computes
    waiting     the requests that wait
    """

    def __init__(self, settings: PartySettings, epoch: Callable[[], Epoch | None], dealer: Callable[[], DealerClient],
                 dealing: Precedence, running: Precedence, waiting: Callable[[], Iterable[Half]], reports: Reports):
        self._folder, self._state = settings.store, settings.state
        self._limit, self._most = settings.ahead_mb * MB, settings.ahead_requests
        self._epoch, self._dealer, self._dealing, self._running = epoch, dealer, dealing, running
        self._waiting, self._reports, self._demand = waiting, reports, Demand()
        self._noted, self._stop = threading.Event(), threading.Event()
        self._too_large: set[str] = set()  # plans of which one run is larger than the limit, as was logged
        self._thread = threading.Thread(target=self._run, name="filler", daemon=True)
        self._on = bool(self._limit) and settings.rank == 1

    def note(self, plan: Plan, half: Half) -> None:
        """A request that starts needs a run of this plan."""
        if self._on:
            self._demand.note(plan, shape_of(half))
            self._noted.set()

    def start(self) -> None:
        if self._on:
            self._thread.start()

    def close(self) -> None:
        """Ends the filler. Whole runs of the piece that is being written are kept."""
        self._stop.set()
        self._noted.set()
        if self._thread.ident is not None:
            self._thread.join(ENDING)

    def _run(self) -> None:
        pause, told = RETRY[0], ""
        while not self._stop.is_set():
            self._noted.wait(BEAT)
            self._noted.clear()
            try:
                self._fill()
                pause, told = RETRY[0], ""
                continue
            except (SecformerError, OSError) as error:
                kind = type(error).__name__
                if self._stop.is_set():
                    return
                if kind != told:  # once, until it works again
                    log.warning("store not filled", extra={"fields": {"problem": f"{kind}: {error}"}})
            except Exception as error:
                kind = type(error).__name__
                log.exception("unexpected")
            told = kind
            self._reports.not_filled(kind)
            self._stop.wait(pause)
            pause = min(2 * pause, RETRY[1])

    def _fill(self) -> None:
        """Fills until nothing is wanted that fits. Raises SecformerError, OSError."""
        if (epoch := self._epoch()) is None:
            return
        store, dealer = Store(self._folder, epoch.seeds[1], epoch.name), None
        try:
            while not self._stop.is_set() and epoch is self._epoch():
                self._running.give_way(PATIENCE)
                self._dealing.give_way(PATIENCE)
                lock = self._writing() if not self._stop.is_set() else None
                if lock is None:  # or `secformer deal` writes; what it stores is seen at the next look
                    return
                with lock:
                    store.tidy()
                    if (found := self._next(store)) is None:
                        return
                    dealer = dealer or self._dealer()
                    self._write(store, dealer, epoch, *found)
                self._stop.wait(GAP)
        finally:
            if dealer is not None:
                dealer.close()
            self._tell(store)

    def _writing(self) -> Lock | None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(StoreError):
            return writing(self._folder)
        return None

    def _next(self, store: Store) -> tuple[Plan, int] | None:
        """The plan whose material will be used up first, and how many runs of it fit now."""
        left, wants = self._tell(store), self._demand.wants(shapes_of(self._waiting()))
        worth = sorted((want.ratio(left.get(digest, 0)), digest) for digest, want in wants.items() if want.worth)
        for _, digest in worth:
            plan = wants[digest].plan
            missing, each = self._most - left.get(digest, 0), run_bytes(plan)
            if missing <= 0 or not each or self._never_fits(plan):
                continue
            piece = min(PIECE, self._limit // PARTS)
            while (room := self._limit - store.nbytes()) < file_bytes(plan, 1):
                if not self._made_room(store, wants, wants[digest]):
                    break
            count = min(missing, max(1, piece // each), (room - file_bytes(plan, 0)) // each)
            if count > 0:
                self._require_room(file_bytes(plan, count))
                return plan, count
        return None

    def _made_room(self, store: Store, wants: Mapping[str, Want], want: Want) -> bool:
        """Whether a file was removed: one of runs that nobody wants, or that last much longer than those of `want`."""
        left = store.left()
        lasts = want.ratio(left.get(want.plan.digest, 0))

        def unwanted(digest: str) -> bool:
            other = wants.get(digest)
            return self._demand.complete() if other is None else other.ratio(left.get(digest, 0)) > LONGER * lasts

        return store.discard(unwanted) is not None

    def _never_fits(self, plan: Plan) -> bool:
        if (size := file_bytes(plan, 1)) <= self._limit:
            return False
        if plan.digest not in self._too_large:
            if len(self._too_large) >= SHAPES:
                self._too_large.clear()
            self._too_large.add(plan.digest)
            log.warning("ahead_mb too small", extra={"fields": {"plan": plan.digest, "problem": (
                f"one run of this plan takes {size / MB:.1f} MB, and ahead_mb is {self._limit / MB:g}: it gets no "
                f"material ahead")}})
        return True

    def _require_room(self, nbytes: int) -> None:
        if (free := shutil.disk_usage(self._folder).free) < nbytes + RESERVE:
            raise StoreError(f"the disk of {self._folder} has only {free / MB:.0f} MB left; {nbytes / MB:.0f} MB of "
                             f"material would leave less than the {RESERVE / MB:.0f} MB that are kept free")

    def _write(self, store: Store, dealer: DealerClient, epoch: Epoch, plan: Plan, count: int) -> None:
        started = time.monotonic()
        written = store_runs(store, self._state, dealer, epoch, plan, count, patience=JOIN_PATIENCE,
                             before=self._give_way, ahead=True)
        if written.runs:
            self._reports.filled(written.runs)
            log.info("store filled", extra={"fields": {
                "plan": plan.digest, "runs": written.runs, "bytes": file_bytes(plan, written.runs),
                "seconds": round(time.monotonic() - started, 3)}})
        if written.problem:
            raise StoreError(f"{written.runs} of {count} runs were stored: {written.problem}")

    def _give_way(self) -> None:
        if self._stop.is_set():
            raise PeerLost("this party is shutting down")
        self._running.give_way(BRIEF)
        self._dealing.give_way()

    def _tell(self, store: Store) -> dict[str, int]:
        """Reports what the store holds; the runs that are left, by plan."""
        left = store.left()
        self._reports.ahead(store.nbytes(), sum(left.values()))
        return left

