"""A role in a process of its own on a GPU: what it does between two messages is a CUDA graph, recorded once.

A program that runs again under the same public facts computes the same things and sends messages of the same sizes, in
the same order. So its second run is recorded, without talking to anybody: payloads go into fixed places on the GPU, and
what will be received is read from such places. Each message that is sent ends a segment. A run then launches segment
after segment, and carries messages between their places and the channels. The other roles see no difference: a party
on a GPU works with a party on a CPU.

The keys of all streams come from a table in device memory (see `programs`). Each run needs the table of its own run
name: the first segment claims it, and the last one wipes it.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from secformer.mpc.backend import CupyBackend
from secformer.mpc.errors import ReusedRandomness
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.net.channel import Channel
from secformer.mpc.prg import Name, derive
from secformer.mpc.programs import KeyTable, Programs, Recorded, Told, Which, done, everything, later, put
from secformer.mpc.recording import Brought
from secformer.mpc.script import Script
from secformer.mpc.segmenting import Message, Noting, Places, Segmenting

KEPT = 8             # programs of one lane that are recorded, or may become so
REMEMBERED = 1 << 12 # names of runs

Channels = Mapping[str, Channel]
Play = Callable[[Channels, Any], tuple[Any, Any]]  # the program: channels by name, input -> results, facts


@dataclass(frozen=True)
class Ran:
    """What a program returned.

    results   what it revealed
    facts     what is the same in all runs, such as the bytes sent: where this run repeats another, the other's
    repeated  whether it does
    """

    results: Any = field(repr=False)
    facts: Any
    repeated: bool


class Runs(Protocol):
    """Runs the programs of one role in one lane, which the calling thread is in.

    recording  whether programs that run again may be recorded
    """

    recording: bool

    def run(self, name: Hashable, script: Script, seeds: Sequence[bytes], run: Name, channels: Channels, given: Any,
            play: Play) -> Ran:
        """Runs `play(channels, given)`, which returns results and facts (see `Ran`).

        name      all that the program depends on, beside its input, its messages and the arrays of its script
        script    the program's; a program without a name is never recorded
        seeds     those that this run's streams are expanded from; as many for all runs
        run       names the run's streams: use a name once under a seed
        channels  by the names that the program knows them by
        given     its input, an array; None where it has none
        """

    def forget(self, which: Which = everything) -> None:
        """Lets go of programs, by their names: what their recordings read, such as opened weights, is about to change
        or to go."""


class Launches:
    """Runs that are never recorded."""

    recording = False

    def run(self, name: Hashable, script: Script, seeds: Sequence[bytes], run: Name, channels: Channels, given: Any,
            play: Play) -> Ran:
        """As in `Runs`."""
        return Ran(*play(channels, given), False)

    def forget(self, which: Which = everything) -> None:
        """There is nothing to forget."""


def runs_on(kernels: Kernels, graph: str, told: Told, ahead: int = 0) -> Runs:
    """`Segments` on a GPU unless `graph` is "off"; else `Launches`. `told` and `ahead` as there."""
    backend = kernels.backend
    if graph == "auto" and isinstance(kernels, CudaKernels) and isinstance(backend, CupyBackend):
        return Segments(kernels, backend, told, ahead)
    return Launches()


# ---- programs --------------------------------------------------------------------------------------------------------


class _Outbox:
    """Messages on their way from the GPU to the host, in order. They are sent when they are there; at most `ahead`
    bytes are on their way while the GPU goes on."""

    def __init__(self, backend: CupyBackend, channels: Channels, ahead: int):
        self._backend, self._channels, self._ahead = backend, channels, ahead
        self._waiting: deque[tuple[Any, Message, np.ndarray]] = deque()
        self._held = 0

    def put(self, message: Message) -> None:
        host = self._backend.buffer(message.place.size)
        if host.size:
            message.place.get(out=host, blocking=False)
        self._waiting.append((self._backend.mark(), message, host))
        self._held += host.size
        self.send(self._ahead)

    def send(self, left: int = 0) -> None:
        """Sends the oldest, until at most `left` bytes are left."""
        while self._waiting and (self._held > left or not left):
            event, message, host = self._waiting.popleft()
            event.synchronize()
            self._channels[message.channel].send(message.tag, host)
            self._held -= host.size


class Segmented(Recorded):
    """The program of a role as segments."""

    def __init__(self, segmenting: Segmenting, keys: KeyTable, table: Any, buffer: Any, results: Any, facts: Any):
        later(results)  # raises for what is not
        super().__init__(segmenting, keys, table)
        self._segments, self._buffer, self._results, self._facts = segmenting.segments, buffer, results, facts

    def run(self, seeds: Sequence[bytes], run: Name, number: int, script: Script, channels: Channels, given: Any,
            backend: CupyBackend, ahead: int) -> Ran:
        """A program of the same name on another input, under the keys of the run of that name. `number` is above that
        of any run before in this lane."""
        stream = backend.xp.cuda.get_current_stream()
        for channel in channels.values():
            channel.buffer = backend.buffer
        if self._buffer is not None:
            put(self._buffer, given, stream)
        self._brought.hold(script.arrays, stream)
        out = _Outbox(backend, channels, ahead)
        with self._under(self._keys.words(seeds, run, number), stream):
            for segment in self._segments:
                for message in segment.received:
                    out.send()  # else this role and another may wait for each other
                    backend.bring(channels[message.channel].receive(message.tag, message.place.size), message.place)
                segment.graph.launch(stream)
                if segment.sent is not None:
                    out.put(segment.sent)
            out.send()
            stream.synchronize()
        return Ran(done(self._results, backend), self._facts, True)


class Segments(Programs[Segmented]):
    """The programs that a role has run in a lane, and the recordings of those that run again.

    told   is told why a program was not recorded
    ahead  bytes of messages that may be on their way to the host while the GPU goes on
    """

    recording = True

    def __init__(self, kernels: CudaKernels, backend: CupyBackend, told: Told, ahead: int = 0):
        super().__init__(kernels, backend, KEPT, told)
        self._ahead, self._last, self._numbers = ahead, kernels.xp.zeros(1, dtype=np.uint64), itertools.count()
        kernels.xp.cuda.get_current_stream().synchronize()
        self._used: OrderedDict[tuple[bytes, ...], None] = OrderedDict()  # keys of their own: seeds are forgotten
        self._busy = threading.Lock()

    def run(self, name: Hashable, script: Script, seeds: Sequence[bytes], run: Name, channels: Channels, given: Any,
            play: Play) -> Ran:
        """As in `Runs`. Raises ReusedRandomness for the name of a run that came before."""
        def record() -> Segmented:
            return self._recorded(script, seeds, run, channels, given, play)

        def repeat(program: Segmented) -> Ran:
            return program.run(seeds, run, next(self._numbers), script, channels, given, self._backend,
                               self._ahead)

        with self._busy:
            self._burn(seeds, run)
            return self._run(name, record if script.name else None, repeat, lambda: Ran(*play(channels, given), False))

    def forget(self, which: Which = everything) -> None:
        """As in `Runs`."""
        with self._busy:
            super().forget(which)

    def _renew(self) -> None:
        super()._renew()
        self._places = Places(self._kernels.xp)

    def _burn(self, seeds: Sequence[bytes], run: Name) -> None:
        used = tuple(derive(seed, "used", run) for seed in seeds)
        if used in self._used:
            raise ReusedRandomness(f"the run {run!r} came before; its masks would serve twice: use a fresh name")
        self._used[used] = None
        if len(self._used) > REMEMBERED:
            self._used.popitem(last=False)

    def _recorded(self, script: Script, seeds: Sequence[bytes], run: Name, channels: Channels, given: Any,
                  play: Play) -> Segmented:
        """Nothing is sent or received: whoever waits for this run's messages gets them afterwards."""
        xp, keys = self._kernels.xp, KeyTable(len(seeds), script.plan)
        table, buffer = keys.room(xp), None if given is None else xp.asarray(given)
        segmenting = Segmenting(xp, self._pool, self._places, Brought(xp, script.arrays, script.places))
        self._begin()
        noting = {name: Noting(name, channel, segmenting) for name, channel in channels.items()}
        with segmenting.running(), self._backend.recorded_alone(segmenting), \
                self._kernels.keys.recorded_here(table, keys.rows(seeds, run)):
            self._kernels.claim_keys(table, self._last)
            results, facts = play(noting, buffer)
            table.fill(0)
        return Segmented(segmenting, keys, table, buffer, results, facts)
