"""The names of runs: all keys of a run's streams are derived from its name, under its seed.

A live run's name is a hash that both parties' nonces enter. Each party draws its nonce from the operating system for
that run alone. So no run has the name of another, whatever became of the roles' files: a backup that was restored, a
machine that was cloned, or all roles set back at once.

Stored runs are dealt before the parties meet. Party 1 draws one nonce for all runs that are dealt to it together, and
keeps it with them. There is none of party 0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from secformer.mpc.prg import FORMAT, derive, fresh_seed, spelt

LIVE = "live"      # runs whose corrections come directly from the dealer
STORED = "stored"  # runs whose corrections were dealt ahead of time
NONCE_BYTES = 16
NAME_BYTES = 32
NO_NONCE = b""     # party 0's, of a stored run


def fresh_nonce() -> bytes:
    """A nonce that nobody has had, from the operating system."""
    return fresh_seed()[:NONCE_BYTES]


def run_name(epoch: str, space: str, serial: int, nonces: tuple[bytes, bytes], plan: str) -> str:
    """The name of a run: BLAKE2b of the format of the streams, epoch, space, serial, the nonces of party 0 and of
    party 1, and the plan's digest, in hexadecimal. Because of the plan, what is dealt for another plan than a party
    runs has no keystream in common with that party's."""
    parts = spelt(FORMAT, epoch, space, serial, *(nonce.hex() for nonce in nonces), plan)
    return hashlib.blake2b(parts, digest_size=NAME_BYTES, person=b"name of a run").hexdigest()


@dataclass(frozen=True)
class RunKey:
    """What one party's streams of one run are derived from: the run's name, and that party's seed of the run."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def caches(self) -> RunKey:
        """What the streams of the caches are derived from that this run opens. It says nothing of the run's own
        streams, so a session may keep it when the run's seed is gone."""
        return RunKey(self.name, derive(self.seed, "caches"))
