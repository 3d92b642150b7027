"""The list of cells: a TOML file with a name and a client's settings file for each.

    [[cell]]
    name = "berlin"
    settings = "berlin/client.toml"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secformer.mpc.errors import SettingsError
from secformer.roles.settings import Address, ClientSettings, load_client, read_toml, refuse_unknown

CELL, NAME, SETTINGS = "cell", "name", "settings"
LONGEST_NAME = 32  # characters, so that tables and logs stay readable
NAMES = f"1 to {LONGEST_NAME} letters, digits, - and _, of which the first is a letter or a digit"
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST_NAME - 1}}}", re.ASCII)


@dataclass(frozen=True)
class ListedCell:
    """A cell of a list: its name, the client's settings file that leads to it, and what that file says."""

    name: str
    settings: Path
    client: ClientSettings


@dataclass(frozen=True)
class CellList:
    """The cells of a file, in its order: at least one."""

    path: Path
    cells: tuple[ListedCell, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(cell.name for cell in self.cells)

    def require(self, name: str) -> None:
        """Raises SettingsError unless a cell has this name."""
        if name not in self.names:
            raise SettingsError(f"{self.path} lists no cell {name!r}; its cells are {', '.join(self.names)}")

    def __iter__(self) -> Iterator[ListedCell]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


def load_cells(path: str | Path) -> CellList:
    """The cells of a file, and each one's client settings. Nothing is sent.

    Raises SettingsError that names the file, the key and what holds: for a list without cells, for two cells of one
    name, for a party that two cells have, and for whatever is wrong in a client's settings file.
    """
    path = Path(path)
    given = read_toml(path, "list of cells", f'it has a table [[{CELL}]] with {NAME} and {SETTINGS} for each cell')
    refuse_unknown(path, "", given, [CELL])
    tables = given.get(CELL, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise SettingsError(f"{path}: each cell is a table [[{CELL}]] with the keys {NAME} and {SETTINGS}; got "
                            f"{CELL} = {tables!r}")
    if not tables:
        raise SettingsError(f"{path} lists no cells; it needs a table [[{CELL}]] with the keys {NAME} and {SETTINGS} "
                            f"for each cell")
    cells: list[ListedCell] = []
    for number, table in enumerate(tables, start=1):
        cell = _cell(path, number, table)
        for other in cells:
            _require_apart(path, other, cell)
        cells.append(cell)
    return CellList(path, tuple(cells))


def is_name(name: object) -> bool:
    """Whether a cell may have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _cell(path: Path, number: int, table: dict[str, Any]) -> ListedCell:
    where = f"cell {number}"
    refuse_unknown(path, f"{where}: ", table, [NAME, SETTINGS])
    for key in (NAME, SETTINGS):
        if key not in table:
            raise SettingsError(f"{path}: {where} lacks the key {key!r}; a cell has the keys {NAME} and {SETTINGS}")
    name, settings = table[NAME], table[SETTINGS]
    if not is_name(name):
        raise SettingsError(f"{path}: {where}: {NAME} must be {NAMES}; got {name!r}")
    if not isinstance(settings, str) or not settings:
        raise SettingsError(f"{path}: cell {name!r}: {SETTINGS} must be the path of a client's settings file, got "
                            f"{settings!r}")
    file = path.parent / settings
    try:
        return ListedCell(name, file, load_client(file))
    except SettingsError as error:
        raise SettingsError(f"{path}: cell {name!r}: {error}") from error


def _require_apart(path: Path, one: ListedCell, other: ListedCell) -> None:
    if one.name == other.name:
        raise SettingsError(f"{path}: two cells have the name {one.name!r}; each needs a name of its own")
    if common := _parties(one) & _parties(other):
        host, port = min(common)
        raise SettingsError(f"{path}: the cells {one.name!r} and {other.name!r} have the same party, {host}:{port}; a "
                            f"party belongs to one cell")


def _parties(cell: ListedCell) -> set[Address]:
    return {(host.lower(), port) for host, port in (cell.client.party0, cell.client.party1)}
