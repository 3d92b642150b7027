"""The model of a GPU that captures graphs shows mistakes: missing events, memory that others use."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from gpu_lab import Gpu
from graph_lab import Cupy
from model_lab import SPOILT, N, capturing, joined, warmed, words


@pytest.fixture
def xp() -> Any:
    return Cupy(Gpu())


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
            other = joined(xp)
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
    with pytest.raises(xp.cuda.OutOfMemoryError, match=r"allocating 1,536 bytes \(allocated so far: 2,560 bytes\)"):
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


@pytest.mark.parametrize("careful", [False, True])
def test_a_pool_that_is_full_gives_up_what_graphs_use(careful: bool) -> None:
    """Unless its allocator raises an error that the pool does not know."""
    xp: Any = Cupy(Gpu(memory=4096))

    def allocator(size: int) -> Any:
        try:
            return xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0)
        except xp.cuda.runtime.CUDARuntimeError as error:
            raise MemoryError("nothing is given up") from error

    x = warmed(xp)
    pool = xp.cuda.MemoryPool(*[allocator] * careful)
    with xp.cuda.using_allocator(pool.malloc), capturing(xp) as stream:
        y = (x + x) + x
        graph = stream.end_capture()
        graph.launch(stream)
        assert y.get(stream=stream)[1] == 3
        with pytest.raises(MemoryError):
            xp.empty(4096, dtype=np.uint8)
    graph.launch(stream)
    with nullcontext() if careful else pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        stream.synchronize()
