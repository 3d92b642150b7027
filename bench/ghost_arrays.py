"""Arrays without contents that count what a GPU would be asked to do: as much of CuPy as the engine uses.

A ghost has a shape, a type and strides, like the array that it stands for. Its memory is never touched, so it costs
none. Whatever would start work on a device is counted: a kernel, an array operation, a copy. Views are free.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BELOW = ("bench/", "mpc/kernels/", "mpc/prg.py", "mpc/backend.py", "_methods.py")  # who asks on behalf of others
KERNEL, ARRAY, MESSAGE, HOST = "kernel", "array", "message", "host copy"

Row = tuple[str, str, str, str]  # role, kind, name, caller


class Tally:
    """Counts operations by role (the thread's name), kind, name, and the function that asked for them."""

    def __init__(self) -> None:
        self.rows: Counter[Row] = Counter()
        self._lock = threading.Lock()

    def __call__(self, kind: str, name: str) -> None:
        frame = sys._getframe(1)
        while (file := _file(frame.f_code.co_filename)).startswith(BELOW) and frame.f_back is not None:
            frame = frame.f_back
        with self._lock:
            self.rows[threading.current_thread().name, kind, name, f"{file}: {frame.f_code.co_name}"] += 1

    def by(self, *columns: int) -> Counter[tuple[str, ...]]:
        """The counts, added up over all other columns of a row."""
        found: Counter[tuple[str, ...]] = Counter()
        for row, count in self.rows.items():
            found[tuple(row[c] for c in columns)] += count
        return found


def ghosts(tally: Tally) -> Any:
    """Takes the place of the module `cupy`. One class of arrays for one tally."""

    class Ghost(np.ndarray[Any, Any]):
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **how: Any) -> Any:
            tally(ARRAY, ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")
            if out := how.get("out"):
                return out[0]
            if method == "reduce":
                return empty(_reduced(inputs[0].shape, how), how.get("dtype") or inputs[0].dtype)
            single = [np.ones((), v.dtype) if isinstance(v, np.ndarray) else v for v in inputs]
            return empty(np.broadcast_shapes(*map(np.shape, inputs)), ufunc(*single).dtype)

        def astype(self, dtype: Any, copy: bool = True, **_: Any) -> Any:  # type: ignore[override]
            return self if self.dtype == dtype and not copy else _made("astype", self.shape, dtype)

        def copy(self, order: Any = "C") -> Any:
            return _made("copy", self.shape, self.dtype)

        def reshape(self, *shape: Any, **_: Any) -> Any:  # type: ignore[override]
            found = super().reshape(*shape)
            if self.size and not np.may_share_memory(found, self):
                tally(ARRAY, "copy (reshape)")
            return found

        def __getitem__(self, index: Any) -> Any:
            parts = index if isinstance(index, tuple) else (index,)
            if any(isinstance(i, np.ndarray | list) for i in parts):
                tally(ARRAY, "take")
                for i in parts:
                    if isinstance(i, np.ndarray | list) and not isinstance(i, Ghost):
                        tally(HOST, "host to device")
                index = tuple(np.zeros(i.shape, i.dtype) if isinstance(i, Ghost) else i for i in parts)
            return super().__getitem__(index)

        def __setitem__(self, index: Any, value: Any) -> None:
            tally(ARRAY, "copy (assign)")

        def fill(self, value: Any) -> None:
            tally(ARRAY, "fill")

        @property
        def data(self) -> Any:  # type: ignore[override]
            return SimpleNamespace(ptr=0, copy_from_device_async=lambda *_: tally(MESSAGE, "message"))

        def set(self, host: Any, stream: Any = None) -> None:
            tally(HOST, "host to device")

    def empty(shape: Any, dtype: Any = np.float64) -> Any:
        return np.empty(shape, dtype).view(Ghost)

    def _made(name: str, shape: Any, dtype: Any) -> Any:
        tally(ARRAY, name)
        return empty(shape, dtype)

    def asarray(x: Any, dtype: Any = None) -> Any:
        if isinstance(x, Ghost):
            return x
        tally(HOST, "host to device")
        x = np.asarray(x, dtype)
        return empty(x.shape, x.dtype)

    def ascontiguousarray(x: Any) -> Any:
        return x if x.flags.c_contiguous else _made("copy (contiguous)", x.shape, x.dtype)

    def concatenate(parts: Any, axis: int = 0) -> Any:
        shape = list(parts[0].shape)
        shape[axis] = sum(p.shape[axis] for p in parts)
        for _ in parts:
            tally(ARRAY, "concatenate")
        return empty(shape, parts[0].dtype)

    def stack(parts: Any, axis: int = 0) -> Any:
        return concatenate([np.expand_dims(p, axis).view(Ghost) for p in parts], axis)

    def where(condition: Any, x: Any, y: Any) -> Any:
        shape = np.broadcast_shapes(*map(np.shape, (condition, x, y)))
        return _made("where", shape, np.result_type(x.dtype, y.dtype))

    def event(**_: Any) -> Any:
        return SimpleNamespace(record=lambda: None, done=True)

    def stream(**_: Any) -> Any:
        return _Stream()

    xp = SimpleNamespace(
        __name__="cupy", empty=empty, asarray=asarray, ascontiguousarray=ascontiguousarray, concatenate=concatenate,
        stack=stack, where=where, zeros=lambda shape, dtype=np.float64: _made("zeros", shape, dtype),
        full_like=lambda x, value: _made("full", x.shape, x.dtype), ndarray=Ghost, atleast_1d=np.atleast_1d,
        arange=lambda *given, **how: _made("arange", np.arange(*given).shape, how.get("dtype", np.int64)),
        broadcast_to=lambda x, shape: np.broadcast_to(x, shape, subok=True),
        broadcast_arrays=lambda *x: np.broadcast_arrays(*x, subok=True),
        asnumpy=lambda x: np.zeros(x.shape, x.dtype), uint64=np.uint64,
        cuda=SimpleNamespace(Event=event, Stream=stream, get_current_stream=_Stream, alloc_pinned_memory=bytearray))
    return xp


class _Stream:
    ptr = 0

    def wait_event(self, event: Any) -> None: ...
    def synchronize(self) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *error: Any) -> None: ...


@cache
def _file(name: str) -> str:
    """A file's path below the project, or its name."""
    path = Path(name)
    return str(path.relative_to(ROOT)).removeprefix("secformer/") if path.is_relative_to(ROOT) else path.name


def _reduced(shape: tuple[int, ...], how: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a reduction along an axis, or along all."""
    axis = how.get("axis", 0)
    if axis is None:
        return ()
    axes = [a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))]
    kept = bool(how.get("keepdims"))
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if kept or i not in axes)


class CountedKernels:
    """Takes the place of a `cupy.RawModule`: its kernels count their launches and do nothing."""

    def __init__(self, tally: Tally):
        self._tally = tally

    def get_function(self, name: str) -> Any:
        return _Counted(self._tally, name)


class _Counted:
    def __init__(self, tally: Tally, name: str):
        self._tally, self._name = tally, name
        self.max_dynamic_shared_size_bytes = 48 << 10

    def __call__(self, grid: Any, block: Any, arguments: Any, **how: Any) -> None:
        self._tally(KERNEL, self._name)
