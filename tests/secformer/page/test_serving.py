"""The small server of a page: its headers, and to whom it gives tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the page's server needs the extra `serve`")
pytest.importorskip("uvicorn", reason="the page's server needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="the page's server needs the extra `serve`")

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tcp import free_ports
from secformer.page.files import Page
from secformer.page.serving import PageServer, origins

PAGE = Page(("https://one.example", "https://two.example"))


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    made = iter(range(100))
    files = PAGE.files({"model.json": b"{}", "tokenizer.json": b"{}"})
    with PageServer(free_ports(1)[0], files, PAGE.headers, lambda: {"party0": f"token {next(made)}"}) as it:
        yield it


def get(server: PageServer, path: str, method: str = "GET", host: str | None = None,
        **sent: str) -> tuple[int, dict[str, str], bytes]:
    port = int(server.url.rstrip("/").rpartition(":")[2])
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        if host != "":
            connection.putheader("Host", host or f"127.0.0.1:{port}")
        for name, value in sent.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/index.html", "text/html"),
                                            ("/app/main.js", "text/javascript"), ("/style.css", "text/css"),
                                            ("/page.json", "application/json"), ("/icon.svg", "image/svg+xml")])
def test_files_come_with_strict_headers(server: PageServer, path: str, kind: str) -> None:
    status, told, body = get(server, path)
    assert status == 200 and told["content-type"].startswith(kind) and body
    assert {name.lower(): value for name, value in PAGE.headers.items()}.items() <= told.items()
    assert "frame-ancestors 'none'" in told["content-security-policy"] and "server" not in told


def test_tokens_are_fresh_and_kept_nowhere(server: PageServer) -> None:
    (status, told, first), (_, _, second) = (get(server, "/tokens.json", Sec_Fetch_Site="same-origin") for _ in "12")
    assert status == 200 and told["cache-control"] == "no-store" and first != second
    assert json.loads(first)["party0"].startswith("token")
    assert "access-control-allow-origin" not in told


@pytest.mark.parametrize("sent", [
    {}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "none"},
    {"Sec_Fetch_Site": "same-origin", "Origin": "http://evil.example"},
    {"Sec_Fetch_Site": "same-origin", "Origin": "null"}], ids=str)
def test_tokens_go_to_the_page_alone(server: PageServer, sent: dict[str, str]) -> None:
    status, _, body = get(server, "/tokens.json", **sent)
    assert status == 403 and b"to this page alone" in body and b"party0" not in body


@pytest.mark.parametrize("path", ["/", "/tokens.json", "/app/main.js"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example", "[::1]", ""])
def test_another_name_of_this_machine_is_refused(server: PageServer, path: str, host: str) -> None:
    """As a foreign site's would be, after its name was turned to the loopback address."""
    status, _, body = get(server, path, host=host, Sec_Fetch_Site="same-origin")
    assert status in (400, 421) and b"party0" not in body and b"<html" not in body


def test_what_is_not_there(server: PageServer) -> None:
    for path in ("/nothing", "/../setup.cfg", "/app/", "/static/index.html", "/package.json", "/%2e%2e/secret"):
        status, told, _ = get(server, path)
        assert status == 404 and "content-security-policy" in told
    assert get(server, "/tokens.json", "POST", Sec_Fetch_Site="same-origin")[0] == 405
    assert get(server, "/tokens.json", "OPTIONS", Origin="http://evil.example")[0] == 405
    assert get(server, "/", "HEAD")[2] == b""


def test_the_port_is_this_machine_s(server: PageServer) -> None:
    port = int(server.url.rstrip("/").rpartition(":")[2])
    assert origins(port) == [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    assert get(server, "/", host=f"localhost:{port}")[0] == 200
    nothing: Any = {}
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
        PageServer(port, {}, {}, lambda: nothing)
