"""The behaviour of a server process: SIGINT and SIGTERM end it in order, so does the
end of its supervisor, and its threads take turns quickly."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

ENDING = 30.0  # seconds in which a process must end whose supervisor has ended
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


def end_with_input() -> None:
    """Ends this process in order once its standard input has ended: whoever started it holds the other end, and is gone
    then, however that ended. If this process does not end within `ENDING` seconds, it is cut off."""
    def watch() -> None:
        while os.read(0, 1 << 10):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ENDING)
        os._exit(1)

    threading.Thread(target=watch, name="until the supervisor ends", daemon=True).start()


def term_is_interrupt() -> None:
    """Makes SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that `finally` blocks run. Main thread only."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
