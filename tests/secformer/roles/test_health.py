"""Every role's health and metrics, and the documents that name metrics."""

from __future__ import annotations

import json
import re
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from roles_lab import ask, right, until
from tree import ROOT

from secformer.roles.audit import Unaudited
from secformer.roles.health import Monitored
from secformer.roles.monitoring import DealerMetrics
from secformer.roles.trial import LocalRoles

PORTS = {"party0": "metrics0", "party1": "metrics1", "dealer": "dealer_metrics"}
BOARD, ALERTS = ROOT / "docs/operations/grafana.json", ROOT / "docs/operations/alerts.yml"
_METRIC = re.compile(r"\bsecformer_[a-z_]+")
_OF_HISTOGRAMS = re.compile(r"_(bucket|count|sum)$")


def fetch(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def values(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_the_dealers_metrics_count_what_it_dealt(up: LocalRoles) -> None:
    port = up.ports["dealer_metrics"]
    assert fetch(port, "/healthz") == (200, "alive\n") and fetch(port, "/readyz") == (200, "ready\n")
    before = values(fetch(port, "/metrics")[1])
    cost = ask(up).cost
    until(lambda: values(fetch(port, "/metrics")[1])['secformer_dealt_runs_total{space="live"}']
          > before.get('secformer_dealt_runs_total{space="live"}', 0))
    now = values(fetch(port, "/metrics")[1])

    def rise(name: str) -> float:
        return now[name] - before.get(name, 0)

    assert rise('secformer_burnt_serials_total{space="live"}') == rise('secformer_dealt_runs_total{space="live"}') == 1
    assert rise("secformer_dealt_bytes_total") == cost.dealer_bytes
    assert rise("secformer_dealing_seconds_count") == 1 and rise("secformer_dealing_seconds_sum") > 0
    assert now["secformer_ready"] == 1 and now["secformer_joins_total"] >= 2
    assert rise("secformer_audit_lines") >= 1 and now["secformer_audit_failing"] == 0


def exported(up: LocalRoles, role: str) -> set[str]:
    """The names of the metrics that a role shows, as Prometheus knows them."""
    text = fetch(up.ports[PORTS[role]], "/metrics")[1]
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def named(path: Path) -> set[str]:
    return {_OF_HISTOGRAMS.sub("", name) for name in _METRIC.findall(path.read_text("utf-8"))}


def test_what_documents_name_is_exported(up: LocalRoles) -> None:
    right(ask(up))
    every = set().union(*(exported(up, role) for role in PORTS))
    manual = {name for line in (ROOT / "docs/operators.md").read_text("utf-8").splitlines()
              if line.startswith("| `secformer_") for name in _METRIC.findall(line)}
    assert len(manual) > 20
    for where, names in (("grafana.json", named(BOARD)), ("alerts.yml", named(ALERTS)), ("operators.md", manual)):
        assert names and not names - every, f"{where} names metrics that no role exports: {sorted(names - every)}"
    ours = {name for name in every if name.startswith("secformer_") and not name.endswith("_created")}
    assert not ours - manual, f"docs/operators.md does not say what these are: {sorted(ours - manual)}"


def test_the_board_and_the_rules_are_what_they_say() -> None:
    board = json.loads(BOARD.read_text("utf-8"))
    assert board["title"] == "secformer" and len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["targets"] and all(_METRIC.search(target["expr"]) for target in panel["targets"]), panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) > 10
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
        assert re.fullmatch(r"\d+[mh]", rule["for"]) and rule["labels"]["severity"] in ("page", "ticket")
        assert rule["expr"].count("(") == rule["expr"].count(")") and "\n" not in rule["expr"]


def test_a_role_that_does_not_do_its_work_says_why() -> None:
    from secformer.mpc.net.tcp import free_ports

    (port,) = free_ports(1)
    reasons = [""]
    metrics = DealerMetrics(lambda: not reasons[0])
    metrics.show_audit(Unaudited())
    metrics.failed("Desync")
    monitored = Monitored(("127.0.0.1", port), lambda: reasons[0], metrics)
    try:
        until(lambda: _listens(port))
        assert fetch(port, "/readyz") == (200, "ready\n") and fetch(port, "/nothing")[0] == 404
        reasons[0] = "the disk is full"
        assert fetch(port, "/readyz") == (503, "the disk is full")
        found = values(fetch(port, "/metrics")[1])
        assert found["secformer_ready"] == 0 and found['secformer_failed_asks_total{kind="Desync"}'] == 1
    finally:
        monitored.close()
    with pytest.raises(OSError):
        fetch(port, "/healthz")


def _listens(port: int) -> bool:
    try:
        return fetch(port, "/healthz")[0] == 200
    except OSError:
        return False
