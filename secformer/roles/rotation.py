"""New epochs instead of old ones while the dealer serves: at an operator's order, or because an epoch is too old.

An order is a file in the dealer's state folder, so only who may write there gives one. The running dealer removes it
when every epoch is a new one. If the dealer dies before that, it does all of it again at its next start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from secformer.mpc.dealer.files import owner_only, sync_folder
from secformer.mpc.errors import InputError
from secformer.roles.epochs import Epoch, State, names_in

FIRST, ORDERED, TOO_OLD = "first", "ordered", "too old"  # why an epoch begins
WHYS = (FIRST, ORDERED, TOO_OLD)
DAY = 86400.0     # seconds
ORDER = "rotate"  # the file
PATIENCE = 10.0   # seconds in which a running dealer does what it is ordered


class Replaced(NamedTuple):
    """A model's epoch that was replaced: the plan of provisioning, the old epoch, the new one, and why."""

    model: str
    plan: str
    old: Epoch
    new: Epoch
    why: str


class Rotation:
    """What the dealer replaces, and when. Not thread-safe.

    days  age at which an epoch is replaced; 0: none is too old
    """

    def __init__(self, state: State, days: int, clock: Callable[[], float] = time.time):
        self._state, self._days, self._clock = state, days, clock

    def replaced(self) -> Iterator[Replaced]:
        """Replaces each epoch that is due, on disk, one after the other. Raises StoreError, OSError; then it can be
        called again."""
        ordered = (order := self._state.folder / ORDER).exists()
        if not ordered and not self._days:
            return
        for model, plan, old in self._state.epochs():
            if ordered or self._clock() - old.began >= self._days * DAY:
                yield Replaced(model, plan, old, self._state.fresh(model, plan), ORDERED if ordered else TOO_OLD)
        if ordered:
            order.unlink(missing_ok=True)
            sync_folder(self._state.folder)


@dataclass(frozen=True)
class Rotated:
    """What an order has done: the model's digest, and the names of its old epoch and of its new one."""

    epochs: list[tuple[str, str, str]]


def rotate(folder: Path, patience: float = PATIENCE) -> Rotated:
    """Orders the dealer that uses this state folder to begin new epochs, and waits until it has.

    Raises InputError for a folder that holds no epochs, and where no dealer did it in time; the order then stands.
    """
    if not (before := names_in(folder)):
        raise InputError(f"{folder} holds no epochs: give the settings file of a dealer that has served, on the "
                         f"dealer's machine")
    order = folder / ORDER
    os.close(owner_only(order, os.O_WRONLY | os.O_CREAT))
    sync_folder(folder)
    end = time.monotonic() + patience
    while order.exists():
        if time.monotonic() > end:
            raise InputError(f"no dealer has begun new epochs within {patience:g} s. The order stands: the dealer does "
                             f"it when it starts. If it is running, its log says what is wrong. To take the order "
                             f"back, remove {order}")
        time.sleep(0.05)
    after = names_in(folder)
    return Rotated([(model, old, after[file][1]) for file, (model, old) in before.items() if file in after])
