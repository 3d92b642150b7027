"""Runs while they are recorded: their launches become CUDA graphs instead of running. What all recordings share, and
the recording of all roles of a run as one graph.

Each role works in a stream of its own, as always. The streams join the recording when they wait for its start, and the
recording waits for all of them at its end.
"""

from __future__ import annotations

import gc
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Self

import numpy as np

from secformer.mpc.errors import NotRecordable

LINE = 256  # bytes that arrays in a block begin at multiples of
HELD = 1 << 28  # bytes of messages of a stream that were read and are held: several of the longest messages
RELAXED = 2  # the capture mode in which other threads' streams may join, and memory may be allocated meanwhile


class Brought:
    """The public arrays that a recorded program brings to the GPU, in memory of their own: inputs of its graph.

    arrays  what they hold in the run that is recorded, each once
    places  which of them the program brings, in order
    """

    def __init__(self, xp: Any, arrays: Sequence[np.ndarray], places: Sequence[int]):
        self._places, self._shown = places, arrays
        sizes = [-(-a.nbytes // LINE) * LINE for a in arrays]
        self._starts = list(accumulate(sizes, initial=0))
        self._block = xp.zeros(max(LINE, self._starts[-1]), dtype=np.uint8)
        self._views = [self._block[start : start + a.nbytes].view(a.dtype).reshape(a.shape) if a.nbytes else
                       xp.zeros(a.shape, dtype=a.dtype) for start, a in zip(self._starts, arrays, strict=False)]
        self._held: Sequence[np.ndarray] | None = None

    def hold(self, arrays: Sequence[np.ndarray], stream: Any) -> None:
        """Brings other contents, in one copy; nothing where these are there already. Raises NotRecordable for arrays of
        other shapes or types."""
        if arrays is self._held:
            return
        facts, mine = ([(a.shape, a.dtype) for a in some] for some in (arrays, self._shown))
        if facts != mine:
            raise NotRecordable(f"a graph takes public arrays {mine}, got {facts}")
        host = np.zeros(self._block.size, dtype=np.uint8)
        for start, array in zip(self._starts, arrays, strict=False):
            host[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        self._block.set(host, stream=stream)
        self._held = arrays

    def reader(self) -> Callable[[np.ndarray], Any]:
        """For one party: gives the arrays in their order. Raises NotRecordable where the program brings something else
        than its script says."""
        places = iter(self._places)

        def read(x: np.ndarray) -> Any:
            place = next(places, -1)
            shown = self._shown[place] if place >= 0 else None
            if shown is None or shown.dtype != x.dtype or not np.array_equal(shown, x):
                raise NotRecordable("the program brings another public array than its script says; a program must do "
                                    "the same in every session")
            return self._views[place]

        return read


_recording = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """One recording at a time in a process, without the garbage collector: a collection frees arrays of other streams,
    and events, in the middle of a capture."""
    with _recording:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


class Recorder:
    """Work of this thread that is recorded instead of running.

    brought  the public arrays that the program brings
    """

    def __init__(self, brought: Brought) -> None:
        self.brought = brought
        self._kept: list[Any] = []
        self._lock = threading.Lock()

    def keep(self, thing: Any) -> None:
        """The graph reads it: it lives as long as the graph."""
        with self._lock:
            self._kept.append(thing)

    @property
    def kept(self) -> list[Any]:
        return self._kept


class Recording(Recorder):
    """A capture of the work of several streams, with memory of `pool`. Leaving it ends the capture.

    graph   what was captured, once the block has ended without an error
    stream  where the graph starts and ends
    """

    def __init__(self, xp: Any, pool: Any, brought: Brought):
        super().__init__(brought)
        self._xp, self._pool = xp, pool
        self.stream = xp.cuda.Stream(non_blocking=True)
        self.graph: Any = None
        self._ends: list[Any] = []
        self._read: dict[int, deque[tuple[Any, Any]]] = defaultdict(deque)  # by the sender's stream

    def __enter__(self) -> Self:
        self._alone = alone()
        self._alone.__enter__()
        try:
            self.stream.begin_capture(RELAXED)
        except BaseException:
            self._alone.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            for end in self._ends:
                self.stream.wait_event(end)
            self.graph = self.stream.end_capture()
        except Exception:
            if error is None:  # else this capture is broken for the reason that is on its way already
                raise
        finally:
            self._read.clear()
            self._alone.__exit__(None, None, None)

    def begin(self) -> None:
        """Lets streams join: after what the recording's own stream does first."""
        self._start = self._mark(self.stream)

    @contextmanager
    def branch(self, stream: Any) -> Iterator[None]:
        """Inside, this thread's work goes to `stream`, as part of the recording, with the recording's memory."""
        with stream, self._xp.cuda.using_allocator(self._pool.malloc):
            stream.wait_event(self._start)
            try:
                yield
            finally:
                end = self._mark(stream)
                with self._lock:
                    self._ends.append(end)

    def join(self) -> None:
        """The recording's own stream goes on behind all branches that have ended."""
        for end in self._ends:
            self.stream.wait_event(end)
        self._ends.clear()

    def read(self, sender: int, message: Any, event: Any) -> None:
        """A message of the stream `sender` was read when `event` happens. Nobody may ask whether it has happened."""
        with self._lock:
            self._read[sender].append((event, message))

    def sends(self, stream: Any) -> None:
        """Before a stream sends: it goes on behind the readers of its messages, the oldest first, until at most HELD
        bytes of messages that were read are left. So their memory may be given out again to it. Fewer bytes would let
        the dealer wait for party 1 all the time."""
        with self._lock:
            done, read = [], self._read[stream.ptr]
            held = sum(message.size for _, message in read)
            while read and held > HELD:
                done.append(read.popleft())
                held -= done[-1][1].size
        for event, _ in done:
            stream.wait_event(event)

    def _mark(self, stream: Any) -> Any:
        event = self._xp.cuda.Event(block=False, disable_timing=True)
        event.record(stream)
        return event
