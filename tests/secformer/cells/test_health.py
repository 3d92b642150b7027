"""How cells do whose parties do not answer as they should: nobody there, silence, others. Cost: about 2 processor
seconds. Parties that answer are in `test_served_cells.py`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from secformer.cells.health import CellHealth, PartyHealth, Probe, look
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tcp import free_ports
from secformer.roles.certificates import init
from secformer.roles.settings import ClientSettings, load_client
from secformer.roles.telling import Told

TOLD = Told("1", "s", "ab" * 32, "", "", 0, 0, None)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ClientSettings:
    folder = tmp_path_factory.mktemp("health") / "roles"
    init(folder)
    return load_client(folder / "client" / "client.toml")


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address where connections are taken, and nothing is said."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()


def test_nobody_is_there(client: ClientSettings) -> None:
    first, second = (("127.0.0.1", port) for port in free_ports(2))
    found = Probe(replace(client, party0=first, party1=second))()
    assert not found.ready and not found.reached
    for rank, party in enumerate(found.parties):
        assert not party.reached and party.told is None and "does not answer or hung up" in party.problem
        assert f"party {rank}: party{rank} at 127.0.0.1:" in found.problem


def test_silence_ends_at_the_deadline_for_all_cells_together(client: ClientSettings, silent: tuple[str, int]) -> None:
    probes = [Probe(replace(client, party0=silent, party1=silent), seconds=0.3) for _ in range(5)]
    for found in look(probes):
        assert not found.reached and not found.ready
        assert all("within 0.3 s" in party.problem for party in found.parties)


def test_one_party_that_is_silent_hides_nothing_of_the_other(client: ClientSettings, silent: tuple[str, int]) -> None:
    found = Probe(replace(client, party0=silent, party1=("127.0.0.1", free_ports(1)[0])), seconds=0.3)()
    assert "within 0.3 s" in found.parties[0].problem and "does not answer or hung up" in found.parties[1].problem


def test_certificates_that_cannot_be_used(client: ClientSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        Probe(replace(client, tls=replace(client.tls, key=tmp_path / "no.key")))


def test_what_makes_a_cell_ready() -> None:
    ready, untold = PartyHealth(TOLD), PartyHealth()
    starting, gone = PartyHealth(TOLD, "starting"), PartyHealth(problem="no", reached=False)
    assert CellHealth((ready, ready)).ready and CellHealth((ready, ready)).problem == ""
    for pair in ((ready, untold), (untold, ready), (ready, starting), (gone, ready)):
        assert not CellHealth(pair).ready
    assert CellHealth((untold, ready)).problem == "", "a party that does not tell may be asked"
    assert CellHealth((starting, gone)).problem == "party 0: starting; party 1: no"
    assert CellHealth((starting, untold)).reached and not CellHealth((ready, gone)).reached
