"""One question, in the audit logs and the ordinary logs of all three roles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from roles_lab import TEXT, ask, log_lines, logged, right, until

from secformer.roles.chain import Head, verify
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
    for name in ("request", "client", "model", "shape", "epoch", "run", "plan"):
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
