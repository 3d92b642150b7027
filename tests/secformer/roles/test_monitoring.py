"""What a party's metrics say, without a party."""

from __future__ import annotations

from datetime import UTC, datetime

from secformer.mpc.meter import Meter
from secformer.roles.jobs import Jobs
from secformer.roles.monitoring import PLANS as MOST
from secformer.roles.monitoring import Metrics, PartyMetrics, Status

PLANS = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def values(metrics: Metrics) -> dict[str, float]:
    lines = metrics.text().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_readiness_is_a_number_and_a_reason() -> None:
    status = Status()
    metrics = PartyMetrics(status, Jobs(3))
    assert values(metrics)["secformer_ready"] == 0 and status.reason == "starting"
    status.set_ready()
    assert values(metrics)["secformer_ready"] == 1 and status.reason == ""
    status.set_not_ready("", "")
    assert values(metrics)["secformer_ready"] == 0 and status.reason and status.told, "no reason would mean ready"


def test_material_that_is_used_up_is_shown_as_none_left() -> None:
    metrics = PartyMetrics(Status(), Jobs(3))
    first, second = (f'secformer_material_left{{plan="{plan[:16]}"}}' for plan in PLANS)
    assert first not in values(metrics)
    metrics.material({PLANS[0]: 2})
    assert values(metrics)[first] == 2 and second not in values(metrics)
    metrics.material({PLANS[1]: 5})
    assert (values(metrics)[first], values(metrics)[second]) == (0, 5)
    metrics.material({})
    assert (values(metrics)[first], values(metrics)[second]) == (0, 0)


def test_of_many_plans_that_are_used_up_the_last_are_shown() -> None:
    metrics = PartyMetrics(Status(), Jobs(3))
    plans = [f"{number:016x}" * 4 for number in range(MOST + 3)]
    metrics.material({plans[0]: 1})
    for plan in plans[1:]:
        metrics.material({plans[0]: 1, plan: 2})
    shown = [name for name in values(metrics) if name.startswith("secformer_material_left")]
    assert len(shown) == MOST and not any(plan[:16] in name for plan in plans[1:4] for name in shown)
    assert values(metrics)[f'secformer_material_left{{plan="{plans[0][:16]}"}}'] == 1
    metrics.material(dict.fromkeys(plans, 1))
    assert len([name for name in values(metrics) if name.startswith("secformer_material_left")]) == len(plans)


def test_material_ahead_and_where_it_comes_from() -> None:
    metrics = PartyMetrics(Status(), Jobs(3))
    metrics.limit_ahead(5000)
    metrics.ahead(4000, 3)
    for runs in (2, 3):
        metrics.filled(runs)
    metrics.not_filled("PeerLost")
    for space in ("live", "stored", "stored"):
        metrics.took(space)
    now = values(metrics)
    assert (now["secformer_ahead_limit_bytes"], now["secformer_ahead_bytes"], now["secformer_ahead_runs"]) == (
        5000, 4000, 3)
    assert now["secformer_ahead_filled_runs_total"] == 5
    assert now['secformer_ahead_failures_total{kind="PeerLost"}'] == 1
    assert (now['secformer_started_runs_total{space="live"}'], now['secformer_started_runs_total{space="stored"}']) == (
        1, 2)


def test_outcomes_seconds_and_costs_add_up() -> None:
    metrics = PartyMetrics(Status(), Jobs(3))
    for outcome, seconds in (("answered", 0.2), ("answered", 3.0), ("queue full", 0.0)):
        metrics.ended(outcome, seconds)
    metrics.answered(Meter().close(0.0))
    now = values(metrics)
    assert now['secformer_requests_total{outcome="answered"}'] == 2
    assert now['secformer_requests_total{outcome="queue full"}'] == 1
    assert now["secformer_request_seconds_count"] == 3 and now["secformer_request_seconds_sum"] == 3.2
    assert now['secformer_request_seconds_bucket{le="0.25"}'] == 2
    assert now["secformer_waiting_requests"] == 0


def test_limits_of_clients_are_numbers_without_names() -> None:
    metrics = PartyMetrics(Status(), Jobs(3))
    metrics.count_fairness(lambda: 7.0, lambda: 2.0, lambda: 0.5, lambda: 1.0)
    metrics.certificate(lambda: datetime.fromtimestamp(1000, UTC))
    now = values(metrics)
    assert (now["secformer_held_bytes"], now["secformer_halves_alone"]) == (7.0, 2.0)
    assert (now["secformer_budget_share"], now["secformer_budgets_spent"]) == (0.5, 1.0)
    assert now["secformer_certificate_expires_seconds"] == 1000
