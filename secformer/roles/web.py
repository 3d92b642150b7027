"""A party's web server: requests of clients over HTTPS, health and metrics on a separate port."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from secformer.models.run.public import PublicModel
from secformer.mpc.errors import InputError, SecformerError
from secformer.mpc.net.tcp import listening
from secformer.mpc.net.tls import server_context
from secformer.roles.audit import Auditing, Unaudited
from secformer.roles.chain import REQUEST, transcript
from secformer.roles.connections import PEER, PatientLoop, client_protocol, refused
from secformer.roles.jobs import DuplicateRequest, Expired, Jobs, QueueFull
from secformer.roles.messages import ID_DIGITS, Answer, Half, body_digest, pack_answer, unpack_half
from secformer.roles.monitoring import Metrics, Status
from secformer.roles.sessions import Sessions
from secformer.roles.settings import PartySettings

BODY = "application/octet-stream"
GRACE = 5          # seconds in which running requests may end when the server stops
SPARE = 64         # connections in addition to those of waiting requests
PACKERS = 2        # threads that pack and unpack bodies; more would take cores from the engine
RETRY_AFTER = "2"  # seconds after which a client may try again if the party is not ready
MEGABYTE = 1 << 20

log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is refused, with an HTTP status and a kind for clients and metrics."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status, self.kind = status, kind


class Web:
    """What clients see of a party: it takes halves of requests and returns halves of answers."""

    def __init__(self, settings: PartySettings, public: PublicModel, jobs: Jobs, status: Status, metrics: Metrics,
                 sessions: Sessions, audit: Auditing | None = None):
        self._settings, self._public = settings, public
        self._jobs, self._status, self._metrics, self._sessions = jobs, status, metrics, sessions
        self._audit = audit or Unaudited()
        self._description = public.to_json().encode()

    def app(self) -> Starlette:
        """The application for clients."""
        return Starlette(routes=[Route("/v1/infer", self._infer, methods=["POST"]),
                                 Route("/v1/model", self._model, methods=["GET"]),
                                 Route("/v1/sessions/{session}", self._end, methods=["DELETE"])])

    def health(self) -> Starlette:
        """The application for operators."""
        return Starlette(routes=[
            Route("/healthz", self._alive), Route("/readyz", self._ready), Route("/metrics", self._counts)])

    async def _alive(self, request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, request: Request) -> Response:
        reason = self._status.reason or self._audit.problem
        return PlainTextResponse(reason or "ready\n", 503 if reason else 200)

    async def _counts(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _model(self, request: Request) -> Response:
        return Response(self._description, media_type="application/json")

    async def _end(self, request: Request) -> Response:
        """Ends a session of the client, if it has this one; it does not learn which."""
        role, name = request.scope[PEER]
        if role != "client":
            return _error(Refusal(403, "role", f"sessions are clients', but this certificate is {role}'s"), None)
        self._sessions.end(name, request.path_params["session"][:ID_DIGITS], "its client ended it")
        return JSONResponse({})

    async def _infer(self, request: Request) -> Response:
        started, half, answer, outcome = time.monotonic(), None, None, "failed"
        sent = ""
        try:
            half = await self._half(request)
            answer = await self._answer(request, half)
            body = await asyncio.to_thread(pack_answer, answer, half.request)
            sent, outcome = await asyncio.to_thread(body_digest, body), "answered"
            return Response(body, media_type=BODY, headers={"X-Request-Id": half.request})
        except ClientDisconnect:
            outcome = "client left"
            return Response(status_code=499)  # the client has left, so nobody reads this
        except Refusal as refusal:
            outcome = refusal.kind
            return _error(refusal, half)
        finally:
            self._metrics.ended(outcome, time.monotonic() - started)
            self._noted(request, half, answer, outcome, time.monotonic() - started, sent)

    def _noted(self, request: Request, half: Half | None, answer: Answer | None, outcome: str, seconds: float,
               sent: str) -> None:
        """Writes an ended request into the audit log, and into the role's log: public facts, and digests."""
        facts = {"client": request.scope[PEER][1], "request": half.request if half is not None else None,
                 "outcome": outcome, "seconds": round(seconds, 3)}
        noted: dict[str, Any] = {"model": self._public.digest}
        if half is not None:
            noted["shape"] = {"texts": len(half.lengths), "tokens": int(half.lengths.sum()),
                              "digest": half.shape_digest}
            noted["half"] = half.digest
        if answer is not None and answer.ran is not None:
            ran = answer.ran
            noted |= {"epoch": ran.epoch, "run": ran.run, "plan": ran.plan, "answer": sent,
                      "bytes": answer.cost.bytes, "rounds": answer.cost.rounds}
            facts["packing"] = round(seconds - ran.waiting - ran.material - ran.computing, 3)
        head = self._audit.append(REQUEST, {**facts, **noted, "transcript": transcript(noted)})
        log.info("request ended", extra={"fields": facts | ({"audit": head.number} if head is not None else {})})

    async def _half(self, request: Request) -> Half:
        """The half of a request, after all checks. Raises Refusal."""
        role, _ = request.scope[PEER]
        if role != "client":
            raise Refusal(403, "role", f"requests come from clients, but this certificate is {role}'s")
        if reason := self._status.reason or self._audit.problem:
            raise Refusal(503, "not ready", f"this party is not ready: {reason}")
        most = self._settings.max_body_mb * MEGABYTE
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise Refusal(413, "too large", f"a body may have at most {self._settings.max_body_mb} MB here; send "
                                                f"fewer texts per request")
        public = self._public
        try:
            half = await asyncio.to_thread(unpack_half, bytes(body), columns=public.columns, width=public.width,
                                           longest=public.inputs.longest, max_tokens=self._settings.max_tokens)
        except InputError as error:
            raise Refusal(400, "bad request", str(error)) from error
        if half.model != self._public.digest:
            raise Refusal(409, "other model", f"this party holds model {self._public.digest}, but the request is for "
                                              f"{half.model}; use the clients' folder of the same provisioning")
        return half

    async def _answer(self, request: Request, half: Half) -> Answer:
        """Waits until the half is answered, its deadline passes, or its client leaves. Raises Refusal,
        ClientDisconnect."""
        patience, (_, name) = self._settings.request_deadline, request.scope[PEER]
        try:
            running = asyncio.wrap_future(self._jobs.submit(half, name, patience))
        except DuplicateRequest as error:
            raise Refusal(409, "duplicate", str(error)) from error
        except QueueFull as error:
            raise Refusal(503, "queue full", str(error)) from error
        leaving = asyncio.ensure_future(_left(request))
        either: set[asyncio.Future[Any]] = {running, leaving}
        try:
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            if leaving.done():
                raise ClientDisconnect
            raise Refusal(504, "deadline", f"the request was not answered within {patience:g} s; send it again later")
        except Expired as error:
            raise Refusal(504, "deadline", str(error)) from error
        except asyncio.CancelledError as error:
            raise Refusal(503, "shutting down", "this party is shutting down; send the request again") from error
        except SecformerError as error:
            raise Refusal(500, type(error).__name__, str(error)) from error
        finally:
            leaving.cancel()
            self._jobs.cancel(half.request)
            if running.done() and not running.cancelled():
                running.exception()  # reads it, so that asyncio does not report it as never retrieved


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(refusal: Refusal, half: Half | None) -> Response:
    request = half.request if half is not None else None
    headers = {"Retry-After": RETRY_AFTER} if refusal.status == 503 else {}
    return JSONResponse({"error": {"kind": refusal.kind, "message": str(refusal), "request": request}}, refusal.status,
                        headers | ({"X-Request-Id": request} if request else {}))


class _Quiet(Server):
    """A server that handles no signals, since two of them run in one process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: PartySettings, web: Web) -> None:
    """Serves until SIGINT or SIGTERM. Main thread only. Raises SettingsError if an address is taken."""
    context = server_context(settings.tls, refused)
    common = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none", "server_header": False,
              "timeout_graceful_shutdown": GRACE}
    clients = _Quiet(Config(
        web.app(), http=client_protocol(settings.header_deadline), ssl_context_factory=lambda *_: context,
        limit_concurrency=settings.queue + SPARE, **common))  # type: ignore[arg-type]
    parts = [(clients, listening(settings.clients))]
    if settings.metrics is not None:
        parts.append((_Quiet(Config(web.health(), limit_concurrency=SPARE, **common)),  # type: ignore[arg-type]
                      listening(settings.metrics)))

    async def both() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(PACKERS, thread_name_prefix="bodies"))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _end, [server for server, _ in parts])
        await asyncio.gather(*(server.serve(sockets=[sock]) for server, sock in parts))

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(both())


def _end(servers: Sequence[Server]) -> None:
    for server in servers:
        server.should_exit = True
