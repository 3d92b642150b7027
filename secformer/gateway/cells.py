"""Cells: pairs of parties that hold one model, and what of a model's requests each of them does now."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal, Protocol, Unpack

from secformer.models.data.tokenizer import Texts, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.generation.prompts import Prompt
from secformer.models.run.generate import Generation, Options
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import ModelError
from secformer.roles.client import connect
from secformer.roles.settings import load_client

REST = 2.0     # seconds for which a cell that has failed gets nothing, while another can serve
WRITERS = 8    # texts that a cell generates at the same time; a client may have 16 sessions at a party by default

log = logging.getLogger(__name__)


class Model(Protocol):
    """What a cell asks: a `RemoteModel`, or anything else with its methods, such as a `PlainModel`."""

    @property
    def architecture(self) -> Architecture: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def __call__(self, texts: Texts) -> SecureOutput: ...

    def generate(self, prompt: Prompt, *, stream: Literal[True], **sampling: Unpack[Options]) -> Generation: ...

    def close(self) -> None: ...


class Cell:
    """One pair of parties. Its fields that change belong to the lock of the desk that it works for.

    model       what is asked
    room        positions that are asked for in one call, about
    truncation  texts that are too long are cut
    where       what the log calls it
    """

    def __init__(self, model: Model, *, room: int = 1 << 11, truncation: bool = False, where: str = "in process"):
        self.model, self.room, self.truncation, self.where = model, room, truncation, where
        self.writing = 0            # texts that it generates now
        self._rests_until = 0.0
        self.problem = ""           # why its last request failed; "" if it did not

    @property
    def rest(self) -> float:
        """Seconds for which it should get nothing, because it has failed just now."""
        return max(0.0, self._rests_until - time.monotonic())

    def failed(self, error: Exception) -> None:
        """Its parties could not answer."""
        self.problem, self._rests_until = type(error).__name__, time.monotonic() + REST
        log.warning("cell failed", extra={"fields": {"cell": self.where, "problem": str(error)}})

    def served(self) -> None:
        """Its parties have answered."""
        if self.problem:
            log.info("cell serves again", extra={"fields": {"cell": self.where}})
        self.problem, self._rests_until = "", 0.0


def cell_of(file: str | Path) -> Cell:
    """The cell that a client's settings file leads to. Nothing is sent. Raises SettingsError, ModelError."""
    settings = load_client(file)
    return Cell(connect(settings), room=settings.batch_tokens * settings.in_flight, truncation=settings.truncation,
                where=str(file))


def require_alike(name: str, cells: list[Cell]) -> None:
    """Raises ModelError where cells of one name hold different models."""
    for other in cells[1:]:
        if other.model.architecture != cells[0].model.architecture or other.truncation != cells[0].truncation:
            raise ModelError(f"{cells[0].where} and {other.where} are both named {name!r}, but lead to different "
                             f"models, or differ in `truncation`; name them differently: --settings NAME=FILE")
