"""Looks for a new epoch at the dealer, so that a party that is not asked, or needs no corrections, learns of it too."""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK = 10.0  # seconds between looks


class EpochWatch:
    """Looks from `start` until `close`, in a thread of its own: the dealer may be slow to answer, or away.

    outdated  whether the party's epoch is over; never raises
    """

    def __init__(self, outdated: Callable[[], bool], seconds: float = LOOK):
        self._outdated, self._seconds = outdated, seconds
        self._over, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="epoch watch", daemon=True)

    @property
    def over(self) -> bool:
        """Whether a look has found that the epoch is over, since `joining`."""
        return self._over.is_set()

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def joining(self) -> None:
        """The party asks for its epoch next: what looks have found before counts no more."""
        self._over.clear()

    def close(self) -> None:
        """Ends the looks. One that is under way may last until the dealer's connection is closed."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(self._seconds):
            if self._outdated():
                self._over.set()
