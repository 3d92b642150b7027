"""The clients' port and the metrics port without a party behind them: over real sockets, in one process."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from links_lab import identity
from roles_lab import until
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config
from uvicorn.server import ServerState

from secformer.mpc.net.door import GAVE_WAY, JUNK, UNPROVED, Refused
from secformer.mpc.net.places import Places
from secformer.mpc.net.tcp import listening
from secformer.mpc.net.tls import client_context, host_name, server_context
from secformer.roles.certificates import init
from secformer.roles.connections import (
    LONGEST_HEADER,
    PEER,
    ClientProtocol,
    Clients,
    DoorServer,
    OrderlyProtocol,
    PatientProtocol,
    Peer,
)

PATIENCE = 1.0
WHOLE, HALF = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"


class Port:
    """A clients' port, or a metrics port, in a thread."""

    def __init__(self, roles: Path, secured: bool, each: int = 2, clients: int = 8):
        self.roles, self.refused, self.entered = roles, list[Refused](), threading.Event()
        self.clients, self.release = Places(clients, each), threading.Event()
        self.strangers = Places(4)
        made: Callable[..., PatientProtocol] = partial(PatientProtocol, patience=PATIENCE)
        if secured:
            made = partial(ClientProtocol, patience=PATIENCE, connected=Clients(), clients=self.clients,
                           too_many=Places(2))
        sock = listening(("127.0.0.1", 0))
        self.address = sock.getsockname()
        app = Starlette(routes=[Route("/", self._quick, methods=["GET", "POST"]), Route("/slow", self._slow)])
        self.server = DoorServer(
            Config(app, log_config=None, lifespan="off", ws="none", h11_max_incomplete_event_size=LONGEST_HEADER,
                   timeout_graceful_shutdown=1), made, sock, self.strangers,
            self.refused.append, server_context(identity(roles, "party0")) if secured else None)
        self.thread = threading.Thread(target=asyncio.run, args=(self.server.serve(),))
        self.thread.start()
        until(lambda: self.server.started)

    async def _quick(self, request: Request) -> Response:
        with suppress(ClientDisconnect):
            peer = request.scope.get(PEER)
            shown = None if peer is None else (peer.role, peer.name)
            return PlainTextResponse(f"{shown} {len(await request.body())}")
        return Response()

    async def _slow(self, request: Request) -> Response:
        self.entered.set()
        await asyncio.to_thread(self.release.wait, 20)
        return PlainTextResponse("slow")

    def socket(self, role: str = "client") -> Any:
        raw = socket.create_connection(self.address, timeout=20)
        return client_context(identity(self.roles, role)).wrap_socket(raw, server_hostname=host_name("party0"))

    def ask(self, path: str = "/", kept: Any = None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.address[1], timeout=20)
        connection.sock = kept or self.socket()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if kept is None:
            connection.close()
        return answer.status, body


@contextmanager
def port(roles: Path, secured: bool = True, **settings: Any) -> Iterator[Port]:
    it = Port(roles, secured, **settings)
    try:
        yield it
    finally:
        it.release.set()
        it.server.should_exit = True
        it.thread.join(30)


def ended(connection: socket.socket) -> bool:
    with suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    return True


def test_a_client_is_named_in_its_requests(roles: Path) -> None:
    with port(roles) as clients:
        assert clients.ask() == (200, b"('client', 'client') 0")
        until(lambda: not len(clients.clients))
    assert not clients.refused


def test_a_failed_handshake_is_told_with_its_address(roles: Path, tmp_path: Path) -> None:
    init(tmp_path / "foreign")
    with port(roles) as clients:
        context = client_context(identity(tmp_path / "foreign", "client"))
        context.load_verify_locations(identity(roles, "client").authority)
        with socket.create_connection(clients.address, timeout=20) as raw:
            where = f"127.0.0.1:{raw.getsockname()[1]}"
            with suppress(OSError), context.wrap_socket(raw, server_hostname=host_name("party0")) as secured:
                secured.recv(1)
        with socket.create_connection(clients.address, timeout=20) as junk:
            junk.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert ended(junk)
        until(lambda: len(clients.refused) == 2)
    first, second = clients.refused
    assert (first.where, first.why) == (where, UNPROVED) and "certificate" in first.problem
    assert second.why == JUNK


def test_strangers_give_way_and_clients_do_not(roles: Path) -> None:
    with port(roles) as clients:
        kept = clients.socket()
        assert clients.ask(kept=kept)[0] == 200
        silent = [socket.create_connection(clients.address, timeout=20) for _ in range(30)]
        assert clients.ask() == (200, b"('client', 'client') 0") == clients.ask(kept=kept)
        until(lambda: len(clients.strangers) <= 4)
        for each in (kept, *silent):
            each.close()
    assert GAVE_WAY in {each.why for each in clients.refused}


def test_an_idle_connection_of_the_same_client_gives_way(roles: Path) -> None:
    with port(roles, each=2) as clients:
        idle = [clients.socket() for _ in range(2)]
        for each in idle:
            assert clients.ask(kept=each)[0] == 200
        assert clients.ask()[0] == 200 and ended(idle[0]) and clients.ask(kept=idle[1])[0] == 200
        for each in idle:
            each.close()


@pytest.mark.parametrize(("each", "clients", "status"), [(1, 8, 429), (8, 1, 503)])
def test_too_many_busy_connections_are_told(roles: Path, each: int, clients: int, status: int) -> None:
    with port(roles, each=each, clients=clients) as it:
        answers: list[Any] = []
        busy = threading.Thread(target=lambda: answers.append(it.ask("/slow")))
        busy.start()
        assert it.entered.wait(20)
        refused = it.ask()
        assert refused[0] == status and b"too many connections" in refused[1]
        it.release.set()
        busy.join(20)
        assert answers == [(200, b"slow")] and it.ask()[0] == 200


@pytest.mark.parametrize("secured", [True, False])
@pytest.mark.parametrize("part", [WHOLE[:20], HALF, WHOLE + HALF])
def test_half_a_request_is_dropped_also_behind_a_whole_one(roles: Path, secured: bool, part: bytes) -> None:
    with port(roles, secured) as it:
        connection = it.socket() if secured else socket.create_connection(it.address, timeout=20)
        connection.sendall(part)
        assert ended(connection)
        connection.close()


def test_a_header_is_not_longer_than_it_may_be(roles: Path) -> None:
    with port(roles) as clients, clients.socket() as connection:
        with suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 4 * LONGEST_HEADER)
        assert ended(connection)


def test_the_metrics_port_serves_beside_the_silent(roles: Path) -> None:
    with port(roles, secured=False) as metrics:
        silent = [socket.create_connection(metrics.address, timeout=20) for _ in range(30)]
        connection = HTTPConnection("127.0.0.1", metrics.address[1], timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"None 0"
        connection.close()
        for each in silent:
            each.close()


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
