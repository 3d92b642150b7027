"""Roles whose disk refuses the lines of their audit log, while clients ask."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from roles_lab import logged, until
from tiny_chat_lab import MESSAGES, measured_chat

from secformer import connect
from secformer.mpc.errors import ProtocolError
from secformer.roles.chain import verify
from secformer.roles.kept_receipts import verify as verify_receipts
from secformer.roles.receipts import Statement
from secformer.roles.signing import Authority
from secformer.roles.trial import LocalRoles

# Runs in every role's process: a write into an audit log fails while its role's flag is there.
FULL = '''
import errno, os
real = os.write

def write(handle, data):
    path = os.readlink(f"/proc/self/fd/{handle}")
    if "/audit/" in path and os.path.exists(path.split("/audit/")[0] + "/full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(handle, data)

os.write = write
'''

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds files by their handles, in /proc")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRoles]:
    """A small model that generates text; party 0's log is required, party 1's is not."""
    folder = tmp_path_factory.mktemp("roles")
    (folder / "sitecustomize.py").write_text(FULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", os.getcwd()))))
        roles = LocalRoles(folder / "served", measured_chat(folder / "model"), settings={"dealer_wait": 5.0})
        settings = roles.settings("party1")
        settings.write_text(settings.read_text().replace('# audit = "required"', 'audit = "best effort"'))
        with roles:
            roles.wait_ready()
            yield roles


def figures(up: LocalRoles, port: str) -> tuple[str, dict[str, float]]:
    """A role's readiness and metrics."""
    connection = HTTPConnection("127.0.0.1", up.ports[port], timeout=10)
    try:
        connection.request("GET", "/readyz")
        ready = connection.getresponse().read().decode()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return ready, {name: float(value) for name, value in (
        line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}


@contextmanager
def full(up: LocalRoles, role: str, port: str) -> Iterator[None]:
    """The disk of a role's audit log is full, which its next line shows."""
    (flag := up.role_folder(role) / "full").touch()
    try:
        yield
    finally:
        flag.unlink()
    until(lambda: figures(up, port)[1]["secformer_audit_failing"] == 0)


def score(up: LocalRoles, **settings: Path) -> float:
    with connect(up.settings("client"), **settings) as model:
        return float(model.score("hello there").perplexity)


def test_a_party_that_must_log_serves_nothing(up: LocalRoles) -> None:
    wanted = score(up)
    with full(up, "party0", "metrics0"):
        with suppress(ProtocolError):  # whose line finds no room, unless the line before did not
            score(up)
        until(lambda: figures(up, "metrics0")[1]["secformer_audit_failing"] == 1)
        assert "audit log cannot be written: No space left on device" in figures(up, "metrics0")[0]
        with pytest.raises(ProtocolError, match="party0 answered 503: this party is not ready"):
            score(up)
        logged(up, "party0", lambda line: line["event"] == "audit log fails" and line["then"] == "nothing is served")
    assert figures(up, "metrics0")[0] == "ready\n" and score(up) == pytest.approx(wanted, abs=0.05)


def test_a_party_that_logs_if_it_can_serves_on(up: LocalRoles) -> None:
    wanted = score(up)
    with full(up, "party1", "metrics1"):
        score(up)
        until(lambda: figures(up, "metrics1")[1]["secformer_audit_failing"] == 1)
        assert score(up) == pytest.approx(wanted, abs=0.05)
        ready, values = figures(up, "metrics1")
        assert ready == "ready\n" and values["secformer_audit_failing"] == 1
        assert values["secformer_audit_unwritten"] >= 1


def test_a_dealer_that_must_log_deals_nothing(up: LocalRoles) -> None:
    with full(up, "dealer", "dealer_metrics"):
        with suppress(ProtocolError):
            score(up)
        until(lambda: figures(up, "dealer_metrics")[1]["secformer_audit_failing"] == 1)
        ready, values = figures(up, "dealer_metrics")
        assert "audit log cannot be written" in ready and values["secformer_ready"] == 0
        with pytest.raises(ProtocolError):
            score(up)
        assert figures(up, "dealer_metrics")[1]['secformer_failed_asks_total{kind="Desync"}'] >= 1
    score(up)


def test_nothing_was_lost_and_steps_have_receipts(up: LocalRoles, tmp_path: Path) -> None:
    file = tmp_path / "receipts.jsonl"
    with connect(up.settings("client"), receipts=file) as model:
        assert 1 <= len(model.generate(MESSAGES, max_new_tokens=3).tokens) <= 3
    kept = [Statement.read(json.loads(line)["receipts"][0]["statement"]) for line in file.read_text().splitlines()]
    assert len(kept) >= 1 and len({each.request for each in kept}) == len({each.run for each in kept}) == len(kept)
    authority = Authority(up.role_folder("client") / "authority.pem")
    for role in ("dealer", "party0", "party1"):
        up.stop(role)
        verdict = verify([up.role_folder(role) / "audit"], authority=authority)
        assert verdict.bad is None and verdict.ended and not verdict.events["lost"], (role, verdict)
    found = verify_receipts([file], authority=authority,
                            logs=[[up.role_folder(role) / "audit"] for role in ("party0", "party1")])
    assert found.bad is None and found.found == {"party0": len(kept), "party1": len(kept)}
