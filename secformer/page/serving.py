"""A small server for a page, on this machine alone, which also gives the page its tokens.

The page's files hold no secret, but tokens do: whoever has them may ask the parties in the client's name for minutes.
So tokens go only to this page. A request for them must come from the page's own origin, as the browser says
(`Sec-Fetch-Site`), and no request is answered that names another host: a foreign site whose name was turned to this
machine's address (DNS rebinding) would have its own name there. Programs of this machine can pretend to be the page.
"""

from __future__ import annotations

import asyncio
import mimetypes
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from secformer.mpc.net.tcp import listening
from secformer.page.files import INDEX, TOKENS
from secformer.roles.health import COMMON, GRACE

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")  # of this machine, in the page's address
TYPES = {".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}


def origins(port: int) -> list[str]:
    """Of a page that this machine serves at this port, as the parties' settings name them."""
    return [f"http://{name}:{port}" for name in NAMES]


def application(files: Mapping[str, bytes], headers: Mapping[str, str], tokens: Callable[[], Mapping[str, Any]],
                hosts: frozenset[str]) -> Starlette:
    """The page's files, and tokens.

    headers  that each answer has
    tokens   gives what `tokens.json` holds, fresh for each request
    hosts    what the header Host may be
    """

    def answered(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    def elsewhere(request: Request) -> Response | None:
        if request.headers.get("host") in hosts:
            return None
        return PlainTextResponse(f"this page is served at http://{min(hosts)}/ only\n", 421)

    async def file(request: Request) -> Response:
        if (refusal := elsewhere(request)) is not None:
            return answered(refusal)
        name = request.path_params["name"] or INDEX
        if (content := files.get(name)) is None:
            return answered(PlainTextResponse("the page has no such file\n", 404))
        kind = TYPES.get(name[name.rfind("."):]) or mimetypes.guess_type(name)[0]
        return answered(Response(content, media_type=kind or "application/octet-stream"))

    async def secret(request: Request) -> Response:
        if (refusal := elsewhere(request)) is not None:
            return answered(refusal)
        host, sent = request.headers["host"], request.headers
        if sent.get("sec-fetch-site") != "same-origin" or sent.get("origin", f"http://{host}") != f"http://{host}":
            return answered(PlainTextResponse("tokens are given to this page alone, and a browser says whether it is "
                                              "the page that asks\n", 403))
        made = await asyncio.to_thread(tokens)
        return answered(JSONResponse(dict(made), headers={"Cache-Control": "no-store"}))

    return Starlette(routes=[Route(f"/{TOKENS}", secret), Route("/{name:path}", file)])


class PageServer:
    """The page at a port of this machine, in a thread of its own, from its construction until `close`.

    Use it as a context manager. Raises SettingsError if the port is taken.
    """

    def __init__(self, port: int, files: Mapping[str, bytes], headers: Mapping[str, str],
                 tokens: Callable[[], Mapping[str, Any]]):
        sock = listening((LOOPBACK, port))
        hosts = frozenset(f"{name}:{port}" for name in NAMES)
        self.url = f"http://{LOOPBACK}:{port}/"
        self._socket = sock
        self._server = Server(Config(application(files, headers, tokens, hosts), **COMMON))
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._server.serve([self._socket]))

    def close(self) -> None:
        """Ends it. Closing twice is allowed."""
        self._server.should_exit = True
        self._thread.join(2 * GRACE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
