"""The conversation of the two parties about what to run. Party 0 leads.

1. both: hello, with everything that must be the same
2. unless both parties still hold the opened weights: the run that opens them
3. party 0: offer {"requests": ids in fair order, "slot": a free one, "last": {"live": its last used serial}}; without
   ids it is a sign of life
4. party 1: {"take": id, "shape", "plan", "space", "serial", "state"}, or {"take": id, "error"}, or {"take": null}
5. party 0: {"go": true}, and both run the program in that slot; or {"go": false, "error"}

The conversation goes on while requests run: it has a connection of its own (see `linking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secformer.models.run.public import PublicModel
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync
from secformer.mpc.net.tcp import StreamChannel
from secformer.mpc.ring import WORD_BITS
from secformer.roles.messages import REQUEST
from secformer.version import __version__

OFFERED = 32      # requests named in one offer
HEARTBEAT = 5.0   # seconds between offers if no request waits
LATE_HALF = 0.05  # seconds that party 1 waits for its half of an offered request to arrive


def hello(public: PublicModel, plan: Plan, epoch: str, *, rank: int, opened: bool, in_flight: int,
          numbers: str = "") -> dict[str, Any]:
    """What a party is and runs. `opened`: it holds weights that were opened in this epoch. `numbers`: a digest of those
    that it computes for texts that grow."""
    return {
        "same": {"version": __version__, "ring": WORD_BITS, "fractional bits": public.fixed.frac,
                 "magnitude": public.fixed.magnitude, "recipe": public.recipe.name, "model": public.digest,
                 "plan": plan.digest, "epoch": epoch, "in_flight": in_flight,
                 "numbers of positions": numbers, "requests": REQUEST},
        "rank": rank, "opened": opened,
    }


def compare(mine: Mapping[str, Any], theirs: Mapping[str, Any], peer: str) -> None:
    """Raises Desync if two values differ that must be the same; the error names both values."""
    same, other = mine["same"], theirs.get("same")
    if not isinstance(other, Mapping):
        raise Desync(f"{peer} did not say hello first; do both sides run the same version?")
    odd = [f"{name}: {same[name]!r} here, {other.get(name)!r} at {peer}" for name in same
           if same[name] != other.get(name)]
    if theirs.get("rank") != 1 - int(mine["rank"]):
        odd.append(f"rank: {mine['rank']} here, {theirs.get('rank')!r} at {peer}; one must be 0, the other 1")
    if odd:
        raise Desync(f"the parties cannot compute together because they differ: {'; '.join(odd)}")


@dataclass(frozen=True)
class Taken:
    """Party 1's answer to an offer: which request runs, and under which run's streams; or why it cannot run.

    state  of the session that the request continues
    """

    request: str
    shape: str = ""
    plan: str = ""
    space: str = ""
    serial: int = -1
    error: str = ""
    state: str = ""

    @property
    def run(self) -> str:
        """The name of the run."""
        return f"{self.space}/{self.serial}"

    def tell(self, channel: StreamChannel) -> None:
        channel.tell({"take": self.request, "shape": self.shape, "plan": self.plan, "space": self.space,
                      "serial": self.serial, "error": self.error, "state": self.state})


def hear_taken(channel: StreamChannel) -> Taken | None:
    """What the other party takes of an offer, or None if it takes nothing. Raises Desync."""
    note = channel.hear()
    if note.get("take") is None:
        return None
    try:
        return Taken(str(note["take"]), str(note["shape"]), str(note["plan"]), str(note["space"]), int(note["serial"]),
                     str(note["error"]), str(note["state"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Desync(f"{channel.peer} answered an offer with a note that cannot be read (keys {sorted(note)}); do both "
                     f"sides run the same version?") from error


@dataclass(frozen=True)
class Offer:
    """Party 0's offer: request ids in fair order, the slot for the one that is taken, and party 0's last used serials
    by space. Without ids there is no slot."""

    requests: tuple[str, ...]
    last: Mapping[str, int]
    slot: int | None = None

    def tell(self, channel: StreamChannel) -> None:
        channel.tell({"requests": list(self.requests), "last": dict(self.last), "slot": self.slot})


def hear_offer(channel: StreamChannel) -> Offer:
    """The other party's offer. Raises Desync."""
    note = channel.hear()
    try:
        ids, last, slot = note["requests"], {str(k): int(v) for k, v in note["last"].items()}, note["slot"]
        if not all(isinstance(i, str) for i in ids):
            raise TypeError("ids are strings")
        return Offer(tuple(ids), last, int(slot) if ids else None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Desync(f"{channel.peer} made an offer that cannot be read (keys {sorted(note)}); do both sides run the "
                     f"same version?") from error
