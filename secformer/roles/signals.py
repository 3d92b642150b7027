"""Ending servers in order: SIGINT and SIGTERM mean the same."""

from __future__ import annotations

import signal
import threading
from types import FrameType


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
