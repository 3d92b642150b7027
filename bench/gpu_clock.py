"""Time on a device, and the device's ceilings: large copies, and long runs of operations in registers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from secformer.mpc.kernels.cuda.device import OPTIONS, header
from secformer.mpc.recording import RELAXED

CHAINS, THREADS = 8, 256  # as in peaks.cu
ROUNDS = 2000
RECORDED = 100    # runs in a graph
COPIED = 1 << 30  # bytes: many times any cache
PEAKS = {  # kernel: (operations per thread, chain and round; what the result holds; what is counted)
    "peak_bytes": (16 * 8 * 32 / 32, np.uint32, "multiply-adds of bytes on tensor cores (mma.sync)"),
    "peak_words": (1, np.uint64, "multiply-adds of 64-bit words"),
    "peak_numbers": (3, np.uint32, "32-bit additions, exclusive ors and rotations"),
    "peak_doubles": (2, np.float64, "float64 additions and multiplications, not fused"),
}


class DeviceClock:
    """Seconds between events in the current stream: the device's time, without Python's time to queue the work. Where
    many runs can be recorded as one graph, they are: else small kernels would be timed as fast as Python launches."""

    def __init__(self, cupy: Any):
        self._cuda = cupy.cuda

    def seconds(self, run: Callable[[], Any], *, least: float = 0.02, repeat: int = 5) -> float:
        """Seconds per run: the median of `repeat` timings, each of as many runs as take `least` seconds together."""
        run()
        once = self._timed(run, 1)
        together = max(1, min(RECORDED, int(least / max(once, 1e-6))))
        if (graph := self._recorded(run, together)) is not None:
            graph.launch()
            return median(self._timed(graph.launch, 2) / (2 * together) for _ in range(repeat))
        runs = 1
        while (spent := self._timed(run, runs)) < least and runs < 1 << 16:
            runs = max(2 * runs, int(runs * least / max(spent, 1e-6)) + 1)
        return median(self._timed(run, runs) / runs for _ in range(repeat))

    def _recorded(self, run: Callable[[], Any], runs: int) -> Any:
        """A graph of so many runs; None where something in them cannot be recorded."""
        stream, before = self._cuda.Stream(non_blocking=True), self._cuda.get_current_stream()
        before.synchronize()
        try:
            with stream:
                stream.begin_capture(RELAXED)
                try:
                    for _ in range(runs):
                        run()
                finally:
                    graph = stream.end_capture()
                return graph
        except Exception:  # cuBLAS, or a copy from the host
            return None

    def _timed(self, run: Callable[[], Any], runs: int) -> float:
        start, stop = self._cuda.Event(), self._cuda.Event()
        start.record()
        for _ in range(runs):
            run()
        stop.record()
        stop.synchronize()
        return float(self._cuda.get_elapsed_time(start, stop)) / 1e3


class HostClock:
    """Wall time, to try the bench on a machine without a device."""

    def seconds(self, run: Callable[[], Any], *, least: float = 0.0, repeat: int = 1) -> float:
        started = time.perf_counter()
        run()
        return max(time.perf_counter() - started, 1e-9)


def peaks_source() -> str:
    return "\n".join([header("common.cuh"), header("tensor.cuh"), (Path(__file__).parent / "peaks.cu").read_text()])


def peaks(cupy: Any, clock: DeviceClock, capability: int) -> dict[str, float]:
    """Measured ceilings: bytes per second of a large copy (read and written), and operations per second by kind."""
    source, target = (cupy.empty(COPIED, dtype=np.uint8) for _ in range(2))
    source.fill(1)
    found = {"memory": 2 * source.size / clock.seconds(lambda: cupy.copyto(target, source))}
    module = cupy.RawModule(code=peaks_source(), options=OPTIONS)
    blocks = 8 * cupy.cuda.Device().attributes["MultiProcessorCount"]
    for name, (each, dtype, _) in PEAKS.items():
        if name == "peak_bytes" and capability < 80:
            continue
        kernel, out = module.get_function(name), cupy.empty(blocks * THREADS, dtype=dtype)
        spent = clock.seconds(lambda k=kernel, o=out: k((blocks,), (THREADS,), (np.int32(ROUNDS), o)))
        found[name.removeprefix("peak_")] = blocks * THREADS * CHAINS * ROUNDS * each / spent
    return found
