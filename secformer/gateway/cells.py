"""Cells: pairs of parties that hold one model, and what of a model's requests each of them does now."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, Unpack

from secformer.cells.alike import Traits, architecture_traits, model_traits
from secformer.cells.drained import Drained
from secformer.cells.health import Probe
from secformer.cells.listing import CellList
from secformer.cells.watch import Watch
from secformer.models.data.tokenizer import Texts, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.generation.prompts import Prompt
from secformer.models.run.generate import Generation, Options
from secformer.models.run.output import SecureOutput
from secformer.roles.client import connect
from secformer.roles.settings import ClientSettings, load_client

WRITERS = 8  # texts that a cell generates at the same time; a client may have 16 sessions at a party by default

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
    watch       whether it should get work, as far as its requests and its parties tell
    drained     whether its operator wants it to get none
    traits      what must be the same at all cells of one model
    """

    def __init__(self, model: Model, *, room: int = 1 << 11, truncation: bool = False, watch: Watch | None = None,
                 drained: Callable[[], bool] = lambda: False, traits: Traits | None = None):
        self.model, self.room, self.truncation = model, room, truncation
        self.watch, self.drained = watch or Watch("in process"), drained
        self.traits = traits or architecture_traits(model.architecture, truncation)
        self.writing = 0  # texts that it generates now

    @property
    def name(self) -> str:
        """What the log and errors call it."""
        return self.watch.name

    @property
    def problem(self) -> str:
        """Why it serves nothing now, as far as its last request tells; "" if nothing is known against it."""
        return "drained" if self.drained() else self.watch.problem

    def close(self) -> None:
        """Hangs up, and asks no more."""
        self.watch.close()
        self.model.close()


def cell_of(file: str | Path) -> Cell:
    """The cell that a client's settings file leads to. Nothing is sent. Raises SettingsError, ModelError."""
    return _cell(load_client(file), str(file))


def cells_of(listed: CellList) -> list[Cell]:
    """The cells of a list, each of which is left alone while it is drained. Nothing is sent. Raises SettingsError,
    ModelError."""
    look = Drained(listed.path)
    found: list[Cell] = []
    try:
        for each in listed:
            found.append(_cell(each.client, each.name, partial(_is_drained, look, each.name)))
    except BaseException:
        for cell in found:
            cell.close()
        raise
    return found


def _is_drained(look: Drained, name: str) -> bool:
    return name in look.names()


def _cell(settings: ClientSettings, name: str, drained: Callable[[], bool] = lambda: False) -> Cell:
    model = connect(settings)
    try:
        return Cell(model, room=settings.batch_tokens * settings.in_flight, truncation=settings.truncation,
                    watch=Watch(name, Probe(settings, model=model.public.digest)), drained=drained,
                    traits=model_traits(model.public, settings))
    except BaseException:
        model.close()
        raise
