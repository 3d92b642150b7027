"""Certificates: what they say, where keys lie, what is refused."""

from __future__ import annotations

import base64
import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import ROLES, Identity, client_context, host_name, server_context
from secformer.roles import certificates
from secformer.roles.certificates import ISSUED, PORTS, REVOKED, init, issue, revoke
from secformer.roles.settings import PartySettings, load_client, load_dealer, load_party


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "certs"
    init(folder, hosts={"party0": "10.0.0.1", "dealer": "10.0.0.3"}, ports={"link": 7001}, parties={"queue": 7})
    return folder


@pytest.fixture(scope="module")
def authority(made: Path) -> Path:
    """For tests that issue more."""
    return made


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("role", ROLES)
def test_a_certificate_says_one_role_and_its_authority_signed_it(made: Path, role: str) -> None:
    mine, signer = certificate(made / role / f"{role}.pem"), certificate(made / "authority" / "authority.pem")
    names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = {"party0": (["party0.secformer"], ["10.0.0.1"]),  # browsers reach parties by their machines' names
             "party1": (["party1.secformer", "localhost"], ["127.0.0.1", "::1"])}.get(role, ([host_name(role)], []))
    assert names.get_values_for_type(x509.DNSName) == hosts[0] and len(list(names)) == sum(map(len, hosts))
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == hosts[1]
    mine.verify_directly_issued_by(signer)
    assert mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == role
    usage = set(mine.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == (role != "client"), "a client's serves nobody"
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
    basic = mine.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and not basic.value.ca, "a role's key can sign no other certificate"
    assert (made / role / "authority.pem").read_bytes() == (made / "authority" / "authority.pem").read_bytes()


@pytest.mark.parametrize("role", ROLES)
def test_certificate_and_key_fit_and_contexts_take_them(made: Path, role: str) -> None:
    key = load_pem_private_key((made / role / f"{role}.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    assert certificate(made / role / f"{role}.pem").public_key() == key.public_key()
    settings = {"party0": load_party, "party1": load_party, "dealer": load_dealer, "client": load_client}[role](
        made / role / f"{role}.toml")
    for context in (client_context(settings.tls), server_context(settings.tls)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_keys_and_folders_are_their_owners_alone(made: Path) -> None:
    keys = sorted(made.rglob("*.key"))
    assert [key.stem for key in keys] == ["authority", "client", "dealer", "party0", "party1"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in (*keys, made / "authority" / ISSUED)} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in [made, *made.iterdir()]} == {0o700}
    assert not list(made.rglob("*.part"))
    assert not [p for role in ROLES for p in (made / role).iterdir() if p.name == "authority.key"]


def test_the_settings_of_init_meet_each_other(made: Path) -> None:
    p0, p1 = load_party(made / "party0" / "party0.toml"), load_party(made / "party1" / "party1.toml")
    dealer, client = load_dealer(made / "dealer" / "dealer.toml"), load_client(made / "client" / "client.toml")
    assert (p0.rank, p1.rank, p0.queue, p1.queue) == (0, 1, 7, 7)
    assert p0.link == ("0.0.0.0", 7001) and p1.link == ("10.0.0.1", 7001)
    assert dealer.listen == ("0.0.0.0", PORTS["dealer"]) and p0.dealer == p1.dealer == ("10.0.0.3", PORTS["dealer"])
    assert p0.clients == ("0.0.0.0", PORTS["party0"]) and client.party0 == ("10.0.0.1", PORTS["party0"])
    assert p1.clients == ("127.0.0.1", PORTS["party1"]) and client.party1 == ("127.0.0.1", PORTS["party1"])
    assert p0.metrics == ("127.0.0.1", PORTS["metrics0"]) and p1.metrics == ("127.0.0.1", PORTS["metrics1"])
    assert p0.deadline == PartySettings.deadline


def test_machines_are_also_met_over_ipv6(tmp_path: Path) -> None:
    init(tmp_path / "certs", hosts={"party0": "2001:db8::1", "party1": "::1", "dealer": "localhost"})
    p0 = load_party(tmp_path / "certs" / "party0" / "party0.toml")
    p1 = load_party(tmp_path / "certs" / "party1" / "party1.toml")
    dealer = load_dealer(tmp_path / "certs" / "dealer" / "dealer.toml")
    assert p0.clients == ("::", PORTS["party0"]) and p0.link == ("::", PORTS["link"])
    assert p1.link == ("2001:db8::1", PORTS["link"]) and p1.clients == ("::1", PORTS["party1"])
    assert dealer.listen == ("127.0.0.1", PORTS["dealer"]) and p1.dealer == ("localhost", PORTS["dealer"])


@pytest.mark.parametrize("host", ["", "10.0.0.1:8442", "[::1]", "a b", "https://party0", "a/b", "a..b", "ho\nst"])
def test_a_host_that_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="the machine of party1 must be a host name or an IP address"):
        init(tmp_path / "new", hosts={"party0": "party0.example", "party1": host})
    assert not (tmp_path / "new").exists()


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    used, file = tmp_path / "used", tmp_path / "file"
    used.mkdir()
    (used / "mine").write_text("mine")
    file.write_text("mine")
    for target in (used, file):
        with pytest.raises(SettingsError, match=r"not an empty folder.*secformer certify"):
            init(target)
    assert [p.name for p in used.iterdir()] == ["mine"] and file.read_text() == "mine"
    (empty := tmp_path / "empty").mkdir()
    assert [m.role for m in init(empty)] == list(ROLES)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"days": 0}, "valid for 1 to 3650 days, got 0"), ({"days": 10**9}, "valid for 1 to 3650 days"),
    ({"hosts": {"client": "x"}}, "hosts may be given for party0, party1 and dealer; got client"),
    ({"ports": {"party2": 1}}, "ports may be given for .*; got party2"),
])
def test_init_with_something_wrong_makes_nothing(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        init(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_certify_replaces_key_and_certificate_and_keeps_the_authority(authority: Path) -> None:
    before = {p: p.read_bytes() for p in authority.rglob("*") if p.is_file()}
    made = issue(authority, "party1", days=30)
    changed = {p for p, raw in before.items() if p.read_bytes() != raw}
    assert changed == {authority / "party1" / "party1.key", authority / "party1" / "party1.pem",
                       authority / "authority" / ISSUED}
    assert certificate(made.certificate).not_valid_after_utc == made.until.replace(microsecond=0)
    assert timedelta(days=29, hours=23) < made.until - datetime.now(UTC) <= timedelta(days=30)
    assert stat.S_IMODE((authority / "party1" / "party1.key").stat().st_mode) == 0o600
    assert certificate(made.certificate).not_valid_before_utc < datetime.now(UTC) - timedelta(hours=23), "slow clocks"


def test_a_client_may_have_a_name_which_is_no_role(authority: Path) -> None:
    made = issue(authority, "client", name="alice-2_b")
    mine = certificate(made.certificate)
    assert made.certificate == authority / "alice-2_b" / "alice-2_b.pem"
    assert mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "alice-2_b"
    names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host_name("client")]


def test_one_more_client_gets_settings_that_work_and_keeps_them(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "certs")
    issue(folder, "client", name="bob")
    alone = Path(shutil.move(folder / "bob", tmp_path / "bob"))  # as it is on the client's machine
    settings, first = load_client(alone / "bob.toml"), load_client(folder / "client" / "client.toml")
    assert (settings.party0, settings.party1) == (first.party0, first.party1)
    assert settings.tls == Identity(alone / "authority.pem", alone / "bob.pem", alone / "bob.key", alone / REVOKED)
    assert settings.model == alone / "model"
    client_context(settings.tls)
    shutil.move(alone, folder / "bob")
    mine = folder / "bob" / "bob.toml"
    mine.write_text(mine.read_text("utf-8").replace("# deadline = 600.0", "deadline = 7.0"), "utf-8")
    issue(folder, "client", name="bob")
    assert load_client(mine).deadline == 7.0, "renewing leaves what its owner set"


def test_one_more_client_of_an_authority_alone_or_of_broken_settings(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "certs")
    (folder / "client" / "client.toml").write_text("party0 = 3", "utf-8")
    with pytest.raises(SettingsError, match=r"client\.toml"):
        issue(folder, "client", name="bob")
    assert not (folder / "bob").exists()
    issue(folder, "client")  # which needs no address
    shutil.rmtree(folder / "client")
    issue(folder, "client", name="bob")
    assert sorted(p.name for p in (folder / "bob").iterdir()) == ["authority.pem", "bob.key", "bob.pem", REVOKED]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", ".", "a.b", "é", "x" * 65, "a\n"])
def test_a_name_that_is_no_name_is_refused(authority: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="letters, digits, - and _"):
        issue(authority, "client", name=name)


@pytest.mark.parametrize("name", ["authority", "party0", "party1", "dealer"])
def test_a_client_cannot_take_the_folder_of_a_role_or_of_the_authority(authority: Path, name: str) -> None:
    before = {p: p.read_bytes() for p in authority.rglob("*") if p.is_file()}
    with pytest.raises(SettingsError, match="taken"):
        issue(authority, "client", name=name)
    assert {p: p.read_bytes() for p in authority.rglob("*") if p.is_file()} == before


def test_what_certify_refuses(authority: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must be one of party0, party1, dealer, client, got 'king'"):
        issue(authority, "king")
    with pytest.raises(SettingsError, match="a name may be given for clients only"):
        issue(authority, "party0", name="alice")
    with pytest.raises(SettingsError, match="1 to 3650 days, got -1"):
        issue(authority, "party0", days=-1)
    with pytest.raises(SettingsError, match=r"does not hold a readable authority.*secformer init"):
        issue(tmp_path, "party0")
    (tmp_path / "authority").mkdir()
    (tmp_path / "authority" / "authority.pem").write_text("no PEM")
    (tmp_path / "authority" / "authority.key").write_text("no PEM")
    with pytest.raises(SettingsError, match="does not hold a readable authority"):
        issue(tmp_path, "party0")
    assert not (tmp_path / "party0").exists()


def test_no_certificate_outlives_its_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "short"
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", 5)
    made = init(folder, days=5)
    monkeypatch.undo()
    end = certificate(folder / "authority" / "authority.pem").not_valid_after_utc
    made.append(issue(folder, "client", name="late", days=3650))
    assert all(m.until <= end + timedelta(seconds=1) for m in made) and made[-1].until == end
    assert certificate(made[-1].certificate).not_valid_after_utc == end


def test_an_expired_authority_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", -1)
    monkeypatch.setattr(certificates, "SKEW", timedelta(days=3))
    certificates._make_authority(tmp_path / "authority")
    monkeypatch.undo()
    with pytest.raises(SettingsError, match=r"expired on .*secformer init"):
        issue(tmp_path, "party0")


# ---- revoking --------------------------------------------------------------------------------------------------------


def listed(path: Path) -> set[int]:
    return {each.serial_number for each in x509.load_pem_x509_crl(path.read_bytes())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init(folder := tmp_path / "certs")
    return folder


def test_a_new_authority_has_revoked_nothing_and_roles_have_its_list(folder: Path) -> None:
    found = x509.load_pem_x509_crl((folder / "authority" / REVOKED).read_bytes())
    authority = certificate(folder / "authority" / "authority.pem")
    assert found.is_signature_valid(authority.public_key()) and not list(found)  # type: ignore[arg-type]
    assert found.next_update_utc == authority.not_valid_after_utc, "it stays in force"
    for role in ROLES:
        assert (folder / role / REVOKED).read_bytes() == (folder / "authority" / REVOKED).read_bytes()


def test_revoking_lists_serial_numbers_everywhere(folder: Path) -> None:
    first = certificate(issue(folder, "client", name="alice").certificate).serial_number
    second = certificate(issue(folder, "client", name="alice").certificate).serial_number
    shutil.rmtree(folder / "alice")  # it is on the client's machine
    assert [(each.name, each.serial) for each in revoke(folder, "alice", old=True)] == [("alice", first)]
    assert listed(folder / "authority" / REVOKED) == listed(folder / "party0" / REVOKED) == {first}
    assert [each.serial for each in revoke(folder, "alice")] == [second]
    mine = certificate(folder / "party1" / "party1.pem").serial_number
    assert [each.serial for each in revoke(folder, "party1", serial=mine)] == [mine]
    assert listed(folder / "dealer" / REVOKED) == {first, second, mine}, "and those before stay revoked"
    issue(folder, "client", name="alice")
    assert listed(folder / "alice" / REVOKED) == {first, second, mine}, "a new client gets the list as it is"


def test_what_revoke_refuses(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no record of a certificate of 'alice'; check the name, or give the seri"):
        revoke(folder, "alice")
    with pytest.raises(SettingsError, match="no certificate of 'client' is left to revoke: 1 have not expired, 0 of "
                                            "these are revoked, and the newest is to stay"):
        revoke(folder, "client", old=True)
    revoke(folder, "client")
    with pytest.raises(SettingsError, match=r"1 have not expired, 1 of these are revoked$"):
        revoke(folder, "client")
    with pytest.raises(SettingsError, match="does not hold a readable authority"):
        revoke(tmp_path, "client")
    for serial in (-1, 0, 1 << 159):
        with pytest.raises(SettingsError, match="a serial number lies above 0 and has at most 159 bits"):
            revoke(folder, "lost", serial=serial)
    assert len(revoke(folder, "lost", serial=77)) == 1, "a certificate that was issued before there was a record"
    (folder / "authority" / REVOKED).write_text("cut")
    with pytest.raises(SettingsError, match=r"the list of revoked certificates, cannot be read .* put back a copy"):
        revoke(folder, "party0")
    row = '{"name": "party0", "serial": "%s", "until": "%s"}'
    far = "2999-01-01T00:00:00+00:00"
    for junk in ("{", "[]", '{"name": "party0"}', "[" * 5000, row % ("xyz", far), row % ("0", far), row % ("1_0", far),
                 row % ("a" * 41, far), row % ("aB", far), row % ("ab", "soon"), row % ("ab", "2999-01-01")):
        (folder / "authority" / ISSUED).write_text(junk + "\n")
        with pytest.raises(SettingsError, match="the record of issued certificates, cannot be read"):
            revoke(folder, "party0")


def test_certificates_that_have_expired_need_no_revoking(folder: Path) -> None:
    record = folder / "authority" / ISSUED
    record.write_text(record.read_text().replace(str(datetime.now(UTC).year + 1), "2001"))
    with pytest.raises(SettingsError, match="0 have not expired"):
        revoke(folder, "client")


def test_a_key_of_an_unknown_kind_is_a_settings_error(authority: Path) -> None:
    """Found by fuzzing: the library has an error of its own for it, which is no ValueError."""
    key = authority / "authority" / "authority.key"
    pem = serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    odd = base64.encodebytes(pem.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0301"))).decode()
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{odd}-----END PRIVATE KEY-----\n")
    with pytest.raises(SettingsError, match="readable authority"):
        issue(authority, "client")
