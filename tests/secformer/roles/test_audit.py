"""The audit log that a role writes: crashes, full disks, files that go on, and what verification finds afterwards."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from roles_lab import until

from secformer.mpc.errors import InputError, StoreError
from secformer.mpc.net.tls import Identity
from secformer.roles import audit as audit_module
from secformer.roles import audit_files, chain
from secformer.roles.audit import Audit
from secformer.roles.chain import Head, Verdict, digest, verify
from secformer.roles.signing import Authority, Signer


def identity(roles: Path, role: str) -> Identity:
    return Identity(*(roles / role / name for name in ("authority.pem", f"{role}.pem", f"{role}.key")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def begin(roles: Path, folder: Path) -> Iterator[Callable[..., Audit]]:
    made: list[Audit] = []

    def start(*, required: bool = True, file_bytes: int = 1 << 20, role: str = "party0") -> Audit:
        made.append(Audit(folder, role, Signer(identity(roles, role)), required=required, file_bytes=file_bytes,
                          delay=0.01))
        return made[-1]

    yield start
    for each in made:
        each.close()


def noted(audit: Audit, count: int) -> list[Head]:
    heads = [audit.append("request", {"request": f"{n:032x}", "outcome": "answered"}) for n in range(count)]
    return [head for head in heads if head is not None]


def lines(folder: Path) -> list[bytes]:
    return b"".join(file.read_bytes() for file in sorted(folder.glob("*.jsonl"))).splitlines()


def held(folder: Path, roles: Path, **asked: object) -> Verdict:
    verdict = verify([folder], authority=Authority(roles / "party0" / "authority.pem"), **asked)  # type: ignore[arg-type]
    assert verdict.bad is None, verdict.bad
    return verdict


def test_a_log_holds_and_says_what_is_in_it(begin: Callable[..., Audit], folder: Path, roles: Path) -> None:
    audit = begin()
    heads = noted(audit, 300)
    audit.close()
    verdict = held(folder, roles, heads=heads[-1:])
    assert verdict.outcomes == {"answered": 300} and verdict.ended and verdict.role == "party0"
    assert verdict.anchors >= 2 and verdict.anchored == verdict.head.number - 1, "the end is signed"
    assert verdict.head.number == len(lines(folder)) and verdict.head.digest == digest(lines(folder)[-1])
    assert audit.append("request", {}) is None, "nothing is noted after the end"


def test_files_go_on_from_each_other(begin: Callable[..., Audit], folder: Path, roles: Path) -> None:
    audit = begin(file_bytes=500)
    for _ in range(4):
        noted(audit, 3)
        until(lambda: audit.figures["unwritten"] == 0)
    audit.close()
    files = sorted(folder.glob("*.jsonl"))
    assert len(files) >= 4 and held(folder, roles).outcomes["answered"] == 12
    first = json.loads(files[1].read_bytes().splitlines()[0])
    after = Head(first["number"] - 1, first["previous"])
    files[0].unlink()
    bad = verify([folder]).bad
    assert bad is not None and "earlier files are missing" in bad.problem
    assert held(folder, roles, after=after).first == first["number"], "kept elsewhere"
    files[2].unlink()
    bad = verify([folder], after=after).bad
    assert bad is not None and (bad.file, bad.line) == (str(files[3]), 1)


@pytest.mark.parametrize("left", [b"", b'{"number":5,"prev', b"\0" * 40, b'{"nu\n', b'gar\nbage\n\n{"x":1}'])
def test_a_crash_is_told(begin: Callable[..., Audit], folder: Path, roles: Path, left: bytes,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash leaves behind the last whole line stays, and the next start says so. Twice over."""
    for start in range(3):
        audit = begin()
        noted(audit, 2)
        audit.close()
        file = max(folder.glob("*.jsonl"))
        whole = file.read_bytes().splitlines(keepends=True)[:-1]  # not its orderly end
        file.write_bytes(b"".join(whole) + left)
        verdict = verify([folder])
        assert verdict.events["resumed"] == start
        assert not verdict.ended and (verdict.bad is None or b"\n" in left)
    begin().close()
    verdict = held(folder, roles)
    assert verdict.outcomes == {"answered": 6} and verdict.events["resumed"] == 3 and verdict.cut == 0
    last = [json.loads(line) for line in lines(folder) if b'"resumed"' in line][-1]
    assert last["in order"] is False
    assert last["cut"] == ({"bytes": len(left), "sha256": digest(left)} if left else None)
    if left:
        text = file.read_bytes()
        place = text.index(left)
        file.write_bytes(text[:place] + text[place + len(left) + 1:])
        bad = verify([folder]).bad
        assert bad is not None, "what a crash left may not be taken away"


def test_a_line_that_lacks_only_its_end_is_whole(begin: Callable[..., Audit], folder: Path, roles: Path) -> None:
    audit = begin()
    noted(audit, 2)
    audit.close()
    file = max(folder.glob("*.jsonl"))
    file.write_bytes(file.read_bytes()[:-1])
    begin().close()
    verdict = held(folder, roles)
    assert verdict.head.number == 6 and json.loads(lines(folder)[4])["cut"] is None


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("broken", ["write", "fsync"])
def test_a_disk_that_fails(begin: Callable[..., Audit], folder: Path, roles: Path, required: bool, broken: str,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is written, then nothing: the role is told, nothing is lost, and the rest follows."""
    audit = begin(required=required)
    until(lambda: audit.figures["unwritten"] == 0)
    real, full = getattr(os, broken), [True]

    def failing(handle: int, *data: bytes) -> int:
        if not full[0]:
            return real(handle, *data)  # type: ignore[no-any-return]
        if data and len(data[0]) > 100:
            return real(handle, data[0][:50])  # type: ignore[no-any-return]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audit_files.os, broken, failing)
    noted(audit, 3)
    until(lambda: audit.figures["failing"] == 1)
    assert bool(audit.problem) is required and ("No space" in audit.problem or not required)
    full[0] = False
    until(lambda: audit.figures["failing"] == 0 and audit.figures["unwritten"] == 0)
    assert audit.problem == ""
    audit.close()
    verdict = held(folder, roles)
    assert verdict.outcomes == {"answered": 3} and verdict.events["unsynced"] >= (broken == "fsync")


def test_lines_that_find_no_room_are_counted(begin: Callable[..., Audit], folder: Path, roles: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MOST_HELD", 2000)
    audit = begin(required=False)
    until(lambda: audit.figures["unwritten"] == 0)
    with monkeypatch.context() as patch:
        def failing(*_: object) -> int:
            raise OSError(errno.EIO, "broken")

        patch.setattr(audit_files.os, "write", failing)
        assert 0 < len(noted(audit, 50)) < 50 and audit.figures["lost"] > 0
        until(lambda: audit.figures["failing"] == 1)
    until(lambda: audit.figures["failing"] == 0 and audit.figures["unwritten"] == 0)
    noted(audit, 1)
    audit.close()
    told = [json.loads(line) for line in lines(folder) if b'"lost"' in line]
    verdict = held(folder, roles)
    assert len(told) == 1 and told[0]["lines"] + verdict.outcomes["answered"] == 51


def test_a_folder_is_one_roles(begin: Callable[..., Audit], folder: Path) -> None:
    audit = begin()
    with pytest.raises(StoreError, match="in use by process"):
        begin()
    audit.close()
    with pytest.raises(StoreError, match="is the audit log of party0, but this is dealer"):
        begin(role="dealer")
    assert folder.stat().st_mode & 0o77 == 0 and all(f.stat().st_mode & 0o77 == 0 for f in folder.iterdir())


def test_another_format_is_neither_continued_nor_believed(begin: Callable[..., Audit], folder: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    audit = begin()
    noted(audit, 2)
    audit.close()
    monkeypatch.setattr(chain, "FORMAT", "secformer audit 2")  # of a later version
    bad = verify([folder]).bad
    assert bad is not None and bad.line == 1
    assert "has the format 'secformer audit 1', but this version checks 'secformer audit 2'" in bad.problem
    with pytest.raises(StoreError, match="has the format 'secformer audit 1', but this version writes"):
        begin()


def test_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no audit log in"):
        verify([tmp_path])
