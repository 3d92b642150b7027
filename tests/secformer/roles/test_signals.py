"""How a server's process ends: SIGINT and SIGTERM end it in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from secformer.roles import signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts back what the process had."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    interval = sys.getswitchinterval()
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_ends_with_a_signal(number: signal.Signals) -> None:
    threading.Timer(0.2, signal.raise_signal, (number,)).start()
    signals.wait_for_signal()


def test_a_hang_up_ends_nothing_and_waiting_tends() -> None:
    tended = threading.Event()

    def tend() -> None:
        if not tended.is_set():
            tended.set()
            signal.raise_signal(signal.SIGHUP)
            threading.Timer(0.2, signal.raise_signal, (signal.SIGTERM,)).start()

    signals.wait_for_signal(tend)
    assert tended.is_set()


def test_a_term_is_an_interrupt() -> None:
    signals.term_is_interrupt()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_threads_take_turns_often() -> None:
    signals.share_the_interpreter()
    assert sys.getswitchinterval() == pytest.approx(signals.SWITCH)
