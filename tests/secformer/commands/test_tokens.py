"""The command token: what it prints, and what it leaves alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from shutil import copy

import pytest
from commands_lab import complaint, help_of
from tree import ROOT

from secformer.cli import main
from secformer.roles.certificates import init
from secformer.roles.tokens import Token


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("token") / "roles")
    (folder / "client" / "model").mkdir()
    copy(ROOT / "fuzz/targets/client/public.json", folder / "client" / "model")
    return folder / "client" / "client.toml"


def test_both_tokens_are_printed_and_nothing_is_written(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in settings.parent.rglob("*") if path.is_file()}
    assert main(["token", "--settings", str(settings), "--minutes", "5", "--requests", "7", "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert set(facts) == {"party0", "party1", "expires"} and abs(facts["expires"] - time.time() - 300) < 60
    for role in ("party0", "party1"):
        claims = Token.read(facts[role]).claims
        assert (claims.party, claims.until - claims.start, claims.requests) == (role, 300, 7)
    assert "tokens are secrets: whoever holds one may ask that party in this client's name" in err
    assert facts["party0"] not in err
    assert {path: path.read_bytes() for path in settings.parent.rglob("*") if path.is_file()} == before


def test_a_token_stands_on_one_line(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--settings", str(settings)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["party0", "party1", "expires"]
    claims = [Token.read(line.split()[1]).claims for line in lines[:2]]
    assert [(each.party, each.until - each.start) for each in claims] == [("party0", 600), ("party1", 600)]


@pytest.mark.parametrize(("option", "bad", "told"), [
    *(("--minutes", bad, "--minutes must be from 1/60 to 1440") for bad in ("0", "-1", "nan", "inf", "1441", "0.01")),
    *(("--requests", bad, "a token must hold for a number of requests from 1 to 1000000")
      for bad in ("0", "-5", "1000001")),
])
def test_tokens_that_would_not_hold_are_not_made(settings: Path, option: str, bad: str, told: str,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert told in complaint(capsys, "token", "--settings", str(settings), f"{option}={bad}")


def test_a_client_without_its_key_or_its_model_is_told(settings: Path, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    copy(settings, tmp_path)
    for name in ("authority.pem", "client.pem", "revoked.pem"):
        copy(settings.parent / name, tmp_path)
    assert "client.key" in complaint(capsys, "token", "--settings", str(tmp_path / settings.name))
    copy(settings.parent / "client.key", tmp_path)
    assert "model" in complaint(capsys, "token", "--settings", str(tmp_path / settings.name))


def test_help_warns(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Tokens are secrets" in help_of(capsys, "token")
