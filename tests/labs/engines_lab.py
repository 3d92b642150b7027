"""Both engines and the dealer in this process, over TLS, and a client that gives them its halves directly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from roles_lab import until

from secformer import demo_model
from secformer.mpc.meter import Cost
from secformer.mpc.net.tls import TLSChannel
from secformer.roles.client import RemoteModel
from secformer.roles.dealer_server import DealerServer
from secformer.roles.engine import Engine
from secformer.roles.jobs import Jobs
from secformer.roles.messages import Answer, Half
from secformer.roles.settings import load_client, load_dealer, load_party
from secformer.roles.trial import LocalRoles

PARTIES = {"deadline": 20.0, "dealer_wait": 5.0, "backend": "numpy", "threads": 1}


class Reports:
    """What an engine reports."""

    def __init__(self) -> None:
        self.reason, self.epoch, self.costs = "starting", "", list[Cost]()
        self.told: list[str] = []  # to clients, why not

    def ready(self) -> None:
        self.reason = ""

    def not_ready(self, reason: str, told: str) -> None:
        self.reason, self.told = reason, [*self.told, told]

    def opened(self, model: str, epoch: str) -> None:
        self.epoch = epoch

    def answered(self, cost: Cost) -> None:
        self.costs.append(cost)

    def took(self, space: str) -> None: ...

    def ahead(self, nbytes: int, runs: int) -> None: ...

    def filled(self, runs: int) -> None: ...

    def not_filled(self, kind: str) -> None: ...

    def material(self, left: dict[str, int]) -> None: ...

    def refused(self, port: str, why: str) -> None: ...


class Engines:
    """Entering starts the three roles; leaving ends them, and checks that their threads have ended."""

    def __init__(self, folder: Path, model: Any = None, provisioning: Mapping[str, Any] | None = None,
                 **settings: Any):
        self.roles = LocalRoles(folder, demo_model() if model is None else model, settings=PARTIES | settings,
                                **provisioning or {})
        self.jobs, self.reports = (Jobs(99), Jobs(99)), (Reports(), Reports())

    def __enter__(self) -> Self:
        self._others = _slots()
        self.dealer = DealerServer(load_dealer(self.roles.settings("dealer")))
        self.engines = [Engine(load_party(self.roles.settings(f"party{rank}")), self.jobs[rank], self.reports[rank])
                        for rank in (0, 1)]
        self._threads = [threading.Thread(target=engine.run, daemon=True) for engine in self.engines]
        for thread in self._threads:
            thread.start()
        return self

    def ready(self) -> None:
        """Waits until both engines have linked and opened the weights."""
        until(lambda: not any(each.reason for each in self.reports), 60)

    def channel(self, rank: int, slot: int) -> TLSChannel:
        """A party's connection for a slot of the present link."""
        link = self.engines[rank]._link
        assert link is not None
        return link.slots[slot]

    def client(self, name: str = "client", **settings: Any) -> RemoteModel:
        """A client of that name of these engines, without HTTP between."""
        model = RemoteModel(replace(load_client(self.roles.settings("client")), **settings))
        ways: Any = [_Directly(self, name) for _ in model._ways]
        model._ways, model._compared = ways, True
        return model

    def __exit__(self, *args: Any) -> None:
        for engine in self.engines:
            engine.stop()
        for thread in self._threads:
            thread.join(60)
        self.dealer.close()
        assert not any(thread.is_alive() for thread in self._threads), "an engine does not end"
        slots = [thread for thread in _slots() if thread not in self._others]
        assert not slots, f"{slots} have not ended"


def _slots() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("slot ")]


class _Directly:
    """Stands for `BothParties`: a half goes into the queue of its party."""

    def __init__(self, engines: Engines, client: str):
        self._parties = [SimpleNamespace(infer=partial(_submitted, jobs, client), end=partial(_ended, engine, client))
                         for jobs, engine in zip(engines.jobs, engines.engines, strict=True)]

    def ask(self, question: Callable[[Any, int], Future[Answer]]) -> tuple[Answer, ...]:
        futures = [question(party, rank) for rank, party in enumerate(self._parties)]
        return tuple(future.result(120) for future in futures)

    def patiently(self, attempt: Callable[[], Any], patience: float) -> Any:
        return attempt()

    def resume(self) -> None: ...

    def hang_up(self) -> None: ...

    def close(self) -> None: ...


def _submitted(jobs: Jobs, client: str, half: Half) -> Future[Answer]:
    return jobs.submit(half, client, 120.0)


def _ended(engine: Engine, client: str, session: str) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(engine.sessions.end(client, session, "its client ended it"))
    return done


class Gate:
    """Stops a channel before its message number `after` until `open` is called, or makes it fail there."""

    def __init__(self, channel: TLSChannel, after: int, problem: Exception | None = None):
        self.reached, self._opened, self._problem = threading.Event(), threading.Event(), problem
        self._left, self._receive = after, channel.receive
        channel.receive = self._through  # type: ignore[method-assign]

    def _through(self, *args: Any) -> Any:
        self._left -= 1
        if not self._left:
            self.reached.set()
            if self._problem is not None:
                raise self._problem
            assert self._opened.wait(60)
        return self._receive(*args)

    def open(self) -> None:
        """Lets everything through from now on."""
        self._left = 0
        self._opened.set()
