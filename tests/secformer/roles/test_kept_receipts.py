"""A client's receipts: checked when they come, kept in a file, and compared with the parties' logs later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from links_lab import MODEL, identity

from secformer.mpc.errors import AuthError, InputError, ProtocolError, SettingsError, StoreError
from secformer.mpc.meter import Meter
from secformer.roles.audit import Audit, Unaudited
from secformer.roles.certificates import init
from secformer.roles.chain import BEGINNING
from secformer.roles.entries import Entries
from secformer.roles.kept_receipts import Receipts, verify
from secformer.roles.messages import Answer, Exchanged, Half, Ran, body_digest
from secformer.roles.receipts import HEADER, Receipt, Statement, signed
from secformer.roles.signing import Authority, Signer

Change = Callable[[Statement], Statement]


class Party:
    """A party that answers whatever it is asked, and writes it down."""

    def __init__(self, roles: Path, rank: int, log: Path | None):
        self.role, self.signer = f"party{rank}", Signer(identity(roles, f"party{rank}"))
        self.audit = Unaudited() if log is None else Audit(log / self.role, self.role, self.signer, required=True,
                                                           file_bytes=1 << 20, delay=0.01)
        self.entries = Entries(self.role, MODEL, self.audit, self.signer)

    def answer(self, half: Half, run: str, client: str = "client", change: Change | None = None) -> Answer:
        entry, body = self.entries.begin(client), f"{self.role} answers {half.request}".encode()
        entry.half = half
        answer = Answer({}, 16, Meter().close(0.0), Ran("epoch", run, f"name of {run}", "p" * 64, 0.0, 0.0, 0.0))
        header = entry.answered(answer, body)[HEADER]
        if change is not None:
            header = signed(change(Statement.read(Receipt.from_header(header).statement)), self.signer).header
        return replace(answer, exchanged=Exchanged(half.digest, body_digest(body), header))


class Lab:
    """Two parties with audit logs, and a client that asks them."""

    def __init__(self, roles: Path, folder: Path):
        self.roles, self.folder, self.file = roles, folder, folder / "receipts.jsonl"
        self.parties = [Party(roles, rank, folder) for rank in (0, 1)]
        self.client = Receipts(identity(roles, "client"), lambda certificate: "", self.file)
        self.count = 0

    def halves(self) -> list[Half]:
        self.count += 1
        return [Half(f"{self.count:032x}", MODEL, np.array([2]), np.ones((1, 2), bool), seed=bytes(32),
                     digest=body_digest(bytes([self.count, rank]))) for rank in (0, 1)]

    def ask(self, *changes: Change | None, client: str = "client", runs: tuple[str, str] | None = None,
            parties: tuple[Party, Party] | None = None) -> tuple[list[Half], list[Answer]]:
        halves = self.halves()
        both = (*changes, None, None)
        one, two = runs or (f"live/{self.count}",) * 2
        found = [party.answer(half, run, client, change) for party, half, run, change
                 in zip(parties or self.parties, halves, (one, two), both, strict=False)]
        return halves, found

    def take(self, *args: Any, **settings: Any) -> None:
        halves, answers = self.ask(*args, **settings)
        self.client.take(halves, answers, MODEL)

    def close(self) -> None:
        for party in self.parties:
            party.audit.close()

    def logs(self) -> list[list[Path]]:
        return [[self.folder / "party0"], [self.folder / "party1"]]

    @property
    def authority(self) -> Authority:
        return Authority(self.roles / "client" / "authority.pem")


@pytest.fixture
def lab(roles: Path, tmp_path: Path) -> Any:
    made = Lab(roles, tmp_path)
    yield made
    made.close()


def test_receipts_that_hold_are_kept_and_are_in_the_logs(lab: Lab) -> None:
    for _ in range(3):
        lab.take()
    lab.close()
    assert lab.file.stat().st_mode & 0o777 == 0o600
    verdict = verify([lab.file], authority=lab.authority, logs=lab.logs())
    assert verdict.bad is None and verdict.receipts == 3 and verdict.trusted
    assert verdict.found == {"party0": 3, "party1": 3}
    said = Statement.read(json.loads(lab.file.read_text().splitlines()[1])["receipts"][0]["statement"])
    assert (said.request, said.run, said.client, said.line) == (f"{2:032x}", "live/2", "client", 3)


@pytest.mark.parametrize(("name", "value", "problem"), [
    ("request", "f" * 32, "request must be"), ("client", "mallory", "client must be"),
    ("model", "0" * 64, "model must be"), ("shape", "0" * 64, "shape must be"), ("half", "0" * 64, "half must be"),
    ("answer", "0" * 64, "answer must be"), ("party", "party1", "must be party0's"), ("plan", "0" * 64, "plan is"),
    ("epoch", "other", "epoch is"), ("run", "live/99", "run is"),
    ("name", "other", "name is"), ("time", "2050-01-01T00:00:00+00:00", "was valid")])
def test_a_party_that_signs_something_else_is_noticed(lab: Lab, name: str, value: str, problem: str) -> None:
    with pytest.raises(AuthError, match=problem):
        lab.take(lambda said: replace(said, **{name: value}))
    assert lab.file.read_text() == "", "what does not hold is not kept"


def test_swapped_and_mixed_receipts_are_noticed(lab: Lab) -> None:
    halves, answers = lab.ask()
    with pytest.raises(AuthError, match="must be party0's, but it says 'party1'"):
        lab.client.take(halves, answers[::-1], MODEL)
    other_halves, others = lab.ask()
    with pytest.raises(AuthError, match="does not fit what was sent"):
        lab.client.take(halves, [answers[0], others[1]], MODEL)
    with pytest.raises(AuthError, match="does not fit what was sent"):
        lab.client.take(other_halves, [answers[0], others[1]], MODEL)
    with pytest.raises(AuthError, match="run is 'live/1' at party 0 and 'live/2' at party 1"):
        lab.take(runs=("live/1", "live/2"))
    with pytest.raises(AuthError, match="client must be 'client', but it says 'somebody'"):
        lab.take(client="somebody")


def test_a_foreign_authoritys_parties_are_noticed(lab: Lab, tmp_path: Path) -> None:
    init(foreign := tmp_path / "foreign")
    with pytest.raises(AuthError, match="not issued by the authority"):
        lab.take(parties=(Party(foreign, 0, None), Party(foreign, 1, None)))


@pytest.mark.parametrize("missing", [(0,), (1,), (0, 1)])
def test_missing_receipts(lab: Lab, missing: tuple[int, ...]) -> None:
    def without(change: Change | None = None) -> tuple[list[Half], list[Answer]]:
        halves, answers = lab.ask(change, change)
        return halves, [replace(each, exchanged=replace(each.exchanged, receipt=None)) if rank in missing else each
                        for rank, each in enumerate(answers)]  # type: ignore[type-var]

    with pytest.raises(ProtocolError, match=f"party{missing[0]} sent no receipt"):
        lab.client.take(*without(), MODEL)
    careless = Receipts(identity(lab.roles, "client"), lambda certificate: "", None)
    careless.take(*without(), MODEL)
    if len(missing) == 1:
        with pytest.raises(AuthError, match="answer must be"):
            careless.take(*without(lambda said: replace(said, answer="0" * 64)), MODEL)


def test_certificates_are_checked_now(lab: Lab) -> None:
    client = Receipts(identity(lab.roles, "client"), lambda certificate: "was revoked on 2026-01-01", None)
    with pytest.raises(AuthError, match="party0's receipt was revoked"):
        client.take(*lab.ask(), MODEL)


def test_a_file_that_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="receipts cannot be kept"):
        Receipts(identity(lab.roles, "client"), lambda certificate: "", tmp_path / "none" / "file")
    lab.file.unlink()
    lab.file.mkdir()
    with pytest.raises(StoreError, match="the request was answered, but"):
        lab.take()


# ---- files -----------------------------------------------------------------------------------------------------------


def line(lab: Lab, number: int, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the file, with one of its lines changed."""
    lines = lab.file.read_text().splitlines()
    facts = json.loads(lines[number - 1])
    change(facts)
    lines[number - 1] = json.dumps(facts)
    copy = lab.folder / "copy.jsonl"
    copy.write_text("\n".join(lines) + "\n")
    return copy


def _text(facts: dict[str, Any], rank: int, old: str, new: str) -> None:
    assert old in facts["receipts"][rank]["statement"]
    facts["receipts"][rank]["statement"] = facts["receipts"][rank]["statement"].replace(old, new)


@pytest.mark.parametrize(("change", "problem"), [
    (lambda facts: facts["receipts"].reverse(), "must be party0's"),
    (lambda facts: facts["receipts"].pop(), "must have the receipts of party 0 and of party 1"),
    (lambda facts: facts.pop("receipts"), "must be an object with"),
    (lambda facts: _text(facts, 1, "live/2", "live/3"), "signature does not fit"),
    (lambda facts: facts["receipts"][0].update(signature="AAAA"), "signature does not fit"),
    (lambda facts: facts["receipts"][0].pop("certificate"), "must be an object of the texts"),
])
def test_the_first_bad_line_is_named(lab: Lab, change: Callable[[dict[str, Any]], None], problem: str) -> None:
    for _ in range(3):
        lab.take()
    verdict = verify([line(lab, 2, change)], authority=lab.authority)
    assert verdict.bad is not None and verdict.bad.line == 2 and problem in verdict.bad.problem
    assert verdict.receipts == 1


def test_receipts_of_two_requests_do_not_fit_together(lab: Lab) -> None:
    lab.take()
    lab.take()
    first = json.loads(lab.file.read_text().splitlines()[0])
    verdict = verify([line(lab, 2, lambda facts: facts["receipts"].__setitem__(0, first["receipts"][0]))])
    assert verdict.bad is not None and verdict.bad.line == 2 and "request is" in verdict.bad.problem


def test_files_that_are_none(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        verify([tmp_path / "none"])
    for text in ("x\n", "[]\n", "\xff\n", "[" * 100_000 + "\n", "x" * (1 << 17) + "\n", "\n"):
        (odd := tmp_path / "odd").write_text(text, "latin-1")
        verdict = verify([odd])
        assert verdict.bad is not None and verdict.bad.line == 1, text[:9]
    (tmp_path / "empty").write_text("")
    assert verify([tmp_path / "empty"]).bad is None


def test_an_authority_of_another_folder(lab: Lab, tmp_path: Path) -> None:
    lab.take()
    init(foreign := tmp_path / "foreign")
    verdict = verify([lab.file], authority=Authority(foreign / "client" / "authority.pem"))
    assert verdict.bad is not None and "not issued by the authority" in verdict.bad.problem


def test_a_log_must_have_the_lines_that_receipts_name(lab: Lab, roles: Path, tmp_path: Path) -> None:
    lab.take()
    short = tmp_path / "short"
    lab.take(lambda said: replace(said, hash=BEGINNING))
    lab.take(None, lambda said: replace(said, line=99))
    lab.close()
    verdict = verify([lab.file], logs=[lab.logs()[0]])
    assert verdict.bad is not None and verdict.bad.line == 2 and "another hash" in verdict.bad.problem
    verdict = verify([lab.file], logs=[lab.logs()[1]])
    assert verdict.bad is not None and verdict.bad.line == 3 and "is not in the log" in verdict.bad.problem
    assert verdict.found == {"party1": 2}
    shutil.copytree(lab.folder / "party0", short)
    log = next(short.glob("*.jsonl"))
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:1]))
    verdict = verify([lab.file], logs=[[short]])
    assert verdict.bad is not None and verdict.bad.line == 1 and "is not in the log" in verdict.bad.problem
    log.write_bytes(log.read_bytes().replace(b"began", b"begun"))
    (short / "audit-000000000002.jsonl").write_bytes(b"x\n")
    verdict = verify([lab.file], logs=[[short]])
    assert verdict.bad is not None and verdict.bad.file.startswith(str(short)), "a log that does not hold itself"


def test_a_receipt_that_says_something_else_than_its_line(lab: Lab) -> None:
    changes: list[Change] = [lambda said: replace(said, plan="q" * 64)]
    lab.take(changes[0], changes[0])
    lab.close()
    verdict = verify([lab.file], logs=lab.logs())
    assert verdict.bad is not None and "says another plan than the receipt" in verdict.bad.problem


def test_logs_of_other_roles_and_parties_without_logs(lab: Lab, roles: Path, tmp_path: Path) -> None:
    lab.take()
    dealer = Audit(tmp_path / "dealer", "dealer", Signer(identity(roles, "dealer")), required=True, file_bytes=1 << 20)
    dealer.close()
    with pytest.raises(InputError, match="the audit log of dealer"):
        verify([lab.file], logs=[[tmp_path / "dealer"]])
    unlogged = (Party(roles, 0, None), Party(roles, 1, None))
    lab.take(parties=unlogged)
    lab.close()
    verdict = verify([lab.file], logs=lab.logs())
    assert verdict.bad is not None and verdict.bad.line == 2 and "names no line" in verdict.bad.problem
    assert verify([lab.file]).bad is None
