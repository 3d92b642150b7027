"""Audit logs that were changed: every kind of change is found at its place, or said to be beyond what a chain shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secformer.mpc.errors import InputError
from secformer.mpc.net.tls import Identity
from secformer.roles.audit import Audit
from secformer.roles.certificates import init
from secformer.roles.chain import Head, digest, verify, written
from secformer.roles.signing import Authority, Signer

Lines = list[bytes]


@pytest.fixture(scope="module")
def log(roles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve lines: the beginning, ten requests, the end."""
    folder = tmp_path_factory.mktemp("log") / "audit"
    audit = Audit(folder, "dealer", Signer(Identity(*(roles / "dealer" / name for name in (
        "authority.pem", "dealer.pem", "dealer.key")))), required=True, file_bytes=1 << 20, delay=0.01)
    for n in range(10):
        audit.append("dealt", {"serial": n, "outcome": "dealt"})
    audit.close()
    return folder / "audit-000000000001.jsonl"


def rewritten(lines: Lines, start: int = 0) -> Lines:
    """The chain made anew by somebody without the role's key."""
    out, head = lines[:start], Head(start, digest(lines[start - 1])) if start else Head()
    for line in lines[start:]:
        out.append(written(json.loads(line) | {"number": head.number + 1, "previous": head.digest}))
        head = Head(head.number + 1, digest(out[-1]))
    return out


def edited(line: bytes, **changes: Any) -> bytes:
    return written(json.loads(line) | changes)


CHANGES: dict[str, tuple[Callable[[Lines], Lines], int]] = {  # what was done, and the first line that does not hold
    "a field": (lambda ls: [*ls[:4], edited(ls[4], serial=99), *ls[5:]], 6),
    "a space": (lambda ls: [*ls[:4], ls[4] + b" ", *ls[5:]], 6),
    "a number": (lambda ls: [*ls[:4], edited(ls[4], number=4), *ls[5:]], 5),
    "a true for a number": (lambda ls: [edited(ls[0], number=True), *ls[1:]], 1),
    "removed": (lambda ls: ls[:4] + ls[5:], 5),
    "removed, renumbered": (lambda ls: [*ls[:4], edited(ls[5], number=5), *ls[6:]], 5),
    "first removed": (lambda ls: ls[1:], 1),
    "doubled": (lambda ls: [*ls[:5], ls[4], *ls[5:]], 6),
    "inserted": (lambda ls: [*ls[:4], edited(ls[4], serial=7), *ls[4:]], 6),
    "swapped": (lambda ls: [*ls[:4], ls[5], ls[4], *ls[6:]], 5),
    "not JSON": (lambda ls: [*ls[:4], b"{", *ls[5:]], 5),
    "last not JSON": (lambda ls: [*ls[:-1], b"{"], 12),
    "an empty line": (lambda ls: [*ls[:4], b"", *ls[4:]], 5),
    "not ASCII": (lambda ls: [*ls[:4], ls[4].replace(b"dealt", b"d\xe9alt"), *ls[5:]], 5),
    "very long": (lambda ls: [*ls[:4], edited(ls[4], x="y" * 70000), *ls[5:]], 5),
    "nested": (lambda ls: [*ls[:4], b"[" * 60000, *ls[5:]], 5),
    "written anew": (lambda ls: rewritten([*ls[:4], edited(ls[4], serial=99), *ls[5:]], 4), 12),
    "removed, written anew": (lambda ls: rewritten(ls[:4] + ls[5:], 4), 11),
    "a false crash": (lambda ls: [*ls[:4], edited(ls[4], event="resumed", cut={"bytes": 1, "sha256": "0" * 64}),
                                  *ls[5:]], 5),
    "another role": (lambda ls: [*ls[:4], edited(ls[4], role="party0"), *ls[5:]], 5),
    "no signature at all": (lambda ls: [*ls[:4], edited(ls[4], event="anchor"), *ls[5:]], 5),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_found(log: Path, tmp_path: Path, name: str) -> None:
    change, line = CHANGES[name]
    copy = tmp_path / log.name
    copy.write_bytes(b"".join(each + b"\n" for each in change(log.read_bytes().splitlines())))
    bad = verify([copy]).bad
    assert bad is not None and (bad.file, bad.line) == (str(copy), line), bad


def test_a_cut_end_is_found_against_a_head_alone(log: Path, tmp_path: Path) -> None:
    lines, copy = log.read_bytes().splitlines(), tmp_path / log.name
    copy.write_bytes(b"".join(each + b"\n" for each in lines[:6]))
    verdict = verify([copy])
    assert verdict.bad is None and not verdict.ended and verdict.anchored == 0, "only the log's state tells"
    assert verify([copy], heads=[Head(6, digest(lines[5]))]).bad is None
    bad = verify([copy], heads=[Head(7, digest(lines[6]))]).bad
    assert bad is not None and "line 7, which was noted elsewhere, is not in the log" in bad.problem
    bad = verify([copy], heads=[Head(6, "0" * 64)]).bad
    assert bad is not None and bad.line == 6 and "written anew" in bad.problem


def test_a_chain_of_another_authority_is_not_believed(log: Path, roles: Path, tmp_path: Path) -> None:
    assert verify([log], authority=Authority(roles / "client" / "authority.pem")).trusted
    init(other := tmp_path / "other")
    bad = verify([log], authority=Authority(other / "client" / "authority.pem")).bad
    assert bad is not None and bad.line == 1 and "not issued by the authority" in bad.problem


def test_a_renamed_file_is_found(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "audit-000000000002.jsonl"
    copy.write_bytes(log.read_bytes())
    bad = verify([copy]).bad
    assert bad is not None and bad.line == 1 and "is named audit-000000000001.jsonl" in bad.problem


@pytest.mark.parametrize("text", ["", "7", "x:" + "0" * 64, "7:" + "0" * 63, "7:" + "G" * 64, "-1:" + "0" * 64])
def test_heads_are_read_strictly(text: str) -> None:
    with pytest.raises(InputError, match="NUMBER:HASH"):
        Head.read(text)
    assert Head.read(Head(7, "ab" * 32).shown) == Head(7, "ab" * 32)
