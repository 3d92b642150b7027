"""Live runs before stored ones: whoever makes material ahead waits, but not for ever, and has places of its own."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from secformer.mpc.dealer.names import LIVE, STORED
from secformer.mpc.errors import Desync
from secformer.mpc.net.channel import local_pair
from secformer.mpc.net.wire import Tag
from secformer.roles import precedence as module
from secformer.roles.precedence import Precedence, Streams

TAG = Tag(0, "words", 8, 8)


class Waiting:
    """Somebody who gives way, in a thread."""

    def __init__(self, precedence: Precedence, patience: float):
        self.over = threading.Event()
        threading.Thread(target=self._wait, args=(precedence, patience), daemon=True).start()

    def _wait(self, precedence: Precedence, patience: float) -> None:
        precedence.give_way(patience)
        self.over.set()


def test_all_live_runs_must_have_ended() -> None:
    precedence = Precedence()
    precedence.give_way(60)
    first, second = precedence.begin(), precedence.begin()
    waiting = Waiting(precedence, 60)
    first()
    first()  # a run ends once, however often it says so
    assert not waiting.over.wait(0.2)
    second()
    assert waiting.over.wait(30)


def test_patience_ends() -> None:
    precedence = Precedence()
    precedence.begin()
    assert Waiting(precedence, 0.05).over.wait(30)


def test_stored_runs_have_places_of_their_own() -> None:
    streams, (channel, _) = Streams(2, 0.05), local_pair("a", "b")
    with ExitStack() as stack:
        stack.enter_context(streams.place(STORED, channel))
        with pytest.raises(Desync, match="serves as many requests as it may"):
            stack.enter_context(streams.place(STORED, channel))
        for _ in range(2):
            assert stack.enter_context(streams.place(LIVE, channel)) is channel
        with pytest.raises(Desync, match="try again later"):
            stack.enter_context(streams.place(LIVE, channel))
    for space in (LIVE, LIVE, STORED):  # all places are free again
        with streams.place(space, channel):
            pass


def test_one_place_for_live_runs_leaves_one_for_stored_ones() -> None:
    streams, (channel, _) = Streams(1, 0.05), local_pair("a", "b")
    with streams.place(STORED, channel), streams.place(LIVE, channel):
        pass


def test_a_stored_run_waits_before_each_message_while_a_live_one_is_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Precedence.give_way, "__defaults__", (60.0,))
    streams, (near, far) = Streams(2, 5.0), local_pair("a", "b")
    sent = threading.Event()

    def store() -> None:
        with streams.place(STORED, near) as out:
            out.send(TAG, np.zeros(8, np.uint8))
        sent.set()

    with pytest.raises(ZeroDivisionError), streams.place(LIVE, near) as live:
        threading.Thread(target=store, daemon=True).start()
        live.send(TAG, np.ones(8, np.uint8))
        time.sleep(0.2)
        assert not sent.is_set()
        raise ZeroDivisionError  # a live run that fails has ended, too
    assert sent.wait(30)
    assert [int(far.receive(TAG, 8)[0]) for _ in range(2)] == [1, 0]
