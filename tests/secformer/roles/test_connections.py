"""The clients' door without a party behind it: how long it waits for a handshake, and whom it tells of a failed one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from secformer.mpc.net.tls import Identity, client_context, host_name, server_context
from secformer.roles import connections
from secformer.roles.certificates import init
from secformer.roles.connections import Clients, OrderlyProtocol, PatientLoop, Peer, refused


def identity(folder: Path, role: str) -> Identity:
    return Identity(folder / role / "authority.pem", folder / role / f"{role}.pem", folder / role / f"{role}.key")


def test_who_never_shakes_hands_is_hung_up_on(roles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE", 0.3)

    async def silence() -> bytes:
        context = server_context(identity(roles, "party0"))
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                return await asyncio.wait_for(reader.read(), 30)  # asyncio's own patience is a minute
            finally:
                writer.close()

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        assert runner.run(silence()) == b""


@pytest.mark.parametrize(("theirs", "said"), [("foreign", "certificate"), ("none", "certificate"), ("junk", "")])
def test_a_failed_handshake_is_logged(roles: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, theirs: str,
                                      said: str) -> None:
    init(tmp_path / "foreign")
    mine = identity(tmp_path / "foreign" if theirs == "foreign" else roles, "client")

    def knock(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=30) as connection:
            if theirs == "junk":
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                connection.recv(100)
                return
            context = client_context(mine)
            if theirs == "none":
                context = type(context)(context.protocol)
                context.load_verify_locations(mine.authority)
            else:
                context.load_verify_locations(identity(roles, "client").authority)
            with (context.wrap_socket(connection, server_hostname=host_name("party0")) as secured,
                  contextlib.suppress(OSError)):
                secured.recv(100)  # in TLS 1.3 the refusal comes after the client's own handshake

    async def served() -> None:
        context = server_context(identity(roles, "party0"), refused)
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
            await asyncio.to_thread(knock, server.sockets[0].getsockname())

    with caplog.at_level(logging.WARNING, "secformer"), asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(served())
    (record,) = [r for r in caplog.records if r.getMessage() == "connection refused"]
    problem = record.__dict__["fields"]["problem"]
    assert problem.startswith("handshake failed: ") and said in problem


def test_a_good_handshake_is_not_logged(roles: Path, caplog: pytest.LogCaptureFixture) -> None:
    def knock(address: tuple[str, int]) -> bytes:
        context = client_context(identity(roles, "client"))
        with (socket.create_connection(address, timeout=30) as connection,
              context.wrap_socket(connection, server_hostname=host_name("party0")) as secured):
            return secured.recv(100)

    async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    async def served() -> bytes:
        context = server_context(identity(roles, "party0"), refused)
        async with await asyncio.start_server(hello, "127.0.0.1", 0, ssl=context) as server:
            return await asyncio.to_thread(knock, server.sockets[0].getsockname())

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        assert runner.run(served()) == b"hello"
    assert not [r for r in caplog.records if r.name.startswith("secformer")]


class Connection:
    """Stands for a client's connection."""

    def __init__(self, peer: Peer, idle: bool):
        self.peer, self.idle, self.closed = peer, lambda: idle, False
        self.transport = self

    def abort(self) -> None:
        self.closed = True


class Objecting:
    """Stands for a context that objects to certificates of these serial numbers."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def objection(self, certificate: Any) -> str:
        return "was revoked on 2026-01-01" if certificate["serialNumber"] in self.revoked else ""


def test_connections_of_revoked_certificates_end_and_clients_are_named_once() -> None:
    """A client that has shown another certificate since is not named: its sessions go on."""
    context, clients = Objecting(), Clients()
    old, new, other = (Peer("client", name, {"serialNumber": number}, context)  # type: ignore[arg-type]
                       for name, number in (("alice", "1"), ("alice", "2"), ("bob", "3")))
    connections = [Connection(old, True), Connection(old, False), Connection(new, True), Connection(other, True)]
    for connection in connections:
        clients.came(connection)
        clients.asked(connection.peer)
    assert clients.end_invalid() == {} and not any(connection.closed for connection in connections)
    context.revoked = {"1", "3"}
    assert clients.end_invalid() == {"bob": other.objection()} and "bob" in other.objection()
    assert [connection.closed for connection in connections] == [True, False, False, True]
    assert clients.end_invalid() == {}
    for connection in connections:
        clients.left(connection)
    clients.left(connections[0])


def test_an_application_says_nothing_behind_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """Found by fuzzing: a body that turns out malformed was refused, then the application answered, and the server
    logged a defect for it."""
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 405, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def served() -> bytes:
        config = Config(refusing, http=OrderlyProtocol, log_config=None, access_log=False, lifespan="off", ws="none")
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        async with await loop.create_server(lambda: OrderlyProtocol(config, state, {}), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
                return await reader.read()
            finally:
                writer.close()

    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        assert asyncio.run(served()).startswith(b"HTTP/1.1 400 ")
    assert not caplog.records
