"""Receipts: their one form, their signatures, and what of each is checked."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from links_lab import identity

from secformer.mpc.errors import AuthError
from secformer.mpc.net.credentials import Credentials
from secformer.roles import certificates
from secformer.roles.certificates import init, issue, revoke
from secformer.roles.receipts import (
    COMMON,
    MOST,
    Receipt,
    Statement,
    checked,
    require_facts,
    require_pair,
    signed,
)
from secformer.roles.signing import Authority, Signed, Signer

NOW = datetime.now(UTC).isoformat(timespec="milliseconds")
SAID = Statement("party0", "ab" * 16, "alice", "1" * 64, "2" * 64, "3" * 64, "epoch", "live/3", "9" * 32, "4" * 64,
                 "5" * 64, NOW, "cd" * 16, 7, "6" * 64)


def authority(roles: Path) -> Authority:
    return Authority(roles / "client" / "authority.pem")


def receipt(roles: Path, said: Statement = SAID, role: str = "party0") -> Receipt:
    return signed(said, Signer(identity(roles, role)))


def test_what_travels_comes_back(roles: Path) -> None:
    made = receipt(roles)
    again = Receipt.from_header(made.header)
    assert again == made and checked(again, "party0", authority(roles)) == SAID
    assert made.header.isascii() and "\n" not in made.header and len(made.header) < MOST / 2


@pytest.mark.parametrize("name", [f.name for f in fields(Statement)])
def test_no_field_can_be_altered(roles: Path, name: str) -> None:
    made, value = receipt(roles), getattr(SAID, name)
    other = {"time": "2030-01-01T00:00:00+00:00"}.get(name, value + 1 if isinstance(value, int) else value + "0")
    altered = Receipt(json.dumps(json.loads(made.statement) | {name: other}, separators=(",", ":"), sort_keys=True),
                      made.signed)
    assert altered.statement != made.statement
    with pytest.raises(AuthError):
        checked(altered, "party0", authority(roles))


def test_a_statement_has_one_form(roles: Path) -> None:
    said, signer = json.loads(SAID.text), Signer(identity(roles, "party0"))
    for text in (json.dumps(said), SAID.text + " ", "[]", "null", "", "[" * 100_000, SAID.text[:-1],
                 json.dumps({k: v for k, v in said.items() if k != "run"}, separators=(",", ":"), sort_keys=True),
                 json.dumps(said | {"more": 1}, separators=(",", ":"), sort_keys=True),
                 *(json.dumps(said | {k: v}, separators=(",", ":"), sort_keys=True)
                   for k, v in (("line", "7"), ("line", True), ("run", 3), ("version", 2), ("time", "yesterday"),
                                ("time", "2026-01-01T00:00:00")))):
        with pytest.raises(AuthError, match="cannot be read"):
            checked(Receipt(text, signer.sign("receipt", text)), "party0", authority(roles))


def test_anothers_signature_does_not_do(roles: Path, tmp_path: Path) -> None:
    init(foreign := tmp_path / "foreign")
    with pytest.raises(AuthError, match="not issued by the authority"):
        checked(receipt(foreign), "party0", authority(roles))
    assert checked(receipt(foreign), "party0", None) == SAID, "without an authority, the signature alone is checked"
    with pytest.raises(AuthError, match="must be party0's, but it is party1's"):
        checked(receipt(roles, role="party1"), "party0", authority(roles))
    with pytest.raises(AuthError, match="must be party0's, but it is client's"):
        checked(receipt(roles, role="client"), "party0", authority(roles))
    with pytest.raises(AuthError, match="must be party1's, but it says 'party0'"):
        checked(receipt(roles), "party1", authority(roles))
    mine, theirs = receipt(roles), receipt(roles, replace(SAID, run="live/4"))
    with pytest.raises(AuthError, match="the signature does not fit"):
        checked(Receipt(mine.statement, theirs.signed), "party0", authority(roles))
    with pytest.raises(AuthError, match="the signature does not fit"):
        checked(Receipt(mine.statement, Signed(mine.signed.signature, receipt(foreign).signed.certificate)), "party0",
                None)
    anchor = Signer(identity(roles, "party0")).sign("anchor", SAID.text)
    with pytest.raises(AuthError, match="the signature does not fit"):
        checked(Receipt(SAID.text, anchor), "party0", authority(roles))


def test_a_certificate_out_of_its_time_or_revoked_does_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(roles := tmp_path / "roles")
    late = (datetime.now(UTC) + timedelta(days=500)).isoformat()
    with pytest.raises(AuthError, match="was valid from"):
        checked(receipt(roles, replace(SAID, time=late)), "party0", authority(roles))
    me = replace(identity(roles, "client"), revoked=roles / "client" / certificates.REVOKED)
    good = receipt(roles)
    assert checked(good, "party0", authority(roles), Credentials(me).objection) == SAID
    expired = Credentials(me, clock=lambda: datetime.now(UTC).timestamp() + 86400 * 500).objection
    with pytest.raises(AuthError, match="party0's receipt expired on"):
        checked(good, "party0", authority(roles), expired)
    issue(roles, "party0")
    revoke(roles, "party0", old=True)
    objection = Credentials(me).objection
    with pytest.raises(AuthError, match="was revoked"):
        checked(good, "party0", authority(roles), objection)
    assert checked(receipt(roles), "party0", authority(roles), objection) == SAID, "the new one holds"


@pytest.mark.parametrize("header", ["", "!", b64encode(b"[]").decode(), b64encode(b"{}").decode(), "A" * (MOST + 4),
                                    b64encode(b"[" * 10_000).decode(), b64encode(b'{"statement": 1}').decode(),
                                    b64encode(b'{"statement":"","signature":"","certificate":1}').decode(), "\xff"])
def test_headers_that_are_none(header: str) -> None:
    with pytest.raises(AuthError):
        Receipt.from_header(header)


@pytest.mark.parametrize("certificate", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                                         "\xff", "A" * (1 << 15)])
def test_certificates_that_are_none(roles: Path, certificate: str) -> None:
    with pytest.raises(AuthError, match="not a certificate"):
        checked(Receipt(SAID.text, Signed(receipt(roles).signed.signature, certificate)), "party0", None)


def test_both_say_the_same() -> None:
    other = replace(SAID, party="party1", half="7" * 64, answer="8" * 64, chain="", line=0, hash="")
    require_pair(SAID, other)
    for name in COMMON:
        with pytest.raises(AuthError, match=f"do not fit together: {name} is"):
            require_pair(SAID, replace(other, **{name: "other"}))


def test_facts_are_those_that_were_sent() -> None:
    require_facts(SAID, {"client": "alice", "half": "4" * 64})
    with pytest.raises(AuthError, match="receipt of party0 does not fit what was sent and received: half must be"):
        require_facts(SAID, {"client": "alice", "half": "9" * 64})
