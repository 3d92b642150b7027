"""One inference, one CUDA graph: all roles of a program's run in one process are recorded together.

The protocol is oblivious: which kernels run, on which shapes and in which order, depends on public facts alone. So all
runs of one program on inputs of one shape are the same graph, and so are runs of programs that differ in public arrays
alone, such as masks (see `script`). When a program is recorded and when it is repeated: see `programs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from secformer.mpc.backend import CupyBackend
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import NotRecordable, SettingsError
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.meter import Cost
from secformer.mpc.programs import KeyTable, Programs, Recorded, done, later, put
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


class Graph(Recorded):
    """The program of a world as a graph."""

    def __init__(self, recording: Recording, keys: KeyTable, table: Any, buffers: Sequence[Any], outcome: Outcome,
                 prepared: Callable[[], np.ndarray]):
        """`prepared` gives the table of the keys of a run that has not been."""
        if not later(outcome.results):
            raise NotRecordable("the program reveals nothing; a graph repeats only what is computed on the GPU")
        super().__init__(recording, keys, table)
        self._stream, self._graph = recording.stream, recording.graph
        self._buffers, self._outcome, self._prepared = buffers, outcome, prepared
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
            with self._under(self._prepared() if words is None else words, self._stream):
                self._graph.launch(self._stream)
                self._next = self._prepared()  # while the GPU works
                self._stream.synchronize()
            results = tuple(done(result, backend) for result in self._outcome.results)
        cost = self._outcome.cost.lasting(time.perf_counter() - started)
        return Outcome(results, cost, script.plan)


class Graphs(Programs[Graph]):
    """The programs that a world has run, and the graphs of those that run again.

    seeds   of both parties, as the dealer has them
    fresh   the number of a run that no run has had
    notes   why programs were not recorded
    """

    def __init__(self, kernels: CudaKernels, backend: CupyBackend, seeds: Sequence[bytes], fresh: Callable[[], int]):
        self._seeds, self._fresh = seeds, fresh
        self.notes: list[str] = []
        super().__init__(kernels, backend, KEPT, self._note)

    def run(self, script: Script, inputs: Inputs, play: Play) -> Outcome:
        """Runs the program that has this script, as the graph of another of the same name where there is one."""
        return self._run(script.name, lambda: self._recorded(script, inputs, play),
                         lambda graph: graph.run(script, inputs, self._backend),
                         lambda: play(inputs, self._fresh(), None))

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _recorded(self, script: Script, inputs: Inputs, play: Play) -> Graph:
        xp, run, keys = self._kernels.xp, self._fresh(), KeyTable(len(self._seeds), script.plan)
        table, last = keys.room(xp), xp.zeros(1, dtype=np.uint64)
        buffers = [xp.array(given.words()) for given in inputs]  # copies: later runs write into them
        brought = Brought(xp, script.arrays, script.places)
        self._begin()
        with Recording(xp, self._pool, brought) as recording:
            with recording.stream:
                self._kernels.claim_keys(table, last)
            recording.keep(last)
            recording.begin()
            held = tuple(given.holding(buffer) for given, buffer in zip(inputs, buffers, strict=True))
            with self._kernels.keys.recorded(table, keys.rows(self._seeds, run)):
                outcome = play(held, run, recording)
            recording.join()
            with recording.stream:
                table.fill(0)
        return Graph(recording, keys, table, buffers, outcome, lambda: keys.words(self._seeds, self._fresh()))


def graph_mode(mode: str) -> str:
    """Checks the setting `graph`."""
    if mode not in GRAPHS:
        raise SettingsError(f"graph must be one of {', '.join(GRAPHS)}; got {mode!r}")
    return mode
