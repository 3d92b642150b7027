"""How much of a party's memory and queue one client may take, so that no client keeps another from being served.

A body is counted while it arrives, and until its request has ended. Two limits hold, for requests and for bytes:

- what one client may hold: beyond it, the client's own requests are refused (`OverQuota`);
- what all may hold. Of this, a client may hold as much as is still free. So however many clients are greedy, some of it
  is left for the next one (`Crowded`).
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from secformer.mpc.errors import SecformerError

MEGABYTE = 1 << 20


class OverQuota(SecformerError):
    """A client holds as much as one client may."""


class Crowded(SecformerError):
    """What is still free is left for clients that hold less."""


class _Limit:
    """Amounts of one thing, by client."""

    def __init__(self, what: str, unit: int, each: int, total: int):
        self._what, self._unit, self._each, self._total = what, unit, each, total
        self._held: Counter[str] = Counter()
        self.sum = 0

    def add(self, client: str, amount: int) -> None:
        """Raises OverQuota, Crowded; then nothing was added."""
        mine = self._held[client] + amount
        if mine > self._each:
            raise OverQuota(f"one client may have {self._each // self._unit} {self._what} here at the same time, and "
                            f"this one would have more; send the request again when others of this client have ended")
        if mine > self._total - self.sum:
            raise Crowded(f"all clients together may have {self._total // self._unit} {self._what} here at the same "
                          f"time, and this one would be too many; send the request again later")
        self._held[client] = mine
        self.sum += amount

    def remove(self, client: str, amount: int) -> None:
        self.sum -= amount
        self._held[client] -= amount
        if not self._held[client]:
            del self._held[client]


class Quotas:
    """What the requests at a party hold. Thread-safe.

    requests  how many may be here, waiting or running: of one client, of all
    mb        how many megabytes their bodies may have: of one client, of all
    """

    def __init__(self, *, requests: tuple[int, int], mb: tuple[int, int]):
        self._requests = _Limit("requests", 1, *requests)
        self._bytes = _Limit("MB of requests", MEGABYTE, *(most * MEGABYTE for most in mb))
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes that are held by the bodies of all requests."""
        with self._lock:
            return self._bytes.sum

    def enter(self, client: str) -> Place:
        """A place for a request that begins to arrive. Raises OverQuota, Crowded."""
        with self._lock:
            self._requests.add(client, 1)
        return Place(self, client)

    def _hold(self, client: str, nbytes: int) -> None:
        with self._lock:
            self._bytes.add(client, nbytes)

    def _leave(self, client: str, nbytes: int) -> None:
        with self._lock:
            self._requests.remove(client, 1)
            self._bytes.remove(client, nbytes)


class Place:
    """What one request holds, until the context is left and the futures given to `until` are done."""

    def __init__(self, quotas: Quotas, client: str):
        self._quotas, self._client = quotas, client
        self._bytes, self._users, self._lock = 0, 1, threading.Lock()

    def hold(self, nbytes: int) -> None:
        """Counts bytes that have arrived. Raises OverQuota, Crowded; these bytes are not counted then."""
        self._quotas._hold(self._client, nbytes)
        self._bytes += nbytes

    def until(self, job: Future[Any]) -> None:
        """Keeps the place until a job is done, also when its client leaves before that."""
        with self._lock:
            self._users += 1
        job.add_done_callback(lambda _: self._drop())

    def _drop(self) -> None:
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self._quotas._leave(self._client, self._bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._drop()
