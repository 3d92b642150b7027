"""The behaviour of a server process: SIGINT and SIGTERM end it in order, and its threads take turns quickly."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

SWITCH = 5e-4  # seconds that a thread may hold the interpreter while others wait; Python's default is 5e-3


def share_the_interpreter() -> None:
    """Makes threads take turns more often: those that encrypt and the one that computes must not wait long."""
    sys.setswitchinterval(SWITCH)


def wait_for_signal(tend: Callable[[], None] = lambda: None) -> None:
    """Returns when SIGINT or SIGTERM comes. Until then, calls `tend` twice a second; SIGHUP asks for no more than
    that. Main thread only."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    while not asked.wait(0.5):  # on some systems a signal does not interrupt an endless wait
        tend()


def term_is_interrupt() -> None:
    """Makes SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that `finally` blocks run. Main thread only."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
