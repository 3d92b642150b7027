"""The model of a GPU that captures graphs: what it refuses, and which mistakes it shows."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from gpu_lab import POISON, Gpu
from graph_lab import Cupy, graph_device

N = 64
SPOILT = np.uint64(POISON * 0x0101010101010101)


@pytest.fixture
def xp() -> Any:
    return Cupy(Gpu())


@contextmanager
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def capturing(xp: Any) -> Iterator[Any]:
    """A stream that captures and is current; whoever uses it ends the capture."""
    with without_collector(), xp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture(xp.cuda.runtime.streamCaptureModeRelaxed)
        yield stream


def words(xp: Any, *values: int) -> Any:
    return xp.asarray(np.array(values or range(N), dtype=np.uint64))


# ---- replays ---------------------------------------------------------------------------------------------------------


def program(xp: Any, x: Any, at: Any) -> Any:
    """Temporaries, views, index arrays, writes in place, a reduction, narrow types, a transposed result."""
    y = (x + np.uint64(3)) * x
    y[1::2] ^= np.uint64(5)
    picked = y[at]
    picked[at[:2]] = np.uint64(9)
    total = picked.reshape(8, -1).sum(axis=1, dtype=np.uint64)
    wide = xp.where(total > np.uint64(100), total, xp.zeros(8, dtype=np.uint64)).astype(np.float64) * 0.5
    return xp.concatenate([(wide[:, None] + xp.arange(8)).T.reshape(-1), y.view(np.uint8).astype(np.float64)])


def test_a_replay_computes_from_what_its_input_buffer_holds_then(xp: Any) -> None:
    rng = np.random.default_rng(3)
    x, at = words(xp), xp.asarray(rng.permutation(N))
    pool = xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc), capturing(xp) as stream:
        with pytest.raises(RuntimeError, match="compiled while capturing"):
            program(xp, x, at)
        with pytest.raises(RuntimeError, match="StreamCaptureInvalidated"):
            stream.end_capture()
        program(xp, x, at)
        stream.begin_capture()
        out = program(xp, x, at)
        assert (out.raw.view(np.uint64) == SPOILT).all()  # nothing has run
        graph = stream.end_capture()
    assert graph.operations["add"] == 2 and graph.operations["take"] == 1 and graph.operations.total() == 17
    assert graph.races() == []
    for _ in range(4):
        given = rng.integers(0, 50, N, dtype=np.uint64)
        x.set(given, stream=stream)
        graph.launch(stream)
        got = out.get(stream=stream)
        index = at.get()
        expected = program(np, given.copy(), index)
        np.testing.assert_array_equal(got, expected)
    assert graph.launches == 4 and pool.used_bytes() > 0 == xp.gpu.graphs.index(graph)


def test_a_launch_runs_when_its_stream_is_waited_for(xp: Any) -> None:
    x = words(xp)
    _ = x + x
    with capturing(xp) as stream:
        y = x + x
        graph = stream.end_capture()
    graph.launch(stream)
    assert (y.get() == SPOILT).all()  # another stream's: not there yet
    stream.synchronize()
    assert y.get().tolist() == list(range(0, 2 * N, 2))


def test_numbers_are_baked_in(xp: Any) -> None:
    x, three = words(xp), np.uint64(3)
    _ = x * three
    with capturing(xp) as stream:
        y = x * three
        graph = stream.end_capture()
    three = np.uint64(4)
    graph.launch()
    assert y.get()[2] == 6 and three == 4


# ---- refusals --------------------------------------------------------------------------------------------------------

HOST = np.arange(4)
LENIENT: dict[str, tuple[Callable[[Any, Any], Any], type[Exception], str]] = {  # CuPy refuses; the capture goes on
    "asarray": (lambda xp, x: xp.asarray(HOST), RuntimeError, "copied from the host.*is capturing"),
    "list": (lambda xp, x: xp.asarray([1, 2]), RuntimeError, "copied from the host"),
    "set": (lambda xp, x: x.set(np.arange(N, dtype=np.uint64)), RuntimeError, "set from the host"),
    "index array": (lambda xp, x: x[HOST], RuntimeError, "copied from the host"),
    "index list": (lambda xp, x: x[[1, 2]], RuntimeError, "copied from the host"),
    "write": (lambda xp, x: x.__setitem__(slice(0, 4), HOST.astype(np.uint64)), RuntimeError, "copied from the host"),
    "get": (lambda xp, x: x.get(), RuntimeError, "copied to the host.*is capturing"),
    "asnumpy": (lambda xp, x: xp.asnumpy(x), RuntimeError, "copied to the host"),
    "bool": (lambda xp, x: bool(x[0]), RuntimeError, "copied to the host"),
    "int": (lambda xp, x: int(x[0]), RuntimeError, "copied to the host"),
    "mask": (lambda xp, x: x[x > np.uint64(5)], RuntimeError, "counted on the host"),
    "pinned": (lambda xp, x: xp.cuda.alloc_pinned_memory(8), RuntimeError, "pinned"),
    "cublas": (lambda xp, x: xp.matmul(x.view(np.float64)[None], x.view(np.float64)[:, None]), NotImplementedError,
               "cuBLAS"),
    "numpy operand": (lambda xp, x: x + np.arange(N, dtype=np.uint64), TypeError, "Unsupported type"),
    "numpy function": (lambda xp, x: np.asarray(x), TypeError, "Implicit conversion"),
}
FATAL: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {  # the driver refuses; the capture is lost
    "event query": (lambda xp, x, e: e.done, "cudaErrorStreamCaptureUnsupported: cudaEventQuery"),
    "own event": (lambda xp, x, e: (e.record(), e.done), "cudaErrorCapturedEvent: cudaEventQuery"),
    "event": (lambda xp, x, e: (e.record(), e.synchronize()), "cudaErrorCapturedEvent: cudaEventSynchronize"),
    "stream": (lambda xp, x, e: xp.cuda.get_current_stream().synchronize(), "Unsupported: cudaStreamSynchronize"),
    "wait": (lambda xp, x, e: xp.cuda.get_current_stream().wait_event(e), "cudaErrorStreamCaptureIsolation"),
    "again": (lambda xp, x, e: xp.cuda.get_current_stream().begin_capture(), "cudaStreamBeginCapture"),
    "kernel": (lambda xp, x, e: x - x, "compiled while capturing"),
    "reduction": (lambda xp, x, e: x[:5].sum(), "compiled while capturing"),
    "other end": (lambda xp, x, e: _joined(xp).end_capture(), "cudaErrorStreamCaptureUnmatched"),
    "collector": (lambda xp, x, e: (gc.enable(), x + x), "garbage collector"),
}


def _joined(xp: Any) -> Any:
    event, other = xp.cuda.Event(), xp.cuda.Stream(non_blocking=True)
    event.record()
    other.wait_event(event)
    return other


def warmed(xp: Any) -> Any:
    x = words(xp)
    _ = x + x, x + np.uint64(1), x > np.uint64(5), x[:6].sum()
    return x


@pytest.mark.parametrize("name", LENIENT)
def test_what_cupy_refuses_in_a_capture(xp: Any, name: str) -> None:
    action, error, match = LENIENT[name]
    x = warmed(xp)
    with capturing(xp) as stream:
        with pytest.raises(error, match=match):
            action(xp, x)
        assert stream.is_capturing()
        y = x + x
        graph = stream.end_capture()
    graph.launch()
    assert y.get()[2] == 4
    if error is RuntimeError:
        action(xp, x)  # allowed outside


@pytest.mark.parametrize("name", FATAL)
def test_what_makes_a_capture_invalid(xp: Any, name: str) -> None:
    action, match = FATAL[name]
    x, event = warmed(xp), xp.cuda.Event(block=False, disable_timing=True)
    event.record()
    with capturing(xp) as stream:
        with pytest.raises(RuntimeError, match=match):
            action(xp, x, event)
        with pytest.raises(RuntimeError, match="invalidated"):
            stream.is_capturing()
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing() and not xp.gpu.graphs
    stream.synchronize()  # the stream is an ordinary one again
    event.record(stream)
    assert event.done


def test_the_streams_of_a_capture_must_join(xp: Any) -> None:
    x = warmed(xp)
    with capturing(xp) as stream:
        with _joined(xp) as other:
            _ = x + x
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnjoined"):
            stream.end_capture()
        assert not other.is_capturing()
    with pytest.raises(RuntimeError, match="not capturing"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        xp.gpu.null.begin_capture()


# ---- what goes wrong between streams ---------------------------------------------------------------------------------


def relay(seed: int, waits: bool) -> tuple[Any, Any]:
    """One stream makes words, another takes them: captured, with or without the event between them."""
    xp: Any = Cupy(Gpu(seed))
    x = warmed(xp)
    with capturing(xp) as origin:
        fork, made, end = (xp.cuda.Event() for _ in range(3))
        fork.record()
        other = xp.cuda.Stream(non_blocking=True)
        other.wait_event(fork)
        y = x + x
        made.record()
        with other:
            if waits:
                other.wait_event(made)
            z = y + y
            end.record()
        origin.wait_event(end)
        graph = origin.end_capture()
    graph.launch(origin)
    return graph, z.get(stream=origin)[3]


def test_a_missing_event_shows() -> None:
    assert {int(relay(seed, True)[1]) for seed in range(20)} == {12}
    assert len({int(relay(seed, False)[1]) for seed in range(20)}) == 2
    assert not relay(0, True)[0].races() and relay(0, False)[0].races() == ["add of stream 2, add of 3"]


@pytest.mark.parametrize("held", [True, False])
def test_memory_that_its_stream_gives_out_again_shows(held: bool) -> None:
    """A receiver copies a message that its sender has let go of: right only while somebody holds it."""
    answers, races = set(), []
    for seed in range(20):
        xp: Any = Cupy(Gpu(seed))
        x, holder = warmed(xp), []
        with capturing(xp) as origin:
            other = _joined(xp)
            message = x + x
            made, end = xp.cuda.Event(), xp.cuda.Event()
            made.record()
            with other:
                other.wait_event(made)
                own = xp.empty(N, dtype=np.uint64)
                own.data.copy_from_device_async(message.data, own.nbytes, other)
                end.record()
            holder += [message] if held else []
            del message
            later = x + np.uint64(100)
            origin.wait_event(end)
            graph = origin.end_capture()
        graph.launch(origin)
        answers.add(int(own.get(stream=origin)[3]))
        races += graph.races()
        assert later.get()[3] == 103
    assert (answers == {6}) is held
    assert (races == []) is held


# ---- memory between replays ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("common", [True, False])
def test_memory_of_the_common_pool_is_others_between_replays(xp: Any, common: bool) -> None:
    x = warmed(xp)
    pool = xp.gpu.common if common else xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc), capturing(xp) as stream:
        z = (x + x) + x
        graph = stream.end_capture()
    with stream:
        bystander = xp.zeros(N, dtype=np.uint64)
    graph.launch(stream)
    assert z.get(stream=stream)[2] == 6
    assert bystander.get()[2] == (4 if common else 0)


def test_what_a_graph_reads_must_live(xp: Any) -> None:
    x = warmed(xp)
    constant = words(xp, *([7] * N))
    with capturing(xp) as stream:
        y = x + constant
        graph = stream.end_capture()
    for expected in (9, int(SPOILT) + 2):
        graph.launch(stream)
        assert y.get(stream=stream)[2] == expected
        constant = None


def test_a_pool_must_live_as_long_as_its_graphs(xp: Any) -> None:
    x = warmed(xp)
    pool = xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc), capturing(xp) as stream:
        y = (x + x) + x
        graph = stream.end_capture()
    assert (pool.used_bytes(), pool.total_bytes()) == (512, 1024)
    graph.launch(stream)
    stream.synchronize()
    pool.free_all_blocks()
    graph.launch(stream)
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        stream.synchronize()
    assert y.get()[1] == 3 and pool.total_bytes() == 512


def test_a_device_is_full() -> None:
    xp: Any = Cupy(Gpu(memory=2048))
    held = xp.empty(1024, dtype=np.uint8)
    xp.empty(512, dtype=np.uint8)
    assert xp.empty(1024, dtype=np.uint8).size == 1024  # free memory of another size is given up first
    with pytest.raises(xp.cuda.OutOfMemoryError, match=r"allocating 1,536 bytes \(allocated so far: 1,024 bytes\)"):
        xp.empty(1100, dtype=np.uint8)
    assert held.nbytes == xp.gpu.common.used_bytes()


def test_pinned_memory_is_read_when_the_device_comes_to_it(xp: Any) -> None:
    x, stream = xp.empty(8, dtype=np.uint8), xp.cuda.Stream(non_blocking=True)
    host = np.frombuffer(xp.cuda.alloc_pinned_memory(16), dtype=np.uint8)
    x.set(host[8:], stream=stream)
    host[:] = 5
    assert x.get(stream=stream).tolist() == [5] * 8
    x.get(stream=stream, out=host[:8], blocking=False)
    x.set(np.full(8, 6, dtype=np.uint8), stream=stream)
    assert x.get(stream=stream)[0] == 6
    x.set(host[8:], stream=stream)
    del host
    with pytest.raises(RuntimeError, match="pinned memory was freed"):
        stream.synchronize()


# ---- kernels, and threads --------------------------------------------------------------------------------------------


def test_three_threads_capture_kernels_into_one_graph(host_modules: HostModules) -> None:
    xp, kernels, _ = graph_device(host_modules, seed=2)
    streams = [xp.cuda.Stream(non_blocking=True) for _ in range(3)]
    seeds, x = [bytes([i]) * 32 for i in range(3)], words(xp)
    outs: dict[int, Any] = {}

    def role(i: int, fork: Any, ends: list[Any]) -> None:
        with streams[i]:
            if fork is not None:
                streams[i].wait_event(fork)
            for _ in range(5):
                outs[i] = kernels.masked(seeds[i], 0, x, 64) + kernels.uniform(seeds[i], 1, N, 20)
            ends[i].record()

    def all_roles(fork: Any) -> list[Any]:
        ends = [xp.cuda.Event() for _ in streams]
        threads = [threading.Thread(target=role, args=(i, fork, ends)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ends

    all_roles(None)
    expected = [outs[i].get(stream=streams[i]) for i in range(3)]
    with capturing(xp) as origin:
        fork = xp.cuda.Event()
        fork.record()
        for end in all_roles(fork):
            origin.wait_event(end)
        graph = origin.end_capture()
    assert graph.operations == {"masked": 15, "uniform": 15, "add": 15} and not graph.races()
    assert all((outs[i].raw == SPOILT).all() for i in range(3))
    graph.launch(origin)
    origin.synchronize()
    for i in range(3):
        np.testing.assert_array_equal(outs[i].get(), expected[i])
