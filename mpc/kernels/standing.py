"""Right operands that stand, as opened weights do: for many runs, in whatever form the kernels read them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from secformer.mpc.backend import Backend
from secformer.mpc.errors import NotRecordable
from secformer.mpc.kernels.words import Array

T = TypeVar("T")
Pair = tuple[Array, Array]


class Standing:
    """Two right operands of `Bundles.joint`, (..., k, m) words each, and what kernels have made of them.

    Where something that was made serves in place of the words, the words need not be on the device: they then wait in
    the host's memory. If anything asks for them again they come back, and stay. Any thread may ask.
    """

    def __init__(self, backend: Backend, words: Pair):
        self._backend, self._words, self._asked = backend, words, 0
        self.shape: tuple[int, ...] = tuple(words[0].shape)
        self._on_host = False
        self._made: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def words(self) -> Pair:
        """Both operands on the device. Raises NotRecordable while a run is recorded if they are not there."""
        with self._lock:
            self._asked += 1
            if self._on_host:
                if self._backend.recording is not None:
                    raise NotRecordable("words of a weight are asked for that the run before did not use; nothing can "
                                        "be copied to the GPU while a run is recorded")
                first, second = map(self._backend.asarray, self._words)
                self._backend.finish()  # other streams may read them, too
                self._words, self._on_host = (first, second), False
            return self._words

    def made(self, name: Any, make: Callable[[Pair], T]) -> T:
        """What `make` makes of the words in this thread's stream: once for each `name`, which must tell streams apart.
        What a recorded run would make is not there before the run is repeated, so it is not kept."""
        found: T | None = self._made.get(name)
        if found is None:
            found = make(self.words())
            if self._backend.recording is None:
                self._made[name] = found
                self._leave()
        return found

    def _leave(self) -> None:
        """Takes the words to the host, if nobody but the caller has asked for them so far."""
        with self._lock:
            if self._asked == 1 and self._backend.on_gpu:
                first, second = map(self._backend.to_host, self._words)
                self._words, self._on_host = (first, second), True
