"""Messages between streams: whoever runs late, a receiver sees what the sender sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stream_lab import Array, Cuda

from secformer.mpc.backend import Backend, CupyBackend, DeviceMessage
from secformer.mpc.net.channel import local_pair
from secformer.mpc.net.wire import Tag

SIZE = 16
ONCE = Tag(0, "test", 8, SIZE)


def made(xp: Any, value: int) -> Array:
    array: Array = xp.empty(SIZE, dtype=np.uint8)
    array.fill(value)
    return array


def kept(xp: Any, backend: CupyBackend, message: Any) -> Array:
    """What a party makes of a message in its own stream: here a copy."""
    own: Array = xp.empty(message.size, dtype=np.uint8)
    with backend.reading(message) as payload:
        if message.size:
            own.data.copy_from_device_async(payload, message.size, xp.current)
    return own


def exchanged(xp: Cuda, backend: CupyBackend, count: int) -> list[np.ndarray]:
    """Party 0 sends payloads of 1, 2, ... and forgets each at once; party 1 takes them and reads all at the end."""
    near, far = local_pair("a", "b")
    lanes = backend.lane(), backend.lane()
    with lanes[1]:
        received = []
        for value in range(1, count + 1):
            with lanes[0]._stream:  # type: ignore[attr-defined]  # party 0's thread, whose lane stays open
                near.send(ONCE, backend.outgoing(made(xp, value)))
            received.append(kept(xp, backend, far.receive(ONCE, SIZE)))
            with lanes[0]._stream:  # type: ignore[attr-defined]
                for _ in range(3):
                    made(xp, 99)  # party 0 goes on, and its pool gives memory out again
                xp.current.synchronize()  # it may be far ahead of party 1
        return [backend.to_host(r) for r in received]


def test_a_late_reader_sees_what_was_sent() -> None:
    xp = Cuda()
    got = exchanged(xp, CupyBackend(xp), 4)  # type: ignore[arg-type]
    assert [g.tolist() for g in got] == [[v] * SIZE for v in (1, 2, 3, 4)]


def test_the_model_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hold on messages, or without their event, the same exchange goes wrong."""
    expected = [[v] * SIZE for v in (1, 2, 3, 4)]
    with monkeypatch.context() as patch:
        patch.setattr(CupyBackend, "_hold", lambda self, message: None)
        xp = Cuda()
        assert [g.tolist() for g in exchanged(xp, CupyBackend(xp), 4)] != expected  # type: ignore[arg-type]
    xp = Cuda()
    backend = CupyBackend(xp)  # type: ignore[arg-type]
    with monkeypatch.context() as patch, backend.lane():
        patch.setattr("stream_lab.Stream.wait_event", lambda self, event: None)
        sender = backend.lane()
        with sender._stream:  # type: ignore[attr-defined]
            message = backend.outgoing(made(xp, 7))
        assert backend.to_host(kept(xp, backend, message)).tolist() != [7] * SIZE


def test_what_was_read_is_let_go_of() -> None:
    xp = Cuda()
    backend = CupyBackend(xp)  # type: ignore[arg-type]
    lane = backend.lane()
    with lane:
        for value in range(5):
            kept(xp, backend, DeviceMessage(backend, made(xp, value), backend.mark(), xp.current))
        assert len(backend._read) == 5  # nothing has run yet
    assert not backend._read


def test_to_and_from_a_socket() -> None:
    """A channel that needs bytes asks the message for them; what comes from the host is copied behind what was queued,
    and the host's buffer lives until then."""
    xp = Cuda()
    backend = CupyBackend(xp)  # type: ignore[arg-type]
    with backend.lane():
        host = backend.outgoing(made(xp, 3)).get()
        assert host.tolist() == [3] * SIZE
        buffer = backend.buffer(SIZE)
        buffer[:] = 8
        on_device = kept(xp, backend, buffer)
        assert any(message is buffer for _, message in backend._read)
        assert backend.to_host(on_device).tolist() == [8] * SIZE
    assert backend.outgoing(xp.empty(0, dtype=np.uint8)).get().size == 0
    assert kept(xp, backend, backend.buffer(0)).size == 0


def test_errors_leave_a_lane() -> None:
    xp = Cuda()
    backend = CupyBackend(xp)  # type: ignore[arg-type]
    before = xp.current
    with pytest.raises(ZeroDivisionError), backend.lane():
        raise ZeroDivisionError
    assert xp.current is before


def test_on_the_host_messages_are_arrays() -> None:
    backend = Backend("numpy", np, 1)
    x = np.arange(5, dtype=np.uint8)
    with backend.lane(), backend.lane(), backend.reading(backend.outgoing(x)) as got:
        assert got is x
    assert backend.buffer(7).shape == (7,)
