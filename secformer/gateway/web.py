"""The gateway as a web application: who may ask, which model answers, and errors in the shape that callers know."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from secformer.gateway.completions import Order, chat, completion
from secformer.gateway.desk import Desk
from secformer.gateway.embeddings import embeddings
from secformer.gateway.fields import Fields
from secformer.gateway.ranking import classify, rerank
from secformer.gateway.refusals import RETRY_AFTER, Closing, Gone, Refusal, is_ours, refusal_of
from secformer.gateway.visits import Visit
from secformer.mpc.errors import SecformerError, SettingsError

REQUESTS = 256         # at the same time: each may hold a thread
MAX_BODY = 1 << 23     # bytes
OPEN = ("/healthz", "/readyz")  # paths that need no key
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # names of this machine for programs that run on it
Task = Callable[[Fields, Desk, Visit], dict[str, Any]]
Ordering = Callable[[Fields, Desk], Order]
T = TypeVar("T")

log = logging.getLogger(__name__)


class Gateway:
    """The application. `close` must be called: it ends the models' desks.

    key    what callers must show, or None
    local  it listens on the loopback address: then, without a key, requests must name that address, so that no page in
           a browser can reach the gateway under a name of its own
    """

    def __init__(self, desks: Sequence[Desk], *, key: str | None = None, local: bool = True):
        """Raises SettingsError for two models of one name."""
        self.desks = {desk.name: desk for desk in desks}
        if len(self.desks) != len(desks):
            raise SettingsError("two models have the same name; give every model a name of its own")
        self._key, self._local = None if key is None else key.encode(), local
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="request")
        self._here = 0
        tasks: Mapping[str, Task] = {"/v1/embeddings": embeddings, "/v1/rerank": rerank, "/v2/rerank": rerank,
                                     "/v1/classify": classify}
        orders: Mapping[str, Ordering] = {"/v1/completions": completion, "/v1/chat/completions": chat}
        routes = [*(Route(path, self._answering(task), methods=["POST"]) for path, task in tasks.items()),
                  *(Route(path, self._writing(order), methods=["POST"]) for path, order in orders.items()),
                  Route("/v1/models", self._models), Route("/v1/models/{name:path}", self._model),
                  Route("/healthz", self._alive), Route("/readyz", self._ready)]
        self._paths = {route.path for route in routes}
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: _not_routed})

    # ---- every request -------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, and logs how it ended: never what it said."""
        request, began, status = Request(scope, receive), time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._here += 1
        try:
            self._admit(request)
            await self._app(scope, receive, noting)
        except Refusal as refusal:
            await _refused(refusal)(scope, receive, noting)
        finally:
            self._here -= 1
            path = scope["path"] if scope["path"] in self._paths else "other"
            log.info("request", extra={"fields": {"path": path, "status": status or "caller left",
                                                  "seconds": round(time.monotonic() - began, 3)}})

    def _admit(self, request: Request) -> None:
        """Raises Refusal for a request that may not come in."""
        if self._local and self._key is None and _host(request.headers.get("host", "")) not in LOOPBACK:
            raise Refusal(403, "wrong_host", f"this gateway answers to {', '.join(LOOPBACK)} only")
        if request.scope["path"] in OPEN:  # not its URL, which is made of what the Host header says
            return
        if self._key is not None and not hmac.compare_digest(_shown(request).encode(), self._key):
            raise Refusal(401, "invalid_api_key", "this gateway needs its API key, as Authorization: Bearer KEY")
        if self._here > REQUESTS:
            raise Refusal(429, "too_many_requests", f"{REQUESTS} requests are here; try again later", after=RETRY_AFTER)

    # ---- endpoints -----------------------------------------------------------------------------------------------

    def _answering(self, task: Task) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            visits: list[Visit] = []
            left = threading.Event()

            def answer(body: bytes) -> dict[str, Any]:
                fields = Fields(body)
                desk = self._desk(fields)
                visits.append(visit := Visit(desk))
                if left.is_set():
                    raise Gone
                return task(fields, desk, visit)

            def leave() -> None:
                left.set()
                for visit in visits:
                    visit.leave()

            return await self._told(request, lambda body: _json(answer(body)), leave)

        return endpoint

    def _writing(self, ordering: Ordering) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            left = threading.Event()
            chunks: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()
            loop = asyncio.get_running_loop()

            def tell(chunk: dict[str, Any] | BaseException | None) -> None:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(chunks.put_nowait, chunk)

            def answer(body: bytes) -> Response:
                fields = Fields(body)
                order = ordering(fields, self._desk(fields))
                if not order.stream:
                    return _json(order.run(left))
                running = order.chunks(left)
                first = next(running)  # what fails before it has a status of its own
                self._threads.submit(_pump, running, tell)
                return _Events(_lines(first, chunks, self._refusal), left)

            return await self._told(request, answer, left.set)

        return endpoint

    async def _told(self, request: Request, answer: Callable[[bytes], Response],
                    leave: Callable[[], None]) -> Response:
        """What a thread answers to a body, or why it does not. `leave` is called when the caller has left."""
        try:
            body = await _body(request)
            running = asyncio.get_running_loop().run_in_executor(self._threads, answer, body)
            leaving = asyncio.ensure_future(_left(request))
            try:
                either: set[asyncio.Future[Any]] = {running, leaving}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    raise ClientDisconnect
                return running.result()
            finally:
                leaving.cancel()
                if not running.done():
                    leave()
                    running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # reads it
        except (ClientDisconnect, Gone):
            return Response(status_code=499)  # the caller has left, so nobody reads this
        except Exception as error:
            return _refused(self._refusal(error))

    def _refusal(self, error: BaseException) -> Refusal:
        """What a caller is told of an error; the log gets what its operator must know."""
        if isinstance(error, SecformerError) and any(desk.closing for desk in self.desks.values()):
            error = Closing("this gateway is shutting down")
        if is_ours(error):
            known = isinstance(error, SecformerError)
            log.error("request failed", exc_info=None if known else error,
                      extra={"fields": {"kind": type(error).__name__} | ({"problem": str(error)} if known else {})})
        refusal = refusal_of(error)
        for desk in self.desks.values():  # where models lie on this machine is not for callers
            refusal = refusal.without(str(desk.tokenizer.folder), f"{desk.name}'s folder")
        return refusal

    def _desk(self, fields: Fields) -> Desk:
        name = fields.text("model")
        if name not in self.desks:
            raise Refusal(404, "model_not_found", f"there is no model {name[:64]!r} here; the models are "
                                                  f"{', '.join(self.desks)}", param="model")
        return self.desks[name]

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_facts(desk) for desk in self.desks.values()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.desks:
            return _refused(Refusal(404, "model_not_found", f"there is no model {name[:64]!r} here", param="model"))
        return JSONResponse(_facts(self.desks[name]))

    async def _alive(self, request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, request: Request) -> Response:
        why = "; ".join(problem for desk in self.desks.values() if (problem := desk.problem))
        return PlainTextResponse(why or "ready\n", 503 if why else 200)

    # ---- the end -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Refuses what waits, and what comes from now on. What runs goes on."""
        for desk in self.desks.values():
            desk.drain()

    def close(self) -> None:
        """Ends what runs, and hangs up. Closing twice is allowed."""
        self.drain()
        for desk in self.desks.values():
            desk.close()
        self._threads.shutdown(wait=True, cancel_futures=True)


class _Events(StreamingResponse):
    """Server-sent events. `left` is set when they have ended, or the caller has left."""

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncIterator[bytes], left: threading.Event):
        super().__init__(lines, headers={"Cache-Control": "no-store"})
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left.set()


async def _lines(first: dict[str, Any], chunks: asyncio.Queue[dict[str, Any] | BaseException | None],
                 refusal: Callable[[BaseException], Refusal]) -> AsyncIterator[bytes]:
    chunk: dict[str, Any] | BaseException | None = first
    while isinstance(chunk, dict):
        yield _event(chunk)
        chunk = await chunks.get()
    if chunk is not None:
        yield _event(refusal(chunk).body)
        return
    yield b"data: [DONE]\n\n"


def _event(facts: dict[str, Any]) -> bytes:
    return b"data: " + _text(facts) + b"\n\n"


def _pump(running: Iterator[dict[str, Any]], tell: Callable[[dict[str, Any] | BaseException | None], None]) -> None:
    """Tells all that comes, and None in the end, or why there is no more."""
    try:
        for chunk in running:
            tell(chunk)
        tell(None)
    except BaseException as error:
        tell(error)


def _facts(desk: Desk) -> dict[str, Any]:
    return {"id": desk.name, "object": "model", "created": desk.made, "owned_by": "secformer"}


async def _body(request: Request) -> bytes:
    """The body of a request. Raises Refusal for one that is too large, or not JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "unsupported_media_type", "the header Content-Type must be application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Refusal(413, "request_too_large", f"a body may have at most {MAX_BODY} bytes; send fewer texts per "
                                                    f"request")
    return bytes(body)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _shown(request: Request) -> str:
    """The API key that a caller shows, or nothing."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _host(header: str) -> str:
    """A Host header without its port."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def _text(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _json(facts: dict[str, Any]) -> Response:
    return Response(_text(facts), media_type="application/json")


def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _not_routed(request: Request, error: Exception) -> Response:
    """What Starlette refuses: unknown paths and methods."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = {404: ("unknown_url", "there is no such path here"), 405: ("method_not_allowed", "this path has another "
                                                                                              "method")}
    code, message = told.get(status, ("invalid_request", "this request cannot be answered"))
    response = _refused(Refusal(status, code, message))
    response.headers.update(getattr(error, "headers", None) or {})
    return response
