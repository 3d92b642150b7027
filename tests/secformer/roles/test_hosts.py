"""Names of machines, and how certificates name them for browsers."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from links_lab import identity

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import Handshake, open_context
from secformer.roles.certificates import init, issue
from secformer.roles.hosts import check_host, is_host, listens, named
from secformer.roles.settings import load_party


@pytest.mark.parametrize(("host", "name"), [
    ("Party0.Example.", x509.DNSName("party0.example")), ("a_b", x509.DNSName("a_b"))])
def test_names_are_as_browsers_look_for_them(host: str, name: x509.GeneralName) -> None:
    assert is_host(host) and named(host) == name


@pytest.mark.parametrize(("host", "shown", "bound"), [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::1", "::1", "::1"),
                                                      ("10.0.0.1", "10.0.0.1", "0.0.0.0"),
                                                      ("fe80::1%1", "fe80::1", "::")])
def test_addresses_are_named_without_a_zone(host: str, shown: str, bound: str) -> None:
    assert is_host(host) and str(named(host).value) == shown and listens(host) == bound


@pytest.mark.parametrize("host", ["", "a b", "a:1", "[::1]", "a..b", "dealer.secformer", "PARTY1.Secformer.",
                                  "secformer"])
def test_a_name_of_a_role_is_no_name_of_a_machine(host: str) -> None:
    """It would be a second role in the certificate."""
    with pytest.raises(SettingsError, match="the machine of party0 must be a host name or an IP address"):
        check_host("party0", host)


def trusts(roles: Path, role: str, host: str) -> bool:
    """Whether a browser that trusts the authority takes a party's certificate for a host's."""
    server = Handshake(open_context(identity(roles, role)), server=True)
    client = Handshake(ssl.create_default_context(cafile=str(roles / role / "authority.pem")), server=False)
    client.tls = client.tls.context.wrap_bio(client.incoming, client.outgoing, server_hostname=host)
    try:
        for _ in range(3):
            client.complete(server.outgoing.read())
            server.complete(client.outgoing.read())
    except Exception as error:
        assert "certificate" in str(error)
        return False
    return True


def test_browsers_take_a_partys_certificate_for_its_machines(tmp_path: Path) -> None:
    """Also after it was renewed. The client's serves nobody, and the dealer's names no machine."""
    roles = tmp_path / "roles"
    init(roles, hosts={"party0": "party0.example"})
    for _ in range(2):
        assert trusts(roles, "party0", "party0.example") and not trusts(roles, "party0", "localhost")
        for host in ("localhost", "127.0.0.1", "::1"):
            assert trusts(roles, "party1", host) and not trusts(roles, "dealer", host)
        assert not trusts(roles, "client", "localhost")
        for role in ("party0", "party1", "dealer", "client"):
            issue(roles, role)
    issue(roles, "party0", hosts=["10.0.0.7", "other.example"])
    assert trusts(roles, "party0", "10.0.0.7") and trusts(roles, "party0", "other.example")
    assert not trusts(roles, "party0", "party0.example")
    issue(roles, "party0", hosts=[])
    assert not trusts(roles, "party0", "10.0.0.7")
    for role in ("client", "dealer"):
        with pytest.raises(SettingsError, match="hosts may be given for party0 and party1"):
            issue(roles, role, hosts=["a"])


def test_a_partys_certificate_lasts_as_long_as_browsers_allow(tmp_path: Path) -> None:
    """Browsers refuse certificates of private authorities that hold longer than 825 days."""
    init(tmp_path / "roles")
    files = load_party(tmp_path / "roles/party0/party0.toml").tls
    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days <= 825
