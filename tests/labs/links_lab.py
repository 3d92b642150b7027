"""What tests of roles without processes share: certificates, plans, and channels that carry notes within a process."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

from secformer.mpc.dealer.kinds import WeightMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard
from secformer.mpc.errors import PeerLost
from secformer.mpc.net.tls import Identity

WEIGHTS = Plan((WeightMask(0, (2, 3), 64),))
PLAN = Plan((Hadamard(((3,),), (48,), ((0, 0, 48),), (None,)),), 1, 100)
MODEL = "ab" * 32


def identity(folder: Path, role: str) -> Identity:
    """A role's files, as `secformer init` made them in `folder`."""
    return Identity(folder / role / "authority.pem", folder / role / f"{role}.pem", folder / role / f"{role}.key")


class Notes:
    """One end of a link that carries notes only. `hear` raises PeerLost once the other end has hung up."""

    def __init__(self, peer: str, heard: queue.Queue[Any], told: queue.Queue[Any]):
        self.peer, self._heard, self._told = peer, heard, told

    def tell(self, note: dict[str, Any]) -> None:
        self._told.put(note)

    def hear(self) -> dict[str, Any]:
        note = self._heard.get(timeout=30)
        if note is None:
            raise PeerLost(f"{self.peer} hung up")
        found: dict[str, Any] = note
        return found

    def hang_up(self) -> None:
        self._told.put(None)


def notes_pair() -> tuple[Notes, Notes]:
    """Party 0's end and party 1's."""
    there: queue.Queue[Any] = queue.Queue()
    back: queue.Queue[Any] = queue.Queue()
    return Notes("party1", back, there), Notes("party0", there, back)


def said(*notes: Any) -> Any:
    """An end that hears these notes, one after the other."""
    near, far = notes_pair()
    for note in notes:
        far.tell(note)
    return near
