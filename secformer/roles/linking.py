"""The connections between the two parties: one on which they agree what to do, and one for each slot.

Party 1 connects to party 0 once for each. The first note on every connection says where it belongs:
{"link": a random name, "place": 0 for the agreeing, then 1, 2, ... for the slots, "places": how many there are}.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from secformer.mpc.errors import Desync
from secformer.mpc.net.notes import hexadecimal, whole
from secformer.mpc.net.tcp import StreamChannel
from secformer.mpc.net.tls import Context, TLSChannel, connect
from secformer.mpc.prg import fresh_seed

NAME_BYTES = 16
MOST_SLOTS = 8  # requests in flight


@dataclass(frozen=True)
class Link:
    """The connections of one link."""

    control: TLSChannel
    slots: tuple[TLSChannel, ...]

    def check(self) -> None:
        """Raises AuthError where a certificate of the other party does not hold any more."""
        for channel in (self.control, *self.slots):
            channel.check()

    def abort(self, reason: str) -> None:
        """Tells the other party on every connection that this side gives up, and why; then closes them."""
        for channel in (self.control, *self.slots):
            channel.abort(reason)


def connect_link(address: tuple[str, int], context: Context, slots: int, *, patience: float, deadline: float) -> Link:
    """Party 1's side. Raises PeerLost, AuthError."""
    name, channels = fresh_seed()[:NAME_BYTES].hex(), list[TLSChannel]()
    try:
        for place in range(slots + 1):
            channels.append(connect(address, "party0", context, patience=patience, deadline=deadline))
            channels[-1].tell({"link": name, "place": place, "places": slots + 1})
    except BaseException:
        for channel in channels:
            channel.close()
        raise
    return Link(channels[0], tuple(channels[1:]))


class Meeting:
    """Party 0's side: gathers the connections of the newest link. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._name, self._places = "", 0
        self._came: dict[int, TLSChannel] = {}
        self._link: Link | None = None

    def came(self, channel: TLSChannel) -> None:
        """Takes a new connection of party 1, and returns once it has ended. Connections of an older link are ended,
        because party 1 makes one link at a time. Raises Desync, PeerLost."""
        name, place, places = place_of(channel)
        with self._changed:
            old: list[TLSChannel] = []
            if name != self._name:
                old, self._came, self._link = list(self._came.values()), {}, None
                self._name, self._places = name, places
            if place in self._came or places != self._places:
                raise Desync(f"{channel.peer} connects place {place} of {places} of a link twice, or with another "
                             f"number of places; do both sides run the same version?")
            self._came[place] = channel
            if len(self._came) == places:
                self._link = Link(self._came[0], tuple(self._came[p] for p in range(1, places)))
                self._changed.notify_all()
        for each in old:
            each.abort("party 1 has made a new link")
        channel.ended.wait()

    def refuse(self, reason: str) -> None:
        """Tells party 1, where it has connected, why party 0 cannot meet it."""
        with self._changed:
            came, self._came, self._link, self._name = list(self._came.values()), {}, None, ""
        for each in came:
            each.abort(reason)

    def wait(self, patience: float) -> Link | None:
        """The newest link, once: waits up to `patience` seconds until all of its connections are here."""
        with self._changed:
            self._changed.wait_for(lambda: self._link is not None, timeout=patience)
            link, self._link = self._link, None
            return link


def place_of(channel: StreamChannel) -> tuple[str, int, int]:
    """What a new connection of party 1 says: the link's name, the place there, and how many there are. Raises Desync,
    PeerLost."""
    note = channel.hear()
    try:
        places = whole(note["places"], 1, MOST_SLOTS + 1)
        return hexadecimal(note["link"], NAME_BYTES).hex(), whole(note["place"], 0, places - 1), places
    except (KeyError, ValueError) as error:
        raise Desync(f"{channel.peer} connected with a note that cannot be read (keys {sorted(note)}); do both sides "
                     f"run the same version?") from error
