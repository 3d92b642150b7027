"""What operators monitor at a role: its readiness, and metrics in Prometheus' format."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from secformer.mpc.meter import Cost
from secformer.roles.audit import Auditing
from secformer.roles.jobs import Jobs
from secformer.roles.rotation import WHYS

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 180.0, 600.0)  # upper bounds of the histogram's bins

PLANS = 256  # plans whose material is shown, unless more have some


def _figure(audit: Auditing, name: str) -> float:
    return audit.figures[name]


class Status:
    """Whether a party answers requests, and if it does not, why; and what else clients may be told. Thread-safe.

    running   how many requests run
    epoch     the name of the epoch that the party has joined; "" before that
    material  requests that the party's store has material for; None where it has no store, or did not look yet
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason = self._told = "starting"
        self._ending = ""
        self.running: Callable[[], int] = lambda: 0
        self.epoch: Callable[[], str] = lambda: ""
        self.material: int | None = None

    @property
    def reason(self) -> str:
        """Why the party does not answer requests, for its operator; "" if it does."""
        with self._lock:
            return self._ending or self._reason

    @property
    def told(self) -> str:
        """The same for clients, in general words."""
        with self._lock:
            return self._ending or self._told

    def set_ready(self) -> None:
        with self._lock:
            self._reason = self._told = ""

    def set_not_ready(self, reason: str, told: str) -> None:
        """`told` is for clients: it names no address and no path."""
        with self._lock:
            self._reason, self._told = reason or "not ready", told or "not ready"

    def set_ending(self) -> None:
        """The party is shutting down, whatever else is the case."""
        with self._lock:
            self._ending = "shutting down"


class Metrics:
    """A role's metrics, in their own registry. `ready` tells whether the role does its work."""

    def __init__(self, ready: Callable[[], bool]):
        self._registry = CollectorRegistry()
        Gauge("secformer_ready", "1 when the role does its work", registry=self._registry).set_function(
            lambda: float(ready()))
        self._refused = Counter("secformer_refused_connections", "Connections that were not let in, or that failed",
                                ["port", "why"], registry=self._registry)

    def show_audit(self, audit: Auditing) -> None:
        """Shows how the audit log does."""
        for name, about in (("failing", "1 while the audit log cannot be written"),
                            ("lines", "Number of the last line of the audit log"),
                            ("lost", "Lines of the audit log that found no room"),
                            ("unwritten", "Lines of the audit log that wait for the disk")):
            Gauge(f"secformer_audit_{name}", about, registry=self._registry).set_function(
                partial(_figure, audit, name))

    def certificate(self, until: Callable[[], datetime]) -> None:
        """Shows when the role's certificate expires."""
        Gauge("secformer_certificate_expires_seconds", "When the certificate in use expires, in seconds since 1970",
              registry=self._registry).set_function(lambda: until().timestamp())

    def refused(self, port: str, why: str) -> None:
        """Counts a connection that was not let in, or that failed."""
        self._refused.labels(port, why).inc()

    def text(self) -> bytes:
        """The metrics in Prometheus' format."""
        return generate_latest(self._registry)


class PartyMetrics(Metrics):
    """A party's metrics."""

    def __init__(self, status: Status, jobs: Jobs):
        super().__init__(lambda: not status.reason)
        registry = self._registry
        self._requests = Counter("secformer_requests", "Requests that ended", ["outcome"], registry=registry)
        self._came = Counter("secformer_port_requests", "Requests that came, by the port", ["port"], registry=registry)
        self._browsers = Counter("secformer_refused_browsers", "Requests of browsers that were refused for their token "
                                 "or their page's origin", ["why"], registry=registry)
        self._seconds = Histogram("secformer_request_seconds", "Time from a request's arrival to its answer",
                                  buckets=SECONDS, registry=registry)
        self._online = Counter("secformer_online_seconds", "Time spent on computing online", registry=registry)
        self._bytes = Counter("secformer_sent_bytes", "Bytes sent to the other party online", registry=registry)
        self._rounds = Counter("secformer_rounds", "Message exchanges with the other party", registry=registry)
        self._dealer = Counter("secformer_dealer_bytes", "Bytes of corrections received or read", registry=registry)
        self._material = Gauge("secformer_material_left", "Requests that the store has material for", ["plan"],
                               registry=registry)
        self._plans: dict[str, None] = {}  # in the order in which they were first met
        self._runs = Counter("secformer_started_runs", "Runs of requests that began, by where their material comes "
                             "from: the dealer (live) or the store (stored)", ["space"], registry=registry)
        self._ahead_bytes = Gauge("secformer_ahead_bytes", "Bytes of the store on disk, while the party fills it",
                                  registry=registry)
        self._ahead_runs = Gauge("secformer_ahead_runs", "Requests that the store has material for, of all shapes",
                                 registry=registry)
        self._filled = Counter("secformer_ahead_filled_runs", "Runs that the party has stored by itself",
                               registry=registry)
        self._not_filled = Counter("secformer_ahead_failures", "Attempts to fill the store that failed", ["kind"],
                                   registry=registry)
        Gauge("secformer_waiting_requests", "Requests that wait", registry=registry).set_function(jobs.waiting)

    def count_sessions(self, count: Callable[[], int]) -> None:
        """Shows how many sessions are open."""
        Gauge("secformer_sessions", "Texts that are being generated", registry=self._registry).set_function(count)

    def count_fairness(self, held: Callable[[], float], alone: Callable[[], float], share: Callable[[], float],
                       spent: Callable[[], float]) -> None:
        """Shows what requests hold, and how far clients have come with their budgets; clients have no labels, since
        there may be many."""
        for name, about, count in (
                ("secformer_held_bytes", "Memory that the bodies of requests take", held),
                ("secformer_halves_alone", "Waiting halves whose other half the other party has not got", alone),
                ("secformer_budget_share", "Largest part of its budget that a client has spent today", share),
                ("secformer_budgets_spent", "Clients that were refused today for their budget", spent)):
            Gauge(name, about, registry=self._registry).set_function(count)

    def came(self, port: str) -> None:
        """Counts a request that begins at one of the ports for clients."""
        self._came.labels(port).inc()

    def refused_browser(self, why: str) -> None:
        """Counts a request at the port for browsers whose token or origin does not hold."""
        self._browsers.labels(why).inc()

    def ended(self, outcome: str, seconds: float) -> None:
        """Counts a request that ended after this many seconds."""
        self._requests.labels(outcome).inc()
        self._seconds.observe(seconds)

    def answered(self, cost: Cost) -> None:
        """Adds what an answer cost this party."""
        self._online.inc(cost.seconds)
        self._bytes.inc(cost.bytes)
        self._rounds.inc(cost.rounds)
        self._dealer.inc(cost.dealer_bytes)

    def took(self, space: str) -> None:
        """Counts a run that begins, by the space of its serial."""
        self._runs.labels(space).inc()

    def limit_ahead(self, nbytes: int) -> None:
        """Shows up to how many bytes the party fills its store."""
        Gauge("secformer_ahead_limit_bytes", "Bytes up to which the party fills its store; 0: it does not",
              registry=self._registry).set(nbytes)

    def ahead(self, nbytes: int, runs: int) -> None:
        """Sets what the store holds."""
        self._ahead_bytes.set(nbytes)
        self._ahead_runs.set(runs)

    def filled(self, runs: int) -> None:
        """Counts runs that the party has stored by itself."""
        self._filled.inc(runs)

    def not_filled(self, kind: str) -> None:
        """Counts a failure to fill the store, by the kind of the error."""
        self._not_filled.labels(kind).inc()

    def material(self, left: Mapping[str, int]) -> None:
        """Sets how many requests the store has material for, by plan digest. A plan whose material is used up is kept
        at 0, because an alert cannot see a plan that is missing; of many such plans, the first ones are not kept."""
        self._plans |= dict.fromkeys(left)
        used_up = [plan for plan in self._plans if not left.get(plan)]
        for plan in used_up[:max(0, len(self._plans) - PLANS)]:
            del self._plans[plan]
            self._material.remove(plan[:16])
        for plan in self._plans:
            self._material.labels(plan[:16]).set(left.get(plan, 0))


class DealerMetrics(Metrics):
    """The dealer's metrics."""

    def __init__(self, ready: Callable[[], bool]):
        super().__init__(ready)
        registry = self._registry
        self._serials = Counter("secformer_burnt_serials", "Serials that were given out", ["space"], registry=registry)
        self._runs = Counter("secformer_dealt_runs", "Runs whose corrections were sent completely", ["space"],
                             registry=registry)
        self._bytes = Counter("secformer_dealt_bytes", "Bytes of corrections that were sent", registry=registry)
        self._seconds = Histogram("secformer_dealing_seconds", "Time from an ask for runs to its last correction",
                                  buckets=SECONDS, registry=registry)
        self._joins = Counter("secformer_joins", "Times that a party joined an epoch", registry=registry)
        self._failed = Counter("secformer_failed_asks", "Asks of parties that were refused, or that failed", ["kind"],
                               registry=registry)
        self._epochs = Counter("secformer_new_epochs", "Epochs that began, by the reason", ["why"], registry=registry)
        for why in WHYS:
            self._epochs.labels(why)  # an alert can only see a number rise that was there before
        self._connections = Gauge("secformer_connections", "Connections of parties whose asks are served now",
                                  registry=registry)
        self._made = Counter("secformer_connections_made", "Connections of parties that were let in", registry=registry)

    def connected(self) -> None:
        """A party was let in."""
        self._made.inc()

    def serving(self, by: int) -> None:
        """An ask is served, or its service has ended: 1 or -1."""
        self._connections.inc(by)

    def joined(self) -> None:
        """A party has joined an epoch."""
        self._joins.inc()

    def new_epoch(self, why: str) -> None:
        """An epoch begins."""
        self._epochs.labels(why).inc()

    def burnt(self, space: str, count: int) -> None:
        """Serials of a space are given out."""
        self._serials.labels(space).inc(count)

    def dealt(self, space: str, runs: int, nbytes: int, seconds: float) -> None:
        """An ask for runs was answered, after this many seconds."""
        self._runs.labels(space).inc(runs)
        self._bytes.inc(nbytes)
        self._seconds.observe(seconds)

    def failed(self, kind: str) -> None:
        """An ask was refused, or failed."""
        self._failed.labels(kind).inc()
