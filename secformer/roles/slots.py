"""The requests in flight at a party. Each runs in a slot: a thread with a connection of its own to the other party.

While one request waits for the network, another computes. Both parties run a request in the same slot, which party 0
chooses. A request that fails ends the link, and with it the requests in the other slots.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from secformer.mpc.dealer.names import RunKey
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, ProtocolError, SecformerError
from secformer.mpc.net.channel import Channel
from secformer.roles.jobs import Job
from secformer.roles.link import Taken
from secformer.roles.sessions import Stepping

C = TypeVar("C")


@dataclass(frozen=True)
class Work:
    """A request that both parties have agreed to run, with the key of its run. `corrections` are closed when it has
    ended; `stepping` is the step of a session, if it is one; `material` is how many seconds it took until the
    corrections began to come."""

    job: Job
    taken: Taken
    plan: Plan
    key: RunKey
    corrections: Channel | None = None
    stepping: Stepping | None = None
    material: float = 0.0


class Renewed(Exception):
    """Both parties have ended the link while nothing ran, to make a new one."""


class Slots(Generic[C]):
    """The slots of one link. Use them as a context manager: entering starts the threads; leaving ends the link and
    waits for the threads.

    channels  one connection for each slot
    run       runs a request: (slot, connection, work)
    end_link  makes every connection of the link fail; it is told why
    """

    def __init__(self, channels: Sequence[C], run: Callable[[int, C, Work], None], end_link: Callable[[str], None]):
        self._run, self._end_link = run, end_link
        self._changed = threading.Condition()
        self._work: list[Work | None] = [None] * len(channels)
        self._free = list(range(len(channels)))  # in the order in which they became free
        self._ending = False
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._serve, args=(slot, channel), name=f"slot {slot}", daemon=True)
                         for slot, channel in enumerate(channels)]

    def check(self) -> None:
        """Raises the first error that a run ended with, if one has failed."""
        if self._error is not None:
            raise self._error

    @property
    def failed(self) -> bool:
        """Whether a run has failed."""
        return self._error is not None

    @property
    def busy(self) -> int:
        """How many requests run."""
        return sum(work is not None for work in self._work)

    def free(self, patience: float) -> int | None:
        """The slot that has been free for longest. Waits up to `patience` seconds for one; None if all are still busy.
        Raises as `check` does."""
        with self._changed:
            self._changed.wait_for(lambda: self.failed or self._free, timeout=patience)
            self.check()
            return self._free[0] if self._free else None

    def idle(self, patience: float) -> bool:
        """Whether nothing runs. Waits up to `patience` seconds for that. Raises as `check` does."""
        with self._changed:
            self._changed.wait_for(lambda: self.failed or not any(self._work), timeout=patience)
            self.check()
            return not any(self._work)

    def wait_free(self, slot: int, patience: float) -> None:
        """Returns once this slot is free: the other party may be the first to end a run. Raises Desync for a slot that
        does not exist or stays busy for `patience` seconds, and as `check` does."""
        if not 0 <= slot < len(self._work):
            raise Desync(f"the other party offers slot {slot}, but there are {len(self._work)} here; do both sides run "
                         f"the same version?")
        with self._changed:
            self._changed.wait_for(lambda: self.failed or self._work[slot] is None, timeout=patience)
            self.check()
            if self._work[slot] is not None:
                raise Desync(f"the other party offers slot {slot}, which still runs a request here after "
                             f"{patience:g} s; see both parties' logs")

    def start(self, slot: int, work: Work) -> None:
        """Runs a request in a free slot. Raises as `check` does, and ProtocolError for a busy slot."""
        with self._changed:
            self.check()
            if self._ending or self._work[slot] is not None:
                raise ProtocolError(f"slot {slot} is not free; wait for it with `free` or `wait_free`")
            self._work[slot] = work
            self._free.remove(slot)
            self._changed.notify_all()

    def _serve(self, slot: int, channel: C) -> None:
        while (work := self._next(slot)) is not None:
            try:
                with answering(work.job):
                    self._run(slot, channel, work)
            except BaseException as error:  # raised again by whoever uses the slots
                self._fail(error)
            finally:
                if work.corrections is not None:
                    work.corrections.close()
                del work  # and the seed of its run
                with self._changed:
                    self._work[slot] = None
                    self._free.append(slot)
                    self._changed.notify_all()

    def _next(self, slot: int) -> Work | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._work[slot] is not None)
            return self._work[slot]

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            echo = self._ending and _shown(error)  # of what has ended the link
            first = self._error is None and not echo
            if first:
                self._error = error
            self._changed.notify_all()
        if first:
            self._end_link(reason(error))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if not isinstance(error, Renewed):  # then nothing runs, and both parties end the link by themselves
            self._end_link("this party is shutting down" if error is None else reason(error))
        for thread in self._threads:
            thread.join()
        if self._error is not None and self._error is not error:
            raise self._error from error  # it came first, or is unexpected


def reason(error: BaseException) -> str:
    """What the other party is told about an error: only errors that are made to be shown are quoted."""
    return str(error) if _shown(error) else f"unexpected {type(error).__name__}"


def _shown(error: BaseException) -> bool:
    return isinstance(error, SecformerError | OSError)


@contextmanager
def answering(job: Job | None) -> Iterator[None]:
    """Passes an error that ends a request to its client; a request that was answered keeps its answer."""
    try:
        yield
    except BaseException as error:
        if job is not None and not job.done.done():
            job.done.set_exception(error if isinstance(error, SecformerError) else
                                   ProtocolError(f"unexpected {type(error).__name__}; see the parties' logs"))
        raise
