"""What a role's operator asks over plain HTTP: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from secformer.mpc.net.tcp import listening
from secformer.roles.monitoring import Metrics

GRACE = 5   # seconds in which running requests may end when a server stops
SPARE = 64  # connections to the metrics port; to the clients' port, in addition to those of waiting requests


def application(reason: Callable[[], str], metrics: Metrics) -> Starlette:
    """/healthz, /readyz and /metrics. `reason` tells why the role does not do its work; "" if it does."""

    async def alive(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(request: Request) -> Response:
        why = reason()
        return PlainTextResponse(why or "ready\n", 503 if why else 200)

    async def figures(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return Starlette(routes=[Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", figures)])


class Quiet(Server):
    """A server that handles no signals: its process does."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Monitored:
    """Serves an application in a thread of its own, from its construction until `close`, for a role that has no other
    web server. Raises SettingsError if the address is taken."""

    def __init__(self, address: tuple[str, int], app: Starlette):
        self._server = Quiet(Config(app, limit_concurrency=SPARE, log_config=None, access_log=False, lifespan="off",
                                    ws="none", server_header=False, timeout_graceful_shutdown=GRACE))
        sock = listening(address)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(2 * GRACE)
