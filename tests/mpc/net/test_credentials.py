"""Files of a role that change while it serves: new certificates, half-written ones, and lists of revoked ones."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from secformer.mpc.errors import AuthError, SettingsError
from secformer.mpc.net import credentials as module
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Context, Identity, TLSChannel, TLSStream, shake_hands
from secformer.roles.certificates import REVOKED, init, issue, revoke


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("credentials") / "roles")
    return folder


@pytest.fixture
def roles(made: Path, tmp_path: Path) -> Path:
    """A copy whose files may be changed."""
    return Path(shutil.copytree(made, tmp_path / "roles"))


def identity(folder: Path, role: str) -> Identity:
    mine = folder / role
    return Identity(mine / "authority.pem", mine / f"{role}.pem", mine / f"{role}.key", mine / REVOKED)


class Told:
    """What credentials report."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, event: str, problem: str) -> None:
        self.lines.append((event, problem))


@pytest.fixture
def pairs() -> Iterator[list[TLSChannel]]:
    channels: list[TLSChannel] = []
    yield channels
    for channel in channels:
        channel.close()


def met(server: Context, client: Context, pairs: list[TLSChannel]) -> tuple[TLSChannel, TLSChannel]:
    """Party 0's end and party 1's of a connection between them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    streams: list[TLSStream] = []
    thread = threading.Thread(target=lambda: streams.append(shake_hands(near, server, server=True)))
    thread.start()
    stream = shake_hands(far, client.successor(), server=False, expected="party0")
    thread.join(30)
    pairs += [TLSChannel(streams[0], 5.0), TLSChannel(stream, 5.0)]
    return pairs[-2], pairs[-1]


def serial(channel: TLSChannel) -> str:
    assert channel._certificate is not None
    return str(channel._certificate["serialNumber"])


def test_new_certificates_serve_new_connections_and_old_ones_go_on(roles: Path, pairs: list[TLSChannel]) -> None:
    told = Told()
    p0, p1 = Credentials(identity(roles, "party0"), told), Credentials(identity(roles, "party1"), told)
    server, client = p0.server(), p1.client()
    old = met(server, client, pairs)
    for role in ("party0", "party1"):
        issue(roles, role)
    for each in (p0, p1):
        each.renew(now=True)
    new = met(server, client, pairs)
    assert [serial(a) != serial(b) for a, b in zip(old, new, strict=True)] == [True, True]
    old[0].tell({"still": "here"})
    assert old[1].hear() == {"still": "here"} and (p0.generation, p1.generation) == (1, 1)
    for channel in (*old, *new):
        channel.check()
    assert told.lines.count(("certificate renewed", "")) == 2 and not any(problem for _, problem in told.lines)


def test_files_are_looked_at_once_a_second_without_being_asked(roles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Credentials(identity(roles, "party0"))
    issue(roles, "party0")
    assert mine.objection(None) == "" and mine.generation == 0
    monkeypatch.setattr(module, "EVERY", 0.0)
    assert mine.objection(None) == "" and mine.generation == 1
    assert mine.objection(None) == "" and mine.generation == 1


@pytest.mark.parametrize("what", ["party0.key", "party0.pem", "authority.pem"])
@pytest.mark.parametrize("how", ["cut", "gone", "empty", "foreign"])
def test_half_written_files_keep_the_old_ones(roles: Path, tmp_path: Path, pairs: list[TLSChannel], what: str,
                                              how: str) -> None:
    """Whatever order an operator copies files in: until they fit together, the ones before stay in use."""
    told = Told()
    mine = Credentials(identity(roles, "party0"), told)
    server, client = mine.server(), Credentials(identity(roles, "party1")).client()
    path = roles / "party0" / what
    whole = path.read_bytes()
    init(tmp_path / "foreign")
    path.unlink()
    if how != "gone":
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"",
                          "foreign": (tmp_path / "foreign" / "party0" / what).read_bytes()}[how])
    for _ in range(3):
        mine.renew(now=True)
    fits = (what, how) == ("authority.pem", "foreign")  # a certificate says nothing of who else is trusted
    assert (mine.generation == 1) == fits
    events = [event for event, _ in told.lines]
    assert events.count("certificate not renewed") == (not fits), "said once"
    if what == "authority.pem":
        assert events.count("revoked certificates not read") == 1, "the list must be of the authority that is trusted"
    if not fits:
        met(server, client, pairs)[0].check()
    path.write_bytes(whole)
    mine.renew(now=True)
    met(server, client, pairs)[0].check()
    assert told.lines[-1][1] == ""


@pytest.mark.parametrize("who", ["party1", "party0"])
def test_a_revoked_certificate_ends_a_connection_that_is_open(roles: Path, pairs: list[TLSChannel], who: str) -> None:
    both = [Credentials(identity(roles, role)) for role in ("party0", "party1")]
    near, far = met(both[0].server(), both[1].client(), pairs)
    issue(roles, who)
    revoke(roles, who, old=True)
    for each in both:
        each.renew(now=True)
    bad, good = (near, far) if who == "party1" else (far, near)
    good.check()
    with pytest.raises(AuthError, match=rf"the certificate of {who} \({who}\) was revoked on \d+-\d+-\d+"):
        bad.check()
    with pytest.raises(Exception, match=r"gave up: the certificate of .* was revoked"):
        good.hear()
    near, far = met(both[0].server(), both[1].client(), pairs)
    near.check(), far.check()  # the newest one holds


def test_an_expired_certificate_ends_a_connection_that_is_open(roles: Path, pairs: list[TLSChannel]) -> None:
    """At the second that it says, by an injected clock."""
    now = time.time()
    until = issue(roles, "party1", days=1).until.timestamp()
    mine = Credentials(identity(roles, "party0"), clock=lambda: now)
    near, _ = met(mine.server(), Credentials(identity(roles, "party1")).client(), pairs)
    now = int(until)
    near.check()
    now = int(until) + 1
    with pytest.raises(AuthError, match=r"the certificate of party1 \(party1\) expired on .*; renew it: "):
        near.check()


# ---- lists that cannot be used ---------------------------------------------------------------------------------------


def signed(roles: Path, *, made: datetime, who: str = "authority", issuer: str = "authority") -> bytes:
    """A list that `who` has signed in the name of `issuer`."""
    key = serialization.load_pem_private_key((roles / who / f"{who}.key").read_bytes(), None)
    name = x509.load_pem_x509_certificate((roles / issuer / f"{issuer}.pem").read_bytes()).subject
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(made).next_update(
        made + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


NOW = datetime.now(UTC)
BAD = {"cut": "cannot be read", "empty": "cannot be read", "gone": "does not exist; copy `revoked.pem` from",
       "a folder": "cannot be read", "forged": "is not signed by the authority", "a party's": "is not signed by",
       "a certificate": "cannot be read"}


def spoil(roles: Path, how: str) -> None:
    path = roles / "party0" / REVOKED
    whole = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"cut": whole[:-40], "empty": b"", "forged": signed(roles, made=NOW, who="party1"),
                          "a party's": signed(roles, made=NOW, who="party1", issuer="party1"),
                          "a certificate": (roles / "party0" / "party0.pem").read_bytes()}.get(how, b""))


@pytest.mark.parametrize("how", BAD)
def test_a_list_that_cannot_be_used_stops_the_start(roles: Path, how: str) -> None:
    spoil(roles, how)
    with pytest.raises(SettingsError, match=BAD[how]):
        Credentials(identity(roles, "party0"))


@pytest.mark.parametrize("how", BAD)
def test_a_list_that_cannot_be_used_keeps_the_last_good_one(roles: Path, pairs: list[TLSChannel], how: str) -> None:
    revoke(roles, "party1")
    told = Told()
    mine = Credentials(identity(roles, "party0"), told)
    near, _ = met(mine.server(), Credentials(identity(roles, "party1")).client(), pairs)
    spoil(roles, how)
    for _ in range(3):
        mine.renew(now=True)
    ((event, problem),) = told.lines
    assert event == "revoked certificates not read" and "the list that was read before stays in force" in problem
    with pytest.raises(AuthError, match="was revoked"):
        near.check()


def test_an_older_list_makes_nothing_valid_again(roles: Path, pairs: list[TLSChannel]) -> None:
    old = (roles / "party0" / REVOKED).read_bytes()
    time.sleep(1.1)  # lists are dated to the second
    revoke(roles, "party1")
    told = Told()
    mine = Credentials(identity(roles, "party0"), told)
    near, _ = met(mine.server(), Credentials(identity(roles, "party1")).client(), pairs)
    (roles / "party0" / REVOKED).write_bytes(old)
    mine.renew(now=True)
    assert "older than the list in use; copy the newest one" in told.lines[0][1]
    with pytest.raises(AuthError, match="was revoked"):
        near.check()


def test_without_a_list_all_certificates_hold(roles: Path, pairs: list[TLSChannel]) -> None:
    revoke(roles, "party1")
    files = identity(roles, "party0")
    mine = Credentials(Identity(files.authority, files.certificate, files.key))
    met(mine.server(), Credentials(identity(roles, "party1")).client(), pairs)[0].check()
    assert mine.until() == x509.load_pem_x509_certificate(files.certificate.read_bytes()).not_valid_after_utc
