"""Which cells get nothing now: a small text file beside the list of cells, that commands change while others read it.

One line for each drained cell. The file appears whole, whoever reads it meanwhile. Without the file, none is drained.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from secformer.cells.listing import is_name, load_cells
from secformer.mpc.dealer.files import rewrite
from secformer.mpc.dealer.locking import alone_in
from secformer.mpc.errors import SettingsError

ENDING = ".drained"  # behind the name of the list
LOOK = 1.0           # seconds between looks of those who hand work to cells
HEADER = "# cells that get no work; written by `secformer cells drain` and `secformer cells resume`\n"
MOST = 1 << 20       # bytes of such a file: longer ones are not read

log = logging.getLogger(__name__)


def drained_file(path: str | Path) -> Path:
    """The file beside a list of cells."""
    path = Path(path)
    return path.with_name(path.name + ENDING)


def drained(path: str | Path) -> frozenset[str]:
    """Names of the cells of a list that get nothing now. Names that the list does not have any more may be among them.
    Raises SettingsError for a file that cannot be read."""
    file = drained_file(path)
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST + 1)
        lines = content.decode("utf-8").splitlines()
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise SettingsError(f"cannot read {file}, which says which cells are drained: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _unreadable(file, "it is not UTF-8 text") from error
    if len(content) > MOST:
        raise _unreadable(file, f"it has more than {MOST} bytes")
    names = frozenset(line for line in lines if line and not line.startswith("#"))
    for name in names:
        if not is_name(name):
            raise _unreadable(file, f"{name[:80]!r} is not the name of a cell")
    return names


def drain(path: str | Path, name: str) -> frozenset[str]:
    """From now on, this cell gets nothing; what it has, it finishes. The cells of the list that are drained now.

    To drain a cell twice is allowed. Raises SettingsError for a name that the list does not have, and for files that
    cannot be read or written.
    """
    return _change(path, name, lambda names: names | {name})


def resume(path: str | Path, name: str) -> frozenset[str]:
    """From now on, this cell gets work again. The cells of the list that are drained now. Raises as `drain`."""
    return _change(path, name, lambda names: names - {name})


def _change(path: str | Path, name: str, change: Callable[[frozenset[str]], frozenset[str]]) -> frozenset[str]:
    listed = load_cells(path)
    listed.require(name)
    file = drained_file(path)
    try:
        with alone_in(file.parent):
            before = drained(path)
            after = change(before) & frozenset(listed.names)
            if after != before:
                rewrite(file, HEADER + "".join(f"{each}\n" for each in listed.names if each in after),
                        _as_readable_as(listed.path))
    except OSError as error:
        raise SettingsError(f"cannot write {file}, which says which cells are drained: {error.strerror}") from error
    return after


def _as_readable_as(path: Path) -> Callable[[str, int], int]:
    """An opener of files that those may read who may read the list: the gateway may run as another user."""
    mode = stat.S_IMODE(path.stat().st_mode) & 0o666

    def opened(name: str, flags: int) -> int:
        handle = os.open(name, flags, mode)
        os.fchmod(handle, mode)
        return handle

    return opened


def _unreadable(file: Path, why: str) -> SettingsError:
    return SettingsError(f"{file} does not say which cells are drained: {why}; remove it, and drain again")


class Drained:
    """The drained cells of a list, for one who hands work to cells: it looks at most once per `LOOK` seconds. Any
    thread may ask.

    A file that cannot be read changes nothing; this is logged.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.monotonic):
        """Raises SettingsError for a file that cannot be read."""
        self._path, self._clock = Path(path), clock
        self._names, self._looked, self._problem = drained(path), clock(), ""

    def names(self) -> frozenset[str]:
        """Names of cells that get nothing now."""
        if self._clock() - self._looked >= LOOK:
            self._looked = self._clock()
            try:
                found, problem = drained(self._path), ""
            except SettingsError as error:
                found, problem = self._names, str(error)
            if problem and problem != self._problem:
                log.warning("drained cells unknown", extra={"fields": {"problem": problem}})
            if found != self._names:
                log.info("drained cells", extra={"fields": {"cells": sorted(found)}})
            self._names, self._problem = found, problem
        return self._names
