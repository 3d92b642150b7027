"""A model of CuPy on the host that captures graphs: arrays, the module `xp`, and the CUDA kernels on both.

    xp, kernels, backend = graph_device(HostModules(folder), seed=3)

`xp.gpu` is the model behind it (`gpu_lab.Gpu`): `xp.gpu.graphs` has all graphs that were captured. `arrays_lab` has the
arrays, `gpu_lab` streams, events and memory, `capture_lab` captures and graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from arrays_lab import REDUCTIONS, VIEWS, Array, Pinned, accesses, arrays_in, raws_of
from capture_lab import CUDARuntimeError
from cuda_lab import HostKernel, HostModules
from gpu_lab import Allocating, Event, Gpu, OutOfMemoryError, Pool, Stream

from secformer.mpc.backend import CupyBackend
from secformer.mpc.kernels.cuda.device import Device
from secformer.mpc.kernels.cuda.launch import CudaKernels

MADE = ("where", "clip", "full_like", "ones_like", "ones", "full", "arange")
FEW = 8  # arrays that CuPy joins copy by copy; of more it brings a list to the device


def graph_device(
    modules: HostModules, seed: int = 0, memory: int | None = None
) -> tuple[Any, CudaKernels, CupyBackend]:
    """The module `xp`, the CUDA kernels, and the backend of both, on a GPU of its own.

    modules  the kernel files, compiled for the host (a session's fixture `host_modules`)
    seed     of the orders in which graphs run
    memory   bytes of the device
    """
    xp: Any = Cupy(Gpu(seed, memory))
    backend = CupyBackend(xp, 1)
    device = Device("the host", 90, lambda file: SimpleNamespace(
        get_function=lambda name: Kernel(xp, modules(file).get_function(name))))
    return xp, CudaKernels(backend, device), backend


@dataclass(frozen=True)
class Given:
    """A party's share of the input (`capture.Input`)."""

    array: Any

    @property
    def words(self) -> Callable[[], Any]:
        return lambda: self.array

    def holding(self, words: Any) -> Given:
        return Given(words)


# ---- the module ------------------------------------------------------------------------------------------------------


class Cupy:
    """The module `xp`, as far as the engine uses it."""

    ndarray = Array

    def __init__(self, gpu: Gpu):
        self.gpu = gpu
        runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError, streamCaptureModeRelaxed=2,
                                  getDeviceCount=lambda: 1, memGetInfo=gpu.memory_info)
        stream: Any = partial(Stream, gpu)
        stream.null = gpu.null
        self.cuda = SimpleNamespace(
            Stream=stream, Event=partial(Event, gpu), MemoryPool=partial(Pool, gpu), runtime=runtime,
            using_allocator=partial(Allocating, gpu), get_allocator=lambda: gpu.allocator,
            get_current_stream=lambda: gpu.current, alloc_pinned_memory=self._pinned,
            Memory=gpu.reserve, MemoryPointer=lambda memory, offset: memory,
            OutOfMemoryError=OutOfMemoryError, memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError))

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, np.ufunc):
            return partial(self.ufunc, found)
        if name in REDUCTIONS or name in MADE:
            return partial(self._lifted, name, found, name in REDUCTIONS)
        if name in VIEWS:
            return partial(self._viewed, name, found)
        if isinstance(found, type | float | type(None)):
            return found
        raise AttributeError(f"the model of CuPy has no {name!r}")

    def get_default_memory_pool(self) -> Pool:
        return self.gpu.common

    def empty(self, shape: Any, dtype: Any = np.float64) -> Array:
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        block = self.gpu.allocator(nbytes)
        return Array(self, block.chunk.raw[:nbytes].view(kind).reshape(shape), block)

    def zeros(self, shape: Any, dtype: Any = np.float64) -> Array:
        made = self.empty(shape, dtype)
        made.fill(0)
        return made

    def zeros_like(self, x: Array) -> Array:
        return self.zeros(x.shape, x.dtype)

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """An array as it is, or a copy from the host."""
        if isinstance(x, Array):
            return x if dtype is None else x.astype(dtype, copy=False)
        if isinstance(x, list | tuple) and any(isinstance(part, Array) for part in x):
            return self.stack([self.asarray(part) for part in x])  # type: ignore[no-any-return]
        self.refuse("an array is copied from the host")
        host = np.ascontiguousarray(x, dtype=dtype).reshape(np.shape(x))
        self.gpu.current.run()
        made = self.empty(host.shape, host.dtype)
        made.raw[...] = host
        return made

    def array(self, x: Any, dtype: Any = None) -> Array:
        return self.asarray(x, dtype).copy()

    def asnumpy(self, x: Any) -> np.ndarray:
        return x.get() if isinstance(x, Array) else np.asarray(x)

    def broadcast_arrays(self, *arrays: Array) -> list[Array]:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        return [self.broadcast_to(a, shape) for a in arrays]

    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        if len(arrays) > FEW:
            self.refuse("a list of addresses is copied from the host")
        axis %= arrays[0].ndim
        shape, start = list(arrays[0].shape), 0
        shape[axis] = sum(a.shape[axis] for a in arrays)
        out = self.empty(shape, np.result_type(*(a.dtype for a in arrays)))
        for a in arrays:
            start += a.shape[axis]
            out[(*[slice(None)] * axis, slice(start - a.shape[axis], start))] = a
        return out

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return self.concatenate([self.expand_dims(a, axis) for a in arrays], axis)

    def refuse(self, what: str, stream: Stream | None = None) -> None:
        """Raises CuPy's error, which leaves the capture valid, where the stream or this thread's is capturing."""
        if any(s.capture is not None for s in (stream or self.gpu.current, self.gpu.current)):
            raise RuntimeError(f"{what}, which is not allowed: the current stream is capturing")

    def ufunc(self, ufunc: np.ufunc, *inputs: Any, out: Any = None, **settings: Any) -> Array:
        if ufunc is np.matmul and any(x.dtype.kind == "f" for x in inputs) and self.gpu.current.capture is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        return self.compute(ufunc.__name__, partial(ufunc, **settings), *inputs, out=out)

    def _lifted(self, name: str, function: Callable[..., Any], shaped: bool, *args: Any, **settings: Any) -> Array:
        return self.compute(name, partial(function, **settings), *args, shaped=shaped)

    def _viewed(self, name: str, function: Callable[..., Any], x: Array, *args: Any, **settings: Any) -> Array:
        found = function(x.raw, *args, **settings)
        if np.may_share_memory(found, x.raw) or not found.size:
            return x.seen(found)
        return self.compute("copy", lambda raw: function(raw, *args, **settings), x)

    def compute(self, name: str, function: Callable[..., Any], *args: Any, out: Array | None = None,
                probe: Callable[..., Any] | None = None, shaped: bool = False) -> Array:
        """function(memory of the arguments) in new memory, or in `out`. In a capture it runs once on whatever is there,
        to see the result's shape (or `probe` does); its words are not kept."""
        with self.gpu.lock, np.errstate(all="ignore"):
            raws, capturing = [raws_of(a) for a in args], self.gpu.current.capture is not None
            if not capturing:
                self.gpu.current.run()
            result = np.asarray((probe if probe and capturing else function)(*raws))
            target = self._like(result) if out is None else out
            if not target.size:  # CuPy launches nothing
                return target
            raw, facts = target.raw, [a.shape if shaped else a.ndim for a in arrays_in(args)]
            cast: Any = "unsafe" if name == "copy" else "same_kind"
            self.run(name, (lambda: np.copyto(raw, function(*raws), cast)) if capturing
                     else (lambda: np.copyto(raw, result, cast)), args, [target], tuple(facts))
            return target

    def run(self, name: str, work: Callable[[], Any], reads: Sequence[Any], writes: Sequence[Array], facts: Any,
            stream: Stream | None = None) -> None:
        """Runs or records what reads and writes these arrays. `facts` tell kernels apart; None: no kernel."""
        inputs = list(arrays_in(reads))
        types = [str(a.dtype) for a in (*inputs, *writes)]
        touched = [*accesses(inputs, False), *accesses(writes, True)]
        self.gpu.run(name, work, touched, None if facts is None else (name, *types, *facts), stream)

    def _like(self, result: np.ndarray) -> Array:
        """New memory for a result, in the order of axes that its own has."""
        axes = range(result.ndim)
        order = axes if result.flags.c_contiguous else sorted(axes, key=lambda a: -abs(result.strides[a]))
        made = self.empty([result.shape[a] for a in order], result.dtype)
        return made.seen(made.raw.transpose(np.argsort(order)) if result.ndim else made.raw)

    def _pinned(self, size: int) -> Pinned:
        self.refuse("pinned memory is looked for, by events,")
        return Pinned(size)


class Kernel:
    """Stands where a `cupy.RawKernel` stands."""

    def __init__(self, xp: Cupy, kernel: HostKernel):
        self._xp, self._kernel = xp, kernel

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._kernel.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        self._kernel.max_dynamic_shared_size_bytes = size

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        raws, writes = raws_of(tuple(args)), [a for a, w in zip(args, self._kernel.writes, strict=True) if w]
        kernel, gpu = self._kernel, self._xp.gpu

        def work() -> None:
            try:
                kernel(grid, block, raws, shared_mem=shared_mem)
            except AssertionError as error:
                if "trapped" in str(error):
                    gpu.dead = f"cudaErrorLaunchFailure: {error}"
                    raise CUDARuntimeError(gpu.dead) from error
                raise

        self._xp.run(kernel.name, work, args, writes, ())


