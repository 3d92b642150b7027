"""Workers that are actors of Ray: processes of the client's own machines. Ray never spans the domains of others.

By default, Ray runs on this machine for this job alone, and ends with it. Everything that Ray sends is pickled, so
whoever can speak to its ports can run code. Those ports therefore ask for a token that this job draws.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from secformer.batch.crew import Outcomes
from secformer.batch.tasks import Task, Unit
from secformer.batch.worker import Failed, Kind, Opener, Outcome, Worker
from secformer.mpc.errors import SettingsError
from secformer.mpc.prg import fresh_seed
from secformer.roles.settings import ClientSettings

STORE = 80 << 20  # bytes of Ray's shared memory, about the least that it takes: answers travel beside it
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
TOKEN = {"RAY_AUTH_MODE": "token"}


class RayCrew:
    """An actor per cell. One that dies is replaced when its cell is asked next.

    address  of a cluster that is there, of the client's own domain; None: Ray is started here, and ended by `close`
    """

    def __init__(self, cells: Mapping[str, ClientSettings], task: Task, opener: Opener, outcomes: Outcomes, *,
                 address: str | None = None):
        """Raises SettingsError where Ray is missing or cannot be reached."""
        self._cells, self._task, self._opener, self._outcomes = cells, task, opener, outcomes
        self._lock = threading.Lock()
        self._actors: dict[str, Any] = {}
        self._closing = False
        self._ray = _begun(address, len(cells))
        self._remote = self._ray.remote(Worker)

    def ask(self, cell: str, call: int, units: Sequence[Unit]) -> None:
        with self._lock:
            actor = self._actors.get(cell)
            if actor is None:
                settings = self._cells[cell]
                actor = self._actors[cell] = self._remote.options(
                    num_cpus=0, max_restarts=0, max_concurrency=settings.in_flight, scheduling_strategy="SPREAD",
                ).remote(settings, self._task, self._opener)
        actor.ask.remote(units).future().add_done_callback(partial(self._told, cell, actor, call))

    def _told(self, cell: str, actor: Any, call: int, done: Future[Outcome]) -> None:
        """Called in a thread of Ray."""
        error = done.exception()
        if error is None:
            self._outcomes.put((call, done.result()))
            return
        if self._closing:
            return
        died = isinstance(error, self._ray.exceptions.RayActorError | self._ray.exceptions.WorkerCrashedError)
        with self._lock:
            if died and self._actors.get(cell) is actor:
                del self._actors[cell]
        told = " ".join(str(error).split())[:300]
        self._outcomes.put((call, Failed(Kind.WORKER if died else Kind.OURS, f"{type(error).__name__}: {told}")))

    def close(self) -> None:
        self._closing = True
        with self._lock:
            for actor in self._actors.values():
                self._ray.kill(actor)
            self._actors.clear()
        self._ray.shutdown()


def _begun(address: str | None, cells: int) -> Any:
    """Ray, connected. Raises SettingsError."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", fresh_seed().hex())  # Ray keeps the first one of a process
        os.environ.update(TOKEN)
    try:
        import ray
    except ImportError as error:
        raise SettingsError(f'Ray is not installed ({error}); install it: pip install "secformer[batch]"') from error
    here: dict[str, Any] = {"include_dashboard": False, "num_cpus": cells, "num_gpus": 0,
                            "object_store_memory": STORE, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL,
                 **(here if address is None else {}))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        told = " ".join(str(error).split())[:300]
        raise SettingsError(f"Ray cannot be {'started here' if address is None else f'reached at {address}'}: "
                            f"{told}") from error
    return ray
