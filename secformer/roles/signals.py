"""How a server's process behaves: SIGINT and SIGTERM end it in order, and its threads take turns quickly."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from types import FrameType

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
KEPT = 1 << 30  # bytes of free memory at the heap's end, and of one array, that stay in the heap
SWITCH = 5e-4  # seconds that a thread may hold the interpreter while others wait (Python's default: ten times that)


def share_the_interpreter() -> None:
    """Threads that encrypt and decrypt must not wait long for the one that computes, nor it for them."""
    sys.setswitchinterval(SWITCH)


def keep_memory() -> None:
    """Asks the C library to keep freed memory instead of giving it back: a request's arrays are as large as the last
    one's, and fetching their pages anew costs as much as moving them. Does nothing where the library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, KEPT), (M_TRIM_THRESHOLD, KEPT)):
        mallopt(parameter, value)


def wait_for_signal() -> None:
    """Returns when the process is asked to end. Main thread only."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    while not asked.wait(0.5):  # a wait without end would not be woken by a signal everywhere
        pass


def term_is_interrupt() -> None:
    """Makes SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that `finally` runs. Main thread only."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
