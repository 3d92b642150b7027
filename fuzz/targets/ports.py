"""HTTP: what a client sends to a party, what anybody sends to the port for health and metrics, and what a party answers
to a client. uvicorn's own protocol reads the bytes, as when it serves."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from uvicorn import Config
from uvicorn.server import ServerState

from fuzz.mutators import lines, raw, tensors
from fuzz.target import Broken, Read, Target, require
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import SecformerError
from secformer.mpc.meter import Cost
from secformer.mpc.net.places import Places
from secformer.mpc.net.tls import Identity
from secformer.roles.asking import PartyConnection
from secformer.roles.audit import Unaudited
from secformer.roles.budgets import Budget, Budgets, Ledger
from secformer.roles.connections import ClientProtocol, Clients, PatientProtocol
from secformer.roles.health import application
from secformer.roles.jobs import Jobs
from secformer.roles.messages import Answer, Half, Ran
from secformer.roles.monitoring import PartyMetrics, Status
from secformer.roles.sessions import Sessions
from secformer.roles.settings import PartySettings
from secformer.roles.web import Web

ALLOWED = {200, 204, 400, 401, 403, 404, 405, 409, 413, 429, 499, 503}  # what a party may answer here
CERTIFICATE = {"subject": ((("commonName", "alice"),),), "subjectAltName": (("DNS", "client.secformer"),)}
PATIENCE = 5.0
_BODY = tensors()
_HEAD = lines("Content-Length:", "Transfer-Encoding: chunked", "Expect: 100-continue", "Connection: close", "GET",
              "PUT", "Upgrade: websocket", "HTTP/1.0", "HTTP/2.0", "/v1/model", "/v1/infer", "/v1/sessions/x",
              "/metrics", "/readyz", "Content-Encoding: gzip", "Host:", "Content-Length: 99999999999999999999",
              "Content-Length: +5", "\r", "/v1/hello", "/v1/status",
              "X-Request-Id: " + "ab" * 16)


class Prompt(Jobs):
    """Jobs that are done at once."""

    def submit(self, half: Half, client: str, deadline: float, *more: Any) -> Future[Answer]:
        ran = Ran("ef" * 16, "live/3", "cd" * 32, "ab" * 32, 0.0, 0.0, 0.0)
        done: Future[Answer] = Future()
        done.set_result(Answer({"logits": np.zeros((1, 2), np.uint64)}, 16, Cost(), ran))
        return done


class Secured:
    """The end of a TLS connection of a client, for a transport."""

    def __init__(self) -> None:
        self.context = self

    def getpeercert(self) -> dict[str, Any]:
        return CERTIFICATE

    def objection(self, certificate: Any) -> str:
        return ""


class Transport(asyncio.Transport):
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"ssl_object": Secured(), "sslcontext": Secured(), "peername": ("127.0.0.1", 1),
                          "sockname": ("127.0.0.1", 2)})
        self.written, self.closed = bytearray(), False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Defects(logging.Handler):
    """Keeps what a server logs as an error: an exception of the application."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()}: {error!r}")


@contextmanager
def party(folder: Path) -> Iterator[Web]:
    """A party's web server that is ready."""
    identity = Identity(folder, folder, folder)
    settings = PartySettings(0, folder, folder, ("127.0.0.1", 0), ("127.0.0.1", 0), ("127.0.0.1", 0), identity,
                             max_body_mb=1, max_tokens=32)
    jobs, status = Prompt(8), Status()
    status.set_ready()
    public = PublicModel.load(Path(__file__).parent / "client")
    sessions = Sessions(settings, lambda: None, 1)  # type: ignore[arg-type,return-value]
    budgets = Budgets(Budget(), {"bob": Budget(1, 1)})  # alice's answers are not counted: that takes a sync to disk
    with closing(Ledger(budgets, folder / "budgets.log")) as ledger:
        yield Web(settings, public, jobs, status, PartyMetrics(status, jobs), sessions, ledger, Unaudited())


@contextmanager
def serving(app: Any, protocol: Callable[..., PatientProtocol]) -> Iterator[Read]:
    """A reader of what comes on one connection, in two pieces."""
    config, state = Config(app, log_config=None, access_log=False, lifespan="off", ws="none"), ServerState()
    defects, log = Defects(), logging.getLogger("uvicorn.error")
    log.addHandler(defects)
    log.propagate = False
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config.load()

    async def one(data: bytes) -> Transport:
        transport = Transport()
        served = protocol(config=config, server_state=state, app_state={}, patience=30.0)
        served.connection_made(transport)
        cut = len(data) // 2
        for piece in (data[:cut], data[cut:]):
            if piece and not transport.closed:
                served.data_received(piece)
        await asyncio.sleep(0)
        served.eof_received()
        if state.tasks and served.cycle is not None and not served.cycle.more_body:
            await asyncio.wait(set(state.tasks), timeout=PATIENCE)
        served.connection_lost(None)
        if state.tasks:
            _, late = await asyncio.wait(set(state.tasks), timeout=PATIENCE)
            require(not late, "an exchange ends with its connection")
        return transport

    def read(data: bytes) -> None:
        defects.found.clear()
        transport = runner.run(one(data))
        if defects.found:
            raise Broken(defects.found[0])
        statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", bytes(transport.written))}
        require(statuses <= ALLOWED | {100, 101}, f"a party answers {statuses}")

    try:
        with asyncio.Runner() as runner:
            yield read
    finally:
        log.removeHandler(defects)


@contextmanager
def clients_port(folder: Path) -> Iterator[Read]:
    protocol = partial(ClientProtocol, connected=Clients(), clients=Places(2), too_many=Places(2))
    with party(folder) as web, serving(web.app(), protocol) as read:
        yield read


@contextmanager
def health_port(folder: Path) -> Iterator[Read]:
    with party(folder) as web, serving(application(web.reason, web._metrics), PatientProtocol) as read:
        yield read


class Answering:
    """A connection on which a party has answered with these bytes."""

    def __init__(self, data: bytes):
        self._data = data

    def sendall(self, data: Any) -> None: ...

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)

    def close(self) -> None: ...


class Reached(PartyConnection):
    """A party that has answered."""

    def answering(self, data: bytes) -> None:
        self._data = data

    def _connect(self) -> HTTPConnection:
        connection = HTTPConnection("127.0.0.1", 1)
        connection.sock = Answering(self._data)  # type: ignore[assignment]
        return connection


@contextmanager
def parties_answers(folder: Path) -> Iterator[Read]:
    half = Half("ab" * 16, "cd" * 32, np.array([1]), np.ones((1, 1), bool), seed=bytes(32))

    def read(data: bytes) -> None:
        refusals: list[SecformerError] = []
        for ask in (lambda party: party.model(), lambda party: party.infer(half), lambda party: party.status()):
            reached = Reached(0, ("127.0.0.1", 1), None, 1.0)  # type: ignore[arg-type]
            reached.answering(data)
            try:
                ask(reached)
            except SecformerError as error:
                refusals.append(error)
            finally:
                reached.close()
        if len(refusals) == 3:
            raise refusals[0]

    yield read


def http(data: bytes, most: int, chance: Random) -> bytes:
    """The head's lines, or the body as tensors; mostly with the right length in the head."""
    head, gap, body = data.partition(b"\r\n\r\n")
    if not gap or not chance.randrange(8):
        return raw(data, most, chance)
    if chance.randrange(2):
        body = _BODY(body, most, chance)
    else:
        head = _HEAD(head, most, chance)
    if chance.randrange(8):
        head = re.sub(rb"(?i)content-length: \d+", b"Content-Length: %d" % len(body), head)
    return (head + gap + body)[:most]


TARGETS = (
    Target("clients-port", ("secformer/roles/connections.py", "secformer/roles/web.py", "secformer/roles/messages.py"),
           clients_port, http, below=("h11", "uvicorn")),
    Target("health-port", ("secformer/roles/web.py", "secformer/roles/monitoring.py"), health_port, http,
           1 << 12, ("h11", "uvicorn")),
    Target("parties-answers", ("secformer/roles/asking.py", "secformer/roles/messages.py",
                               "secformer/roles/telling.py"), parties_answers, http),
)
