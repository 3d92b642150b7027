"""Arrays of the model of CuPy (`graph_lab`). They are not NumPy arrays: what CuPy refuses in a capture, and
what it silently copies from the host or to it, is refused here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from capture_lab import Access, CUDARuntimeError
from gpu_lab import Block, Stream

REDUCTIONS = ("sum", "max", "min", "amax", "amin", "mean", "prod", "cumsum", "any", "all")
VIEWS = ("broadcast_to", "reshape", "transpose", "swapaxes", "moveaxis", "expand_dims", "squeeze", "ravel",
         "ascontiguousarray", "atleast_1d")


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands where a `cupy.ndarray` stands. `raw` shows its memory to the model, and to tests."""

    def __init__(self, xp: Any, raw: np.ndarray, block: Block):
        self.xp, self.raw, self.block = xp, raw, block

    shape = property(lambda self: self.raw.shape)
    dtype = property(lambda self: self.raw.dtype)
    size = property(lambda self: self.raw.size)
    ndim = property(lambda self: self.raw.ndim)
    nbytes = property(lambda self: self.raw.nbytes)
    itemsize = property(lambda self: self.raw.itemsize)
    strides = property(lambda self: self.raw.strides)
    flags = property(lambda self: self.raw.flags)
    data = property(lambda self: Pointer(self))
    T = property(lambda self: self.transpose())

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def seen(self, view: np.ndarray) -> Array:
        return Array(self.xp, view, self.block)

    def view(self, dtype: Any) -> Array:
        return self.seen(self.raw.view(dtype))

    def __getattr__(self, name: str) -> Any:
        if name in REDUCTIONS or name in VIEWS:
            return partial(getattr(self.xp, name), self)
        raise AttributeError(f"the model's arrays have no {name!r}")

    def reshape(self, *shape: Any) -> Array:
        return self.xp.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Array:
        axes = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
        return self.seen(self.raw.transpose(*axes))

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        if not copy and self.dtype == dtype:
            return self
        return self.xp.compute("astype", lambda x: x.astype(dtype), self)

    def copy(self) -> Array:
        if not self.raw.flags.c_contiguous:
            return self.xp.compute("copy", lambda x: x.copy(), self)
        made: Array = self.xp.empty(self.shape, self.dtype)
        made.data.copy_from_device_async(self.data, self.nbytes)
        return made

    def fill(self, value: Any) -> None:
        raw = self.raw
        if not raw.size:
            return
        if raw.flags.c_contiguous and not isinstance(value, Array) and value == 0:
            self.xp.run("memset", lambda: raw.fill(0), [], [self], None)
        else:
            self.xp.compute("copy", lambda v: v, value, out=self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Array:
        if method != "__call__":
            raise TypeError(f"the model has no {ufunc.__name__}.{method}")
        return self.xp.ufunc(ufunc, *inputs, out=out[0] if out else None, **settings)

    def __array_function__(self, function: Any, types: Any, args: Any, settings: Any) -> Any:
        return getattr(self.xp, function.__name__)(*args, **settings)

    def __array__(self, *args: Any, **settings: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # ---- indexing -------------------------------------------------------------------------------------------------

    def _key(self, key: Any) -> tuple[tuple[Any, ...], bool]:
        """The key as a tuple, and whether it is of slices and numbers only. Indices from the host are copied."""
        key = key if isinstance(key, tuple) else (key,)
        key = tuple(self.xp.asarray(np.asarray(k)) if isinstance(k, np.ndarray | list) else k for k in key)
        arrays = [k for k in key if isinstance(k, Array)]
        if any(k.dtype == bool for k in arrays):
            self.xp.refuse("a mask as an index is counted on the host")
        return (key if arrays or ... in key else (*key, ...)), not arrays

    def __getitem__(self, key: Any) -> Array:
        key, basic = self._key(key)
        if basic:
            return self.seen(self.raw[key])
        return self.xp.compute("take", lambda x, at: x[at], self, key, probe=lambda x, at: x[nowhere(at)])

    def __setitem__(self, key: Any, value: Any) -> None:
        key, basic = self._key(key)
        value = self.xp.asarray(value) if isinstance(value, np.ndarray | list) else value
        if basic:
            self.seen(self.raw[key]).fill(value)
        else:
            raw, at, given = self.raw, raws_of(key), raws_of(value)
            self.xp.run("scatter", lambda: raw.__setitem__(at, given), [self, key, value], [self], ())

    # ---- to and from the host -------------------------------------------------------------------------------------

    def get(self, stream: Stream | None = None, order: str = "C", out: np.ndarray | None = None,
            blocking: bool = True) -> np.ndarray:
        stream = stream or self.xp.gpu.current
        self.xp.refuse("an array is copied to the host", stream)
        host = np.empty(self.shape, self.dtype) if out is None else out
        if host.shape != self.shape or host.dtype != self.dtype or not host.flags.c_contiguous:
            raise ValueError(f"`out` must be {self.dtype} of shape {self.shape}, contiguous")
        raw, found = self.raw, reach(host)
        stream.push(lambda: np.copyto(found(), raw))
        if blocking:
            stream.run()
        return host

    def set(self, host: np.ndarray, stream: Stream | None = None) -> None:
        stream = stream or self.xp.gpu.current
        self.xp.refuse("an array is set from the host", stream)
        if not isinstance(host, np.ndarray) or host.dtype != self.dtype or host.shape != self.shape:
            raise ValueError(f"{self.dtype} of shape {self.shape} is set from such a NumPy array")
        if not self.raw.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        raw, found = self.raw, reach(host if pinned_below(host) is not None else host.copy())
        stream.push(lambda: np.copyto(raw, found()))

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __index__(self) -> int:
        return self.get().item().__index__()


class Pointer:
    """Stands where a `cupy.cuda.MemoryPointer` stands."""

    def __init__(self, array: Array):
        self._array, self.ptr = array, array.raw.ctypes.data

    def bytes(self, size: int) -> np.ndarray:
        return self._array.raw.reshape(-1).view(np.uint8)[:size]

    def copy_from_device_async(self, source: Pointer, size: int, stream: Stream | None = None) -> None:
        mine, theirs = self.bytes(size), source.bytes(size)
        self._array.xp.run("memcpy", lambda: np.copyto(mine, theirs), [source._array], [self._array], None, stream)


class Pinned(bytearray):
    """Host memory that the device reads and writes when it comes to it; whoever hands it out must keep it."""


# ---- memory below arrays ---------------------------------------------------------------------------------------------


def raws_of(x: Any) -> Any:
    """Arrays as the memory below them, also in tuples and lists."""
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: bring it to the device first")
    if isinstance(x, tuple | list):
        return type(x)(raws_of(part) for part in x)
    return x.raw if isinstance(x, Array) else x


def arrays_in(x: Any) -> Iterator[Array]:
    if isinstance(x, Array):
        yield x
    elif isinstance(x, tuple | list):
        for part in x:
            yield from arrays_in(part)


def accesses(arrays: Iterable[Array], writes: bool) -> list[Access]:
    return [Access(a.block.chunk, *np.lib.array_utils.byte_bounds(a.raw), writes) for a in arrays if a.size]


def nowhere(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """An index of the same shape that is within every array: the real one is not known in a capture."""
    return tuple(np.zeros_like(k) if isinstance(k, np.ndarray) else k for k in key)


def pinned_below(host: Any) -> Pinned | None:
    while isinstance(host, np.ndarray | memoryview):
        host = host.base if isinstance(host, np.ndarray) else host.obj
    return host if isinstance(host, Pinned) else None


def reach(host: np.ndarray) -> Callable[[], np.ndarray]:
    """How a copy that runs later finds host memory: pinned memory that was let go of meanwhile is an error."""
    pinned = pinned_below(host)
    if pinned is None or not host.size:
        return lambda: host
    start = host.ctypes.data - np.frombuffer(pinned, dtype=np.uint8).ctypes.data
    shape, dtype, held = host.shape, host.dtype, weakref.ref(pinned)

    def found() -> np.ndarray:
        memory = held()
        if memory is None:
            raise CUDARuntimeError("cudaErrorIllegalAddress: pinned memory was freed before it was copied")
        return np.frombuffer(memory, dtype=dtype, count=int(np.prod(shape)), offset=start).reshape(shape)

    return found
