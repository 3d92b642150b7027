"""How all cells of a list do now, and what differs between them that should not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secformer.cells.alike import Named, differences, model_traits
from secformer.cells.drained import drained
from secformer.cells.health import SECONDS, CellHealth, Probe, look
from secformer.cells.listing import CellList, ListedCell
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import SecformerError
from secformer.roles.telling import Told


@dataclass(frozen=True)
class Seen:
    """How one cell does.

    health   what its parties tell; None where this client cannot ask them
    problem  why a request to it would fail, as far as is known; "" if nothing is known against it
    """

    name: str
    settings: Path
    drained: bool
    health: CellHealth | None
    problem: str

    @property
    def ready(self) -> bool:
        """Whether both parties say that they answer requests."""
        return self.health is not None and self.health.ready

    @property
    def told(self) -> tuple[Told, ...]:
        """What its parties say of themselves, of those that do."""
        return tuple(each.told for each in self.health.parties if each.told is not None) if self.health else ()


@dataclass(frozen=True)
class Overview:
    """How all cells do, in the order of the list. `notes` say what differs between cells."""

    cells: tuple[Seen, ...]
    notes: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the cells that are not drained and do not say that they are ready."""
        return tuple(cell.name for cell in self.cells if not (cell.ready or cell.drained))


class Survey:
    """Looks at the cells of a list, as often as it is asked to. What it needs of this client's files is read once."""

    def __init__(self, listed: CellList, seconds: float = SECONDS):
        """Nothing is sent. `seconds`: that each cell gets to answer."""
        self._listed = listed
        self._probes: dict[str, Probe] = {}
        self._problems: dict[str, str] = {}
        models: list[Named] = []
        for cell in listed:
            try:
                public = PublicModel.load(cell.client.model)
                models.append((cell.name, model_traits(public, cell.client)))
                self._probes[cell.name] = Probe(cell.client, model=public.digest, seconds=seconds)
            except SecformerError as error:
                self._problems[cell.name] = str(error)
        self._notes = [f"the cells {models[0][0]} and {other[0]} hold different models: {'; '.join(odd)}"
                       for other in models[1:] if (odd := differences(models[0], other))]

    def look(self) -> Overview:
        """Asks all cells at the same time. Raises SettingsError where it cannot be read which cells are drained."""
        gone = drained(self._listed.path)
        found = dict(zip(self._probes, look(list(self._probes.values())), strict=True))
        seen = tuple(self._seen(cell, cell.name in gone, found.get(cell.name)) for cell in self._listed)
        notes = [*self._notes, *_versions(seen, "versions", lambda told: told.version),
                 *_versions(seen, "formats of streams", lambda told: told.streams)]
        return Overview(seen, (*notes, *(("every cell is drained, so nothing is served",)
                                         if all(cell.drained for cell in seen) else ())))

    def _seen(self, cell: ListedCell, drained: bool, health: CellHealth | None) -> Seen:
        problem = self._problems.get(cell.name) or (health.problem if health is not None else "")
        return Seen(cell.name, cell.settings, drained, health, problem)


def _versions(seen: tuple[Seen, ...], what: str, of: Callable[[Told], str]) -> list[str]:
    """Says so where parties differ in this."""
    by = {cell.name: dict.fromkeys(map(of, cell.told)) for cell in seen if cell.told}
    if len({version for versions in by.values() for version in versions}) < 2:
        return []
    return [f"the parties run different {what}: "
            + ", ".join(f"{name} {' and '.join(versions)}" for name, versions in by.items())]
