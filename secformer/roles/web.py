"""A party's web server: requests of clients over HTTPS, health and metrics on a separate port."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn import Config

from secformer.models.run.public import PublicModel
from secformer.mpc.errors import InputError, SecformerError
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.door import Report
from secformer.mpc.net.places import Places
from secformer.mpc.net.tcp import listening
from secformer.roles.asking import DUPLICATE, HELLO
from secformer.roles.audit import Auditing
from secformer.roles.browsers import PORT, BrowserProtocol, Gate
from secformer.roles.budgets import BudgetSpent, Ledger, Reservation
from secformer.roles.connections import PEER, ClientProtocol, Clients, DoorServer, Peer
from secformer.roles.descriptors import TOLD, Room
from secformer.roles.entries import Entries, Entry
from secformer.roles.failures import AtLimit, HalvesDiffer, NoRoom, SessionEnded, for_client
from secformer.roles.formats import hello
from secformer.roles.health import COMMON, health_server
from secformer.roles.jobs import Alone, DuplicateRequest, Expired, Jobs, QueueFull
from secformer.roles.logs import asyncio_problem, certificates_read, refusals
from secformer.roles.messages import ID_DIGITS, Answer, Half, most_bytes, pack_answer, unpack_half
from secformer.roles.monitoring import PartyMetrics, Status
from secformer.roles.origins import Browsers
from secformer.roles.quotas import MEGABYTE, Crowded, OverQuota, Place, Quotas
from secformer.roles.sessions import Sessions
from secformer.roles.settings import PartySettings
from secformer.roles.signing import Signer
from secformer.roles.telling import NOT_TOLD, STATUS, told
from secformer.roles.tokens import Tokens
from secformer.roles.traces import HEADER as TRACE
from secformer.roles.traces import trace_in

BODY = "application/octet-stream"
KEEP_ALIVE = 60    # seconds for which an idle connection of a client is kept: under a flood, it need not come back
PACKERS = 2        # threads that pack and unpack bodies; more would take cores from the engine
RETRY_AFTER = 2.0  # seconds after which a client may try again if the party is not ready, or has no room for it
WATCH = 1.0        # seconds between looks at the certificates of connected clients

log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is refused, with an HTTP status and a kind for clients and metrics. `after`: seconds after which
    it may be sent again."""

    def __init__(self, status: int, kind: str, message: str, after: float | None = None):
        super().__init__(message)
        self.status, self.kind, self.after = status, kind, after


class Web:
    """What clients see of a party: it takes halves of requests and returns halves of answers."""

    def __init__(self, settings: PartySettings, public: PublicModel, jobs: Jobs, status: Status, metrics: PartyMetrics,
                 sessions: Sessions, ledger: Ledger, audit: Auditing, signer: Signer | None = None):
        """`signer` signs receipts; None: there are none."""
        self._settings, self._public = settings, public
        self._jobs, self._status, self._metrics, self._sessions = jobs, status, metrics, sessions
        self._quotas, self._ledger = Quotas(requests=(settings.client_requests, settings.queue + settings.in_flight),
                                            mb=(settings.client_mb, settings.held_mb)), ledger
        metrics.count_fairness(lambda: self._quotas.held, jobs.alone, ledger.share, ledger.spent)
        self._audit = audit
        self._entries = Entries(f"party{settings.rank}", public.digest, audit, signer)
        self._description = public.to_json().encode()

    def app(self) -> Starlette:
        """The application for clients."""
        return Starlette(routes=[Route(HELLO, self._hello, methods=["GET"]),
                                 Route("/v1/infer", self._infer, methods=["POST"]),
                                 Route("/v1/model", self._model, methods=["GET"]),
                                 Route(STATUS, self._tell, methods=["GET"]),
                                 Route("/v1/sessions/{session}", self._end, methods=["DELETE"])])

    def reason(self) -> str:
        """Why this party does not answer requests; "" if it does."""
        return self._status.reason or self._audit.problem

    def end(self) -> None:
        """The party is shutting down: it begins nothing more."""
        self._status.set_ending()

    def health(self, address: tuple[str, int]) -> DoorServer:
        """The server for operators. Raises SettingsError if the address is taken."""
        return health_server(address, self.reason, self._metrics)

    def gate(self, browsers: Browsers, credentials: Credentials) -> Gate:
        """What the port for browsers lets in. Raises SettingsError."""
        tokens = Tokens(self._settings.rank, self._public.digest, browsers.token_seconds, credentials,
                        self._settings.tls.authority)
        return Gate(browsers.origins, tokens, credentials.server(), self._metrics.refused_browser)

    def refused(self, port: str) -> Report:
        """What logs and counts connections to this port that are not let in."""
        return refusals(port, self._metrics.refused)

    async def _hello(self, request: Request) -> Response:
        """Tells a client that it is let in, and which messages this party takes."""
        return JSONResponse(hello())

    async def _model(self, request: Request) -> Response:
        return Response(self._description, media_type="application/json")

    async def _tell(self, request: Request) -> Response:
        """How this party does, where its operator lets clients ask; above all while it is not ready."""
        try:
            _client(request)
            if not self._settings.status:
                raise Refusal(403, NOT_TOLD, "this party does not tell clients how it does")
        except Refusal as refusal:
            return _error(refusal, None)
        return JSONResponse(told(self._public.digest, self._jobs, self._status, self._audit).facts())

    async def _end(self, request: Request) -> Response:
        """Ends a session of the client, if it has this one; it does not learn which."""
        try:
            client = _client(request)
        except Refusal as refusal:
            return _error(refusal, None)
        self._sessions.end(client.name, request.path_params["session"][:ID_DIGITS], "its client ended it")
        return JSONResponse({})

    async def _infer(self, request: Request) -> Response:
        peer, outcome = request.scope[PEER], "failed"
        self._metrics.came(peer.port)
        entry = self._entries.begin(peer.name)
        try:
            with _refusals(), self._quotas.enter(entry.client) as place:
                entry.trace = trace_in(request.headers.getlist(TRACE))
                half = entry.half = replace(await self._half(request, place), trace=entry.trace)
                body, headers = await self._answered(request, half, place, entry)
            outcome = "answered"
            return Response(body, media_type=BODY, headers={"X-Request-Id": half.request, **headers})
        except ClientDisconnect:
            outcome = "client left"
            return Response(status_code=499)  # the client has left, so nobody reads this
        except Refusal as refusal:
            outcome = refusal.kind
            return _error(refusal, entry.half)
        finally:
            self._metrics.ended(outcome, entry.seconds)
            entry.end(outcome)

    async def _answered(self, request: Request, half: Half, place: Place, entry: Entry) -> tuple[bytes, dict[str, str]]:
        """This party's half of the answer, as a body and headers, once the client's budget has paid for it. Raises
        Refusal, BudgetSpent, ClientDisconnect."""
        peer: Peer = request.scope[PEER]
        reserved = self._ledger.reserve(peer.name, half.lengths.size if half.step is None else half.step.last)
        try:
            answer = await self._answer(request, half, place)
            if problem := peer.objection():  # it may have been revoked since the request came
                raise Refusal(403, "certificate", problem)
            return await asyncio.to_thread(_paid, reserved, answer, entry, half.request)
        except (AtLimit, NoRoom):  # see `_refusals`
            raise
        except SecformerError as error:
            raise Refusal(500, type(error).__name__, for_client(error, half, peer.name)) from error
        finally:
            reserved.release()

    async def _half(self, request: Request, place: Place) -> Half:
        """The half of a request, after all checks. Raises Refusal, OverQuota, Crowded."""
        peer = _client(request)
        if self.reason():  # which is for operators, who see it at the metrics port
            raise Refusal(503, "not ready", "this party is not ready; try again later", RETRY_AFTER)
        body, public, limit = bytearray(), self._public, self._settings.max_tokens
        most = min(self._settings.max_body_mb * MEGABYTE, most_bytes(public.inputs, public.private, limit))
        with self._jobs.arriving(request.headers.get("x-request-id", "")[:ID_DIGITS]):
            async for piece in request.stream():
                if len(body) + len(piece) > most:
                    raise Refusal(413, "too large", f"a body may have at most {most / MEGABYTE:.3g} MB here; send "
                                                     f"fewer texts per request")
                place.hold(len(piece))
                body += piece
        try:
            half = await asyncio.to_thread(lambda: unpack_half(
                bytes(body), inputs=public.inputs, private=public.private, rank=self._settings.rank,
                max_tokens=limit))
        except InputError as error:
            raise Refusal(400, "bad request", str(error)) from error
        if half.model != self._public.digest:
            raise Refusal(409, "other model", f"this party holds model {self._public.digest}, but the request is for "
                                              f"{half.model}; use the clients' folder of the same provisioning")
        if half.step is not None and public.decoder is None:
            raise Refusal(400, "bad request", f"the model here ({public.architecture.spec.architecture}) generates no "
                                              f"text, so a request holds whole texts, not a session's new tokens")
        if half.step is not None and half.step.session == half.request:
            self._sessions.admit(peer.name)
        return half

    async def _answer(self, request: Request, half: Half, place: Place) -> Answer:
        """Waits until the half is answered, its deadline passes, or its client leaves. Raises Refusal,
        ClientDisconnect."""
        patience, peer = self._settings.request_deadline, request.scope[PEER]
        try:
            job = self._jobs.submit(half, peer.name, patience)
            place.until(job)
            running = asyncio.wrap_future(job)
        except DuplicateRequest as error:
            raise Refusal(409, DUPLICATE, str(error)) from error
        except QueueFull as error:
            raise Refusal(503, "queue full", str(error), RETRY_AFTER) from error
        leaving = asyncio.ensure_future(_left(request))
        either: set[asyncio.Future[Any]] = {running, leaving}
        try:
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            if leaving.done():
                raise ClientDisconnect
            raise Refusal(504, "deadline", f"the request was not answered within {patience:g} s; send it again later")
        except Alone as error:
            raise Refusal(504, "alone", str(error)) from error
        except Expired as error:
            raise Refusal(504, "deadline", str(error)) from error
        except asyncio.CancelledError as error:
            raise Refusal(503, "shutting down", "this party is shutting down; send the request again",
                          RETRY_AFTER) from error
        except (AtLimit, NoRoom):  # see `_refusals`
            raise
        except HalvesDiffer as error:
            raise Refusal(409, "halves differ", str(error)) from error
        except SessionEnded as error:
            raise Refusal(409, "session ended", str(error)) from error
        except InputError as error:
            raise Refusal(400, "bad request", str(error)) from error
        except SecformerError as error:
            told = for_client(error, half, peer.name)
            raise Refusal(500, type(error).__name__, told) from error
        finally:
            leaving.cancel()
            self._jobs.cancel(half.request)
            if running.done() and not running.cancelled():
                running.exception()  # reads it, so that asyncio does not report it as never retrieved

    async def watch(self, connected: Clients) -> None:
        """Ends connections, and sessions, of clients whose certificates do not hold any more; until it is cancelled."""
        while True:
            await asyncio.sleep(WATCH)
            try:
                for name, problem in connected.end_invalid().items():
                    self._sessions.end_of(name, problem)
            except Exception:  # a defect, after which others' certificates must still be watched
                log.exception("unexpected")


def _client(request: Request) -> Peer:
    """Who asks, which must be a client. Raises Refusal."""
    peer: Peer = request.scope[PEER]
    if peer.role != "client":
        raise Refusal(403, "role", f"requests and sessions are clients', but this certificate is {peer.role}'s")
    return peer


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _refusals() -> Iterator[None]:
    """What one client may not have, as refusals of its requests."""
    try:
        yield
    except OverQuota as error:
        raise Refusal(429, "over quota", str(error), RETRY_AFTER) from error
    except AtLimit as error:
        raise Refusal(429, "too many sessions", str(error), RETRY_AFTER) from error
    except BudgetSpent as error:
        raise Refusal(429, "budget spent", str(error), error.renews) from error
    except (Crowded, NoRoom) as error:
        raise Refusal(503, "crowded", str(error), RETRY_AFTER) from error


def _paid(reserved: Reservation, answer: Answer, entry: Entry, request: str) -> tuple[bytes, dict[str, str]]:
    """An answer as a body, and headers. It is counted and written down before anybody gets it."""
    body = pack_answer(answer, request)
    reserved.spend()
    return body, entry.answered(answer, body)


def _error(refusal: Refusal, half: Half | None) -> Response:
    request = half.request if half is not None else None
    headers = {"Retry-After": str(math.ceil(refusal.after))} if refusal.after is not None else {}
    return JSONResponse({"error": {"kind": refusal.kind, "message": str(refusal), "request": request}}, refusal.status,
                        headers | ({"X-Request-Id": request} if request else {}))


def doors(settings: PartySettings, web: Web, credentials: Credentials, room: Room,
          connected: Clients) -> list[DoorServer]:
    """The servers of the ports for clients: with certificates, and for browsers where the settings say so. Clients'
    places are shared, and strangers' are apart. Raises SettingsError if an address is taken."""
    shared: dict[str, Any] = {"patience": settings.header_deadline, "connected": connected,
                              "clients": Places(room.clients, settings.client_connections), "too_many": Places(TOLD)}
    config = Config(web.app(), timeout_keep_alive=KEEP_ALIVE, **COMMON)
    made = [DoorServer(config, partial(ClientProtocol, **shared), listening(settings.clients),
                       Places(room.strangers), web.refused("clients"), credentials.server())]
    if (browsers := settings.browsers) is not None:
        shown = credentials if browsers.certificate is None else Credentials(
            browsers.identity(settings.tls), certificates_read)
        made.append(DoorServer(config, partial(BrowserProtocol, gate=web.gate(browsers, credentials), **shared),
                               listening(browsers.address), Places(room.strangers), web.refused(PORT), shown.open()))
    return made


def serve(settings: PartySettings, web: Web, credentials: Credentials, room: Room) -> None:
    """Serves until SIGINT or SIGTERM; SIGHUP reads the certificates again. Main thread only. Raises SettingsError if an
    address is taken."""
    connected = Clients()
    parts = doors(settings, web, credentials, room, connected)
    if settings.metrics is not None:
        parts.append(web.health(settings.metrics))

    async def both() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(asyncio_problem)
        loop.set_default_executor(ThreadPoolExecutor(PACKERS, thread_name_prefix="bodies"))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _end, web, parts)
        loop.add_signal_handler(signal.SIGHUP, lambda: credentials.renew(now=True))
        watching = loop.create_task(web.watch(connected))
        await asyncio.gather(*(server.serve() for server in parts))
        watching.cancel()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(both())


def _end(web: Web, servers: Sequence[DoorServer]) -> None:
    web.end()
    for server in servers:
        server.should_exit = True
