"""`secformer init`, `certify` and `revoke`: a private authority, a certificate for each role, and settings files.

Keys are on the curve P-256. A certificate names exactly one role, as a DNS name (see `mpc/net/tls`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secformer.mpc.dealer.files import owner_only
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.credentials import UNREADABLE
from secformer.mpc.net.notes import text
from secformer.mpc.net.tls import ROLES, host_name
from secformer.mpc.strict_json import read_own
from secformer.roles.hosts import HERE, LOCAL, LOOPBACK, check_host, is_host, listens, named
from secformer.roles.origins import Browsers, require_origin
from secformer.roles.settings import ClientSettings, DealerSettings, PartySettings, load_client, template

AUTHORITY = "authority"
REVOKED = "revoked.pem"  # the authority's list of revoked certificates; each role has a copy
ISSUED = "issued.jsonl"  # what the authority has issued, one JSON object per line
AUTHORITY_DAYS, ROLE_DAYS = 3650, 398
SKEW = timedelta(days=1)  # certificates are valid from a day before they are made, for clocks that are behind
PORTS = {"dealer": 8440, "link": 8441, "party0": 8442, "party1": 8443, "browsers0": 8444, "browsers1": 8445,
         "metrics0": 9442, "metrics1": 9443, "dealer_metrics": 9440}
MODEL, CLIENT_MODEL = "model.safetensors", "model"
MOST_SERIAL = 1 << 159  # serial numbers are below (RFC 5280)
LONGEST_NAME = 64  # characters of a common name (RFC 5280)
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_NAME}}}")
_SERIAL = re.compile(r"[1-9a-f][0-9a-f]*")
_TAKEN = frozenset({AUTHORITY, *ROLES} - {"client"})


@dataclass(frozen=True)
class Issued:
    """A certificate that was issued, valid until `until`."""

    role: str
    name: str
    certificate: Path
    until: datetime


@dataclass(frozen=True)
class Revoked:
    """A certificate that was revoked now, by its serial number."""

    name: str
    serial: int


@dataclass(frozen=True)
class _Row:
    """A certificate in the record of those that were issued."""

    name: str
    serial: int
    until: datetime
    hosts: tuple[str, ...] = ()  # by which browsers reach its machine

    @classmethod
    def read(cls, line: str) -> _Row:
        """Raises ValueError, KeyError, TypeError."""
        row = read_own(line)
        digits, until = text(row["serial"]), datetime.fromisoformat(text(row["until"]))
        if not (_SERIAL.fullmatch(digits) and int(digits, 16) < MOST_SERIAL):
            raise ValueError(f"a serial number has hexadecimal digits 0-9 and a-f, got {digits[:64]!r}")
        if until.tzinfo is None:
            raise ValueError(f"a time states its zone, got {row['until'][:64]!r}")
        hosts = row.get("hosts", [])
        if not isinstance(hosts, list) or not all(map(is_host, map(text, hosts))):
            raise ValueError("hosts must be a list of host names and IP addresses")
        return cls(text(row["name"]), int(digits, 16), until, tuple(hosts))


def init(folder: Path, *, hosts: Mapping[str, str] | None = None, ports: Mapping[str, int] | None = None,
         parties: Mapping[str, Any] | None = None, days: int = ROLE_DAYS,
         origins: Sequence[str] = ()) -> list[Issued]:
    """Makes `folder` with a sub-folder for the authority and for each role. A role's folder holds its key, its
    certificate, the authority's certificate and a settings file, and goes to the role's machine. The authority's folder
    stays with the operator.

    hosts    names or IP addresses of the machines of `party0`, `party1`, `dealer`; default: this machine
    ports    replacements for single `PORTS`
    parties  further settings of both parties
    origins  of pages in browsers that may ask both parties; none: the parties have no port for browsers

    Raises SettingsError if the folder is not empty, and for hosts, ports or days that are not valid.
    """
    _check_days(days)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} is not an empty folder; give a new folder, or renew one certificate with "
                            f"`secformer certify`")
    unknown = set(hosts or {}) - {"party0", "party1", "dealer"}
    if unknown:
        raise SettingsError(f"hosts may be given for party0, party1 and dealer; got {', '.join(sorted(unknown))}")
    if unknown := set(ports or {}) - set(PORTS):
        raise SettingsError(f"ports may be given for {', '.join(PORTS)}; got {', '.join(sorted(unknown))}")
    for role, host in (hosts or {}).items():
        check_host(role, host)
    for origin in origins:
        require_origin(origin)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_authority(folder / AUTHORITY)
    at = {role: (hosts or {}).get(role, LOOPBACK) for role in ("party0", "party1", "dealer")}
    names = {role: LOCAL if at[role] in HERE else [at[role]] for role in ("party0", "party1")}
    made = [issue(folder, role, days=days, hosts=names.get(role, ())) for role in ROLES]
    on = {**PORTS, **(ports or {})}
    here = {role: listens(host) for role, host in at.items()}
    for rank, role in ((0, "party0"), (1, "party1")):
        values = {
            "rank": rank, "model": MODEL, "state": "state", "clients": (here[role], on[role]),
            "link": (here[role] if rank == 0 else at["party0"], on["link"]), "dealer": (at["dealer"], on["dealer"]),
            "metrics": (LOOPBACK, on[f"metrics{rank}"]), **(parties or {}),
        }
        if origins:
            values["browsers"] = Browsers((here[role], on[f"browsers{rank}"]), list(origins))
        _write_settings(folder, role, PartySettings, values)
    _write_settings(folder, "dealer", DealerSettings, {
        "listen": (here["dealer"], on["dealer"]), "state": "state", "metrics": (LOOPBACK, on["dealer_metrics"])})
    _write_settings(folder, "client", ClientSettings, {
        "party0": (at["party0"], on["party0"]), "party1": (at["party1"], on["party1"]), "model": CLIENT_MODEL})
    return made


def issue(folder: Path, role: str, *, name: str | None = None, days: int = ROLE_DAYS,
          hosts: Sequence[str] | None = None) -> Issued:
    """Makes a new key and certificate for a role or, with `name`, for one more client, signed by the authority in
    `folder`. They replace the role's old files; the old certificate stays valid until it expires. One more client also
    gets a settings file, with the addresses of the first client's.

    hosts  names or IP addresses by which browsers reach a party, which its certificate names too; None: as before

    Raises SettingsError for an unknown role, for hosts of another role than a party, for a name that is taken or that
    is not a client's, and for a missing authority.
    """
    if role not in ROLES:
        raise SettingsError(f"the role of a certificate must be one of {', '.join(ROLES)}, got {role!r}")
    if name is not None and (role != "client" or not _NAME.fullmatch(name)):
        raise SettingsError(f"a name may be given for clients only, as 1 to {LONGEST_NAME} letters, digits, - and _; "
                            f"got {name!r} for {role}")
    if name in _TAKEN:  # its folder holds another key, which would be overwritten
        raise SettingsError(f"the name {name!r} is taken by a role or the authority; give the client another name")
    _check_days(days)
    if hosts and not role.startswith("party"):
        raise SettingsError(f"hosts may be given for party0 and party1, which browsers reach by them; got "
                            f"{', '.join(hosts)} for {role}")
    for host in hosts or ():
        check_host(role, host)
    name = name or role
    if hosts is None:
        hosts = _hosts_of(folder, name)
    first_file = folder / "client" / "client.toml"
    first = load_client(first_file) if role == "client" != name and first_file.is_file() else None
    authority, signer = _load_authority(folder / AUTHORITY)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    if until <= now:
        raise SettingsError(f"the authority in {folder / AUTHORITY} expired on {until:%Y-%m-%d}; make a new one with "
                            f"`secformer init` in a new folder")
    usage = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([] if role == "client" else [ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        _certificate(name, authority.subject, key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host_name(role)), *map(named, hosts)]),
                       critical=False)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    target = folder / name
    target.mkdir(exist_ok=True, mode=0o700)
    _write_key(target / f"{name}.key", key)
    path = target / f"{name}.pem"
    _write(path, certificate.public_bytes(serialization.Encoding.PEM))
    if not (folder / AUTHORITY / REVOKED).exists():  # an authority of an older version
        _write_list(folder, authority, signer, {})
    for each in ("authority.pem", REVOKED):
        _write(target / each, (folder / AUTHORITY / each).read_bytes())
    with open(folder / AUTHORITY / ISSUED, "a", encoding="utf-8", opener=owner_only) as file:
        file.write(json.dumps({"name": name, "role": role, "serial": f"{certificate.serial_number:x}",
                               "until": until.isoformat(timespec="seconds"), "hosts": list(hosts)}) + "\n")
    if first is not None and not (target / f"{name}.toml").exists():
        _write_settings(folder, name, ClientSettings,
                        {"party0": first.party0, "party1": first.party1, "model": CLIENT_MODEL})
    return Issued(role, name, path, until)


def revoke(folder: Path, name: str, *, serial: int | None = None, old: bool = False) -> list[Revoked]:
    """Revokes certificates that the authority in `folder` has issued to a role or a client: all of them, only the one
    with this serial number, or with `old` all but the newest. Those that have expired need no revoking.

    The list is written into the authority's folder and to each role's folder that is still beside it. Raises
    SettingsError where no such certificate is known, or nothing is left to revoke.
    """
    authority, signer = _load_authority(folder / AUTHORITY)
    now = datetime.now(UTC)
    if serial is not None and not 0 < serial < MOST_SERIAL:
        raise SettingsError(f"a serial number lies above 0 and has at most 159 bits (RFC 5280), got {serial:x}")
    known = [row for row in _issued(folder / AUTHORITY / ISSUED) if row.name == name]
    if serial is None and not known:
        raise SettingsError(f"the authority in {folder / AUTHORITY} has no record of a certificate of {name!r}; check "
                            f"the name, or give the serial number (`openssl x509 -in FILE -noout -serial`)")
    serials = [row.serial for row in known if row.until > now]
    wanted = [serial] if serial is not None else serials[:-1] if old else serials
    before = _revoked(folder / AUTHORITY / REVOKED)
    made = [Revoked(name, each) for each in dict.fromkeys(wanted) if each not in before]
    if not made:
        raise SettingsError(f"no certificate of {name!r} is left to revoke: {len(serials)} have not expired, "
                            f"{sum(each in before for each in serials)} of these are revoked"
                            + (", and the newest is to stay" if old else ""))
    _write_list(folder, authority, signer, before | {each.serial: now for each in made})
    return made


def _issued(path: Path) -> list[_Row]:
    try:
        return [_Row.read(line) for line in path.read_text("utf-8").split("\n") if line] if path.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}, the record of issued certificates, cannot be read ({type(error).__name__}: "
                            f"{error}); mend or remove it, and revoke by serial number") from error


def _hosts_of(folder: Path, name: str) -> tuple[str, ...]:
    """Those that the last certificate of this name was issued for."""
    return next((row.hosts for row in reversed(_issued(folder / AUTHORITY / ISSUED)) if row.name == name), ())


def _revoked(path: Path) -> dict[int, datetime]:
    if not path.exists():
        return {}
    try:
        return {each.serial_number: each.revocation_date_utc for each in x509.load_pem_x509_crl(path.read_bytes())}
    except (OSError, *UNREADABLE) as error:
        raise SettingsError(f"{path}, the list of revoked certificates, cannot be read ({error}); put back a copy that "
                            f"a role has, so that no certificate on it becomes valid again") from error


def _write_list(folder: Path, authority: x509.Certificate, signer: ec.EllipticCurvePrivateKey,
                revoked: Mapping[int, datetime]) -> None:
    """Signs the list, and puts it beside the certificates in `folder`. It stays in force as long as the authority."""
    now = datetime.now(UTC)
    builder = (x509.CertificateRevocationListBuilder().issuer_name(authority.subject).last_update(now)
               .next_update(max(authority.not_valid_after_utc, now + timedelta(days=1))))
    for number, when in revoked.items():
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(number).revocation_date(when).build())
    pem = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    _write(folder / AUTHORITY / REVOKED, pem)
    for certificate in folder.glob("*/authority.pem"):
        if certificate.parent.name != AUTHORITY:
            _write(certificate.with_name(REVOKED), pem)


def _check_days(days: int) -> None:
    if not 1 <= days <= AUTHORITY_DAYS:
        raise SettingsError(f"a certificate must be valid for 1 to {AUTHORITY_DAYS} days, got {days}")


def _make_authority(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secformer private authority")])
    certificate = (
        _certificate("secformer private authority", name, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(folder / "authority.key", key)
    _write(folder / "authority.pem", certificate.public_bytes(serialization.Encoding.PEM))
    _write_list(folder.parent, certificate, key, {})


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "authority.pem").read_bytes())
        _ = certificate.subject  # is read when it is first asked for
        key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), password=None)
    except (OSError, TypeError, UnsupportedAlgorithm, *UNREADABLE) as error:
        raise SettingsError(f"{folder} does not hold a readable authority (authority.pem and authority.key): {error}; "
                            f"`secformer init` makes one") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{folder / 'authority.key'} must be a key on the curve P-256; use the folder that "
                            f"`secformer init` made")
    return certificate, key


def _certificate(name: str, issuer: x509.Name, key: Any, now: datetime, until: datetime) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - SKEW).not_valid_after(until))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Writes a key to a file that only its owner can read, from the first byte on."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(part, "xb", opener=owner_only) as file:
        file.write(pem)
    part.replace(path)


def _write(path: Path, data: bytes) -> None:
    """Replaces a public file at once: a role that reads it meanwhile reads all of the old one or all of the new one."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)


def _write_settings(folder: Path, role: str, cls: type, values: Mapping[str, Any]) -> None:
    tls = {"authority": "authority.pem", "certificate": f"{role}.pem", "key": f"{role}.key"}
    if (folder / role / REVOKED).exists():
        tls["revoked"] = REVOKED
    (folder / role / f"{role}.toml").write_text(template(cls, values, tls), "utf-8")
