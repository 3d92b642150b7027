"""The settings files of workers: one role of several cells, on one machine. What may not stand together is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secformer.mpc.errors import SettingsError
from secformer.roles.settings import DealerSettings, PartySettings, load_dealer, load_party

ANYWHERE = ("0.0.0.0", "::")  # hosts that stand for every address of the machine


@dataclass(frozen=True)
class Worker:
    """One role of one cell. `cell` is what logs call it."""

    cell: str
    role: str
    path: Path
    settings: PartySettings | DealerSettings


def read_workers(paths: Sequence[Path]) -> list[Worker]:
    """The workers of these settings files, which must be of one role and share neither folders nor addresses.

    Raises SettingsError, for a file that cannot be used as well.
    """
    workers = [Worker(cell, *_read(path)) for cell, path in zip(_cells(paths), paths, strict=True)]
    first = workers[0]
    for other in workers[1:]:
        if other.role != first.role:
            raise SettingsError(
                f"{first.path} is {_called(first.role)}'s file and {other.path} is {_called(other.role)}'s, but all "
                f"workers of a machine must be of one role. Whoever runs two roles of a cell in one place can join "
                f"what they must not know together: the weights, the texts and the answers. Give each role machines, "
                f"accounts and operators of its own")
    _require_apart(workers)
    return workers


def _read(path: Path) -> tuple[str, Path, PartySettings | DealerSettings]:
    """The role of a settings file, by its keys."""
    try:
        keys = tomllib.loads(path.read_text("utf-8")).keys()
    except (OSError, ValueError, RecursionError):
        keys = {"rank": None}.keys()  # refused below, in the words of every settings file
    if "rank" in keys:
        party = load_party(path)
        return f"party{party.rank}", path, party
    if "listen" in keys:
        return "dealer", path, load_dealer(path)
    raise SettingsError(f"{path} is not the settings file of a dealer, which has the key 'listen', nor of a party, "
                        f"which has the key 'rank'; `secformer init` writes both")


def _cells(paths: Sequence[Path]) -> list[str]:
    """What tells the files apart: their names or, where some are called alike, their folders, or the folders above."""
    for names in zip(*((path.stem, *(folder.name for folder in path.resolve().parents)) for path in paths),
                     strict=False):
        if len(set(names)) == len(names) and all(names):
            return list(names)
    return [str(path) for path in paths]


def _called(role: str) -> str:
    return "the dealer" if role == "dealer" else f"party {role[-1]}"


def _require_apart(workers: Sequence[Worker]) -> None:
    """Raises SettingsError for two workers that would use the same folder or the same address."""
    folders: dict[Path, tuple[str, Worker]] = {}
    taken: list[tuple[str, tuple[str, int], Worker]] = []
    for worker in workers:
        for key, folder in _folders(worker.settings):
            before, other = folders.setdefault(folder.resolve(), (key, worker))
            if other is not worker:
                raise SettingsError(f"{other.path} and {worker.path} both use the folder {folder} ({before} and "
                                    f"{key}); two processes that share it would use the same randomness, so give each "
                                    f"a folder of its own")
        for key, address in _addresses(worker.settings):
            for before, known, other in taken:
                if other is not worker and _same(known, address):
                    raise SettingsError(f"{other.path} and {worker.path} both use {address[0]}:{address[1]} "
                                        f"({before} and {key}); give each worker an address of its own")
            taken.append((key, address, worker))


def _folders(settings: PartySettings | DealerSettings) -> Iterator[tuple[str, Path]]:
    yield "state", settings.state
    yield "audit_folder", settings.audit_folder
    if isinstance(settings, PartySettings) and settings.rank == 1:
        yield "store", settings.store


def _addresses(settings: PartySettings | DealerSettings) -> Iterator[tuple[str, tuple[str, int]]]:
    if settings.metrics is not None:
        yield "metrics", settings.metrics
    if isinstance(settings, DealerSettings):
        yield "listen", settings.listen
        return
    yield "clients", settings.clients
    yield "link", settings.link  # party 1 asks there: one party 0 has one party 1
    if settings.browsers is not None:
        yield "browsers.address", settings.browsers.address


def _same(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two processes cannot have both. Port 0 is any that is free."""
    return one[1] == other[1] != 0 and (one[0] == other[0] or one[0] in ANYWHERE or other[0] in ANYWHERE)
