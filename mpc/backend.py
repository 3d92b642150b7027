"""Which array library computes: NumPy on the CPU or CuPy on a GPU. Only this file and the CUDA kernels know."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from secformer.mpc.constants import Constants
from secformer.mpc.errors import BackendUnavailable, NotRecordable, SettingsError
from secformer.mpc.recording import Recorder, Recording

BACKENDS = ("auto", "numpy", "cupy")


@dataclass(frozen=True)
class Later:
    """A result of a recorded run: `finish` of the array, whenever the run was repeated."""

    array: Any = field(repr=False)
    finish: Callable[[np.ndarray], Any] = field(repr=False)


@dataclass(frozen=True)
class Backend:
    """An array module (`xp`), its name, and how many cores one party may use."""

    name: str
    xp: ModuleType
    threads: int = 1

    @property
    def on_gpu(self) -> bool:
        return self.name == "cupy"

    def asarray(self, x: Any) -> Any:
        """Brings an array to this backend's device."""
        return self.xp.asarray(x)

    def to_host(self, x: Any) -> np.ndarray:
        """Brings an array to host memory as NumPy."""
        return np.asarray(x)

    def constant(self, x: np.ndarray) -> Any:
        """A public array that does not depend on the input, on this backend's device. It must not be written."""
        return self.asarray(x)

    def brought(self, x: np.ndarray, *, zeros: bool = False) -> Any:
        """A public array of the program, on this backend's device: where a run is recorded, an input of its graph. It
        must not be written. `zeros`: zeros of its shape, in a place of the program where the other party has x."""
        return self.constant(np.zeros_like(x) if zeros else x)

    def joined(self, parts: Sequence[Any], axis: int = 0) -> Any:
        """Arrays of one type, one behind the other along an axis."""
        return self.xp.concatenate(parts, axis=axis)

    def fetched(self, array: Any, finish: Callable[[np.ndarray], Any]) -> Any:
        """finish(array on the host); while a run is recorded, a `Later` of that."""
        return finish(self.to_host(array))

    def finish(self) -> None:
        """Waits for what this thread has queued."""

    @property
    def recording(self) -> Recorder | None:
        """What this thread's work is recorded in, if it is."""
        return None

    def lane_number(self) -> int:
        """Which of the streams that do not wait for each other this thread works in."""
        return 0

    @property
    def out_of_memory(self) -> type[Exception]:
        """What is raised where the device has too little memory."""
        return MemoryError

    def lane(self) -> AbstractContextManager[Any]:
        """What one role's thread computes in; the same lane every time, one thread at a time."""
        return nullcontext()

    def outgoing(self, payload: Any) -> Any:
        """An array as a message to another role: it must not be written afterwards."""
        return payload

    def reading(self, message: Any) -> AbstractContextManager[Any]:
        """A received message as an array of this backend. It may be read by what is queued inside the block."""
        return nullcontext(np.asarray(message))

    def buffer(self, nbytes: int) -> np.ndarray:
        """Host memory that a message is received into."""
        return np.empty(nbytes, dtype=np.uint8)


class CupyBackend(Backend):
    """One GPU. Each role's thread computes in a stream of its own; messages carry the event that ends their making.

    A stream's memory goes back to that stream's pool as soon as Python lets go of it, whatever other streams may still
    read. So a receiver holds a message until what reads it is done.
    """

    def __init__(self, xp: ModuleType, threads: int = 1):
        super().__init__("cupy", xp, threads)
        object.__setattr__(self, "_read", deque())  # (event, what must outlive it)
        object.__setattr__(self, "_lock", threading.Lock())
        object.__setattr__(self, "_here", threading.local())
        object.__setattr__(self, "_constants", Constants(xp))

    _read: deque[tuple[Any, Any]]
    _lock: threading.Lock
    _here: threading.local
    _constants: Constants

    def finish(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()

    def lane_number(self) -> int:
        return int(self.xp.cuda.get_current_stream().ptr)

    @property
    def recording(self) -> Recorder | None:
        found: Recorder | None = getattr(self._here, "recording", None)
        return found

    @contextmanager
    def recorded(self, recording: Recording, stream: Any) -> Iterator[None]:
        """Inside, this thread's work is recorded, in `stream`."""
        with self.recorded_alone(recording), recording.branch(stream):
            yield

    @contextmanager
    def recorded_alone(self, recorder: Recorder) -> Iterator[None]:
        """Inside, this thread's work is recorded without that of other roles: messages are arrays on the GPU, which go
        through channels that note them (see `segments`)."""
        self._here.recording, self._here.read = recorder, recorder.brought.reader()
        try:
            yield
        finally:
            self._here.recording = self._here.read = None

    def constant(self, x: np.ndarray) -> Any:
        """Raises NotRecordable for one that no run before used, while a run is recorded: nothing is copied there."""
        return self._constants(x, self.recording)

    def brought(self, x: np.ndarray, *, zeros: bool = False) -> Any:
        """Raises NotRecordable, while a run is recorded, for another array than the program's script has here."""
        found = None if self.recording is None else self._here.read(x)
        return super().brought(x, zeros=zeros) if zeros or found is None else found

    def joined(self, parts: Sequence[Any], axis: int = 0) -> Any:
        """As a copy each: CuPy's own way takes a list of addresses from the host."""
        axis %= parts[0].ndim
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        out, start = self.xp.empty(tuple(shape), dtype=parts[0].dtype), 0
        for part in parts:
            stop = start + part.shape[axis]
            out[(slice(None),) * axis + (slice(start, stop),)] = part
            start = stop
        return out

    def fetched(self, array: Any, finish: Callable[[np.ndarray], Any]) -> Any:
        return super().fetched(array, finish) if self.recording is None else Later(array, finish)

    def to_host(self, x: Any) -> np.ndarray:
        host: np.ndarray = self.xp.asnumpy(x)
        return host

    @property
    def out_of_memory(self) -> type[Exception]:
        found: type[Exception] = self.xp.cuda.memory.OutOfMemoryError
        return found

    def lane(self) -> Lane:
        return Lane(self)

    def outgoing(self, payload: Any) -> Any:
        here, recording = self.xp.cuda.get_current_stream(), self.recording
        if isinstance(recording, Recording):
            recording.sends(here)
        elif recording is not None:
            return payload
        return DeviceMessage(self, payload, self.mark(), here)

    @contextmanager
    def reading(self, message: Any) -> Iterator[Any]:
        """From another stream of this process, whose memory is read as it lies, or from the host (a socket, a file)."""
        recording = self.recording
        if recording is not None and not isinstance(recording, Recording):
            yield message  # its place
            return
        if isinstance(message, DeviceMessage):
            self.xp.cuda.get_current_stream().wait_event(message.made)
            yield message.payload
            self._hold(message)
        elif recording is not None:
            raise NotRecordable("a message came from outside of this process; only runs of one process are recorded")
        else:
            own = self.xp.empty(message.size, dtype=np.uint8)
            self.bring(message, own)
            yield own

    def bring(self, message: Any, target: Any) -> None:
        """Copies a received message into an array on the GPU, behind what was queued. The message lives until then."""
        if not message.size:
            return
        here = self.xp.cuda.get_current_stream()
        if isinstance(message, DeviceMessage):
            here.wait_event(message.made)
            target.data.copy_from_device_async(message.payload.data, message.size, here)
        else:
            target.set(np.ascontiguousarray(message), stream=here)
        self._hold(message)

    def buffer(self, nbytes: int) -> np.ndarray:
        """Pinned: the GPU copies to and from it directly."""
        memory = self.xp.cuda.alloc_pinned_memory(max(1, nbytes))
        return np.frombuffer(memory, dtype=np.uint8, count=nbytes)

    def mark(self) -> Any:
        """An event that has happened when everything queued in this thread's stream is done."""
        event = self.xp.cuda.Event(block=False, disable_timing=True)
        event.record()
        return event

    def _hold(self, message: Any) -> None:
        """Keeps the message until this thread's stream has come so far; lets go of those that were read."""
        event = self.mark()
        if isinstance(recording := self.recording, Recording):
            recording.read(message.sender.ptr, message, event)
            return
        with self._lock:
            self._read.append((event, message))
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            for _ in range(len(self._read)):
                held = self._read.popleft()
                if not held[0].done:
                    self._read.append(held)


class Lane:
    """A stream that does not wait for others. Leaving it waits for what it has queued, so that errors show and
    results may be read from any thread."""

    def __init__(self, backend: CupyBackend):
        self._backend = backend
        self._stream = backend.xp.cuda.Stream(non_blocking=True)

    def recorded(self, recording: Recording) -> AbstractContextManager[None]:
        """The lane in a run that is recorded: nothing waits."""
        return self._backend.recorded(recording, self._stream)

    def __enter__(self) -> None:
        self._stream.__enter__()

    def __exit__(self, *error: Any) -> None:
        try:
            self._stream.synchronize()
            self._backend._let_go()
        finally:
            self._stream.__exit__(*error)


@dataclass(frozen=True)
class DeviceMessage:
    """A payload on the GPU and the event after which it may be read. A channel that needs bytes on the host calls
    `get` in the thread that made the message."""

    backend: CupyBackend
    payload: Any
    made: Any
    sender: Any

    @property
    def size(self) -> int:
        return int(self.payload.size)

    def get(self) -> np.ndarray:
        """The bytes in pinned host memory, copied without a detour; returns when they are there."""
        host = self.backend.buffer(self.size)
        if self.size:
            self.payload.get(out=host, blocking=True)
        return host


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def choose_backend(name: str = "auto", *, threads: int | None = None) -> Backend:
    """The backend of that name; `auto` takes CuPy where a GPU answers, else NumPy.

    `threads` defaults to half of the cores, since two parties share a machine by default.
    Raises SettingsError for an unknown name and BackendUnavailable where `cupy` cannot run.
    """
    if name not in BACKENDS:
        raise SettingsError(f"backend must be one of {', '.join(BACKENDS)}; got {name!r}")
    threads = max(1, cores() // 2) if threads is None else threads
    if name != "numpy":
        module, why = _cupy()
        if module is not None:
            return CupyBackend(module, threads)
        if name == "cupy":
            raise BackendUnavailable(
                f"backend 'cupy' needs the extra `gpu` and an NVIDIA GPU: {why}; use backend='numpy'"
            )
    return Backend("numpy", np, threads)


def _cupy() -> tuple[ModuleType | None, str]:
    if importlib.util.find_spec("cupy") is None:
        return None, "CuPy is not installed"
    try:
        module = importlib.import_module("cupy")
        count = int(module.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises errors of its own for a missing driver
        return None, f"CuPy found no usable device ({error})"
    return (module, "") if count else (None, "no device is present")
