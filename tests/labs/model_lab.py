"""What the tests of the model of a GPU share (`graph_lab`): words on it, captures, streams that join one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gpu_lab import POISON

N = 64
SPOILT = np.uint64(POISON * 0x0101010101010101)


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


def joined(xp: Any) -> Any:
    """A stream that has joined this thread's capture."""
    event, other = xp.cuda.Event(), xp.cuda.Stream(non_blocking=True)
    event.record()
    other.wait_event(event)
    return other


def warmed(xp: Any) -> Any:
    """Words, after the first use of what captures do with them."""
    x = words(xp)
    _ = x + x, x + np.uint64(1), x > np.uint64(5), x[:6].sum()
    return x
