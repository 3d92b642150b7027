"""Memory of a process that computes: the C library keeps it instead of returning it to the system."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt's numbers for its parameters, from malloc.h
KEPT = 1 << 30  # bytes: free memory at the end of the heap up to this size is kept, arrays up to it lie in the heap


def keep_memory() -> None:
    """Asks the C library to keep freed memory. The arrays of a request are as large as those of the request before, and
    getting new pages for them costs as much as moving them. Does nothing if the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, KEPT), (M_TRIM_THRESHOLD, KEPT)):
        mallopt(parameter, value)
