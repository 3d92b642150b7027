"""Programs that run again on a GPU: which are recorded, when recordings are dropped, and what every recording has.

The first run of a program goes launch by launch, and compiles; the second is recorded and repeated; later ones are
repeated. A program that cannot be recorded goes launch by launch. Recordings share their memory, as no two of them run
at the same time: where it does not suffice, all of them give theirs back, and are made anew when they are next asked
for.

What differs between runs is in device memory: inputs, public arrays, and a table with the keys of all streams of the
plan. A recording starts by claiming its table, which ends everything if a run had it before, and ends by wiping it. So
no run repeats the masks of another.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from secformer.mpc.backend import CupyBackend, Later
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import NotRecordable, OutOfMemory
from secformer.mpc.kernels.cuda.keys import ROW
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.prg import Name, derive_all, spelt
from secformer.mpc.recording import Recorder

R = TypeVar("R", bound="Recorded")
T = TypeVar("T")
Told = Callable[[str], object]
Which = Callable[[Any], bool]  # by a program's name


def everything(name: Any) -> bool:
    """All programs."""
    return True


class KeyTable:
    """The keys of all streams of a plan's runs: one row each, behind the run's number. Each run states its seeds, as
    many as the role has; the table keeps none.

    seeds  how many there are
    """

    def __init__(self, seeds: int, plan: Plan):
        self._count = seeds
        self._names = [spelt(index, f.name) for index, kind in enumerate(plan.kinds) for f in kind.fields()]

    def rows(self, seeds: Sequence[bytes], run: Name) -> dict[bytes, int]:
        """Where each key of a run stands in the table."""
        return {key: row for row, key in enumerate(self._keys(seeds, run), start=1)}

    def words(self, seeds: Sequence[bytes], run: Name, number: int | None = None) -> np.ndarray:
        """The table of a run: (rows, 4). `number` is above that of the run before; without it, `run` is the number."""
        number = int(run) if number is None else number
        stated = (number + 1).to_bytes(8 * ROW, "little")  # 0 says that there are no keys
        return np.frombuffer(b"".join([stated, *self._keys(seeds, run)]), dtype="<u8").reshape(-1, ROW)

    def room(self, xp: Any) -> Any:
        """Device memory for a table, without keys."""
        return xp.zeros((1 + self._count * len(self._names), ROW), dtype=np.uint64)

    def _keys(self, seeds: Sequence[bytes], run: Name) -> list[bytes]:
        return [key for seed in seeds for key in derive_all(seed, spelt("run", run), self._names)]


class Recorded:
    """A program that was recorded. Each run takes fresh keys: there is no way to repeat it without."""

    def __init__(self, recorder: Recorder, keys: KeyTable, table: Any):
        self._kept, self._brought, self._keys, self._table = recorder.kept, recorder.brought, keys, table

    @contextmanager
    def _under(self, words: np.ndarray, stream: Any) -> Iterator[None]:
        """Inside, the keys of one run are there. Where it breaks off they are wiped, and the GPU has ended: messages
        may be let go of then, and others may work in the same memory."""
        self._table.set(words, stream=stream)
        try:
            yield
        except BaseException:
            with suppress(Exception):  # whatever ends the run is on its way
                self._table.fill(0)
                stream.synchronize()
            raise


@dataclass
class Program(Generic[R]):
    """A program that has run or not, and its recording once there is one."""

    ran: bool = False
    recorded: R | None = None
    refused: bool = False


class Programs(Generic[R]):
    """The programs that have run, by name, and the recordings of those that run again.

    most  programs that are kept, the last ones that ran
    told  is told why a program was not recorded
    """

    def __init__(self, kernels: CudaKernels, backend: CupyBackend, most: int, told: Told):
        self._kernels, self._backend, self._most, self._told = kernels, backend, most, told
        self._programs: OrderedDict[Hashable, Program[R]] = OrderedDict()
        self._renew()
        kernels.claim_keys(kernels.xp.ones((1, ROW), dtype=np.uint64), kernels.xp.zeros(1, dtype=np.uint64))  # loads it
        kernels.xp.cuda.get_current_stream().synchronize()

    def forget(self, which: Which = everything) -> None:
        """Lets go of programs, by their names: what their recordings read, such as opened weights, is about to change
        or to go."""
        for name in [name for name in self._programs if which(name)]:
            del self._programs[name]

    def _renew(self) -> None:
        """Memory for recordings, which those that are there do not use."""
        self._pool = graph_pool(self._kernels.xp)

    def _run(self, name: Hashable, record: Callable[[], R] | None, repeat: Callable[[R], T],
             play: Callable[[], T]) -> T:
        """Repeats the recording of the program of that name, which `record` makes where it is time for it; or else
        plays the program. `record`: None for one that is never recorded."""
        program = self._programs.setdefault(name, Program())
        self._programs.move_to_end(name)
        while len(self._programs) > self._most:
            self._programs.popitem(last=False)
        if record and program.ran and program.recorded is None and not program.refused:
            self._record(program, record)
        if program.recorded is not None:
            try:
                return repeat(program.recorded)
            except NotRecordable as error:  # raised before its keys are taken: launch by launch it still runs
                self._tell(error)
        result = play()
        program.ran = True  # a run that failed has not used all kernels and constants
        return result

    def _record(self, program: Program[R], record: Callable[[], R]) -> None:
        """Nothing of the run happens here but the recording."""
        full = False
        try:
            program.recorded = record()
        except Exception as error:  # whatever CuPy, the driver or the plan says: launch by launch it still runs
            program.refused, full = True, short_of_memory(error, self._backend)
            self._tell(error)
        if full:
            for each in self._programs.values():
                each.recorded = None
            self._renew()
            gc.collect()  # the error's own frames hold arrays

    def _begin(self) -> None:
        """Before a capture: what was queued is done, and what others do not need is free for the recording."""
        self._kernels.xp.cuda.get_current_stream().synchronize()
        self._kernels.xp.get_default_memory_pool().free_all_blocks()

    def _tell(self, error: Exception) -> None:
        self._told(why(error, self._backend, self._pool))


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
