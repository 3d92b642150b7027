"""The command `gateway`, as far as it goes without served roles."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the gateway needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="the gateway needs the extra `serve`")

from cells_lab import listed
from commands_lab import complaint, help_of

from secformer.cells.drained import drained_file
from secformer.cli import main
from secformer.commands.arguments import API_KEY, api_key_of
from secformer.commands.gateway import _named

KEY = "k" * 24


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """A file that can be read, and is no client's settings."""
    file = tmp_path / "client.toml"
    file.write_text("", "utf-8")
    return str(file)


def test_beyond_loopback_it_needs_a_certificate_and_a_key(settings: str, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY, raising=False)
    pem = tmp_path / "some.pem"
    pem.write_text("", "utf-8")
    listen = ("gateway", "--settings", settings, "--listen", "0.0.0.0:8000")
    said = complaint(capsys, *listen)
    assert "others can reach it: listening there needs a certificate and its key and an API key" in said
    both = ("--certificate", str(pem), "--key", str(pem))
    assert "listening there needs an API key. Or listen on 127.0.0.1" in complaint(capsys, *listen, *both)
    monkeypatch.setenv(API_KEY, KEY)
    assert "listening there needs a certificate and its key. Or" in complaint(capsys, *listen)
    assert "belong together" in complaint(capsys, *listen, "--key", str(pem))
    monkeypatch.setenv(API_KEY, "short")
    assert "at least 16 printable ASCII characters" in complaint(capsys, "gateway", "--settings", settings)


def test_the_settings_are_read_before_it_listens(settings: str, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--settings {tmp_path / 'no.toml'} does not exist; `secformer init`" in complaint(
        capsys, "gateway", "--settings", f"name={tmp_path / 'no.toml'}")
    assert f"{settings} lacks the key 'party0'" in complaint(capsys, "gateway", "--settings", f"name={settings}")


def test_names_of_models(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.toml"
    assert _named("chat=client.toml") == ("chat", "client.toml") and _named("client.toml") == ("", "client.toml")
    assert _named("a/b:c=d=e.toml") == ("a/b:c", "d=e.toml") and _named(str(odd))[0]
    odd.write_text("", "utf-8")
    assert _named(str(odd)) == ("", str(odd))


def test_where_the_api_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    """A file counts before the environment; no option takes the key itself."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", "utf-8")
    monkeypatch.delenv(API_KEY, raising=False)
    assert api_key_of(None) is None and api_key_of(str(file)) == KEY
    monkeypatch.setenv(API_KEY, "other")
    assert api_key_of(None) == "other" and api_key_of(str(file)) == KEY
    text = help_of(capsys, "gateway")
    assert "--api-key-file FILE" in text and API_KEY in text and "--api-key " not in text


def test_lists_of_cells(settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["gateway"])
    assert left.value.code == 2 and "give --settings FILE or --cells FILE" in capsys.readouterr().err
    assert f"--cells {tmp_path / 'no.toml'} does not exist; give a TOML file with a table [[cell]]" in complaint(
        capsys, "gateway", "--cells", f"name={tmp_path / 'no.toml'}")
    assert f"{settings} lists no cells" in complaint(capsys, "gateway", "--cells", settings)
    path = listed(tmp_path)
    assert f"cannot read {tmp_path / 'a' / 'model' / 'public.json'}" in complaint(
        capsys, "gateway", "--cells", f"m={path}")
    drained_file(path).write_text("-\n")
    assert "does not say which cells are drained" in complaint(capsys, "gateway", "--cells", str(path))
