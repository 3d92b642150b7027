"""`secformer audit verify`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secformer.cli import main
from secformer.mpc.net.tls import Identity
from secformer.roles.audit import Audit
from secformer.roles.certificates import init
from secformer.roles.chain import Bad, Verdict
from secformer.roles.signing import Signer
from secformer.views.audited import verified_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The party's folder, with its log of one request."""
    init(roles := tmp_path_factory.mktemp("roles") / "roles")
    party = roles / "party1"
    audit = Audit(party / "audit", "party1", Signer(Identity(*(party / name for name in (
        "authority.pem", "party1.pem", "party1.key")))), required=True, file_bytes=1 << 20, delay=0.01)
    audit.append("request", {"request": "ab" * 16, "outcome": "answered"})
    audit.close()
    return party


def test_a_log_that_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["audit", "verify", str(folder / "audit"), "--authority", str(folder / "authority.pem")]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] and found["bad"] is None and found["trusted"] and found["outcomes"] == {"answered": 1}
    assert main([*asked, "--head", found["head"]]) == 0
    assert "Every line holds. The role ended in order." in " ".join(capsys.readouterr().out.split())


def test_a_log_that_does_not_hold(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = next((folder / "audit").glob("*.jsonl"))
    copy = tmp_path / log.name
    copy.write_bytes(log.read_bytes().replace(b"answered", b"refused_"))
    assert main(["audit", "verify", str(copy), "--json"]) == 1
    out, complaint = capsys.readouterr()
    assert json.loads(out)["bad"]["line"] == 3 and "does not hold" in complaint and "line 3" in complaint
    assert main(["audit", "verify", str(tmp_path / "none")]) == 1
    assert main(["audit", "verify", str(log), "--head", "9:" + "0" * 64]) == 1


@pytest.mark.parametrize("args", [["audit"], ["audit", "verify"], ["audit", "look", "x"]])
def test_usage(args: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(args)
    assert left.value.code == 2


def test_json_says_what_is_bad_and_what_is_cut() -> None:
    found = verified_json(Verdict(role="dealer", cut=7, bad=Bad("a file", 3, "a problem")))
    assert (found["holds"], found["cut"], found["role"]) == (False, 7, "dealer")
    assert found["bad"] == {"file": "a file", "line": 3, "problem": "a problem"}
