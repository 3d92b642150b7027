"""Clients that ask too much beside one that asks as usual, and certificates that change, between real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from browsers_lab import ORIGIN, browser
from links_lab import identity
from roles_lab import TEXT, Steady, ask, blank_keys, logged, right, until

from secformer import connect, demo_model
from secformer.mpc.errors import ProtocolError, SecformerError
from secformer.mpc.net.tls import client_context, host_name
from secformer.roles.asking import Busy
from secformer.roles.certificates import REVOKED, init, issue, revoke
from secformer.roles.messages import Half, most_bytes, pack_half
from secformer.roles.settings import load_client
from secformer.roles.tokens import pair
from secformer.roles.trial import LocalRoles

CLIENTS = ("alice", "mallory", "bob", "carol")
SETTINGS = {"queue": 40, "client_requests": 20, "half_deadline": 4.0, "max_body_mb": 64, "client_mb": 100,
            "held_mb": 400, "max_tokens": 200_000, "deadline": 20.0, "dealer_wait": 2.0, "request_deadline": 60.0}
BUDGETS = "[budgets]\n[budgets.clients.bob]\nrequests_per_day = 2\n"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRoles]:
    roles = LocalRoles(tmp_path_factory.mktemp("fairness"), demo_model(), settings=SETTINGS, origins=[ORIGIN])
    for client in CLIENTS:
        issue(roles.folder / "roles", "client", name=client)
        shutil.copytree(roles.role_folder("client") / "model", roles.role_folder(client) / "model")
    for role in ("party0", "party1"):
        text = roles.settings(role).read_text("utf-8")
        roles.settings(role).write_text(text.replace("[budgets]\n", BUDGETS), "utf-8")
    with roles:
        roles.wait_ready()
        yield roles


def metric(up: LocalRoles, rank: int, name: str) -> float:
    connection = HTTPConnection("127.0.0.1", up.ports[f"metrics{rank}"], timeout=20)
    connection.request("GET", "/metrics")
    found = re.search(rf"^{re.escape(name)} (\S+)$", connection.getresponse().read().decode(), re.MULTILINE)
    connection.close()
    return float(found[1]) if found else 0.0


def asked(up: LocalRoles, client: str, text: str = TEXT) -> None:
    with connect(up.settings(client)) as model:
        right(model.infer(text), text)


class Posting:
    """Half a request that a client sends to one party, in a thread of its own; with a token of the client, if not with
    its certificate."""

    def __init__(self, up: LocalRoles, client: str, rank: int, *, mb: int = 0, request: str = "", token: bool = False):
        lengths, inputs = np.array([4]), up.public.inputs
        if mb:
            each = most_bytes(inputs, True, 1) - most_bytes(inputs, True, 0)
            lengths = np.full((mb << 20) // each // 100, 100)
        self._body = pack_half(Half(request or os.urandom(16).hex(), up.public.digest, lengths,
                                    np.ones((len(lengths), int(lengths.max())), bool),
                                    keys=blank_keys(inputs, int(lengths.sum()))))
        self._up, self._client, self._rank, self._token = up, client, rank, token
        self.status, self.said, self.after = 0, "", ""
        self._thread = threading.Thread(target=self._post, daemon=True)
        self._thread.start()

    def _post(self) -> None:
        if self._token:
            pages = pair(load_client(self._up.settings(self._client)), 600, 100).as_dict()
            connection: HTTPConnection = browser(self._up.role_folder("client") / "authority.pem",
                                                 self._up.ports[f"browsers{self._rank}"])
            shown = {"Authorization": f"Bearer {pages[f'party{self._rank}']}"}
        else:
            connection, shown = HTTPConnection("127.0.0.1", self._up.ports[f"party{self._rank}"], timeout=60), {}
            connection.connect()
            context = client_context(identity(self._up.folder / "roles", self._client))
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host_name(f"party{self._rank}"))
        connection.request("POST", "/v1/infer", self._body, shown)
        answer = connection.getresponse()
        self.status, self.after = answer.status, answer.headers.get("Retry-After", "")
        self.said = answer.read().decode("utf-8", "replace")
        connection.close()

    def end(self) -> int:
        self._thread.join(90)
        assert not self._thread.is_alive(), "a half is held for ever"
        return self.status


# ---- quotas ----------------------------------------------------------------------------------------------------------


def test_large_halves_and_lone_halves_of_one_client_hold_nobody_up(up: LocalRoles) -> None:
    """8 halves of 40 MB at party 0, whose other halves never come, and 45 halves at party 1 alone."""
    with Steady(up) as alice:
        large = [Posting(up, "mallory", 0, mb=40) for _ in range(8)]
        alone = [Posting(up, "mallory", 1) for _ in range(45)]
        held = []
        while any(posting._thread.is_alive() for posting in large):
            held.append(metric(up, 0, "secformer_held_bytes"))
            time.sleep(0.1)
        alice.more()
        statuses = Counter(posting.end() for posting in large), Counter(posting.end() for posting in alone)
    assert statuses[0] == {504: 2, 429: 6}, "two fit client_mb; they ended when half_deadline was over"
    assert statuses[1] == {504: 20, 429: 25}
    assert 80 << 20 < max(held) <= 101 << 20
    refused = next(posting for posting in large if posting.status == 429)
    assert "one client may have 100 MB of requests here at the same time" in refused.said and refused.after == "2"
    assert "the other party did not get its half of the request within 4 s" in next(
        posting.said for posting in alone if posting.status == 504)
    until(lambda: metric(up, 0, "secformer_held_bytes") == 0 == metric(up, 1, "secformer_halves_alone"))
    asked(up, "mallory")


def test_a_client_at_its_limit_asks_again_by_itself(up: LocalRoles) -> None:
    alone = [Posting(up, "mallory", 1) for _ in range(20)]
    until(lambda: metric(up, 1, "secformer_halves_alone") >= 20)
    started = time.monotonic()
    asked(up, "mallory")
    assert time.monotonic() - started >= 2.0, "Retry-After"
    assert {posting.end() for posting in alone} == {504}


@pytest.mark.parametrize("token", [False, True])
def test_halves_of_two_clients_are_refused_at_both_parties(up: LocalRoles, token: bool) -> None:
    request = os.urandom(16).hex()
    halves = [Posting(up, client, rank, request=request, token=token)
              for rank, client in enumerate(("alice", "mallory"))]
    for half in halves:
        assert half.end() == 409 and "come from two clients" in half.said
        assert "mallory" not in half.said and "alice" not in half.said
    logged(up, "party1", lambda line: line["event"] == "halves of two clients" and line["client"] == "mallory")
    asked(up, "alice")


# ---- budgets ---------------------------------------------------------------------------------------------------------


def test_a_spent_budget_outlives_a_restart(up: LocalRoles) -> None:
    for _ in range(2):
        asked(up, "bob")
    for restarted in (False, True):
        if restarted:
            for role in ("party0", "party1"):
                up.stop(role, signal.SIGKILL)
                up.start(role)
            up.wait_ready()
        with pytest.raises(Busy, match="answered 429: this client may ask 2 requests per day and has asked 2.* renews "
                                       r"at \d{4}-\d\d-\d\d 00:00 UTC"):
            asked(up, "bob")
        assert metric(up, 0, "secformer_budget_share") == 1.0 and metric(up, 0, "secformer_budgets_spent") == 1.0
    asked(up, "alice")


# ---- certificates ----------------------------------------------------------------------------------------------------


def fails(do: Callable[[], object], said: str) -> None:
    """Waits until it fails in this way; before, it may go well."""
    end = time.monotonic() + 60
    while True:
        try:
            do()
        except SecformerError as error:
            assert re.search(said, str(error)), error
            return
        assert time.monotonic() < end, "it goes well for ever"
        time.sleep(0.1)


def test_a_revoked_client_is_refused_on_the_connection_that_it_has(up: LocalRoles) -> None:
    with connect(up.settings("carol")) as model, Steady(up):
        right(model.infer(TEXT))
        kept = model._ways[0].parties[0]._connection
        assert kept is not None and kept.sock is not None
        revoke(up.folder / "roles", "carol")
        fails(lambda: model.infer(TEXT), r"answered 403: the certificate 'carol' was revoked on|hung up")
        fails(lambda: asked(up, "carol"), "answered 403: the certificate 'carol' was revoked on")
    issue(up.folder / "roles", "client", name="carol")
    asked(up, "carol")


def test_all_certificates_are_rotated_while_a_client_asks(up: LocalRoles) -> None:
    """Renewed, then the old ones revoked: no request is lost, and every connection shows a new one."""
    roles = up.folder / "roles"
    with Steady(up) as alice:
        for role in ("party0", "party1", "dealer"):
            linked = up.log("party0").read_text().count('"link renewed"')
            issue(roles, role)
            logged(up, role, lambda line: line["event"] == "certificate renewed")
            if role != "dealer":
                until(lambda before=linked: up.log("party0").read_text().count('"link renewed"') > before)
            alice.more()
        issue(roles, "client", name="alice")
        time.sleep(1.5)  # a client looks at its files once a second
        alice.more()
        for name in ("party0", "party1", "dealer", "alice"):
            revoke(roles, name, old=True)
        time.sleep(2.5)
        alice.more()
    assert not any(json.loads(line)["event"] == "link lost" for line in up.log("party0").read_text().splitlines()
                   if "revoked on" in line)


def test_half_a_certificate_keeps_the_old_one_and_sighup_reads_again(up: LocalRoles) -> None:
    for role in ("party0", "dealer"):
        path = up.role_folder(role) / f"{role}.key"
        whole = path.read_bytes()
        path.write_bytes(whole[:50])
        up.processes[role].send_signal(signal.SIGHUP)
        logged(up, role, lambda line: line["event"] == "certificate not renewed" and "before stays in use"
               in line["problem"])
        path.write_bytes(whole)
        up.processes[role].send_signal(signal.SIGHUP)
        asked(up, "alice")
        assert up.processes[role].poll() is None


def test_a_revoked_party_ends_the_link_and_a_new_certificate_makes_it_again(up: LocalRoles) -> None:
    roles = up.folder / "roles"
    revoke(roles, "party1")
    logged(up, "party0", lambda line: line["event"] == "link lost" and "the certificate of party1 (party1) was revoked"
           in line["problem"])
    fails(lambda: ask(up), "not ready|revoked")
    issue(roles, "party1")
    up.wait_ready()
    until(lambda: answers(up), 60)


def answers(up: LocalRoles) -> bool:
    try:
        right(ask(up))
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize(("role", "command"), [("dealer", ["dealer"]), ("party0", ["party"]),
                                               ("client", ["query", TEXT])])
def test_a_list_that_cannot_be_read_stops_a_start(up: LocalRoles, role: str, command: list[str]) -> None:
    folder = up.role_folder(role)
    (folder / "bad.pem").write_bytes((folder / REVOKED).read_bytes()[:100])
    (folder / "bad.toml").write_text(up.settings(role).read_text("utf-8").replace(f'"{REVOKED}"', '"bad.pem"'), "utf-8")
    done = subprocess.run([sys.executable, "-m", "secformer", *command, "--settings", str(folder / "bad.toml")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "it must be a list of revoked certificates as a PEM file" in done.stderr


def test_a_list_that_cannot_be_read_changes_nothing_while_roles_run(up: LocalRoles, tmp_path: Path) -> None:
    path = up.role_folder("dealer") / REVOKED
    whole = path.read_bytes()
    init(tmp_path / "foreign")
    shutil.copy(tmp_path / "foreign" / "dealer" / REVOKED, path)
    logged(up, "dealer", lambda line: line["event"] == "revoked certificates not read" and "not signed by"
           in line["problem"])
    path.write_bytes(whole)
    assert answers(up)
