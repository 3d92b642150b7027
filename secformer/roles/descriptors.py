"""How a role divides its descriptors: each open file and connection takes one, and the system limits how many."""

from __future__ import annotations

from dataclasses import dataclass

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.listener import PEERS, TURNED_AWAY
from secformer.roles.settings import PartySettings

MOST = 1 << 16     # descriptors that a role asks for: more would serve nobody
BASE = 160         # of files, libraries, devices, listening sockets, and of what closes at this moment
MONITORING = 32    # connections to the metrics port
SPARE = 64         # connections of clients in addition to those of waiting requests
TOLD = 16          # connections of clients that are told at once that they have too many
LEAST = 32         # connections of clients without which a party is of no use
STRANGERS = 8, 256 # of all descriptors, one in 8 is strangers' at a door, but 256 at most


def raise_limit() -> int:
    """How many descriptors this process may have, after raising the limit as far as the system lets it."""
    try:
        import resource
    except ImportError:  # not a Unix: connections are limited by memory
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # some systems list a hard limit that they do not grant
            return soft
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


@dataclass(frozen=True)
class Room:
    """The connections of each kind that a role may have.

    strangers   at each door: those who have not proved who they are
    clients     a party's: those of clients
    """

    strangers: int
    clients: int = 0


def party_room(settings: PartySettings, descriptors: int) -> Room:
    """A party's. Raises SettingsError where the settings do not fit."""
    strangers = _strangers(descriptors)
    link = strangers + PEERS + TURNED_AWAY if settings.rank == 0 else settings.in_flight + 1
    doors = 1 if settings.browsers is None else 2
    needed = BASE + doors * strangers + link + 2 * settings.in_flight + MONITORING + TOLD
    _require(descriptors, needed + LEAST)
    return Room(strangers, min(settings.queue + SPARE, descriptors - needed))


def dealer_room(descriptors: int, monitored: bool = False) -> Room:
    """The dealer's. Raises SettingsError where its connections do not fit."""
    strangers = _strangers(descriptors)
    _require(descriptors, BASE + strangers + 2 * PEERS + TURNED_AWAY + (MONITORING if monitored else 0))
    return Room(strangers)


def _strangers(descriptors: int) -> int:
    return min(STRANGERS[1], descriptors // STRANGERS[0])


def _require(descriptors: int, needed: int) -> None:
    if descriptors < needed:
        raise SettingsError(f"this role needs {needed} open files and connections, but the system allows "
                            f"{descriptors}; raise the limit (`ulimit -n`, or LimitNOFILE in a systemd unit)")
