"""provision, party, deal and up on the command line, as far as they go without starting roles."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from commands_lab import answer, complaint

from secformer.cli import main
from secformer.models.run.public import PublicModel
from secformer.mpc.fixed import FixedPoint
from secformer.roles import stocking
from secformer.roles.certificates import CLIENT_MODEL, MODEL, init
from secformer.roles.settings import load_client, load_party
from secformer.roles.stocking import Stocked


def test_provision_says_where_the_files_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_checkpoint(tmp_path / "model", "BertForSequenceClassification")
    said = answer(capsys, "provision", str(model), "--out", str(tmp_path / "shares"), "--output", "head")
    assert set(said["files"]) == {"party0", "party1", "client"}
    assert all(Path(path).exists() for path in said["files"].values())
    assert said["recipe"] == "faithful" and said["results"] == ["logits"] and said["guard"] is True
    assert main(["provision", str(model), "--out", str(tmp_path / "again")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "party 0" in out and "two share files together are the weights: delete these copies" in out
    assert f"as {MODEL} beside that party's settings" in out and f"to clients, as {CLIENT_MODEL}." in out
    assert said["embedding"] == "private" and "embedding tables" not in out


def test_provision_with_tables_for_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_checkpoint(tmp_path / "model", "BertForSequenceClassification")
    said = answer(capsys, "provision", str(model), "--out", str(tmp_path / "shares"), "--embedding", "client")
    assert said["embedding"] == "client" and (tmp_path / "shares/client/tables.safetensors").is_file()
    assert main(["provision", str(model), "--out", str(tmp_path / "again"), "--embedding", "client"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "embedding tables, which are part of the weights: give it to clients only, and to no party" in out


@pytest.mark.parametrize(("options", "says"), [
    (("--public-prefix", "system"), "makes the system prompt public; give it with --system"),
    (("--system", "Be brief."), "--system is the public prefix's, with --public-prefix system"),
    (("--public-prefix", "bos"), "invalid choice: 'bos'")])
def test_a_public_prefix_is_said_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...],
                                         says: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["provision", str(tmp_path), "--out", str(tmp_path / "shares"), *options])
    assert left.value.code == 2 and says in capsys.readouterr().err


def test_provision_in_the_fast_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The public description carries the format: parties that hold another one refuse each other."""
    model = write_checkpoint(tmp_path / "model", "BertForSequenceClassification")
    answer(capsys, "provision", str(model), "--out", str(tmp_path / "shares"), "--frac", "12")
    assert PublicModel.load(tmp_path / "shares/client").fixed == FixedPoint(12)
    said = complaint(capsys, "provision", str(model), "--out", str(tmp_path / "other"), "--frac", "8")
    assert "frac must be 12 to 16" in said and not (tmp_path / "other").exists()


def test_share_files_go_where_settings_and_manual_say(tmp_path: Path, party: str, root: Path) -> None:
    """Written by `provision`, put where the operators' page says, found by the settings of `init`."""
    model = write_checkpoint(tmp_path / "model", "BertModel")
    assert main(["provision", str(model), "--out", str(tmp_path / "shares")]) == 0
    page = (root / "docs/operators.md").read_text("utf-8")
    roles = Path(party).parent.parent
    for written, role, name in (("party0.safetensors", "party0", MODEL), ("party1.safetensors", "party1", MODEL),
                                ("client", "client", CLIENT_MODEL)):
        assert (tmp_path / "shares" / written).exists() and f"shares/{written}" in page
        settings = load_client(roles / "client" / "client.toml") if role == "client" else load_party(
            roles / role / f"{role}.toml")
        assert settings.model == roles / role / name and f"`{name}" in page
        if role != "client":
            assert (tmp_path / "shares" / written).stat().st_mode & 0o777 == 0o600, "the page says mode 600"


@pytest.fixture
def party(tmp_path: Path) -> str:
    """Party 1's settings file."""
    init(tmp_path / "roles")
    return str(tmp_path / "roles" / "party1" / "party1.toml")


def test_the_rank_must_be_that_of_the_settings(party: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    said = complaint(capsys, "party", "--settings", party, "--rank", "0")
    assert "is for party 1, but --rank is 0" in said


@pytest.mark.parametrize("command", [["party", "--settings", "no.toml"], ["up", "no-model"]], ids=" ".join)
def test_serving_names_the_extra_that_is_missing(command: list[str], capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    assert 'not installed: uvicorn. Install it: pip install "secformer[serve]"' in complaint(capsys, *command)


def test_a_port_of_the_gateway_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told before anything is provisioned."""
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint(capsys, "up", "no-model", "--gateway", str(port))
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "a port of 0 to 65535, got '127.0.0.1:99999'" in complaint(capsys, "up", "no-model", "--gateway", "99999")


def test_lengths_are_numbers(party: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "deal", "--settings", party, "--count", "1", "--lengths", "16,x")
    assert "--lengths must be token counts separated by commas, got '16,x'" in said


def test_too_little_material_is_an_error(party: str, capsys: pytest.CaptureFixture[str],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """What could be stored is still told."""
    asked: list[Any] = []

    def stock(settings: Any, lengths: list[int], count: int, tell: Any) -> Stocked:
        asked.extend([settings.rank, lengths, count])
        return Stocked("plan", tuple(lengths), 2, 2, 10, "the disk is full")

    monkeypatch.setattr(stocking, "stock", stock)
    assert main(["deal", "--settings", party, "--count", "3", "--lengths", "16, 3", "--json"]) == 1
    out, err = capsys.readouterr()
    assert asked == [1, [16, 3], 3] and json.loads(out)["added"] == 2
    assert "only 2 of 3 runs could be stored: the disk is full" in err
