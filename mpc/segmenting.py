"""The recording of one role's run as CUDA graphs: a graph for each segment between two messages that it sends.

Nothing is sent or received meanwhile. Payloads go into fixed places on the GPU, and what will be received is read from
such places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secformer.mpc.errors import ProtocolError
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.wire import Tag
from secformer.mpc.recording import RELAXED, Brought, Recorder, alone

BLOCK = 1 << 22    # bytes of the smallest block of places
SEGMENT = 1 << 28  # bytes that one segment receives, unless one message is longer
ALIGNED = 256      # bytes: where places start



@dataclass(frozen=True)
class Message:
    """A message that each run sends or receives, and the place on the GPU that it is sent from or received into."""

    channel: str
    tag: Tag
    place: Any = field(repr=False)  # (bytes,) uint8


@dataclass(frozen=True)
class Segment:
    """What a run receives, what it computes then, and what it sends at the end, if this is not the last segment."""

    received: tuple[Message, ...]
    graph: Any = field(repr=False)
    sent: Message | None


class Places:
    """Device memory for the messages of one segment at a time. It grows while programs are recorded, and stays where
    it is, because graphs know its addresses. All in one stream: a segment's messages come after the segment before."""

    def __init__(self, xp: Any):
        self._xp, self._blocks = xp, list[Any]()
        self.restart()

    def restart(self) -> None:
        """For the next segment: all places are free again."""
        self._block = self._start = self.used = 0

    def place(self, nbytes: int) -> Any:
        """A free place of so many bytes."""
        size = -(-nbytes // ALIGNED) * ALIGNED
        while self._block < len(self._blocks) and self._start + size > self._blocks[self._block].size:
            self._block, self._start = self._block + 1, 0
        if self._block == len(self._blocks):
            self._blocks.append(self._xp.empty(max(BLOCK, _power(size)), dtype=np.uint8))
        place = self._blocks[self._block][self._start : self._start + nbytes]
        self._start, self.used = self._start + size, self.used + size
        return place


class Segmenting(Recorder):
    """The recording of one role's run, in the current stream: cuts it into segments."""

    def __init__(self, xp: Any, pool: Any, places: Places, brought: Brought):
        super().__init__(brought)
        self._xp, self._pool, self._places = xp, pool, places
        self._stream = xp.cuda.get_current_stream()
        self._received: list[Message] = []
        self.segments: list[Segment] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is launched inside is recorded. Leaving it ends the last segment."""
        with alone():
            self._places.restart()
            try:
                with self._xp.cuda.using_allocator(self._pool.malloc):
                    self._stream.begin_capture(RELAXED)
                    yield
                    self._end(None)
            except BaseException:
                with suppress(Exception):  # this capture is broken, for the reason that is on its way already
                    self._stream.end_capture()
                raise

    def sends(self, channel: str, tag: Tag, payload: Any) -> None:
        place = self._places.place(payload.size)
        if payload.size:
            payload = self._xp.ascontiguousarray(payload)
            place.data.copy_from_device_async(payload.data, payload.size, self._stream)
        self._cut(Message(channel, tag, place))

    def receives(self, channel: str, tag: Tag, nbytes: int) -> Any:
        """The message's place, which this segment reads. Runs receive it before the segment starts: nothing is sent
        between, so nobody waits for this role meanwhile."""
        if self._places.used and self._places.used + nbytes > SEGMENT:
            self._cut(None)
        place = self._places.place(nbytes)
        self._received.append(Message(channel, tag, place))
        return place

    def _cut(self, sent: Message | None) -> None:
        self._end(sent)
        self._places.restart()
        self._stream.begin_capture(RELAXED)

    def _end(self, sent: Message | None) -> None:
        self.segments.append(Segment(tuple(self._received), self._stream.end_capture(), sent))
        self._received.clear()


class Noting(Channel):
    """Stands for a channel while a run is recorded: notes what passes, and carries nothing."""

    def __init__(self, name: str, channel: Channel, segmenting: Segmenting):
        super().__init__(channel.peer, channel.deadline)
        self._name, self._segmenting = name, segmenting

    def send(self, tag: Tag, payload: Any) -> None:
        self._segmenting.sends(self._name, tag, payload)

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self._segmenting.receives(self._name, tag, nbytes)

    def abort(self, reason: str) -> None:
        raise ProtocolError(f"nobody is there while a run is recorded: {reason}")

    def close(self) -> None: ...


def _power(size: int) -> int:
    """The first power of two that is not below: blocks of few sizes serve again."""
    return 1 << max(0, size - 1).bit_length()
