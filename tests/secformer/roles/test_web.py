"""A party's answers to clients without a network and without an engine: which refusal is which status, and traces."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint

from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import Desync, InputError, PeerLost, SecformerError
from secformer.mpc.net.tls import Identity
from secformer.roles import web as module
from secformer.roles.audit import Unaudited
from secformer.roles.budgets import Budgets, Ledger
from secformer.roles.chain import Head
from secformer.roles.connections import PEER, Clients, Peer
from secformer.roles.failures import AtLimit, ForClients, HalvesDiffer, NoRoom, SessionEnded
from secformer.roles.jobs import Jobs
from secformer.roles.messages import Answer, Half, StepRequest, pack_half
from secformer.roles.monitoring import PartyMetrics, Status
from secformer.roles.sessions import Sessions
from secformer.roles.settings import PartySettings
from secformer.roles.telling import NOT_TOLD, Told, told
from secformer.roles.web import Web

ID, TRACE, PARENT = "ab" * 16, "0123456789abcdef" * 2, "cd" * 8
ALICE = Peer("client", "alice")


class Failing(Jobs):
    """Jobs that end at once, with the error that the test says."""

    error: SecformerError = ForClients("so and so")

    def submit(self, half: Half, client: str, deadline: float) -> Future[Answer]:
        self.trace = half.trace
        done: Future[Answer] = Future()
        done.set_exception(self.error)
        return done


class Noted(Unaudited):
    """An audit log in memory."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []

    def append(self, event: str, facts: Mapping[str, Any]) -> Head | None:
        self.lines.append(facts)
        return None


class Up:
    """A party's application, and what one request to it gives.

    step  what makes the request one of a session
    """

    step: StepRequest | None = None

    def __init__(self, folder: Path, ledger: Ledger, public: PublicModel):
        settings = PartySettings(0, folder, folder, ("127.0.0.1", 0), ("127.0.0.1", 0), ("127.0.0.1", 0),
                                 Identity(folder, folder, folder))
        self.status = status = Status()
        status.set_ready()
        self.settings = settings
        self.public, self.jobs, self.audit = public, Failing(8), Noted()
        self.sessions = Sessions(settings, lambda: None, 1)  # type: ignore[arg-type,return-value]
        self.web = Web(settings, self.public, self.jobs, status, PartyMetrics(status, self.jobs), self.sessions, ledger,
                       self.audit)

    def half(self) -> bytes:
        words = np.zeros((2, self.public.inputs.hidden), np.uint64)
        return pack_half(Half(ID, self.public.digest, np.array([2]), np.ones((1, 2), bool), words=words,
                              step=self.step))

    def ask(self, method: str = "POST", path: str = "/v1/infer", peer: Peer = ALICE,
            headers: tuple[tuple[str, str], ...] = ()) -> tuple[int, dict[str, str], Any]:
        sent: list[Any] = []
        body = [{"type": "http.request", "body": self.half(), "more_body": False}]

        async def receive() -> Any:
            return body.pop() if body else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
                 "headers": [(name.lower().encode(), value.encode()) for name, value in headers], PEER: peer}
        asyncio.run(self.web.app()(scope, receive, send))
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], told, json.loads(b"".join(each.get("body", b"") for each in sent[1:]))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> PublicModel:
    folder = tmp_path_factory.mktemp("web")
    return write_shares(write_checkpoint(folder / "model", "BertForSequenceClassification"), folder / "shares",
                        embedding="client")


@pytest.fixture
def up(tmp_path: Path, public: PublicModel) -> Iterator[Up]:
    with closing(Ledger(Budgets(), tmp_path / "budgets.log")) as ledger:
        yield Up(tmp_path, ledger, public)


@pytest.mark.parametrize(("error", "status", "kind"), [
    (AtLimit("one client may have 2"), 429, "too many sessions"), (NoRoom("9 are open"), 503, "crowded"),
    (HalvesDiffer("the halves differ"), 409, "halves differ"), (SessionEnded("it was idle"), 409, "session ended"),
    (InputError("too long"), 400, "bad request"), (ForClients("no such step"), 500, "ForClients"),
    (Desync("10.0.0.3 said"), 500, "Desync"), (PeerLost("10.0.0.3 left"), 500, "PeerLost")])
def test_every_refusal_has_its_status_and_its_outcome(up: Up, error: SecformerError, status: int, kind: str) -> None:
    up.jobs.error = error
    came, headers, body = up.ask()
    assert (came, body["error"]["kind"], body["error"]["request"]) == (status, kind, ID)
    assert ("retry-after" in headers) == (status in (429, 503))
    assert (str(error) in body["error"]["message"]) == (status != 500 or kind == "ForClients")
    (line,) = up.audit.lines
    assert (line["outcome"], line["client"], line["request"]) == (kind, "alice", ID)


def test_a_model_that_generates_no_text_has_no_sessions(up: Up) -> None:
    up.step = StepRequest(session=ID, keep=0, last=1)
    status, _, body = up.ask()
    assert (status, body["error"]["kind"]) == (400, "bad request")
    assert "BertForSequenceClassification" in body["error"]["message"] and "whole texts" in body["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/infer"), ("DELETE", f"/v1/sessions/{ID}")])
@pytest.mark.parametrize("role", ["party1", "dealer"])
def test_only_clients_ask_and_end_sessions(up: Up, method: str, path: str, role: str) -> None:
    status, _, body = up.ask(method, path, Peer(role, "other"))
    assert (status, body["error"]["kind"]) == (403, "role") and role in body["error"]["message"]
    assert up.sessions._ended == {}
    if method == "DELETE":
        assert up.ask(method, path)[0] == 200 and list(up.sessions._ended) == [("alice", ID)]


GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(("headers", "trace"), [((GOOD,), TRACE), ((), ""), ((GOOD, GOOD), ""), ((GOOD.upper(),), ""),
                                                ((GOOD + "\r\n",), ""), (("x" * 5000,), "")])
def test_a_trace_is_in_the_log_beside_the_request(up: Up, headers: tuple[str, ...], trace: str,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    up.jobs.error = Desync("so and so")
    with caplog.at_level(logging.INFO, "secformer"):
        assert up.ask(headers=tuple(("traceparent", each) for each in headers))[0] == 500
    lines = {record.message: record.__dict__["fields"] for record in caplog.records if hasattr(record, "fields")}
    assert {"request failed", "request ended"} <= lines.keys() and up.jobs.trace == trace
    for fields in lines.values():
        assert fields["request"] == ID and fields.get("trace", "") == trace


def test_certificates_are_watched_on_after_a_defect(up: Up, monkeypatch: pytest.MonkeyPatch,
                                                    caplog: pytest.LogCaptureFixture) -> None:
    """Also where the watch itself fails: it is logged, and what was revoked ends with the next look."""
    monkeypatch.setattr(module, "WATCH", 0.001)
    looks: list[int] = []

    class Defective(Clients):
        def end_invalid(self) -> dict[str, str]:
            looks.append(1)
            if len(looks) == 1:
                raise KeyError("a defect")
            return {"alice": "its certificate was revoked"}

    ended: list[tuple[str, str]] = []
    monkeypatch.setattr(up.sessions, "end_of", lambda client, why: ended.append((client, why)))

    async def watch() -> None:
        watching = asyncio.ensure_future(up.web.watch(Defective()))
        while not ended and not watching.done():
            await asyncio.sleep(0.001)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    asyncio.run(watch())
    assert ended[0] == ("alice", "its certificate was revoked")
    assert [record.message for record in caplog.records] == ["unexpected"] and "a defect" in caplog.text


def test_a_status_is_told_to_clients_also_while_the_party_is_not_ready(up: Up) -> None:
    came, _, body = up.ask("GET", "/v1/status")
    assert came == 200 and Told.read(body) == told(up.public.digest, up.jobs, up.status, up.audit)
    assert body["problem"] == ""
    up.status.set_not_ready("10.0.0.3 left", "waiting for the other party")
    assert up.ask()[0] == 503
    came, _, body = up.ask("GET", "/v1/status")
    assert came == 200 and Told.read(body).problem == "waiting for the other party"
    assert "10.0.0.3" not in str(body)


def test_a_party_that_is_shutting_down_begins_nothing(up: Up) -> None:
    up.web.end()
    assert up.ask()[0] == 503 and up.web.reason() == "shutting down"
    assert up.ask("GET", "/v1/status")[2]["problem"] == "shutting down"


def test_no_status_where_the_operator_wants_none_and_for_other_roles(up: Up) -> None:
    assert up.ask("GET", "/v1/status", Peer("party1", "party1"))[0] == 403
    up.web._settings = replace(up.settings, status=False)
    came, _, body = up.ask("GET", "/v1/status")
    assert (came, body["error"]["kind"]) == (403, NOT_TOLD)
