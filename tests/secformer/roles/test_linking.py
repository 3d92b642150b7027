"""The connections of a link over TLS: they find each other, and a newer link ends an older one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from links_lab import identity, said
from roles_lab import until

from secformer.mpc.errors import Desync, PeerLost, ProtocolError
from secformer.mpc.net import tls
from secformer.mpc.net.listener import Listener
from secformer.mpc.net.tls import client_context, server_context
from secformer.mpc.net.wire import Tag
from secformer.mpc.prg import fresh_seed
from secformer.roles.linking import MOST_SLOTS, NAME_BYTES, Link, Meeting, connect_link

NAME = "ab" * NAME_BYTES


class Place:
    """Party 0's place, and what it reports."""

    def __init__(self, roles: Path):
        self.meeting, self.problems = Meeting(), list[str]()
        self._listener = Listener(("127.0.0.1", 0), ("party1",), server_context(identity(roles, "party0")),
                                  self.meeting.came, lambda told: self.problems.append(told.problem), deadline=10.0)
        self.address, self.context = ("127.0.0.1", self._listener.port), client_context(identity(roles, "party1"))

    def connect(self, slots: int) -> Link:
        return connect_link(self.address, self.context, slots, patience=5.0, deadline=10.0)

    def met(self) -> Link:
        link = self.meeting.wait(30.0)
        assert link is not None
        return link


@pytest.fixture
def place(roles: Path) -> Iterator[Place]:
    place = Place(roles)
    yield place
    place._listener.close()


@pytest.mark.parametrize("slots", [1, 2, MOST_SLOTS])
def test_each_connection_leads_to_its_own_place(place: Place, slots: int) -> None:
    mine = place.connect(slots)
    theirs = place.met()
    assert len(mine.slots) == len(theirs.slots) == slots
    for number, (here, there) in enumerate(zip((mine.control, *mine.slots), (theirs.control, *theirs.slots),
                                               strict=True)):
        here.tell({"number": number})
        assert there.hear() == {"number": number}
    assert place.meeting.wait(0.0) is None, "a link is given once"
    mine.abort("done")
    with pytest.raises(Desync, match="gave up: done"):
        theirs.slots[-1].receive(Tag(1, "share", 64, 1), 8)
    theirs.abort("done too")


def test_a_new_link_ends_the_old_one(place: Place) -> None:
    old, old_there = place.connect(2), place.met()
    new, there = place.connect(1), place.met()
    for channel in (old.control, *old.slots):
        with pytest.raises(Desync, match="party 1 has made a new link"):
            channel.hear()
    new.slots[0].tell({"fine": True})
    assert there.slots[0].hear() == {"fine": True}
    for link in (old, old_there, new, there):
        link.abort("done")


def test_a_link_that_lacks_a_connection_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Party 1 fails at its third connection: it closes the others, and the next link is whole."""
    real, count = tls.connect, 0

    def failing(*args: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise PeerLost("the network is down")
        return real(*args, **settings)

    monkeypatch.setattr("secformer.roles.linking.connect", failing)
    with pytest.raises(PeerLost, match="the network is down"):
        place.connect(2)
    assert place.meeting.wait(0.2) is None
    mine, theirs = place.connect(2), place.met()
    assert len(theirs.slots) == 2
    mine.abort("done")
    theirs.abort("done")


@pytest.mark.parametrize("note", [
    {}, {"link": NAME, "place": 0}, {"link": "", "place": 0, "places": 2}, {"link": "x" * 32, "place": 0, "places": 2},
    {"link": NAME, "place": 2, "places": 2}, {"link": NAME, "place": -1, "places": 2},
    {"link": NAME, "place": 0, "places": MOST_SLOTS + 2}, {"link": NAME, "place": "one", "places": 2},
    {"link": " " + NAME[1:], "place": 0, "places": 2}, {"link": NAME.upper(), "place": 0, "places": 2},
    {"link": NAME, "place": "0", "places": 2}, {"link": NAME, "place": 0, "places": 2.0}])
def test_a_first_note_that_names_no_place(note: dict[str, Any]) -> None:
    with pytest.raises(Desync, match="party1 connected with a note that cannot be read"):
        Meeting().came(said(note))


def test_a_place_that_is_taken_or_of_another_number_is_refused(place: Place) -> None:
    for notes in ([(0, 3), (0, 3)], [(0, 3), (1, 2)]):
        name, channels = fresh_seed()[:NAME_BYTES].hex(), []
        for number, places in notes:
            channels.append(tls.connect(place.address, "party0", place.context, patience=5.0, deadline=10.0))
            channels[-1].tell({"link": name, "place": number, "places": places})
            until(lambda name=name: place.meeting._name == name)  # the first has come
        with pytest.raises(ProtocolError, match="of a link twice, or with another number of places"):
            channels[1].hear()
        for channel in channels:
            channel.abort("done")


def test_party_1_hears_why_it_is_not_met(place: Place) -> None:
    """Where the link is whole, and where it lacks a connection; the next link is met."""
    whole = place.connect(2)
    until(lambda: place.meeting._link is not None)
    place.meeting.refuse("the dealer runs version 9.8.7")
    for channel in (whole.control, *whole.slots):
        with pytest.raises(Desync, match=r"party0 gave up: the dealer runs version 9\.8\.7"):
            channel.hear()
    assert place.meeting.wait(0.0) is None
    place.meeting.refuse("nobody is here")
    mine, theirs = place.connect(1), place.met()
    for link in (whole, mine, theirs):
        link.abort("done")
