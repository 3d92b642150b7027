"""`secformer page`: which files it writes, for which parties, and what it refuses."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from commands_lab import answer, complaint

import secformer.cli
from secformer.cli import main
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER
from secformer.page.files import Page
from secformer.roles.certificates import init

GIVEN = ("--party0", "https://one.example", "--party1", "https://two.example:8445")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of a client of a tiny model."""
    folder = tmp_path_factory.mktemp("client")
    init(folder / "roles", hosts={"party0": "10.0.0.1", "party1": "fd00::2"})
    write_shares(write_checkpoint(folder / "model", "BertForSequenceClassification"), folder / "shares")
    (folder / "shares" / CLIENT_FOLDER).rename(folder / "roles/client/model")
    return folder / "roles/client/client.toml"


def test_a_page_is_written(client: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "page", str(tmp_path / "site"), "--settings", str(client), *GIVEN)
    written = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*")
               if path.is_file()}
    assert written == set(said["files"]) and {"index.html", "model/tokenizer.json", "core/secformer.js"} <= written
    assert said["parties"] == ["https://one.example", "https://two.example:8445"] and said["tokens"] == "tokens.json"
    assert json.loads((tmp_path / "site/page.json").read_text()) == {"parties": said["parties"],
                                                                     "tokens": "tokens.json"}
    page = Page((GIVEN[1], GIVEN[3]))
    assert page.policy in (tmp_path / "site/index.html").read_text("utf-8") and said["headers"] == page.headers
    told = complaint(capsys, "page", str(tmp_path / "site"), "--settings", str(client), *GIVEN)
    assert "site is not empty; give a new folder, or --force" in told
    assert main(["page", str(tmp_path / "site"), "--settings", str(client), *GIVEN, "--force"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "over HTTPS, with the headers below" in out and "`secformer token" in out and "under [browsers]" in out


def test_parties_are_where_the_settings_say(client: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "page", str(tmp_path / "site"), "--settings", str(client))
    assert said["parties"] == ["https://10.0.0.1:8444", "https://[fd00::2]:8445"]


@pytest.mark.parametrize(("options", "says"), [
    (("--party0", "http://one.example"), "the address of party 0 for browsers must be https://host"),
    (("--party0", "https://one.example", "--party1", "https://one.example/"), "both parties are at https://one.exam"),
    (("--tokens", "http://login.example/"), "the address of the tokens for browsers must be https")])
def test_what_is_refused(client: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...],
                         says: str) -> None:
    assert says in complaint(capsys, "page", str(tmp_path / "site"), "--settings", str(client), *options)
    assert not (tmp_path / "site").exists(), "something was written"


def test_up_takes_the_page_s_port(capsys: pytest.CaptureFixture[str]) -> None:
    """The port may be left out, and the model is never taken for it."""
    parser = secformer.cli._parser()
    for given, port in ((["--page", "m"], 8450), (["m", "--page"], 8450), (["--page", "9000", "m"], 9000),
                        (["m"], None)):
        found = parser.parse_args(["up", *given])
        assert (found.model, found.page) == ("m", port), given
    for odd in ("0", "65536"):
        with pytest.raises(SystemExit):
            main(["up", "m", "--page", odd])
        assert f"--page takes a port from 1 to 65535, got {odd}" in capsys.readouterr().err


def test_up_tells_of_a_taken_port_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn", reason="`up` needs the extra `serve`")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = complaint(capsys, "up", "no-model", "--page", str(port := taken.getsockname()[1]))
    assert f"cannot listen on 127.0.0.1:{port}" in said and "provisioning" not in said
