"""A client's connection to one party, against a server that says what the test wants."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from links_lab import identity
from roles_lab import until

from secformer.mpc.errors import InputError, PeerLost, ProtocolError, SecformerError
from secformer.mpc.meter import Cost
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tcp import reset
from secformer.mpc.net.tls import client_context, server_context
from secformer.roles import asking, formats
from secformer.roles.asking import MAX_ERROR, BothParties, Busy, Left, PartyConnection
from secformer.roles.certificates import REVOKED, issue, revoke
from secformer.roles.messages import Answer, Half, pack_answer
from secformer.roles.telling import NOT_TOLD, Told

ID = "0123456789abcdef" * 2
HALF = Half(ID, "m" * 64, np.array([2]), np.ones((1, 2), bool), seed=bytes(32))


class Server(ThreadingHTTPServer):
    """A party's place: `reply` gives the status and the body of every answer."""

    daemon_threads = True

    def __init__(self, roles: Path, role: str) -> None:
        self.reply: Callable[[], tuple[int, bytes]] = lambda: (200, b"")
        self.hello: Any = formats.hello()
        self.headers: dict[str, str] = {}  # of every answer
        self.asked: list[str] = []         # ids of requests, as headers say
        self.traces: list[str | None] = [] # the same of traces
        self.closing = False  # whether a connection ends after its second answer, without a word
        self.missing = 0      # bytes of answers that are announced and do not come
        self.connections = 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = server_context(identity(roles, role)).wrap_socket(self.socket, server_side=True,
                                                                        do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *args: Any) -> None:
        """A client that hangs up is no event."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        self.server.connections += 1
        self.answers = 0
        super().setup()

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == asking.HELLO:
            status, body = 200, json.dumps(self.server.hello).encode()
        else:
            self.server.asked.append(self.headers.get("X-Request-Id", ""))
            self.server.traces.append(self.headers.get("traceparent"))
            status, body = self.server.reply()
        self.send_response(status)
        for header in self.server.headers.items():
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body) + self.server.missing))
        self.end_headers()
        self.wfile.write(body)
        self.answers += 1
        self.close_connection = (self.server.closing and self.answers == 2) or bool(self.server.missing)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server(roles: Path) -> Iterator[Server]:
    server = Server(roles, "party0")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def party(roles: Path, server: Server) -> Iterator[PartyConnection]:
    party = PartyConnection(0, server.server_address, client_context(identity(roles, "client")), 20.0)  # type: ignore[arg-type]
    yield party
    party.close()


def test_an_answer_and_a_digest(server: Server, party: PartyConnection) -> None:
    sent = Answer({"logits": np.arange(2, dtype=np.uint64)}, 16, Cost("total", rounds=3))
    server.reply = lambda: (200, pack_answer(sent, ID))
    came = party.infer(HALF)
    assert np.array_equal(came.words["logits"], sent.words["logits"]) and came.cost == sent.cost
    server.reply = lambda: (200, b'{"digest": "abc"}')
    assert party.model() == "abc"
    assert server.connections == 1, "the connection is kept"


@pytest.mark.parametrize(("hello", "said"), [
    ({"version": "9.8.7", "format": "secformer request 3"},
     r"party0 at .* runs version 9\.8\.7, whose messages have the format 'secformer request 3', but this client is "
     r"version .* Nothing was sent\. Install the parties' version here"),
    ({}, "Nothing was sent"), ([], "did not say which version it runs"), ("x", "did not say which version it runs"),
])
def test_another_format_is_refused_on_each_new_connection(server: Server, party: PartyConnection, hello: Any,
                                                          said: str) -> None:
    """A party may have been restarted, as another version, since the client's first connection."""
    server.reply = lambda: (200, b'{"digest": "abc"}')
    assert party.model() == "abc"
    party.close()
    server.hello = hello
    for _ in range(2):
        with pytest.raises(ProtocolError, match=said):
            party.infer(HALF)
    assert server.asked == [""], "no half was sent"
    server.hello = formats.hello() | {"version": "9.8.7"}
    assert party.model() == "abc", "versions may differ"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>"])
def test_a_description_that_cannot_be_read(server: Server, party: PartyConnection, body: bytes) -> None:
    server.reply = lambda: (200, body)
    with pytest.raises(ProtocolError, match="party0 sent a description of its model that cannot be read"):
        party.model()


def test_a_status(server: Server, party: PartyConnection) -> None:
    told = Told("0.1", "streams", "ab" * 32, "01234567", "", 1, 2, None)
    server.reply = lambda: (200, json.dumps(told.facts() | {"later": 1}).encode())
    assert party.status() == told, "a later version may tell more"
    for status, kind in ((403, NOT_TOLD), (404, "any")):
        server.reply = lambda status=status, kind=kind: (  # type: ignore[misc]
            status, json.dumps({"error": {"kind": kind, "message": "so"}}).encode())
        assert party.status() is None
    server.reply = lambda: (404, b"Not Found")  # as versions answer that had no status
    assert party.status() is None
    server.reply = lambda: (403, json.dumps({"error": {"kind": "certificate", "message": "so and so"}}).encode())
    with pytest.raises(ProtocolError, match="party0 answered 403: so and so"):
        party.status()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"version": 1}'])
def test_a_status_that_cannot_be_read(server: Server, party: PartyConnection, body: bytes) -> None:
    server.reply = lambda: (200, body)
    with pytest.raises(ProtocolError, match=r"party0 sent a status that cannot be read .*another version"):
        party.status()


@pytest.mark.parametrize(("status", "kind"), [(400, InputError), (413, InputError), (503, Busy), (429, Busy),
                                              (500, ProtocolError),
                                              (409, ProtocolError), (504, ProtocolError)])
def test_a_refusal_says_what_the_party_said(server: Server, party: PartyConnection, status: int,
                                            kind: type[SecformerError]) -> None:
    server.reply = lambda: (status, json.dumps({"error": {"message": "so and so"}}).encode())
    with pytest.raises(kind, match=f"party0 answered {status}: so and so") as caught:
        party.infer(HALF)
    assert type(caught.value) is kind


@pytest.mark.parametrize(("body", "said"), [(b"plain words", "plain words"), (b"", "no reason given"),
                                            (b'{"error": 3}', '{"error": 3}'), (b"\xff", "\ufffd")])
def test_a_refusal_of_another_form(server: Server, party: PartyConnection, body: bytes, said: str) -> None:
    server.reply = lambda: (502, body)
    with pytest.raises(ProtocolError) as caught:
        party.infer(HALF)
    assert str(caught.value) == f"party0 answered 502: {said}"


def test_an_answer_that_is_longer_than_any_may_be(server: Server, party: PartyConnection,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end; the next answer is read from its beginning."""
    monkeypatch.setattr(asking, "MAX_COST", 1000)
    monkeypatch.setattr(asking, "MAX_TOKEN", 1)
    server.reply = lambda: (200, bytes(5000))
    with pytest.raises(ProtocolError, match=f"party0 sent more than the {1000 + HALF.mask.size} bytes that an answer"):
        party.infer(HALF)
    server.reply = lambda: (500, b"x" * 3 * MAX_ERROR)
    with pytest.raises(ProtocolError, match="party0 answered 500: xxx"):
        party.infer(HALF)
    sent = Answer({"logits": np.arange(2, dtype=np.uint64)}, 16, Cost("total", rounds=3))
    server.reply = lambda: (200, pack_answer(sent, ID))
    monkeypatch.undo()
    assert party.infer(HALF).cost == sent.cost and server.connections == 3


def test_a_request_that_was_taken_before_its_connection_was_lost_says_so(server: Server,
                                                                         party: PartyConnection) -> None:
    """It is sent again, because a kept connection may have been lost before; then the party knows its id."""
    server.reply = lambda: (200, b'{"digest": "abc"}')
    party.model()
    refusal = json.dumps({"error": {"kind": "duplicate", "message": f"request {ID} was sent before"}}).encode()

    def cut() -> tuple[int, bytes]:
        server.reply = lambda: (409, refusal)
        raise ConnectionAbortedError

    server.reply = cut
    with pytest.raises(PeerLost, match=r"party0 at .* hung up in the middle of a request that it had taken, so the "
                                       r"answer is lost; ask again"):
        party.infer(HALF)
    assert server.asked == ["", ID, ID] and server.connections == 2
    with pytest.raises(ProtocolError, match=r"party0 answered 409: request .* was sent before"):
        party.infer(HALF)  # an id that the client itself has used twice


def test_an_answer_that_is_cut(server: Server, party: PartyConnection) -> None:
    server.reply, server.missing = lambda: (200, b"{}"), 7
    with pytest.raises(PeerLost, match=r"party0 at .* hung up"):
        party.model()


def test_a_kept_connection_that_the_party_closed_is_made_anew(server: Server, party: PartyConnection) -> None:
    server.reply, server.closing = lambda: (200, b'{"digest": "abc"}'), True
    assert [party.model() for _ in range(3)] == ["abc"] * 3
    assert server.connections == 3


@pytest.mark.parametrize("refused", [0, 1, 5])
def test_a_client_that_is_hung_up_on_knocks_again(roles: Path, server: Server, refused: int) -> None:
    """As a door does that is full of strangers: connections end before the handshake. The request itself is sent once.
    """
    asked: list[int] = []
    server.reply = lambda: (asked.append(1), (200, b'{"digest": "abc"}'))[1]
    door = socket.create_server(("127.0.0.1", 0))

    def hang_up_then_pass_on() -> None:
        for _ in range(refused):
            hang_up(door)
        near, far = door.accept()[0], socket.create_connection(server.server_address)  # type: ignore[arg-type]
        other = threading.Thread(target=pass_on, args=(far, near))
        other.start()
        pass_on(near, far)
        other.join()
        near.close()
        far.close()

    thread = threading.Thread(target=hang_up_then_pass_on)
    thread.start()
    party = PartyConnection(0, door.getsockname(), client_context(identity(roles, "client")), 20.0)
    assert party.model() == "abc" and len(asked) == 1, "however often it knocks, it asks once"
    party.close()
    thread.join()
    door.close()


def hang_up(door: socket.socket) -> None:
    """On somebody who has begun a handshake."""
    connection, _ = door.accept()
    connection.recv(1)
    reset(connection)


def pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


def test_knocking_ends(roles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "KNOCKING", 0.5)
    door, refused = socket.create_server(("127.0.0.1", 0)), []
    door.settimeout(20)

    def refuse() -> None:
        with contextlib.suppress(OSError):
            while True:
                hang_up(door)
                refused.append(1)

    thread = threading.Thread(target=refuse)
    thread.start()
    party = PartyConnection(0, door.getsockname(), client_context(identity(roles, "client")), 20.0)
    with pytest.raises(PeerLost, match="does not answer or hung up"):
        party.model()
    assert len(refused) > 1
    door.shutdown(socket.SHUT_RDWR)
    thread.join()
    door.close()


def test_another_role_at_the_address(roles: Path) -> None:
    server = Server(roles, "party1")
    party = PartyConnection(0, server.server_address, client_context(identity(roles, "client")), 20.0)  # type: ignore[arg-type]
    try:
        with pytest.raises(ProtocolError, match=r"the server at 127\.0\.0\.1:\d+ is not party0: .*check the address"):
            party.model()
    finally:
        server.shutdown()
        server.server_close()


def test_nobody_at_the_address(roles: Path, server: Server, party: PartyConnection) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(PeerLost, match=r"does not answer or hung up .*check that it is running"):
        party.model()


def test_a_party_that_takes_too_long(roles: Path, server: Server) -> None:
    released = threading.Event()
    server.reply = lambda: ((released.wait(20) and 200) or 500, b"")
    party = PartyConnection(0, server.server_address, client_context(identity(roles, "client")), 0.5,  # type: ignore[arg-type]
                            grace=0.0)
    with pytest.raises(PeerLost, match=r"did not answer within 0\.5 s"):
        party.model()
    released.set()
    party.close()


def test_a_request_that_takes_too_long_is_not_sent_again(roles: Path, server: Server) -> None:
    server.reply, released = lambda: (200, b'{"digest": "abc"}'), threading.Event()
    party = PartyConnection(0, server.server_address, client_context(identity(roles, "client")), 0.5,  # type: ignore[arg-type]
                            grace=0.0)
    assert party.model() == "abc"  # so that the connection is a kept one
    server.reply = lambda: ((released.wait(20) and 200) or 500, b"")
    with pytest.raises(PeerLost, match=r"did not answer within 0\.5 s"):
        party.model()
    assert len(server.asked) == 2 and server.connections == 1
    released.set()
    party.close()


def test_hanging_up_ends_a_running_request(server: Server, party: PartyConnection) -> None:
    began, released = threading.Event(), threading.Event()

    def reply() -> tuple[int, bytes]:
        began.set()
        released.wait(20)
        return 200, b""

    server.reply = reply
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            party.model()
        except SecformerError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert began.wait(20)
    started = time.monotonic()
    party.hang_up()
    thread.join(20)
    released.set()
    assert time.monotonic() - started < 10 and isinstance(errors[0], Left) and "was abandoned" in str(errors[0])


def test_hanging_up_lasts_until_it_is_resumed(server: Server, party: PartyConnection) -> None:
    """A request that begins after the hanging up ends too: it may have been about to begin."""
    server.reply = lambda: (200, b'{"digest": "abc"}')
    party.hang_up()
    for _ in range(2):
        with pytest.raises(Left, match="was abandoned"):
            party.model()
    party.resume()
    assert party.model() == "abc"


def test_a_party_learns_the_id_before_the_body(server: Server, party: PartyConnection) -> None:
    server.reply = lambda: (200, pack_answer(Answer({}, 16, Cost("total")), ID))
    party.infer(HALF)
    party.infer(replace(HALF, trace="cd" * 16))
    assert server.asked == [ID, ID] and server.traces == [None, f"00-{'cd' * 16}-{ID[:16]}-00"]


@pytest.mark.parametrize(("status", "header", "after"), [(429, "7", 7.0), (429, None, None), (429, "soon", None),
                                                         (429, "-1", None), (503, "7", None)])
def test_a_limit_says_when_to_ask_again(server: Server, party: PartyConnection, status: int, header: str | None,
                                        after: float | None) -> None:
    server.reply, server.headers = lambda: (status, b"full"), {} if header is None else {"Retry-After": header}
    with pytest.raises(Busy) as caught:
        party.infer(HALF)
    assert caught.value.after == after


def test_a_renewed_certificate_is_shown_on_the_next_connection(roles: Path, server: Server, tmp_path: Path) -> None:
    """A kept connection is made anew for it, between two requests."""
    folder = Path(shutil.copytree(roles, tmp_path / "roles"))
    mine = Credentials(identity(folder, "client"))
    party = PartyConnection(0, server.server_address, mine.client(), 20.0)  # type: ignore[arg-type]
    server.reply = lambda: (200, b'{"digest": "abc"}')
    assert [party.model() for _ in range(2)] == ["abc"] * 2 and server.connections == 1
    issue(folder, "client")
    mine.renew(now=True)
    assert [party.model() for _ in range(2)] == ["abc"] * 2 and server.connections == 2
    party.close()


def test_a_party_whose_certificate_was_revoked_is_not_asked(roles: Path, server: Server, tmp_path: Path) -> None:
    """Neither on a kept connection nor on a new one."""
    folder = Path(shutil.copytree(roles, tmp_path / "roles"))
    files = identity(folder, "client")
    mine = Credentials(replace(files, revoked=folder / "client" / REVOKED))
    party = PartyConnection(0, server.server_address, mine.client(), 20.0)  # type: ignore[arg-type]
    server.reply = lambda: (200, b'{"digest": "abc"}')
    assert party.model() == "abc"
    revoke(folder, "party0")
    mine.renew(now=True)
    for _ in range(2):
        with pytest.raises(ProtocolError, match=r"the certificate of party0 at .* was revoked on .*; ask its operator"):
            party.model()
    assert len(server.asked) == 1


# ---- both parties ----------------------------------------------------------------------------------------------------


@pytest.fixture
def both(roles: Path) -> Iterator[tuple[list[Server], BothParties]]:
    servers = [Server(roles, role) for role in ("party0", "party1")]
    for rank, server in enumerate(servers):
        server.reply = lambda rank=rank: (200, json.dumps({"digest": f"of party {rank}"}).encode())
    both = BothParties([server.server_address for server in servers], client_context(identity(roles, "client")), 20.0)  # type: ignore[misc]
    yield servers, both
    both.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def model(party: PartyConnection, rank: int) -> str:
    return party.model()


def once(wait: Callable[[], object], status: int, body: bytes) -> Callable[[], tuple[int, bytes]]:
    """A reply that comes once a wait is over."""
    def reply() -> tuple[int, bytes]:
        wait()
        return status, body

    return reply


def test_both_are_asked_at_once(both: tuple[list[Server], BothParties]) -> None:
    """Each answers only once the other has been asked too."""
    servers, parties = both
    together = threading.Barrier(2, timeout=30)
    for rank, server in enumerate(servers):
        server.reply = once(together.wait, 200, json.dumps({"digest": str(rank)}).encode())
    assert parties.ask(model) == ("0", "1")


def test_if_one_fails_the_other_is_not_waited_for(both: tuple[list[Server], BothParties]) -> None:
    servers, parties = both
    began, released = threading.Event(), threading.Event()

    def lasting() -> None:
        began.set()
        released.wait(60)

    servers[0].reply, servers[1].reply = once(lasting, 200, b""), once(began.wait, 500, b"out of order")
    with pytest.raises(ProtocolError, match=r"^party1 answered 500: out of order$"):
        parties.ask(model)
    assert not released.is_set()
    released.set()
    servers[1].reply = servers[0].reply = lambda: (200, b'{"digest": "again"}')
    parties.resume()
    assert parties.ask(model) == ("again", "again")


def test_errors_of_both_are_told(both: tuple[list[Server], BothParties]) -> None:
    servers, parties = both
    together = threading.Barrier(2, timeout=30)
    for server in servers:
        server.reply = once(together.wait, 500, b"out of order")
    with pytest.raises(ProtocolError, match=r"party\d answered 500: out of order"):
        parties.ask(model)


def test_after_closing_nobody_is_asked(both: tuple[list[Server], BothParties]) -> None:
    _, parties = both
    parties.close()
    with pytest.raises(Left, match="this client was closed while another thread used it"):
        parties.ask(model)


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_at_a_limit_it_is_tried_again_within_patience(both: tuple[list[Server], BothParties]) -> None:
    servers, parties = both
    replies = [(429, b"full"), (429, b"full"), (200, b'{"digest": "abc"}')]
    for server in servers:
        server.reply, server.headers = lambda: (200, b'{"digest": "abc"}'), {"Retry-After": "0"}
    servers[0].reply = lambda: replies.pop(0)
    assert parties.patiently(lambda: parties.ask(model), 20.0) == ("abc", "abc") and not replies


@pytest.mark.parametrize("headers", [{"Retry-After": "3600"}, {}])
def test_a_limit_beyond_patience_is_said_at_once(both: tuple[list[Server], BothParties],
                                                 headers: dict[str, str]) -> None:
    servers, parties = both
    for server in servers:
        server.reply, server.headers = lambda: (429, b"this client may ask 3 texts per day"), headers
    with pytest.raises(Busy, match="answered 429: this client may ask 3 texts per day"):
        parties.patiently(lambda: parties.ask(model), 20.0)
    # One refusal ends both requests, perhaps before the other is sent; none is sent again.
    assert max(len(server.asked) for server in servers) == 1


def test_hanging_up_ends_the_waiting_for_a_limit(both: tuple[list[Server], BothParties]) -> None:
    servers, parties = both
    for server in servers:
        server.reply, server.headers = lambda: (429, b"full"), {"Retry-After": "60"}
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            parties.patiently(lambda: parties.ask(model), 600.0)
        except SecformerError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: any(server.asked for server in servers))  # a refusal may end its twin before it is sent
    parties.hang_up()
    thread.join(20)
    assert not thread.is_alive() and isinstance(errors[0], ProtocolError)
