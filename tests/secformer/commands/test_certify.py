"""init and certify on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from secformer.cli import main
from secformer.mpc.net.tls import ROLES
from secformer.roles.certificates import PORTS
from secformer.roles.settings import load_client


def test_init_and_certify_say_what_they_made_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    assert main(["init", str(folder), "--party1", "10.0.0.2", "--days", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["certificates"]
    assert [c["role"] for c in said] == [c["name"] for c in said] == list(ROLES)
    for c in said:
        until = datetime.fromisoformat(c["until"])
        certificate = x509.load_pem_x509_certificate(Path(c["certificate"]).read_bytes())
        assert certificate.not_valid_after_utc == until.replace(microsecond=0)
        assert until - datetime.now(UTC) <= timedelta(days=20)
    assert load_client(folder / "client" / "client.toml").party1 == ("10.0.0.2", PORTS["party1"])

    assert main(["certify", str(folder), "client", "--name", "bob", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["certificates"]
    assert (one["role"], one["name"], one["certificate"]) == ("client", "bob", str(folder / "bob" / "bob.pem"))
    assert main(["certify", str(folder), "client", "--name", "carol"]) == 0
    assert "carol" in capsys.readouterr().out

    assert main(["init", str(folder), "--json"]) == 1
    caught = capsys.readouterr()
    assert "not an empty folder" in caught.err and not caught.out
    assert main(["certify", str(folder), "client", "--name", "authority"]) == 1
    assert "taken" in capsys.readouterr().err


def test_revoke_says_what_it_revoked_and_where_the_list_goes(tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    main(["init", str(folder)])
    for _ in range(2):
        main(["certify", str(folder), "client", "--name", "alice"])
    capsys.readouterr()
    assert main(["revoke", str(folder), "alice", "--old", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    listed = x509.load_pem_x509_crl(Path(said["list"]).read_bytes())
    assert [f"{each.serial_number:x}" for each in listed] == [each["serial"] for each in said["revoked"]]
    assert [each["name"] for each in said["revoked"]] == ["alice"]
    number = x509.load_pem_x509_certificate((folder / "alice" / "alice.pem").read_bytes()).serial_number
    colons = ":".join(f"{number:040X}"[i : i + 2] for i in range(0, 40, 2))
    assert main(["revoke", str(folder), "alice", "--serial", colons]) == 0
    told = capsys.readouterr().out
    assert f"{number:x}" in told and "revoked.pem" in told and "Running roles read it" in told
    for wrong, said_ in ((["bob"], "no record of a certificate of 'bob'"), (["alice"], "is left to revoke"),
                         (["alice", "--serial", "xyz"], "must be a serial number in hexadecimal digits")):
        assert main(["revoke", str(folder), *wrong]) == 1
        assert said_ in capsys.readouterr().err.replace("\n", " ")
    assert main(["revoke", str(tmp_path / "none"), "alice"]) == 1
    with pytest.raises(SystemExit):
        main(["revoke", str(folder), "alice", "--old", "--serial", "1"])
