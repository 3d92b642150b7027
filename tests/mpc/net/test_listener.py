"""A listener with real sockets: peers have places of their own, whatever strangers do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secformer.mpc.errors import Desync, PeerLost
from secformer.mpc.net.door import GAVE_WAY, NO_ROOM, UNPROVED, Refused
from secformer.mpc.net.listener import Listener
from secformer.mpc.net.tls import Identity, TLSChannel, client_context, connect, server_context
from secformer.roles.certificates import init


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("listener") / "roles")
    return folder


def identity(folder: Path, role: str) -> Identity:
    return Identity(folder / role / "authority.pem", folder / role / f"{role}.pem", folder / role / f"{role}.key")


class Echo:
    """Answers one note on each connection; refuses and keeps what it refused."""

    def __init__(self, roles: Path, **room: int):
        self.roles, self.refused, self.release = roles, list[Refused](), threading.Event()
        self.listener = Listener(("127.0.0.1", 0), ("party0", "party1"), server_context(identity(roles, "dealer")),
                                 self._serve, self.refused.append, deadline=20.0, **room)
        self.address = ("127.0.0.1", self.listener.port)

    def _serve(self, channel: TLSChannel) -> None:
        note = channel.hear()
        if note.get("wait"):
            self.release.wait(20)
        channel.tell({"role": channel.role} | note)

    def connect(self, role: str = "party1", patience: float = 10.0) -> TLSChannel:
        return connect(self.address, "dealer", client_context(identity(self.roles, role)), patience=patience,
                       deadline=20.0)

    def ask(self, role: str = "party1", **note: Any) -> dict[str, Any]:
        channel = self.connect(role)
        try:
            channel.tell(note)
            return channel.hear()
        finally:
            channel.close()

    def silent(self, count: int) -> list[socket.socket]:
        return [socket.create_connection(self.address, timeout=20) for _ in range(count)]


@pytest.fixture
def echo(roles: Path) -> Iterator[Echo]:
    it = Echo(roles, strangers=8, peers=2)
    yield it
    it.release.set()
    it.listener.close()


def test_a_peer_gets_in_through_a_crowd_and_stays(echo: Echo) -> None:
    kept = echo.connect()
    crowd = echo.silent(100)
    assert echo.ask("party0", n=1) == {"role": "party0", "n": 1}
    kept.tell({"n": 2})
    assert kept.hear() == {"role": "party1", "n": 2}, "who was let in does not give way"
    kept.close()
    for each in crowd:
        each.close()
    assert {each.why for each in echo.refused} >= {GAVE_WAY}


def test_each_role_has_room_of_its_own_and_waits_for_it(echo: Echo) -> None:
    busy = [echo.connect() for _ in range(2)]
    for each in busy:
        each.tell({"wait": True})
    with pytest.raises(PeerLost, match="closed the connection or did not let this side in"):
        echo.connect(patience=0.5)
    assert echo.refused[0].why == NO_ROOM and echo.ask("party0") == {"role": "party0"}
    threading.Timer(0.3, echo.release.set).start()
    for each in busy:
        assert each.hear() == {"role": "party1", "wait": True}
        each.close()
    assert echo.ask() == {"role": "party1"}


def test_a_wrong_role_is_told_at_once(echo: Echo) -> None:
    started = time.monotonic()
    with pytest.raises(Desync, match=r"client .* is not allowed to connect here; only party0 or party1 may"):
        echo.connect("client")
    assert time.monotonic() - started < 9, "a refusal is not tried again"
    while not echo.refused:
        time.sleep(0.01)
    assert [each.why for each in echo.refused] == [UNPROVED]


def test_connecting_goes_on_until_somebody_is_there(roles: Path) -> None:
    """The whole connect is tried again: nobody there, then somebody who hangs up, then a listener."""
    door = socket.create_server(("127.0.0.1", 0))
    address = door.getsockname()
    door.close()
    found: list[Any] = []

    def ask() -> None:
        found.append(connect(address, "dealer", client_context(identity(roles, "party1")), patience=20.0))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    with socket.create_server(address) as door:
        for _ in range(2):
            connection, _ = door.accept()
            connection.recv(1)
            connection.close()
    listener = Listener(address, ("party1",), server_context(identity(roles, "dealer")), lambda _: None, lambda _: None)
    thread.join(20)
    assert found[0].role == "dealer"
    found[0].close()
    listener.close()
