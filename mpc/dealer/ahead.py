"""Corrections read ahead: while the engine computes, a thread receives, decrypts or checks what it will need next."""

from __future__ import annotations

import threading
from typing import Any

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import ProtocolError, SecformerError
from secformer.mpc.net.channel import Buffer, Channel, local_pair
from secformer.mpc.net.wire import Tag

AHEAD = 1 << 29  # bytes of corrections, or one message, that are held


def read_ahead(corrections: Channel, plan: Plan) -> Channel:
    """A channel with the corrections of one run of a plan, taken from another channel as fast as they come, a bounded
    number of bytes ahead. Closing it ends the reading and closes the other."""
    near, far = local_pair(corrections.peer, "this party", capacity=AHEAD, deadline=corrections.deadline)

    def read() -> None:
        try:
            for tag, nbytes in plan.corrections():
                near.send(tag, corrections.receive(tag, nbytes))
            near.close()
        except (SecformerError, OSError) as error:  # told to whoever waits for the next correction
            near.abort(str(error))
        finally:
            corrections.close()

    threading.Thread(target=read, name=f"from {corrections.peer}", daemon=True).start()
    return _Ahead(far, corrections)


class _Ahead(Channel):
    """The reader's end of the queue. Closing it, early or late, ends the thread that fills it."""

    def __init__(self, queue: Channel, source: Channel):
        self._queue, self._source = queue, source
        super().__init__(queue.peer, queue.deadline)

    @property
    def buffer(self) -> Buffer:
        """What the other channel is read into: this one passes it on."""
        return self._source.buffer

    @buffer.setter
    def buffer(self, buffer: Buffer) -> None:
        self._source.buffer = buffer

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self._queue.receive(tag, nbytes)

    def send(self, tag: Tag, payload: Any) -> None:
        raise ProtocolError("corrections are only read")

    def abort(self, reason: str) -> None:
        self._queue.abort(reason)

    def close(self) -> None:
        self._queue.abort("the run has ended")
