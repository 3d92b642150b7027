"""Versions side by side, and everything that a running cell may have replaced, with real processes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from roles_lab import TEXT, Steady, ask, log_lines, logged, no_serial_twice, right, serials, until
from versions_lab import REQUEST, another

from secformer import connect, demo_model
from secformer.cli import main
from secformer.mpc.errors import InputError, ProtocolError
from secformer.mpc.net.credentials import Credentials
from secformer.roles import asking, formats
from secformer.roles.asking import PartyConnection
from secformer.roles.certificates import issue
from secformer.roles.messages import Half
from secformer.roles.settings import load_client
from secformer.roles.trial import ROLES, LocalRoles
from secformer.version import __version__

NEW, NEW_FORM = "9.8.7", "secformer request 9"
PARTIES = {"deadline": 20.0, "dealer_wait": 15.0, "request_deadline": 60.0}
OURS: Mapping[str, str] = {}


class Cell(LocalRoles):
    """Roles whose processes may run different versions."""

    def run_as(self, **environments: Mapping[str, str]) -> None:
        """Each role in its environment; those that run so already go on."""
        for role, environment in environments.items():
            if role in self.processes and self.environments.get(role) == environment:
                continue
            if role in self.processes:
                self.stop(role)
            self.environments[role] = environment
            self.start(role)

    def restart(self, role: str) -> None:
        """In order, as `systemctl restart` does."""
        process = self.processes[role]
        self.stop(role)
        assert process.returncode == 0
        self.start(role)

    def names_both(self, rank: int) -> bool:
        """Whether an operator reads both versions where the party says why it is not ready."""
        return NEW in (reason := self.ready(rank)) and __version__ in reason


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return another(tmp_path_factory.mktemp("new"), NEW)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    cell = Cell(tmp_path_factory.mktemp("cell"), demo_model(), settings=PARTIES)
    try:
        yield cell
        no_serial_twice(cell)
    finally:
        cell.__exit__()


def test_a_mixed_cell_is_refused_until_versions_agree(cell: Cell, new: dict[str, str]) -> None:
    """Each party says both versions, and no role has to be started again but those of the wrong version."""
    cell.run_as(dealer=OURS, party0=new, party1=OURS)
    until(lambda: cell.names_both(0) and cell.names_both(1), 60)
    logged(cell, "dealer", lambda line: line.get("why") == "failed" and NEW in line["problem"]
           and __version__ in line["problem"])
    with pytest.raises(ProtocolError, match="not ready"):
        ask(cell)
    assert NEW not in _told(cell), "clients learn nothing of the roles' troubles"
    stays = cell.processes["party0"]
    cell.run_as(dealer=new)
    until(lambda: cell.names_both(1), 60)
    cell.run_as(party1=new)
    cell.wait_ready()
    right(ask(cell))
    assert cell.processes["party0"] is stays and stays.poll() is None


def _told(cell: Cell) -> str:
    try:
        ask(cell)
    except ProtocolError as error:
        return str(error)
    return ""


def test_one_client_asks_cells_of_two_versions(cell: Cell, new: dict[str, str], up: LocalRoles) -> None:
    """During an upgrade, the cell that was upgraded serves beside those that were not."""
    cell.run_as(dealer=new, party0=new, party1=new)
    cell.wait_ready()
    for roles, version in ((up, __version__), (cell, NEW), (up, __version__)):
        right(ask(roles))
        assert _hello(roles)["version"] == version and _hello(roles)["format"] == formats.FORMAT


def _hello(roles: LocalRoles) -> dict[str, str]:
    """What party 0 says first, as a client hears it."""
    heard: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "require_format", lambda said, party: heard.append(said))
        party = _party(roles, 0)
        party.model()
        party.close()
    return dict(asking.read_own(heard[0]))


def _party(roles: LocalRoles, rank: int) -> PartyConnection:
    settings = load_client(roles.settings("client"))
    return PartyConnection(rank, (settings.party0, settings.party1)[rank], Credentials(settings.tls).client(), 20.0)


def test_everything_is_replaced_while_a_client_asks(cell: Cell, new: dict[str, str]) -> None:
    """Certificates of all, the epoch, and the dealer's process: no request fails. A party's process is replaced while
    nobody asks, and the same client goes on."""
    cell.run_as(dealer=new, party0=new, party1=new)
    cell.wait_ready()
    names = {line.split()[0] for line in serials(cell, "party1")}
    with Steady(cell, "client") as steady:
        for role in ("party0", "party1", "dealer"):
            issue(cell.folder / "roles", role)
            logged(cell, role, lambda line: line["event"] == "certificate renewed")
            steady.more(1)
        issue(cell.folder / "roles", "client")
        time.sleep(1.5)  # a client looks at its files once a second
        assert main(["epoch", "rotate", "--settings", str(cell.settings("dealer"))]) == 0
        until(lambda: {line.split()[0] for line in serials(cell, "party1")} > names)
        steady.more()
        cell.restart("dealer")
        steady.more()
    with connect(cell.settings("client")) as model:
        right(model.infer(TEXT))
        cell.restart("party0")
        until(lambda: cell.ready(0) != "" or cell.ready(1) != "")
        cell.wait_ready()
        right(model.infer(TEXT))
    assert not any(line["event"] == "unexpected" for role in ROLES for line in log_lines(cell, role))


def test_a_format_that_differs_is_refused_by_both_sides(cell: Cell, new: dict[str, str], tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    other = another(tmp_path, NEW, {REQUEST: ('"secformer request 2"', f'"{NEW_FORM}"')})
    cell.run_as(dealer=new, party0=other, party1=other)
    cell.wait_ready()
    before = [line for line in log_lines(cell, "party0") if line["event"] == "request ended"]
    with pytest.raises(ProtocolError) as caught:
        ask(cell)
    assert re.search(rf"party[01] at .* runs version {re.escape(NEW)}, whose messages have the format '{NEW_FORM}, .*, "
                     rf"but this client is version {re.escape(__version__)}, with the format 'secformer request 2, .*"
                     rf"Nothing was sent\. Install the parties' version here", str(caught.value)), caught.value
    assert [line for line in log_lines(cell, "party0") if line["event"] == "request ended"] == before
    monkeypatch.setattr(asking, "require_format", lambda said, party: None)  # a client that does not look
    half = Half("ab" * 16, cell.public.digest, np.array([2]), np.ones((1, 2), bool), seed=bytes(32))
    for rank in (0, 1):
        party = _party(cell, rank)
        with pytest.raises(InputError, match=rf"the body has the form 'secformer request 2', of version {__version__}, "
                                             rf"but version {NEW} here reads '{NEW_FORM}'; install the same version"):
            party.infer(half)
        party.close()
