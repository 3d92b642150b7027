"""One call at a time: several threads may share a model, whose sessions can do only one thing at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from secformer.models.run.progress import Progress, silent
from secformer.mpc.errors import SettingsError


class Turns:
    """Lets one thread in at a time; the others wait. Whoever leaves, also by an error, lets the next one in."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._here = threading.local()

    @contextmanager
    def take(self) -> Iterator[None]:
        """One turn. Raises SettingsError within a progress callback, which would wait for its own call to end."""
        if getattr(self._here, "telling", False):
            raise SettingsError("a progress callback must not use the model that reports to it; call the model again "
                                "when its answer is there")
        with self._lock:
            yield

    def telling(self, tell: Progress) -> Progress:
        """The same callback, within which `take` is refused."""
        if tell is silent:
            return silent

        def told(what: str, done: int, total: int) -> None:
            self._here.telling = True
            try:
                tell(what, done, total)
            finally:
                self._here.telling = False

        return told
