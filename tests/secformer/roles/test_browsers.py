"""The port for browsers, with a party's own web application behind it: over real sockets and TLS, in one process."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsers_lab import HEADER, ORIGIN, REQUEST, Ports, asked, error, half, ports, said
from links_lab import identity
from roles_lab import until

from secformer.roles.browsers import HEARD, TRIES, Turns
from secformer.roles.certificates import init, issue, revoke
from secformer.roles.connections import LONGEST_HEADER, Clients
from secformer.roles.descriptors import Room
from secformer.roles.messages import unpack_answer
from secformer.roles.receipts import Receipt, Statement
from secformer.roles.web import doors

PREFLIGHT = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("browsers") / "roles")
    for name in ("alice", "bob", "gone"):
        issue(folder, "client", name=name)
    return folder


@pytest.fixture(scope="module")
def up(roles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    with ports(roles, tmp_path_factory.mktemp("party"), client_requests=2, strangers=4) as it:
        yield it


def figure(up: Ports, name: str, **labels: str) -> float:
    return up.metrics._registry.get_sample_value(name, labels) or 0.0


# ---- what is let in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_gives_what_the_clients_certificate_gives(up: Ports, host: str) -> None:
    body = half()
    with closing(up.known()) as known:
        known.request("POST", "/v1/infer", body)
        wanted = said(known)
    before, seen = figure(up, "secformer_port_requests_total", port="browsers"), len(up.jobs.came)
    with closing(up.browser(host)) as page:
        got = asked(page, "POST", "/v1/infer", up.token(), body)
        mine, theirs = (unpack_answer(each[2], REQUEST) for each in (got, wanted))
        assert got[0] == wanted[0] == 200
        np.testing.assert_array_equal(mine.words["logits"], theirs.words["logits"])
        assert got[1]["access-control-allow-origin"] == ORIGIN and got[1]["vary"] == "Origin"
        assert got[1]["access-control-expose-headers"] == "Retry-After, X-Request-Id, X-Secformer-Receipt"
        assert got[1]["x-request-id"] == wanted[1]["x-request-id"]
        receipts = [Receipt.from_header(each[1]["x-secformer-receipt"]) for each in (got, wanted)]
        one, two = (replace(Statement.read(each.statement), time="", answer="") for each in receipts)
        assert one == two and one.client == "client"
        kept = page.sock
        assert asked(page, "GET", "/v1/model", up.token("alice"))[0] == 200, "another client, on the same connection"
        assert asked(page, "DELETE", f"/v1/sessions/{'ab' * 16}", up.token())[0] == 200
        assert asked(page, "POST", "/v1/infer", up.token("alice"), half())[0] == 200 and page.sock is kept
    assert up.jobs.came[seen:] == ["client", "alice"]
    assert figure(up, "secformer_port_requests_total", port="browsers") == before + 2
    assert figure(up, "secformer_port_requests_total", port="clients") > 0


def test_a_tool_without_an_origin_is_let_in_with_a_token(up: Ports) -> None:
    with closing(up.browser()) as tool:
        tool.request("GET", "/v1/model", headers={"Authorization": f"bearer {up.token()}"})
        status, headers, _ = said(tool)
    assert status == 200 and headers["vary"] == "Origin" and "access-control-allow-origin" not in headers


def test_a_preflight_says_what_a_page_may_and_needs_no_token(up: Ports) -> None:
    with closing(up.browser()) as page:
        for origin in (ORIGIN, "http://localhost:8000"):
            status, headers, body = asked(page, "OPTIONS", "/v1/infer", Origin=origin, **PREFLIGHT)
            headers.pop("date")
            assert (status, body) == (204, b"") and headers == {
                "vary": "Origin", "access-control-allow-origin": origin,
                "access-control-allow-methods": "GET, POST, DELETE",
                "access-control-allow-headers": "authorization, content-type, x-request-id, traceparent",
                "access-control-max-age": "600"}
        kept = page.sock
        assert asked(page, "POST", "/v1/infer", up.token(), half())[0] == 200 and page.sock is kept
        page.request("OPTIONS", "/v1/infer", headers={"Authorization": f"Bearer {up.token()}"})
        assert said(page)[0] == 405, "without an origin, it is a request like others"


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*", "https://page.example.evil", f"{ORIGIN}:443",
                                    "http://page.example", f"{ORIGIN}/", "HTTPS://page.example", f"{ORIGIN} {ORIGIN}",
                                    f"{ORIGIN},{ORIGIN}", ""])
def test_a_foreign_origin_is_refused_before_anything_is_done(up: Ports, origin: str) -> None:
    seen, before = len(up.jobs.came), figure(up, "secformer_refused_browsers_total", why="origin")
    with closing(up.browser()) as page:
        for method, more in (("OPTIONS", PREFLIGHT), ("POST", {})):
            found = asked(page, method, "/v1/infer", up.token(), half(), Origin=origin, **more)
            assert error(found)[:2] == (403, "origin") and found[1]["vary"] == "Origin"
            assert not any(name.startswith("access-control") for name in found[1])
    assert len(up.jobs.came) == seen and figure(up, "secformer_refused_browsers_total", why="origin") == before + 2


def test_two_origins_are_none(up: Ports) -> None:
    with closing(up.browser()) as page:
        page.putrequest("GET", "/v1/model")
        for name, value in (("Origin", ORIGIN), ("Origin", ORIGIN), ("Authorization", f"Bearer {up.token()}")):
            page.putheader(name, value)
        page.endheaders()
        assert error(said(page))[:2] == (403, "origin")


@pytest.mark.parametrize(("shown", "why"), [
    ({}, "none"), ({"Authorization": "Basic YTpi"}, "none"), ({"Authorization": "Bearer"}, "none"),
    ({"Authorization": "Bearer "}, "none"), ({"Authorization": "Bearer x"}, "malformed"),
    ({"Authorization": "Bearer ü.ü.ü"}, "malformed"), ({"Authorization": "Bearer " + "a.a." + "a" * 9000}, "malformed"),
])
def test_what_shows_no_token_is_refused(up: Ports, shown: dict[str, str], why: str) -> None:
    seen, before = len(up.jobs.came), figure(up, "secformer_refused_browsers_total", why=why)
    with closing(up.browser()) as page:
        page.request("POST", "/v1/infer", half(), {k: v.encode("latin-1") for k, v in (HEADER | shown).items()})
        found = said(page)
    assert error(found)[:2] == (401, "token") and found[1]["www-authenticate"] == "Bearer"
    assert found[1]["access-control-allow-origin"] == ORIGIN, "the page reads why"
    assert len(up.jobs.came) == seen and figure(up, "secformer_refused_browsers_total", why=why) == before + 1


def test_tokens_that_do_not_hold_are_refused_and_said_why(up: Ports, caplog: pytest.LogCaptureFixture) -> None:
    bad = {"expired": up.token(now=time.time() - 10_000), "too early": up.token(now=time.time() + 10_000),
           "too long": up.token(seconds=901), "other party": up.token(rank=1), "role": up.token("party1")}
    token = up.token()
    for name, shown in {**bad, "signature": token[:-8] + token[-4:] * 2}.items():
        with closing(up.browser()) as page:
            found = asked(page, "POST", "/v1/infer", shown, half())
            assert error(found)[:2] == (401, "token"), name
            assert asked(page, "POST", "/v1/infer", up.token(), half())[0] == 200, "then it may show another"
    told = [record.__dict__["fields"]["why"] for record in caplog.records if record.getMessage() == "browser refused"]
    assert told == [*bad, "signature"]
    assert not any(token in record.getMessage() + str(record.__dict__.get("fields")) for record in caplog.records)


def test_a_revoked_client_is_refused_on_the_connection_that_it_has(up: Ports, roles: Path) -> None:
    token = up.token("gone")
    with closing(up.browser()) as page:
        assert asked(page, "GET", "/v1/model", token)[0] == 200
        revoke(roles, "gone")
        up.credentials.renew(now=True)
        assert any("gone" in problem for problem in up.connected.end_invalid().values())
        found = asked(page, "GET", "/v1/model", token) if page.sock is None else None
        with closing(up.browser()) as other:
            found = found or asked(other, "GET", "/v1/model", token)
    assert error(found)[0] == 401 and "was revoked on" in error(found)[2]


def test_both_ports_count_for_one_client(up: Ports) -> None:
    """Two requests of a client may be here: one comes with its certificate, the others with tokens."""
    up.jobs.open = False
    try:
        with closing(up.known("alice")) as known, closing(up.browser()) as one, closing(up.browser()) as two:
            seen = len(up.jobs.came)
            known.request("POST", "/v1/infer", half())
            one.request("POST", "/v1/infer", half(), HEADER | {"Authorization": f"Bearer {up.token('alice')}"})
            until(lambda: len(up.jobs.came) == seen + 2)
            found = asked(two, "POST", "/v1/infer", up.token("alice"), half())
            assert error(found)[:2] == (429, "over quota") and found[1]["retry-after"] == "2"
            assert found[1]["access-control-allow-origin"] == ORIGIN
            up.jobs.release()
            assert said(known)[0] == said(one)[0] == 200
    finally:
        up.jobs.open = True
    with closing(up.browser()) as page:
        assert asked(page, "POST", "/v1/infer", up.token("bob"), half())[0] == 200
        found = asked(page, "POST", "/v1/infer", up.token("bob"), half())
        assert error(found)[:2] == (429, "budget spent") and int(found[1]["retry-after"]) > 0


def test_a_spent_token_is_told(up: Ports) -> None:
    token = up.token(requests=1)
    with closing(up.browser()) as page:
        assert asked(page, "GET", "/v1/model", token)[0] == 200
        assert error(asked(page, "GET", "/v1/model", token))[:2] == (429, "token")
        assert asked(page, "GET", "/v1/model", up.token())[0] == 200


def test_no_places_are_told(roles: Path, tmp_path: Path) -> None:
    with ports(roles, tmp_path, client_connections=1) as it:
        it.jobs.open = False
        with closing(it.known()) as known, closing(it.browser()) as page:
            known.request("POST", "/v1/infer", half())
            until(lambda: len(it.jobs.came) == 1)
            found = asked(page, "GET", "/v1/model", it.token())
            assert error(found)[:2] == (429, "too many connections") and found[1]["connection"] == "close"
            assert found[1]["access-control-allow-origin"] == ORIGIN
            it.jobs.release()
            assert said(known)[0] == 200
            assert asked(page, "GET", "/v1/model", it.token())[0] == 200, "the known client's is idle, and gives way"


# ---- strangers -------------------------------------------------------------------------------------------------------


def ended(connection: ssl.SSLSocket | socket.socket) -> bytes:
    """What came until the other side hung up."""
    found = b""
    with suppress(ConnectionError, ssl.SSLError):
        while piece := connection.recv(1 << 16):
            found += piece
    return found


def raw(up: Ports) -> ssl.SSLSocket:
    page = up.browser()
    page.connect()
    assert isinstance(page.sock, ssl.SSLSocket)
    return page.sock


def head(method: str = "POST", length: int = 0, **headers: str) -> bytes:
    shown = {"Host": "x", "Content-Length": str(length), **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = [f"{method} /v1/infer HTTP/1.1", *(f"{name}: {value}" for name, value in shown.items()), "", ""]
    return "\r\n".join(lines).encode()


def test_a_body_is_not_asked_for_before_the_token_holds(up: Ports) -> None:
    with raw(up) as page:
        page.sendall(head(length=9, Expect="100-continue", Authorization=f"Bearer {up.token(rank=1)}"))
        assert page.recv(12) == b"HTTP/1.1 401"
    with raw(up) as page:
        body = half()
        page.sendall(head(length=len(body), Expect="100-continue", Authorization=f"Bearer {up.token()}"))
        assert page.recv(25).rstrip() == b"HTTP/1.1 100 Continue"
        page.sendall(body)
        assert page.recv(15) == b"HTTP/1.1 200 OK"


def test_little_is_read_of_whoever_shows_no_token(up: Ports) -> None:
    """A body of 50 MB is refused at its head, and the connection ends long before its end. A short one is thrown away,
    and the connection serves on: a page asks for new tokens, and goes on."""
    piece, sent = bytes(1 << 16), 0
    with raw(up) as page:
        page.settimeout(20)
        page.sendall(head(length=50 << 20))
        assert page.recv(12) == b"HTTP/1.1 401"
        with pytest.raises(OSError):
            while sent < 50 << 20:
                page.sendall(piece)
                sent += len(piece)
    assert sent < 20 * HEARD, "what the system's buffers hold comes in addition"
    with closing(up.browser()) as connection:
        assert asked(connection, "POST", "/v1/infer", None, bytes(100_000))[0] == 401
        kept = connection.sock
        assert asked(connection, "POST", "/v1/infer", up.token(), half())[0] == 200 and connection.sock is kept


def test_a_stranger_tries_a_few_tokens_only(up: Ports) -> None:
    with closing(up.browser()) as page:
        for left in reversed(range(TRIES)):
            found = asked(page, "GET", "/v1/model", "no.such.token")
            assert found[0] == 401 and ("connection" in found[1]) == (not left)
        assert page.sock is None


def test_a_long_or_slow_header_ends_the_connection(up: Ports) -> None:
    with raw(up) as page:
        with suppress(OSError):
            page.sendall(b"GET / HTTP/1.1\r\nAuthorization: Bearer " + b"x" * 4 * LONGEST_HEADER)
        assert ended(page)[:12] in (b"HTTP/1.1 400", b"")
    with raw(up) as page:
        page.settimeout(20)
        page.sendall(head()[:20])
        assert ended(page) == b""


def test_strangers_here_give_way_and_disturb_no_client(up: Ports) -> None:
    """60 silent connections, half of them after a handshake or a pre-flight, where strangers have 4 places."""
    def refused() -> float:
        return figure(up, "secformer_refused_connections_total", port="browsers", why="gave way")

    before = refused()
    with closing(up.known()) as known, closing(up.browser()) as page:
        assert asked(page, "GET", "/v1/model", up.token())[0] == 200
        silent: list[socket.socket] = []
        for i in range(60):
            with suppress(OSError):  # the next ones may have its place already
                silent.append(raw(up) if i % 2 else socket.create_connection(up.browsers, timeout=20))
                if i % 4 == 1:
                    silent[-1].sendall(head("OPTIONS", Origin=ORIGIN, Access_Control_Request_Method="POST"))
        known.request("POST", "/v1/infer", half())
        assert said(known)[0] == 200
        with closing(up.known("alice")) as other:
            other.request("POST", "/v1/infer", half())
            assert said(other)[0] == 200
        assert asked(page, "POST", "/v1/infer", up.token(), half())[0] == 200, "who has shown a token stays"
        with closing(up.browser()) as newcomer:
            assert asked(newcomer, "GET", "/v1/model", up.token())[0] == 200
        until(lambda: refused() >= before + 50)
        for each in silent:
            each.close()


def test_turns_are_given_by_the_tick_and_the_last_comes_first() -> None:
    async def take() -> tuple[list[bool], list[bool], list[bool], bool]:
        turns = Turns(2)
        taken = [turns.take() for _ in range(6)]
        first = [turn.done() for turn in taken]
        turns.leave(taken[2])
        turns.leave(taken[0])
        await asyncio.wait([taken[5]])
        second = [turn.done() for turn in taken]
        await asyncio.wait(taken)
        third = [turn.done() for turn in taken]
        while turns._ticking:
            await asyncio.sleep(0.01)
        again = turns.take().done()
        await asyncio.sleep(0.1)
        return first, second, third, again

    first, second, third, again = asyncio.run(take())
    assert first == [True, True, False, False, False, False]
    assert second == [True, True, True, False, True, True] and all(third) and again


# ---- settings --------------------------------------------------------------------------------------------------------


def test_without_the_table_there_is_no_such_port(up: Ports) -> None:
    alone = doors(replace(up.settings, browsers=None), up.web, up.credentials, Room(4, 4), Clients())
    for each in alone:
        each._sock.close()
    assert len(alone) == 1


def test_the_port_may_show_a_certificate_of_its_own(roles: Path, tmp_path: Path) -> None:
    """Of another authority, such as browsers trust by themselves. Clients' certificates are still the role's
    authority's."""
    init(tmp_path / "public")
    files = identity(tmp_path / "public", "party1")
    with ports(roles, tmp_path, own=(files.certificate, files.key)) as it, closing(it.browser()) as page:
        with pytest.raises(ssl.SSLCertVerificationError):
            page.connect()
        page.close()
        page._context.load_verify_locations(str(files.authority))  # type: ignore[attr-defined]
        assert asked(page, "GET", "/v1/model", it.token())[0] == 200


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "secformer")
