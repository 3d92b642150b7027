"""One inference, one CUDA graph: programs that run again are recorded, and then repeated with fresh keys.

The protocol is oblivious: which kernels run, on which shapes and in which order, depends on public facts alone. So all
runs of one program on inputs of one shape are the same graph, and so are runs of programs that differ in public arrays
alone, such as masks (see `script`). The first run of a program goes launch by launch, and compiles; the second is
recorded and repeated; later ones are repeated.

What differs between runs is in device memory: the inputs, public arrays, and a table with the keys of all streams of
the plan. A graph starts by claiming its keys, which ends everything if a run had them before, and ends by wiping them.
So no run repeats the masks of another.
"""

from __future__ import annotations

import gc
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from secformer.mpc.backend import CupyBackend, Later
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import NotRecordable, OutOfMemory, SettingsError
from secformer.mpc.kernels.cuda.keys import ROW
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.meter import Cost
from secformer.mpc.prg import Name, derive_all, spelt
from secformer.mpc.recording import Brought, Recording
from secformer.mpc.script import Script

GRAPHS = ("auto", "off")
KEPT = 32  # graphs, and programs that may become one


class Input(Protocol):
    """One party's input of a program that may be recorded: `words` makes its array."""

    @property
    def words(self) -> Callable[[], Any]: ...

    def holding(self, words: Any) -> Any:
        """The same input with this array, which is on the GPU."""


@dataclass(frozen=True)
class Outcome:
    """What the two parties returned, and what it cost."""

    results: tuple[Any, Any]
    cost: Cost
    plan: Plan


Inputs = tuple[Input, Input]
Play = Callable[[Any, int, Recording | None], Outcome]  # inputs, the run's number, what it is recorded in


class KeyTable:
    """The keys of all streams of a plan's runs, under these seeds: one row each, behind the run's number."""

    def __init__(self, seeds: Sequence[bytes], plan: Plan):
        self._seeds = seeds
        self._names = [spelt(index, f.name) for index, kind in enumerate(plan.kinds) for f in kind.fields()]

    def rows(self, run: Name) -> dict[bytes, int]:
        """Where each key of a run stands in the table."""
        return {key: row for row, key in enumerate(self._keys(run), start=1)}

    def words(self, run: Name, number: int | None = None) -> np.ndarray:
        """The table of a run: (rows, 4). `number` is above that of the run before; without it, `run` is the number."""
        number = int(run) if number is None else number
        stated = (number + 1).to_bytes(8 * ROW, "little")  # 0 says that there are no keys
        return np.frombuffer(b"".join([stated, *self._keys(run)]), dtype="<u8").reshape(-1, ROW)

    def _keys(self, run: Name) -> list[bytes]:
        return [key for seed in self._seeds for key in derive_all(seed, spelt("run", run), self._names)]


class Graph:
    """A program that was recorded. Each run of it takes fresh keys: there is no way to repeat it without."""

    def __init__(self, recording: Recording, keys: KeyTable, table: Any, last: Any, buffers: Sequence[Any],
                 outcome: Outcome, fresh: Callable[[], int]):
        if not later(outcome.results):
            raise NotRecordable("the program reveals nothing; a graph repeats only what is computed on the GPU")
        self._stream, self._graph, self._kept = recording.stream, recording.graph, recording.kept
        self._brought = recording.brought
        self._keys, self._table, self._last, self._fresh = keys, table, last, fresh
        self._buffers, self._outcome = buffers, outcome
        self._graph.upload(self._stream)
        self._next: np.ndarray | None = self._prepared()

    def run(self, script: Script, inputs: Inputs, backend: CupyBackend) -> Outcome:
        """A program of the same name on other inputs."""
        started = time.perf_counter()
        with self._stream:
            for buffer, given in zip(self._buffers, inputs, strict=True):
                put(buffer, given.words(), self._stream)
            self._brought.hold(script.arrays, self._stream)
            words, self._next = self._next, None  # whatever happens now: these keys are spent
            self._table.set(self._prepared() if words is None else words, stream=self._stream)
            try:
                self._graph.launch(self._stream)
                self._next = self._prepared()  # while the GPU works
                self._stream.synchronize()
            except BaseException:
                with suppress(Exception):  # whatever ends the run is on its way
                    self._table.fill(0)
                    self._stream.synchronize()  # before another graph works in the same memory
                raise
            results = tuple(done(result, backend) for result in self._outcome.results)
        cost = self._outcome.cost.lasting(time.perf_counter() - started)
        return Outcome(results, cost, script.plan)

    def _prepared(self) -> np.ndarray:
        return self._keys.words(self._fresh())


@dataclass
class _Program:
    """A program that has run or not, and its graph once it has been recorded."""

    ran: bool = False
    graph: Graph | None = None
    refused: bool = False


class Graphs:
    """The programs that a world has run, and the graphs of those that run again.

    seeds   of both parties, as the dealer has them
    fresh   the number of a run that no run has had
    notes   why programs were not recorded
    """

    def __init__(self, kernels: CudaKernels, backend: CupyBackend, seeds: Sequence[bytes], fresh: Callable[[], int]):
        self._kernels, self._backend, self._seeds, self._fresh = kernels, backend, seeds, fresh
        self._programs: OrderedDict[str, _Program] = OrderedDict()
        self._pool = graph_pool(kernels.xp)  # all graphs share it, as no two run at the same time
        kernels.claim_keys(kernels.xp.ones((1, ROW), dtype=np.uint64), kernels.xp.zeros(1, dtype=np.uint64))  # loads it
        self.notes: list[str] = []

    def run(self, script: Script, inputs: Inputs, play: Play) -> Outcome:
        """Runs the program that has this script, as the graph of another of the same name where there is one."""
        program = self._programs.setdefault(script.name, _Program())
        self._programs.move_to_end(script.name)
        while len(self._programs) > KEPT:
            self._programs.popitem(last=False)
        if program.graph is None and program.ran and not program.refused:
            self._record(program, script, inputs, play)
        if program.graph is not None:
            try:
                return program.graph.run(script, inputs, self._backend)
            except NotRecordable as error:  # raised before its keys are taken: launch by launch it still runs
                self._tell(error)
        outcome = play(inputs, self._fresh(), None)
        program.ran = True  # a run that failed has not used all kernels and constants
        return outcome

    def forget(self) -> None:
        """Lets go of all graphs: what they read, such as opened weights, is about to change."""
        self._programs.clear()

    def _record(self, program: _Program, script: Script, inputs: Inputs, play: Play) -> None:
        full = False
        try:
            program.graph = self._recorded(script, inputs, play)
        except Exception as error:  # whatever CuPy, the driver or the plan says: launch by launch it still runs
            program.refused, full = True, short_of_memory(error, self._backend)
            self._tell(error)
        if full:  # all graphs give their memory back, and are recorded anew when they are next asked for
            for each in self._programs.values():
                each.graph = None
            self._pool = graph_pool(self._kernels.xp)
            gc.collect()  # the error's own frames hold arrays

    def _tell(self, error: Exception) -> None:
        note = why(error, self._backend, self._pool)
        if note not in self.notes:
            self.notes.append(note)

    def _recorded(self, script: Script, inputs: Inputs, play: Play) -> Graph:
        xp, run = self._kernels.xp, self._fresh()
        keys = KeyTable(self._seeds, script.plan)
        rows = keys.rows(run)
        table, last = xp.zeros((len(rows) + 1, ROW), dtype=np.uint64), xp.zeros(1, dtype=np.uint64)
        buffers = [xp.array(given.words()) for given in inputs]  # copies: later runs write into them
        brought = Brought(xp, script.arrays, script.places)
        xp.cuda.get_current_stream().synchronize()
        xp.get_default_memory_pool().free_all_blocks()
        with Recording(xp, self._pool, brought) as recording:
            with recording.stream:
                self._kernels.claim_keys(table, last)
            recording.begin()
            held = tuple(given.holding(buffer) for given, buffer in zip(inputs, buffers, strict=True))
            with self._kernels.keys.recorded(table, rows):
                outcome = play(held, run, recording)
            recording.join()
            with recording.stream:
                table.fill(0)
        return Graph(recording, keys, table, last, buffers, outcome, self._fresh)


def why(error: Exception, backend: CupyBackend, pool: Any) -> str:
    """Why a program was not recorded with memory of `pool`, and what to do about it."""
    if short_of_memory(error, backend):
        needed = (pool.total_bytes() + backend.xp.cuda.runtime.memGetInfo()[0]) / 1e9
        return (f"this shape was not recorded as a CUDA graph: beside what the weights take, it needs more than "
                f"{needed:.1f} GB of GPU memory; it runs launch by launch. Send fewer or shorter texts at once "
                f"(batch_tokens), or say graph='off'")
    return f"this shape was not recorded as a CUDA graph ({type(error).__name__}: {error}); it runs launch by launch"


def short_of_memory(error: Exception, backend: CupyBackend) -> bool:
    """Whether the device has too little memory, for arrays or for a graph itself."""
    return isinstance(error, OutOfMemory | backend.out_of_memory) or "cudaErrorMemoryAllocation" in str(error)


def graph_pool(xp: Any) -> Any:
    """Memory for graphs. Where the device is full, CuPy's pools give up their free memory, which graphs still use; but
    not at this error."""
    def more(size: int) -> Any:
        try:
            return xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0)
        except xp.cuda.runtime.CUDARuntimeError as error:
            raise OutOfMemory(f"{size} bytes more, for a graph ({error})") from error

    return xp.cuda.MemoryPool(more)


def put(buffer: Any, words: Any, stream: Any) -> None:
    """Brings an input into a graph's buffer. Raises NotRecordable for one of another shape or type."""
    if words.shape != buffer.shape or words.dtype != buffer.dtype:
        raise NotRecordable(f"a graph takes {buffer.shape} {buffer.dtype}, got {words.shape} {words.dtype}")
    if isinstance(words, np.ndarray):
        buffer.set(np.ascontiguousarray(words), stream=stream)
    else:
        buffer[...] = words


def done(result: Any, backend: CupyBackend) -> Any:
    """A result of a recorded run with everything that was `Later` there."""
    if isinstance(result, Later):
        return result.finish(backend.to_host(result.array))
    if isinstance(result, Mapping):
        return {name: done(value, backend) for name, value in result.items()}
    return type(result)(done(value, backend) for value in result) if isinstance(result, tuple | list) else result


def later(result: Any) -> int:
    """How many results are read off the GPU. Raises NotRecordable for one that is not: other runs have another."""
    if isinstance(result, Mapping | tuple | list):
        return sum(map(later, result.values() if isinstance(result, Mapping) else result))
    if result is not None and not isinstance(result, Later):
        raise NotRecordable(f"a result is a {type(result).__name__} of the recorded run, which other runs do not have; "
                            f"results are what the session reveals")
    return result is not None


def graph_mode(mode: str) -> str:
    """Checks the setting `graph`."""
    if mode not in GRAPHS:
        raise SettingsError(f"graph must be one of {', '.join(GRAPHS)}; got {mode!r}")
    return mode
