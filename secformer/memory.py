"""Memory of a process that computes: kept rather than given back."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
KEPT = 1 << 30  # bytes of free memory at the heap's end, and of one array, that stay in the heap


def keep_memory() -> None:
    """Asks the C library to keep freed memory instead of giving it back: a request's arrays are as large as the last
    one's, and fetching their pages anew costs as much as moving them. Does nothing where the library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, KEPT), (M_TRIM_THRESHOLD, KEPT)):
        mallopt(parameter, value)
