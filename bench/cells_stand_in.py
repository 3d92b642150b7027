"""A cell whose parties are simulated: it answers as the model in plaintext does, in the time that a real one takes.

A module of its own, since Ray's workers import it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secformer import PlainModel
from secformer.models.data.tokenizer import Reading, Texts
from secformer.models.run.output import SecureOutput
from secformer.roles.settings import ClientSettings


@dataclass(frozen=True)
class Service:
    """Seconds in which a cell answers a call: `base`, and `each` for every position (texts times the longest)."""

    base: float
    each: float

    def seconds(self, positions: int) -> float:
        return self.base + self.each * positions


@dataclass(frozen=True)
class StandIn:
    """Opens a simulated cell. Its answers take no longer to compute than they are waited for, or it says so.

    model   the folder of the model
    noted   a file to which each call adds a line; None: nothing is noted
    """

    model: Path
    service: Service
    noted: Path | None = None

    def __call__(self, settings: ClientSettings) -> Any:
        return _Simulated(self)


class _Simulated:
    def __init__(self, of: StandIn):
        self._of, self._plain = of, PlainModel.from_pretrained(of.model)
        self.architecture, self.tokenizer, self.guard = self._plain.architecture, self._plain.tokenizer, "mark"

    def __call__(self, texts: Texts) -> SecureOutput:
        started, read = time.monotonic(), self.tokenizer.read(texts)
        positions = positions_of(read)
        out = self._plain(texts)
        left = self._of.service.seconds(positions) - (time.monotonic() - started)
        if left > 0:
            time.sleep(left)
        note(self._of.noted, positions, started, left <= 0)
        return out

    def generate(self, *args: Any, **sampling: Any) -> Any:
        return self._plain.generate(*args, **sampling)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Timed:
    """Opens the real cell, and notes what its calls take."""

    noted: Path

    def __call__(self, settings: ClientSettings) -> Any:
        from secformer.batch.worker import open_served

        return _Noted(open_served(settings), self.noted)


class _Noted:
    def __init__(self, model: Any, noted: Path):
        self._model, self._noted_in = model, noted
        self.architecture, self.tokenizer, self.guard = model.architecture, model.tokenizer, model.guard

    def __call__(self, texts: Texts) -> SecureOutput:
        started = time.monotonic()
        out: SecureOutput = self._model(texts)
        note(self._noted_in, positions_of(self.tokenizer.read(texts)), started, False)
        return out

    def close(self) -> None:
        self._model.close()


def positions_of(read: Reading) -> int:
    return len(read.rows) * max(map(len, read.rows))


def note(file: Path | None, positions: int, started: float, late: bool) -> None:
    """Adds a call that ends now: positions, its seconds, whether it was late, and when it began and ended (seconds of
    the machine's clock, which all processes share)."""
    if file is not None:
        now = time.monotonic()
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{positions} {now - started:.6f} {int(late)} {started:.6f} {now:.6f}\n")
