"""What a role's operator asks over plain HTTP: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config

from secformer.mpc.net.places import Places
from secformer.mpc.net.tcp import listening
from secformer.mpc.net.tls import HANDSHAKE
from secformer.roles.connections import LONGEST_HEADER, DoorServer, PatientProtocol
from secformer.roles.descriptors import MONITORING
from secformer.roles.logs import refusals
from secformer.roles.monitoring import Metrics

GRACE = 5  # seconds in which running requests may end when a server stops
COMMON: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none",
                          "server_header": False, "timeout_graceful_shutdown": GRACE,
                          "h11_max_incomplete_event_size": LONGEST_HEADER}  # of every server of a role


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


def health_server(address: tuple[str, int], reason: Callable[[], str], metrics: Metrics) -> DoorServer:
    """The server of `application`. Raises SettingsError if the address is taken."""
    return DoorServer(Config(application(reason, metrics), **COMMON), partial(PatientProtocol, patience=HANDSHAKE),
                      listening(address), Places(MONITORING), refusals("metrics", metrics.refused))


class Monitored:
    """The health server in a thread of its own, from its construction until `close`: for a role without another web
    server. Raises SettingsError if the address is taken."""

    def __init__(self, address: tuple[str, int], reason: Callable[[], str], metrics: Metrics):
        self._server = health_server(address, reason, metrics)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._server.serve())

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(2 * GRACE)
