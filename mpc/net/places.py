"""A limited number of places for connections: who may come in, and who gives way when there is no room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address

SHELTERED = 8       # places that a known holder keeps, however many others come
REMEMBERED = 4096   # known holders that are remembered
SITE = 64           # bits of an IPv6 address that tell sites apart: one machine may take any of the others


class Place:
    """A place of one holder. While it is `busy`, it does not give way."""

    __slots__ = ("_places", "age", "busy", "give_way", "holder")

    def __init__(self, places: Places, holder: Hashable, age: int, give_way: Callable[[], None]):
        self._places, self.holder, self.age, self.give_way, self.busy = places, holder, age, give_way, False

    def rest(self) -> None:
        """From now on the place is the one that its holder has used last."""
        self.busy = False
        self._places.renew(self)

    def leave(self) -> None:
        """Frees the place. Leaving twice is allowed."""
        self._places.remove(self)


class Places:
    """At most `most` places, and at most `each` for one holder. Not thread-safe.

    A newcomer is not refused while somebody can give way. Of those that are not busy, the one gives way that was not
    used for longest by the holder with most places. So a holder with few places keeps them, however many others come;
    and where all come from one holder, as behind a gateway, newcomers get in while old connections that prove nothing
    leave. Holders that are known, because one of theirs has proved who it is, keep their first `SHELTERED` places even
    where each stranger has only one.
    """

    def __init__(self, most: int, each: int | None = None):
        self.most, self.each = most, most if each is None else each
        self._held: dict[Hashable, OrderedDict[Place, None]] = {}  # by holder, the one used last comes last
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self._count = self._clock = 0

    def __len__(self) -> int:
        return self._count

    def held(self, holder: Hashable) -> int:
        """How many places a holder has."""
        return len(self._held.get(holder, ()))

    def enter(self, holder: Hashable, give_way: Callable[[], None]) -> Place | None:
        """A place, or None where nobody can give way. `give_way` is called when the place is needed for another; it
        is free by then."""
        self._clock += 1
        place = Place(self, holder, self._clock, give_way)
        self._held.setdefault(holder, OrderedDict())[place] = None
        self._count += 1
        if self.held(holder) > self.each:
            leaver = self._first(holder)
        elif self._count > self.most:
            leaver = self._leaver()
        else:
            return place
        leaver = place if leaver is None else leaver
        leaver.leave()
        if leaver is place:
            return None
        leaver.give_way()
        return place

    def know(self, holder: Hashable) -> None:
        """One of the holder's connections has proved who it is."""
        self._known[holder] = None
        self._known.move_to_end(holder)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def knows(self, holder: Hashable) -> bool:
        """Whether one of the holder's connections has proved who it is."""
        return holder in self._known

    def renew(self, place: Place) -> None:
        held = self._held.get(place.holder)
        if held is not None and place in held:
            self._clock += 1
            place.age = self._clock
            held.move_to_end(place)

    def remove(self, place: Place) -> None:
        held = self._held.get(place.holder)
        if held is not None and place in held:
            del held[place]
            self._count -= 1
            if not held:
                del self._held[place.holder]

    def _first(self, holder: Hashable) -> Place | None:
        """The holder's place that can give way first."""
        return next((place for place in self._held[holder] if not place.busy), None)

    def _leaver(self) -> Place | None:
        leaver, most = None, (0, 0)
        for holder, held in self._held.items():
            weight = 0 if holder in self._known and len(held) <= SHELTERED else len(held)
            if leaver is not None and weight < most[0]:
                continue
            place = self._first(holder)
            if place is not None and (leaver is None or (weight, -place.age) > most):
                leaver, most = place, (weight, -place.age)
        return leaver


def site(host: str) -> str:
    """The holder that an address belongs to: an IPv4 address, or the first `SITE` bits of an IPv6 address."""
    address = ip_address(host.partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> (128 - SITE) << (128 - SITE))}/{SITE}"
