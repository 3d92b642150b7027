"""A party as a server process: its engine in one thread, its web server in another."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict

from secformer.mpc.meter import Cost
from secformer.roles.audit import Auditing, Unaudited, opened
from secformer.roles.budgets import JOURNAL, Ledger
from secformer.roles.chain import EPOCH
from secformer.roles.descriptors import party_room, raise_limit
from secformer.roles.engine import Engine
from secformer.roles.filling import MB
from secformer.roles.jobs import Jobs
from secformer.roles.monitoring import PartyMetrics, Status
from secformer.roles.settings import PartySettings
from secformer.roles.signals import share_the_interpreter
from secformer.roles.signing import Signer
from secformer.roles.web import Web, serve

ENDING = 10.0  # seconds in which the engine must end

log = logging.getLogger(__name__)


class Reports:
    """Turns what the engine reports into readiness, metrics and lines of the audit log, once there is one."""

    def __init__(self, status: Status, metrics: PartyMetrics):
        self._status, self._metrics = status, metrics
        self.audit: Auditing = Unaudited()

    def ready(self) -> None:
        self._status.set_ready()

    def opened(self, model: str, epoch: str) -> None:
        self.audit.append(EPOCH, {"model": model, "epoch": epoch})

    def not_ready(self, reason: str, told: str) -> None:
        self._status.set_not_ready(reason, told)

    def answered(self, cost: Cost) -> None:
        self._metrics.answered(cost)

    def took(self, space: str) -> None:
        self._metrics.took(space)

    def ahead(self, nbytes: int, runs: int) -> None:
        self._metrics.ahead(nbytes, runs)

    def filled(self, runs: int) -> None:
        self._metrics.filled(runs)

    def not_filled(self, kind: str) -> None:
        self._metrics.not_filled(kind)

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
    reports = Reports(status, metrics)
    engine, signer = Engine(settings, jobs, reports), Signer(settings.tls)
    audit = opened(settings.audit, settings.audit_folder, f"party{settings.rank}", signer, settings.audit_mb)
    reports.audit = audit
    metrics.show_audit(audit)
    metrics.limit_ahead(settings.ahead_mb * MB if settings.rank == 1 else 0)
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
