"""A party's ports for clients and for browsers, in one process: real sockets and TLS, and jobs that a test answers."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import numpy as np
from links_lab import identity
from roles_lab import until
from tree import ROOT

from secformer.models.run.public import PublicModel
from secformer.mpc.meter import Cost
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import client_context, host_name
from secformer.roles.asking import PartyConnection
from secformer.roles.audit import Unaudited
from secformer.roles.budgets import Budget, Budgets, Ledger
from secformer.roles.certificates import REVOKED
from secformer.roles.connections import Clients
from secformer.roles.descriptors import Room
from secformer.roles.jobs import Jobs
from secformer.roles.messages import ID_DIGITS, Answer, Half, Ran, pack_half
from secformer.roles.monitoring import PartyMetrics, Status
from secformer.roles.origins import Browsers
from secformer.roles.sessions import Sessions
from secformer.roles.settings import PartySettings
from secformer.roles.signing import Signer
from secformer.roles.tokens import make
from secformer.roles.trial import LocalRoles
from secformer.roles.web import Web, doors

ORIGIN = "https://page.example"
PUBLIC = PublicModel.load(ROOT / "fuzz/targets/client")
REQUEST = "ab" * (ID_DIGITS // 2)
HEADER = {"Origin": ORIGIN}
ANSWER = Answer({"logits": np.arange(2, dtype=np.uint64)[None]}, 16, Cost(),
                Ran("ef" * 16, "live/3", "cd" * 32, "ab" * 32, 0.0, 0.0, 0.0))


class Waiting(Jobs):
    """Jobs that are answered when the test says so. `came`: by whom."""

    def __init__(self) -> None:
        super().__init__(8)
        self.came: list[str] = []
        self.open, self.waiting_for_it = True, list[Future[Answer]]()

    def submit(self, half: Half, client: str, deadline: float, *more: Any) -> Future[Answer]:
        self.came.append(client)
        done: Future[Answer] = Future()
        self.waiting_for_it.append(done)
        if self.open:
            done.set_result(ANSWER)
        return done

    def release(self) -> None:
        """Answers all that wait."""
        for done in self.waiting_for_it:
            if not done.done():
                done.set_result(ANSWER)


def browser(authority: Path, port: int, host: str = "127.0.0.1") -> HTTPSConnection:
    """A connection as a browser makes it that trusts the authority."""
    return HTTPSConnection(host, port, timeout=60, context=ssl.create_default_context(cafile=str(authority)))


class Ports:
    """Party 0's."""

    def __init__(self, roles: Path, folder: Path, ledger: Ledger, strangers: int,
                 own: tuple[Path, Path] | None, **settings: Any):
        """`own`: another certificate and key for the port for browsers."""
        tls = replace(identity(roles, "party0"), revoked=roles / "party0" / REVOKED)
        here = ("127.0.0.1", 0)
        origins = [ORIGIN, "http://localhost:8000"]
        browsers = Browsers(here, origins, 900.0, *(own or ()))
        self.settings = PartySettings(0, folder, folder, here, here, here, tls, browsers=browsers,
                                      **{"max_body_mb": 1, "header_deadline": 2.0, **settings})
        self.roles, self.jobs, status = roles, Waiting(), Status()
        status.set_ready()
        self.credentials, self.metrics = Credentials(tls), PartyMetrics(status, self.jobs)
        sessions = Sessions(self.settings, lambda: None, 1)  # type: ignore[arg-type,return-value]
        self.web = Web(self.settings, PUBLIC, self.jobs, status, self.metrics, sessions, ledger, Unaudited(),
                       Signer(tls))
        self.connected = Clients()
        self.servers = doors(self.settings, self.web, self.credentials, Room(strangers, 64), self.connected)
        self.clients, self.browsers = (server._sock.getsockname() for server in self.servers)
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        until(lambda: all(server.started for server in self.servers))

    async def _serve(self) -> None:
        await asyncio.gather(*(server.serve() for server in self.servers))

    def end(self) -> None:
        self.jobs.release()
        for server in self.servers:
            server.should_exit = True
        self._thread.join(30)

    # ---- asking ------------------------------------------------------------------------------------------------------

    def token(self, client: str = "client", rank: int = 0, seconds: int = 600, requests: int = 1000,
              **more: Any) -> str:
        return make(Signer(identity(self.roles, client)), rank, PUBLIC.digest, seconds, requests, **more)

    def browser(self, host: str = "127.0.0.1") -> HTTPSConnection:
        """A browser's connection to this party."""
        return browser(self.roles / "client" / "authority.pem", self.browsers[1], host)

    def known(self, client: str = "client") -> HTTPConnection:
        """A connection to the clients' port."""
        connection = HTTPConnection("127.0.0.1", self.clients[1], timeout=20)
        connection.connect()
        connection.sock = client_context(identity(self.roles, client)).wrap_socket(
            connection.sock, server_hostname=host_name("party0"))
        return connection


class Bearer(PartyConnection):
    """One of the parties that real roles are, as a page reaches it: with a token, at the port for browsers."""

    def __init__(self, roles: LocalRoles, rank: int, token: str):
        self._page = browser(roles.role_folder("client") / "authority.pem", roles.ports[f"browsers{rank}"])
        self._bearing = HEADER | {"Authorization": f"Bearer {token}"}
        super().__init__(rank, ("127.0.0.1", self._page.port), self._page._context, 60.0)  # type: ignore[attr-defined]

    def _outdated(self) -> bool:
        return False

    def _knock(self) -> HTTPConnection:
        self._connection = self._page
        return self._page

    def _once(self, method: str, path: str, body: Any, headers: Any, most: int) -> Any:
        return super()._once(method, path, body, {**headers, **self._bearing}, most)


Said = tuple[int, dict[str, str], bytes]


def said(connection: HTTPConnection) -> Said:
    """Status, headers and body of an answer."""
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def asked(connection: HTTPConnection, method: str, path: str, token: str | None = None, body: bytes = b"",
          **headers: str) -> Said:
    """One exchange of the page's; a header `None` is left out."""
    shown = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request(method, path, body, HEADER | shown | {k.replace("_", "-"): v for k, v in headers.items()})
    return said(connection)


def error(found: Said) -> tuple[int, str, str]:
    """Status, kind and message of a refusal."""
    facts = json.loads(found[2])["error"]
    return found[0], facts["kind"], facts["message"]


def half() -> bytes:
    """The body of a small request."""
    return pack_half(Half(REQUEST, PUBLIC.digest, np.array([2]), np.ones((1, 2), bool),
                          words=np.zeros((2, PUBLIC.inputs.hidden), np.uint64)))


@contextmanager
def ports(roles: Path, folder: Path, strangers: int = 8, own: tuple[Path, Path] | None = None,
          **settings: Any) -> Iterator[Ports]:
    """Bob may ask once a day."""
    ledger = Ledger(Budgets(Budget(), {"bob": Budget(1, 1)}), folder / "budgets.log")
    try:
        it = Ports(roles, folder, ledger, strangers, own, **settings)
        try:
            yield it
        finally:
            it.end()
    finally:
        ledger.close()
