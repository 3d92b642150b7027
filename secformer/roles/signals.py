"""How a server's process behaves: SIGINT and SIGTERM end it in order, and its threads take turns quickly."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

SWITCH = 5e-4  # seconds that a thread may hold the interpreter while others wait (Python's default: ten times that)


def share_the_interpreter() -> None:
    """Threads that encrypt and decrypt must not wait long for the one that computes, nor it for them."""
    sys.setswitchinterval(SWITCH)


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
