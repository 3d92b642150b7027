"""One question, in the audit logs and the ordinary logs of all three roles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from roles_lab import TEXT, ask, log_lines, logged, right, until

from secformer import connect
from secformer.cli import main
from secformer.roles.chain import Head, verify
from secformer.roles.receipts import Receipt, Statement, checked
from secformer.roles.signing import Authority
from secformer.roles.trial import LocalRoles

ROLES = ("dealer", "party0", "party1")


def lines(up: LocalRoles, role: str, event: str) -> list[dict[str, Any]]:
    files = sorted((up.role_folder(role) / "audit").glob("*.jsonl"))
    whole = [line for file in files for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [facts for facts in map(json.loads, whole) if facts["event"] == event]


def test_one_request_is_told_by_all_roles(up: LocalRoles, tmp_path: Path) -> None:
    right(ask(up))
    until(lambda: lines(up, "party0", "request") != [] and lines(up, "party1", "request") != [])
    mine, theirs = lines(up, "party0", "request")[-1], lines(up, "party1", "request")[-1]
    request = mine["request"]
    until(lambda: any(line["request"] == request for line in lines(up, "dealer", "dealt")))
    dealt = next(line for line in lines(up, "dealer", "dealt") if line["request"] == request)
    assert mine["outcome"] == theirs["outcome"] == "answered" and dealt["outcome"] == "dealt"
    for name in ("request", "client", "model", "shape", "epoch", "run", "name", "plan"):
        assert mine[name] == theirs[name], name
    assert (dealt["epoch"], f"{dealt['space']}/{dealt['serial']}", dealt["plan"]) == (
        mine["epoch"], mine["run"], mine["plan"])
    assert mine["client"] == "client" and mine["half"] != theirs["half"] and mine["answer"] != theirs["answer"]
    assert mine["transcript"] != theirs["transcript"] and mine["bytes"] > 0 and mine["rounds"] > 0
    text = "".join(file.read_text() for role in ROLES for file in (up.role_folder(role) / "audit").glob("*.jsonl"))
    assert TEXT not in text and "client" not in "".join(map(str, lines(up, "dealer", "dealt")))
    for role, event in (("party0", "request ended"), ("party1", "answered"), ("dealer", "dealt")):
        logged(up, role, lambda line, event=event: line["event"] == event and line.get("request") == request)
    ended = next(line for line in log_lines(up, "party0")
                 if line["event"] == "request ended" and line["request"] == request)
    head = Head(mine["number"], "0" * 64)
    assert ended["audit"] == mine["number"]
    for role in ROLES:
        copy = tmp_path / role
        shutil.copytree(up.role_folder(role) / "audit", copy)
        verdict = verify([copy], authority=Authority(up.role_folder("client") / "authority.pem"))
        assert verdict.bad is None and verdict.role == role and verdict.anchors >= 1
    assert verify([tmp_path / "party0"], heads=[head]).bad is not None


def test_receipts_of_served_parties(up: LocalRoles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, settings = tmp_path / "receipts.jsonl", up.settings("client")
    with connect(settings, receipts=file) as model:
        right(model.infer(TEXT))
        right(model.infer(TEXT))
    assert main(["query", "--settings", str(settings), "--receipt", str(file), TEXT]) == 0
    kept = [json.loads(line)["receipts"] for line in file.read_text().splitlines()]
    assert len(kept) == 3 and TEXT not in file.read_text()
    authority = up.role_folder("client") / "authority.pem"
    mine, theirs = (checked(Receipt.from_dict(each), f"party{rank}", Authority(authority))
                    for rank, each in enumerate(kept[-1]))
    assert (mine.request, mine.run, mine.epoch) == (theirs.request, theirs.run, theirs.epoch)
    assert mine.client == "client" and mine.half != theirs.half
    until(lambda: any(line["request"] == mine.request for line in lines(up, "party0", "request"))
          and any(line["request"] == mine.request for line in lines(up, "party1", "request")))
    for party in ("party0", "party1"):
        shutil.copytree(up.role_folder(party) / "audit", tmp_path / party)
    capsys.readouterr()
    asked = ["audit", "receipt", str(file), "--authority", str(authority), "--log", str(tmp_path / "party0"), "--log",
             str(tmp_path / "party1"), "--json"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"holds": True, "bad": None, "receipts": 3, "in_logs": {"party0": 3, "party1": 3}, "trusted": True,
                     "revocations_checked": False}
    log = next((tmp_path / "party1").glob("*.jsonl"))
    at = next(said.line for said in [Statement.read(kept[1][1]["statement"])])
    whole = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(whole[:at - 1]))
    assert main(asked) == 1
    out, complaint = capsys.readouterr()
    assert json.loads(out)["bad"]["line"] == 2 and "line 2" in complaint and "is not in the log" in complaint
