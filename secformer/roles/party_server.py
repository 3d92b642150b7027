"""A party as a server process: its engine in one thread, its web server in another."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict

from secformer.mpc.meter import Cost
from secformer.roles.audit import opened
from secformer.roles.budgets import JOURNAL, Ledger
from secformer.roles.descriptors import party_room, raise_limit
from secformer.roles.engine import Engine
from secformer.roles.jobs import Jobs
from secformer.roles.monitoring import PartyMetrics, Status
from secformer.roles.settings import PartySettings
from secformer.roles.signals import share_the_interpreter
from secformer.roles.signing import Signer
from secformer.roles.web import Web, serve

ENDING = 10.0  # seconds in which the engine must end

log = logging.getLogger(__name__)


class Reports:
    """Turns what the engine reports into readiness and metrics."""

    def __init__(self, status: Status, metrics: PartyMetrics):
        self._status, self._metrics = status, metrics

    def ready(self) -> None:
        self._status.set_ready()

    def not_ready(self, reason: str, told: str) -> None:
        self._status.set_not_ready(reason, told)

    def answered(self, cost: Cost) -> None:
        self._metrics.answered(cost)

    def material(self, left: dict[str, int]) -> None:
        self._metrics.material(left)
        self._status.material = sum(left.values())

    def refused(self, port: str, why: str) -> None:
        self._metrics.refused(port, why)


def run_party(settings: PartySettings) -> None:
    """Serves until SIGINT or SIGTERM. Raises ModelError, SettingsError, BackendUnavailable at the start."""
    share_the_interpreter()
    room = party_room(settings, raise_limit())
    log.info("room", extra={"fields": asdict(room)})
    jobs, status = Jobs(settings.queue, settings.half_deadline), Status()
    ledger = Ledger(settings.budgets, settings.state / JOURNAL)
    metrics = PartyMetrics(status, jobs)
    engine, signer = Engine(settings, jobs, Reports(status, metrics)), Signer(settings.tls)
    audit = opened(settings.audit, settings.audit_folder, f"party{settings.rank}", signer, settings.audit_mb)
    metrics.show_audit(audit)
    metrics.count_sessions(engine.sessions.count)
    status.running, status.epoch = engine.running, engine.epoch
    metrics.certificate(engine.credentials.until)
    thread = threading.Thread(target=engine.run, name="engine", daemon=True)
    thread.start()
    try:
        web = Web(settings, engine.public, jobs, status, metrics, engine.sessions, ledger, audit,
                  signer if settings.receipts else None)
        serve(settings, web, engine.credentials, room)
    finally:
        engine.stop()
        thread.join(ENDING)
        ledger.close()
        audit.close()
        log.info("ended")
