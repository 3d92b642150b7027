"""Where the gateway listens, with TLS and without, and its connections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the gateway needs the extra `serve`")
pytest.importorskip("uvicorn", reason="the gateway needs the extra `serve`")

from checkpoints import write_checkpoint
from gateway_lab import JSON, KEY, Plain, desk, plain, said, serving

from secformer.gateway import server as server_module
from secformer.gateway.server import GatewayServer, Port
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import host_name
from secformer.roles.certificates import init

ASKED = {"model": "m", "input": "a cat"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    return plain(write_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a role, with a certificate and its key."""
    init(at := tmp_path_factory.mktemp("files") / "roles")
    return at / "party0"


def certificate(files: Path) -> dict[str, Path]:
    (key,) = files.glob("*.key")
    (own,) = (path for path in files.glob("*.pem") if path.stem == key.stem)
    return {"certificate": own, "key": key}


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.9", "::", "example.org", ""])
def test_beyond_loopback_everything_is_needed(files: Path, host: str) -> None:
    secured = certificate(files)
    for given in ({}, {"api_key": KEY}, secured):
        with pytest.raises(SettingsError, match="is not the loopback address"):
            Port((host, 8000), **given)
    assert not Port((host, 8000), **secured, api_key=KEY).local


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_nothing_is(host: str) -> None:
    assert Port((host, 8000)).local


def test_ports_that_are_refused(files: Path, tmp_path: Path, model: Plain) -> None:
    for half in ({"certificate": Path("a.pem")}, {"key": Path("a.key")}):
        with pytest.raises(SettingsError, match="belong together"):
            Port(("127.0.0.1", 0), **half)
    for bad in ("", "short", "k" * 15, "k" * 20 + " ", "k" * 20 + "\n", "ü" * 20):
        with pytest.raises(SettingsError, match="at least 16 printable ASCII characters and no space"):
            Port(("127.0.0.1", 0), api_key=bad)
    assert KEY not in repr(Port(("127.0.0.1", 0), api_key=KEY))
    junk = tmp_path / "junk.pem"
    junk.write_text("junk", "utf-8")
    for wrong in (certificate(files) | {"key": junk}, {"certificate": junk, "key": junk},
                  {"certificate": tmp_path / "no.pem", "key": junk}):
        with pytest.raises(SettingsError, match="must be a certificate and its key, as PEM files"):
            GatewayServer(Port(("127.0.0.1", 0), **wrong), [desk("m", model)])
        assert model.closed, "the models that it took over"
    with serving([desk("m", model)]) as first, pytest.raises(SettingsError, match="does another process use the port"):
        GatewayServer(Port(first.address), [desk("m", model)])
    with pytest.raises(SettingsError, match="two models have the same name"):
        GatewayServer(Port(("127.0.0.1", 0)), [desk("m", model), desk("m", model)])


@pytest.fixture
def secured(files: Path, model: Plain) -> Iterator[GatewayServer]:
    with serving([desk("m", model)], **certificate(files), api_key=KEY) as server:
        yield server


def test_https(secured: GatewayServer, files: Path, model: Plain) -> None:
    import ssl

    assert secured.url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(files / "authority.pem"))
    context.check_hostname = False
    connection = HTTPSConnection(*secured.address, timeout=60.0, context=context)
    for _ in range(2):  # on one connection
        connection.request("POST", "/v1/embeddings", json.dumps(ASKED), JSON | {"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        assert answer.status == 200
        (found,) = json.loads(answer.read())["data"]
        assert found["embedding"] == pytest.approx(model.embed("a cat").tolist(), abs=1e-6)
    assert connection.sock.version() == "TLSv1.3"  # type: ignore[union-attr]
    assert any(host_name("party0") in pair for pair in connection.sock.getpeercert()["subjectAltName"])  # type: ignore[union-attr]
    connection.close()
    with pytest.raises(OSError):  # in the clear, nothing is answered
        said(secured, "/healthz")


def test_idle_connections_give_way_and_busy_ones_do_not(model: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 2)
    with serving([desk("m", model)]) as server:
        kept = [HTTPConnection(*server.address, timeout=60.0) for _ in range(6)]
        for connection in kept:
            connection.request("POST", "/v1/embeddings", json.dumps(ASKED), JSON)
            answer = connection.getresponse()
            assert answer.status == 200 and answer.read()
        for connection in kept:
            connection.close()
