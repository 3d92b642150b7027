"""What comes through a channel: frames, and the notes that roles tell each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from fuzz.mutators import json_text
from fuzz.target import Read, Target, require, stateless
from secformer.mpc.net.door import LONGEST_RECORD, RECORD, opens_http, opens_tls
from secformer.mpc.net.tcp import StreamChannel
from secformer.mpc.net.tls import Handshake, Identity, server_context
from secformer.mpc.net.wire import HEADER_BYTES, NOTE, Tag, pack_header, unpack_header
from secformer.roles.certificates import init
from secformer.roles.dealing import serial_of
from secformer.roles.epochs import as_note, epoch_of
from secformer.roles.link import compare, hear_offer, hear_reply, stored_of
from secformer.roles.linking import place_of

MOST = 1 << 16  # bytes of messages that a program may expect here
SAME = {"version": "1", "ring": 64, "model": "ab" * 32}


class Received:
    """A connection on which these bytes have come, and nothing else comes."""

    def __init__(self, data: bytes):
        self._left = memoryview(data)

    def sendall(self, data: Any, /) -> None: ...

    def recv_into(self, buffer: Any, /) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def recv(self, size: int, /) -> bytes:
        return b""

    def settimeout(self, seconds: float | None, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: Any) -> None: ...


def noted(data: bytes) -> bytes:
    """The frame of a note."""
    return pack_header(Tag(0, "note", 8, len(data)), len(data), NOTE) + data


def channel_of(data: bytes, peer: str = "party1") -> StreamChannel:
    """A channel on which these bytes have come."""
    return StreamChannel(Received(data), peer, 5.0)


def headers(data: bytes) -> None:
    """A frame's header says one thing: what it says, written again, is the same bytes."""
    if len(data) >= HEADER_BYTES:
        kind, tag, nbytes = unpack_header(data[:HEADER_BYTES])
        require(pack_header(tag, nbytes, kind) == data[:HEADER_BYTES], f"another header also means {tag}")


def frames(data: bytes) -> None:
    """Messages and notes in turn, as a program expects them that believes the headers, up to `MOST` bytes."""
    channel = channel_of(data)
    try:
        at = 0
        while at + HEADER_BYTES <= len(data):
            kind, tag, nbytes = unpack_header(data[at : at + HEADER_BYTES])
            if kind == NOTE:
                note = channel.hear()
                json.dumps(note, allow_nan=False).encode()
            else:
                require(channel.receive(tag, min(nbytes, MOST)).size == nbytes, "a message of another size")
            at += HEADER_BYTES + nbytes
    finally:
        channel.close()


def heard(read: Callable[[StreamChannel], object]) -> Callable[[bytes], None]:
    """A reader of one note, which the input is."""
    def reader(data: bytes) -> None:
        channel = channel_of(noted(data))
        try:
            read(channel)
        finally:
            channel.close()

    return reader


class Told:
    """Keeps the note that is told."""

    def tell(self, note: dict[str, Any]) -> None:
        self.note = note


def again(value: Any, read: Callable[[StreamChannel], object]) -> None:
    """What was heard, told again, is heard the same."""
    told = Told()
    value.tell(told)
    channel = channel_of(noted(json.dumps(told.note).encode()))
    try:
        require(read(channel) == value, f"{value} is heard as another when it is told again")
    finally:
        channel.close()


def offers(channel: StreamChannel) -> None:
    offer = hear_offer(channel)
    require(all(0 <= n < 2**63 for n in (*(v + 1 for v in offer.last.values()), offer.slot or 0)), "numbers in range")
    again(offer, hear_offer)


def takes(channel: StreamChannel) -> None:
    reply = hear_reply(channel)
    require(reply.taken is None or len(reply.taken.run) < 1000, "a run's name is short")
    again(reply, hear_reply)


def hellos(channel: StreamChannel) -> None:
    """Whoever is taken for the other party says the same."""
    theirs = channel.hear()
    compare({"same": SAME, "rank": 0}, theirs, "party1")
    stated = {key: value for key, value in theirs["same"].items() if value is not None}
    require(json.dumps(stated, sort_keys=True) == json.dumps(SAME, sort_keys=True), "values that are not equal")
    require(all(0 <= n < 2**63 for pair in stored_of(theirs, "party1") for n in pair), "numbers in range")
    require(theirs["rank"] == 1 and theirs["rank"] is not True, "a rank that is not 1")


def places(channel: StreamChannel) -> None:
    name, place, count = place_of(channel)
    require(name == bytes.fromhex(name).hex() and 0 <= place < count, "a place has one name")


def joins(channel: StreamChannel) -> None:
    note = channel.hear()
    try:
        epoch = epoch_of(note)
    except (KeyError, TypeError, ValueError, AttributeError):  # what its readers make an error of
        return
    written = as_note(epoch, runs=bool(note["runs"]))
    require({key: note[key] for key in written} == written, "an epoch has one spelling")


def serials(channel: StreamChannel) -> None:
    require(0 <= serial_of(channel) < 2**63, "a serial fits its field")


@contextmanager
def first_bytes(folder: Path) -> Iterator[Read]:
    """What a stranger at a door says first: how much of it a door waits for grows, and the handshake takes it or
    refuses it."""
    init(folder / "roles")
    own = folder / "roles" / "party0"
    context = server_context(Identity(own / "authority.pem", own / "party0.pem", own / "party0.key"))

    def read(data: bytes) -> None:
        for opens in (opens_tls, opens_http):
            needed = [opens(data[:end]) for end in range(1, min(len(data), RECORD + 2) + 1)]
            refused = needed.index(0) if 0 in needed else len(needed)
            require(not any(needed[refused:]), "whoever was refused stays refused")
            require(needed[:refused] == sorted(needed[:refused]), "a door waits for no less than before")
            require(opens(data) in (0, needed[-1] if needed else 0), "what follows changes nothing")
            require(max(needed, default=0) <= RECORD + LONGEST_RECORD, "a door waits for one record")
        hands = Handshake(context, server=True)
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            require(not hands.complete(piece), "nobody proves who they are at once")

    yield read


TARGETS = (
    Target("first-bytes", ("mpc/net/door.py", "mpc/net/tls.py"), first_bytes),
    Target("header", ("mpc/net/wire.py",), stateless(headers), longest=128),
    Target("frames", ("mpc/net/wire.py", "mpc/net/tcp.py"), stateless(frames)),
    Target("offers", ("mpc/net/tcp.py", "secformer/roles/link.py"), stateless(heard(offers)), json_text()),
    Target("takes", ("mpc/net/tcp.py", "secformer/roles/link.py"), stateless(heard(takes)), json_text()),
    Target("hellos", ("mpc/net/tcp.py", "secformer/roles/link.py"), stateless(heard(hellos)), json_text()),
    Target("places", ("mpc/net/tcp.py", "secformer/roles/linking.py"), stateless(heard(places)), json_text()),
    Target("joins", ("mpc/net/tcp.py", "secformer/roles/dealing.py", "secformer/roles/epochs.py"),
           stateless(heard(joins)), json_text()),
    Target("serial", ("mpc/net/tcp.py", "secformer/roles/dealing.py"), stateless(heard(serials)), json_text()),
)
