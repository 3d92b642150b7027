"""A world in one process: two party threads and a dealer thread, joined by in-process channels.

This is the embedded default of the product, and what the tests run. The three roles keep to their own data; only the
final results meet in the caller, who plays client and model owner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np

from secformer.mpc.backend import Backend, CupyBackend, Lane, choose_backend
from secformer.mpc.capture import Graphs, Outcome, graph_mode
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import OutOfMemory, ProtocolError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.kernels import Kernels, kernels_for
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import DEADLINE, Channel, local_pair
from secformer.mpc.party import Party
from secformer.mpc.prg import fresh_seed
from secformer.mpc.recording import Recording
from secformer.mpc.script import Script
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.sessions.secure import SecureSession

Program = Callable[[Any, Any], Any]
Connect = Callable[[str, str], tuple[Channel, Channel]]
ENDING = 5.0            # seconds that the roles get to end when a run fails


class World:
    """Two parties and a dealer that stay together over several runs, so that opened weights last.

    seeds     fixed seeds of party 0 and party 1, for repeatable tests only: a world that uses them twice reuses masks
    connect   makes the channel pair of a run, (party 0's end, party 1's end)
    graph     "auto": on a GPU, a program that runs again is recorded as a CUDA graph (see `capture`); "off": never
    """

    def __init__(
        self,
        *,
        backend: str = "auto",
        fixed: FixedPoint | None = None,
        deadline: float = DEADLINE,
        kernels: Kernels | None = None,
        unsafe_seeds: tuple[bytes, bytes] | None = None,
        connect: Connect | None = None,
        graph: str = "auto",
    ):
        self.fixed = fixed or FixedPoint()
        self.kernels = kernels if kernels is not None else kernels_for(choose_backend(backend))
        self.deadline = deadline
        self.recorder = PlanRecorder(self.fixed, chunk=self.kernels.chunk)
        self.parties = tuple(
            SecureSession(Party(rank, self.fixed, self.kernels, chunk=self.kernels.chunk)) for rank in (0, 1)
        )
        self._seeds = unsafe_seeds or (fresh_seed(), fresh_seed())
        self._dealer = Dealer(self._seeds, self.kernels)
        self._lanes = {role: self.kernels.backend.lane() for role in ("party 0", "party 1", "dealer")}
        self._connect = connect or (lambda a, b: local_pair(a, b, deadline=self.deadline))
        self._serial = 0
        self._graphs: Graphs | None = None
        self._forgotten = 0  # weights, before the last run
        gpu = self.kernels.backend
        if graph_mode(graph) == "auto" and isinstance(self.kernels, CudaKernels) and isinstance(gpu, CupyBackend):
            self._graphs = Graphs(self.kernels, gpu, self._seeds, self.fresh)
        self._unfinished: list[threading.Thread] = []

    @property
    def notes(self) -> list[str]:
        """What the caller should know about how programs ran here."""
        return self._graphs.notes if self._graphs else []

    @property
    def recording(self) -> bool:
        """Whether programs that run again may be recorded here."""
        return self._graphs is not None

    def script(self, program: Program, inputs0: Any = None) -> Script:
        """What `run` takes of a program whose runs may be recorded: it says all that the program depends on."""
        return self.recorder.script(program, inputs0) if self.recording else Script(self.recorder.record(program,
                                                                                                          inputs0))

    def run(self, program: Program, inputs0: Any = None, inputs1: Any = None, *, plan: Plan | None = None,
            script: Script | None = None, cache: int | None = None) -> Outcome:
        """Records `program(session, inputs)`, then runs it at both parties, each with its own inputs.

        Pass the plan of an earlier run of the same program on the same shapes to skip the recording.
        With its `script`, which has the plan, and inputs that are `capture.Input`, it may run as a CUDA graph. Programs
        of one script, or of scripts of one name, share a graph.
        `cache` names the caches that the program takes (see `caches`), with a number from `fresh`: it is theirs alone.
        Raises the first error of any role; the others are stopped.
        """
        self._wait_for_the_last()
        before, self._forgotten = self._forgotten, self.parties[0].forgotten
        if self._graphs is not None and self._forgotten > before:
            self._graphs.forget()  # they read the weights as they were opened
        with self.parties[0].taking_back(self.parties[1], self.recorder):
            plan = script.plan if script else plan or self.recorder.record(program, inputs0)

            def play(inputs: Any, serial: int, recording: Recording | None) -> Outcome:
                return self._played(program, inputs, plan, serial, recording, cache)

            if self._graphs is None or script is None or not script.name:
                return play((inputs0, inputs1), self.fresh(), None)
            return self._graphs.run(script, (inputs0, inputs1), play)

    def fresh(self) -> int:
        """A number for a run, or for caches, which nothing else has here."""
        serial, self._serial = self._serial, self._serial + 1
        return serial

    def _played(self, program: Program, inputs: Any, plan: Plan, serial: int, recording: Recording | None,
                cache: int | None) -> Outcome:
        """One run, or the recording of one."""
        lanes: Mapping[str, AbstractContextManager[Any]] = self._lanes
        if recording is not None:
            lanes = {role: lane.recorded(recording) for role, lane in self._lanes.items() if isinstance(lane, Lane)}
        ends = self._connect("party 0", "party 1")
        dealer_end, party1_end = local_pair("the dealer", "party 1", capacity=self.kernels.ahead,
                                            deadline=self.deadline)
        meters = (Meter(), Meter())
        with _Run((*ends, dealer_end, party1_end), lanes, self.kernels.backend) as run:
            self._unfinished = run.threads
            for rank, (session, given) in enumerate(zip(self.parties, inputs, strict=True)):
                feed = party1_end if rank == 1 else None
                source = Source(self._seeds[rank], serial, plan, feed, self.kernels, meters[rank], cache)
                session.party.begin(ends[rank], source, meters[rank])
                run.start(f"party {rank}", _party_job(program, session, given, meters[rank]))
            run.start("dealer", lambda: self._dealer.deal(plan, serial, dealer_end, cache))
            results = run.join()
        self._unfinished = []
        cost = meters[0].cost.merged(meters[1].cost, parallel=True)
        return Outcome((results["party 0"], results["party 1"]), cost, plan)

    def _wait_for_the_last(self) -> None:
        """The threads of an interrupted run hold the same sessions: no new run before they have ended."""
        for thread in self._unfinished:
            thread.join(timeout=ENDING)
        if any(thread.is_alive() for thread in self._unfinished):
            raise ProtocolError("an interrupted run is still ending; wait for it, or make a new World")


def _party_job(program: Program, session: SecureSession, inputs: Any, meter: Meter) -> Callable[[], Any]:
    def job() -> Any:
        started = time.perf_counter()
        result = program(session, inputs)
        meter.close(started)
        return result

    return job


class _Run:
    """The threads of one run; the first failure closes every channel, so that nobody waits for it."""

    def __init__(self, channels: tuple[Channel, ...], lanes: Mapping[str, AbstractContextManager[Any]],
                 backend: Backend):
        self._channels, self._lanes, self._backend = channels, lanes, backend
        self.threads: list[threading.Thread] = []
        self._results: dict[str, Any] = {}
        self._errors: list[BaseException] = []

    def start(self, name: str, job: Callable[[], Any]) -> None:
        def body() -> None:
            try:
                # words wrap by design; NumPy warns about it for scalars
                with self._lanes[name], np.errstate(over="ignore"):
                    self._results[name] = job()
            except BaseException as error:  # handed to the caller's thread by join
                self._errors.append(self._explained(error))
                self.stop(f"{name}: {error}")

        thread = threading.Thread(target=body, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _explained(self, error: BaseException) -> BaseException:
        if not isinstance(error, self._backend.out_of_memory) or isinstance(error, OutOfMemory):
            return error
        explained = OutOfMemory(f"too little memory for this run ({error}); send fewer or shorter texts at once (see "
                                f"batch_tokens), or use backend='numpy'")
        explained.__cause__ = error
        return explained

    def stop(self, reason: str) -> None:
        for channel in self._channels:
            channel.abort(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.stop(f"the run ended: {error!r}")
            for thread in self.threads:
                thread.join(timeout=ENDING)
        for channel in self._channels:
            channel.close()

    def join(self) -> dict[str, Any]:
        """What each role returned. Raises the first error that is not merely a peer's echo of another."""
        for thread in self.threads:
            while thread.is_alive():
                thread.join(timeout=0.2)  # wakes up for Ctrl-C
        if self._errors:
            raise next((e for e in self._errors if not isinstance(e, ProtocolError)), self._errors[0])
        return self._results
