"""The conversation of the two parties about what to run. Party 0 leads.

1. both: hello, with everything that must be the same, and which stored runs each still has the seeds of
2. unless both parties still hold the opened weights: the run that opens them
3. party 0: offer {"requests": {id: client's name} in fair order, "slot": a free one, "last": {"live": its last used
   serial}, "nonce": for the run of the one that is taken, "here", "renew"}; without ids it is a sign of life
4. party 1: {"take": id, "client", "shape", "plan", "space", "serial", "nonce", "state"}, or {"take": id, "error",
   "kind": see `failures`}, or {"take": null, "renew"}; and "here"
5. party 0: {"go": true}, and both run the program in that slot; or {"go": false, "error", "kind"}

Every now and then, "here" lists all ids of which a party has a half, so that the other knows which of its own wait in
vain; otherwise it is null. "renew" asks for a new link, such as under new certificates, once nothing runs: party 1 asks
for it, and party 0 says when.

The conversation goes on while requests run: it has a connection of its own (see `linking`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secformer.models.run.public import PublicModel
from secformer.mpc.dealer.names import NONCE_BYTES, fresh_nonce
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync
from secformer.mpc.net.notes import hexadecimal, text, whole
from secformer.mpc.net.tcp import StreamChannel
from secformer.mpc.prg import FORMAT
from secformer.mpc.ring import WORD_BITS
from secformer.roles.messages import REQUEST
from secformer.version import __version__

OFFERED = 32      # requests named in one offer
HEARTBEAT = 5.0   # seconds between offers if no request waits
LATE_HALF = 0.05  # seconds that party 1 waits for its half of an offered request to arrive


def hello(public: PublicModel, plan: Plan, epoch: str, *, rank: int, opened: bool, in_flight: int,
          numbers: str = "", stored: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """What a party is and runs. `opened`: it holds weights that were opened in this epoch. `numbers`: a digest of those
    that it computes for texts that grow. `stored`: the ranges of stored serials whose seeds it has."""
    return {
        "same": {"version": __version__, "streams": FORMAT, "ring": WORD_BITS, "fractional bits": public.fixed.frac,
                 "magnitude": public.fixed.magnitude, "recipe": public.recipe.name, "model": public.digest,
                 "plan": plan.digest, "epoch": epoch, "in_flight": in_flight,
                 "numbers of positions": numbers, "requests": REQUEST},
        "rank": rank, "opened": opened, "stored": stored,
    }


def compare(mine: Mapping[str, Any], theirs: Mapping[str, Any], peer: str) -> None:
    """Raises Desync if two values differ that must be the same; the error names both values."""
    same, other = mine["same"], theirs.get("same")
    if not isinstance(other, Mapping):
        raise Desync(f"{peer} did not say hello first; do both sides run the same version?")
    odd = [f"{name}: {same.get(name)!r} here, {other.get(name)!r} at {peer}" for name in {**same, **other}
           if not _equal(same.get(name), other.get(name))]
    if not _equal(theirs.get("rank"), 1 - int(mine["rank"])):
        odd.append(f"rank: {mine['rank']} here, {theirs.get('rank')!r} at {peer}; one must be 0, the other 1")
    if odd:
        raise Desync(f"the parties cannot compute together because they differ: {'; '.join(odd)}")


def _equal(one: Any, other: Any) -> bool:
    """JSON's true and 1.0 are not 1."""
    return type(one) is type(other) and bool(one == other)


def stored_of(note: Mapping[str, Any], peer: str) -> list[tuple[int, int]]:
    """The ranges of stored serials that a hello states. Raises Desync."""
    try:
        return [(whole(first), whole(end)) for first, end in note["stored"]]
    except (KeyError, TypeError, ValueError) as error:
        raise Desync(f"{peer} does not say which stored runs it has the seeds of ({error}); do both sides run the same "
                     f"version?") from error


@dataclass(frozen=True)
class Taken:
    """Party 1's answer to an offer: which request runs, and what enters the name of its run; or why it cannot run.

    kind    of the error
    state   of the session that the request continues
    client  who sent party 1's half
    """

    request: str
    shape: str = ""
    plan: str = ""
    space: str = ""
    serial: int = -1
    error: str = ""
    state: str = ""
    client: str = ""
    nonce: bytes = field(default=b"", repr=False)
    kind: str = ""

    @property
    def run(self) -> str:
        """What logs call the run."""
        return f"{self.space}/{self.serial}"


@dataclass(frozen=True)
class Reply:
    """Party 1's answer to an offer: what it takes, if anything; the ids of which it has a half, where it was asked; and
    whether it asks for a new link."""

    taken: Taken | None = None
    here: tuple[str, ...] | None = None
    renew: bool = False

    def tell(self, channel: StreamChannel) -> None:
        taken = self.taken
        note = {"take": None} if taken is None else {
            "take": taken.request, "shape": taken.shape, "plan": taken.plan, "space": taken.space,
            "serial": taken.serial, "error": taken.error, "state": taken.state, "client": taken.client,
            "nonce": taken.nonce.hex()} | ({"kind": taken.kind} if taken.kind else {})
        channel.tell(note | _rare(self.here, self.renew))


def hear_reply(channel: StreamChannel) -> Reply:
    """The other party's answer to an offer. Raises Desync."""
    note = channel.hear()
    try:
        return Reply(_taken(note), _here(note), note.get("renew") is True)
    except (KeyError, TypeError, ValueError) as error:
        raise Desync(f"{channel.peer} answered an offer with a note that cannot be read (keys {sorted(note)}); do both "
                     f"sides run the same version?") from error


@dataclass(frozen=True)
class Offer:
    """Party 0's offer: request ids in fair order, with the clients that sent them; the slot and party 0's nonce for the
    one that is taken; and party 0's last used serials by space. Without ids there is no slot.

    here   the ids of which party 0 has a half, where this offer tells
    renew  party 0 ends the link now, and both make a new one
    """

    requests: Mapping[str, str]
    last: Mapping[str, int]
    slot: int | None = None
    here: tuple[str, ...] | None = None
    renew: bool = False
    nonce: bytes = field(default_factory=fresh_nonce, repr=False)

    def tell(self, channel: StreamChannel) -> None:
        channel.tell({"requests": dict(self.requests), "last": dict(self.last), "slot": self.slot,
                      "nonce": self.nonce.hex()} | _rare(self.here, self.renew))


def hear_offer(channel: StreamChannel) -> Offer:
    """The other party's offer. Raises Desync."""
    note = channel.hear()
    try:
        ids = {request: text(client) for request, client in note["requests"].items()}
        last = {space: whole(serial, -1) for space, serial in note["last"].items()}
        return Offer(ids, last, whole(note["slot"]) if ids else None, _here(note), note.get("renew") is True,
                     hexadecimal(note["nonce"], NONCE_BYTES))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Desync(f"{channel.peer} made an offer that cannot be read (keys {sorted(note)}); do both sides run the "
                     f"same version?") from error


def _taken(note: Mapping[str, Any]) -> Taken | None:
    if note.get("take") is None:
        return None
    error = text(note["error"])
    return Taken(text(note["take"]), text(note["shape"]), text(note["plan"]), text(note["space"]),
                 whole(note["serial"], -1), error, text(note["state"]), text(note["client"]),
                 hexadecimal(note["nonce"], 0 if error else NONCE_BYTES), text(note.get("kind", "")))


def _rare(here: tuple[str, ...] | None, renew: bool) -> dict[str, Any]:
    """What few notes carry, so that the others stay short."""
    return ({} if here is None else {"here": list(here)}) | ({"renew": True} if renew else {})


def _here(note: Mapping[str, Any]) -> tuple[str, ...] | None:
    here = note.get("here")
    if here is None:
        return None
    if not (isinstance(here, list) and all(isinstance(each, str) for each in here)):
        raise TypeError("ids are strings")
    return tuple(here)
