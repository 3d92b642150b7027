"""The model of a GPU that captures graphs: what it refuses, and which mistakes it shows."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from gpu_lab import Gpu
from graph_lab import Cupy, graph_device
from model_lab import SPOILT, N, capturing, joined, warmed, words

from secformer.mpc.kernels.words import Mask


@pytest.fixture
def xp() -> Any:
    return Cupy(Gpu())


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
    assert graph.operations["add"] == 2 and graph.operations["take"] == 1 and graph.operations.total() == 18
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
    "many joined": (lambda xp, x: xp.concatenate([x] * 9), RuntimeError, "list of addresses"),
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
    "other end": (lambda xp, x, e: joined(xp).end_capture(), "cudaErrorStreamCaptureUnmatched"),
    "collector": (lambda xp, x, e: (gc.enable(), x + x), "garbage collector"),
}


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
        with joined(xp) as other:
            _ = x + x
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnjoined"):
            stream.end_capture()
        assert not other.is_capturing()
    with pytest.raises(RuntimeError, match="not capturing"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        xp.gpu.null.begin_capture()


# ---- kernels, and threads --------------------------------------------------------------------------------------------


def test_three_threads_capture_kernels_into_one_graph(host_modules: HostModules) -> None:
    xp, kernels, _ = graph_device(host_modules, seed=2)
    streams = [xp.cuda.Stream(non_blocking=True) for _ in range(3)]
    seeds = [bytes([i]) * 32 for i in range(3)]
    outs: dict[int, Any] = {}

    def role(i: int, fork: Any, ends: list[Any]) -> None:
        with streams[i]:
            if fork is not None:
                streams[i].wait_event(fork)
            for _ in range(5):
                (found,) = kernels.combined([(seeds[i], seeds[i - 1])], [Mask(N, 64)])
                outs[i] = found + kernels.uniform(seeds[i], 1, N, 20)
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
    assert graph.operations == {"combined": 15, "uniform": 15, "add": 15} and not graph.races()
    assert all((outs[i].raw == SPOILT).all() for i in range(3))
    graph.launch(origin)
    origin.synchronize()
    for i in range(3):
        np.testing.assert_array_equal(outs[i].get(), expected[i])


def test_a_kernel_that_traps_ends_everything(host_modules: HostModules) -> None:
    xp, kernels, _ = graph_device(host_modules)
    table, last, x = xp.zeros((1, 4), dtype=np.uint64), words(xp, 1), words(xp)
    table.fill(2)
    kernels.claim_keys(table, last)
    assert last.get() == 2
    with pytest.raises(RuntimeError, match=r"cudaErrorLaunchFailure: claim_keys.*trapped"):
        kernels.claim_keys(table, last)
    with pytest.raises(RuntimeError, match="cudaErrorLaunchFailure"):
        _ = x + x
