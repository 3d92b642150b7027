"""Epochs: two parties and a dealer under one pair of seeds, and what each role keeps of an epoch on disk.

An epoch belongs to one provisioned model: the masks of the weights come from its seeds and must never mask anything
else. An epoch outlives every process. If the dealer loses its state, it starts a new epoch, and older material becomes
worthless.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secformer.mpc.dealer.serials import Serials
from secformer.mpc.errors import StoreError
from secformer.mpc.prg import SEED_BYTES, fresh_seed

NAME_BYTES = 16
LIVE = "live"  # a run whose corrections come directly from the dealer is named live/SERIAL


@dataclass(frozen=True)
class Epoch:
    """An epoch as one role knows it: the public name, and seeds by rank. A party holds its own, the dealer both."""

    name: str
    seeds: dict[int, bytes] = field(repr=False)


class State:
    """A role's folder on disk: one file per epoch, named by model and plan of provisioning, and the used serials."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.serials = Serials(folder / "serials.log")

    def epoch(self, model: str, plan: str) -> Epoch | None:
        """The epoch of a provisioned model, or None if this role knows none. Raises StoreError for an unreadable
        file."""
        path = self._path(model, plan)
        try:
            facts = json.loads(path.read_text("utf-8"))
            return epoch_of(facts)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} cannot be read ({type(error).__name__}: {error}); remove it to start a new "
                             f"epoch") from error

    def keep(self, model: str, plan: str, epoch: Epoch) -> None:
        """Writes an epoch to disk, before it is used."""
        path = self._path(model, plan)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(as_note(epoch), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def fresh(self, model: str, plan: str) -> Epoch:
        """A new epoch with new seeds, written to disk. Only the dealer calls this."""
        epoch = Epoch(fresh_seed()[:NAME_BYTES].hex(), {0: fresh_seed(), 1: fresh_seed()})
        self.keep(model, plan, epoch)
        return epoch

    def close(self) -> None:
        """Closes the journal of used serials."""
        self.serials.close()

    def _path(self, model: str, plan: str) -> Path:
        return self.folder / f"epoch-{model[:16]}-{plan[:16]}.json"


def as_note(epoch: Epoch, rank: int | None = None) -> dict[str, Any]:
    """An epoch as JSON; with `rank`, as that party knows it."""
    seeds = {str(r): seed.hex() for r, seed in epoch.seeds.items() if rank in (None, r)}
    return {"epoch": epoch.name, "seeds": seeds}


def epoch_of(note: dict[str, Any]) -> Epoch:
    """The inverse of `as_note`. Raises KeyError, TypeError, ValueError, AttributeError."""
    seeds = {int(rank): bytes.fromhex(seed) for rank, seed in note["seeds"].items()}
    if len(bytes.fromhex(note["epoch"])) != NAME_BYTES or any(len(seed) != SEED_BYTES for seed in seeds.values()):
        raise ValueError(f"an epoch has a name of {NAME_BYTES} bytes and seeds of {SEED_BYTES} bytes")
    return Epoch(note["epoch"], seeds)
