"""TLS channels over real sockets: who may speak, whole messages both ways at once, and every kind of end."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secformer.mpc.errors import AuthError, Desync, PeerLost, SettingsError
from secformer.mpc.net.door import Refused
from secformer.mpc.net.listener import Listener
from secformer.mpc.net.tls import (
    Identity,
    TLSChannel,
    client_context,
    connect,
    host_name,
    name_of,
    role_of,
    server_context,
    shake_hands,
)
from secformer.mpc.net.wire import Tag, pack_header
from secformer.roles.certificates import init


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "roles"
    init(folder)
    return folder


def identity(folder: Path, role: str) -> Identity:
    return Identity(folder / role / "authority.pem", folder / role / f"{role}.pem", folder / role / f"{role}.key")


class Met:
    """A listener that keeps whom it met, and what it refused."""

    def __init__(self, roles: Path, *, deadline: float = 20.0):
        self.channels: list[TLSChannel] = []
        self.problems: list[str] = []
        self.met, self.refused, self.leave = threading.Event(), threading.Event(), threading.Event()
        self.listener = Listener(("127.0.0.1", 0), ("party1", "party0"), server_context(identity(roles, "dealer")),
                                 self._serve, self._report, deadline=deadline)
        self.address = ("127.0.0.1", self.listener.port)

    def _serve(self, channel: TLSChannel) -> None:
        self.channels.append(channel)
        self.met.set()
        self.leave.wait(60)

    def _report(self, refused: Refused) -> None:
        self.problems.append(refused.problem)
        self.refused.set()


@contextmanager
def listening(roles: Path) -> Iterator[Met]:
    met = Met(roles)
    try:
        yield met
    finally:
        met.leave.set()
        met.listener.close()


@contextmanager
def pair(roles: Path) -> Iterator[tuple[TLSChannel, TLSChannel]]:
    with listening(roles) as met:
        near = connect(met.address, "dealer", client_context(identity(roles, "party1")), patience=10.0, deadline=20.0)
        assert met.met.wait(20)
        try:
            yield near, met.channels[0]
        finally:
            near.close()


def test_both_sides_know_each_other(roles: Path) -> None:
    with pair(roles) as (near, far):
        assert (near.role, far.role, far.name) == ("dealer", "party1", "party1")


def test_notes_and_messages_in_order(roles: Path) -> None:
    with pair(roles) as (near, far):
        near.tell({"a": [1, None, "ü"]})
        near.send(Tag(1, "x", 8, 3), np.array([1, 2, 3], np.uint8))
        near.tell({})
        assert far.hear() == {"a": [1, None, "ü"]}
        assert far.receive(Tag(1, "x", 8, 3), 3).tolist() == [1, 2, 3]
        assert far.hear() == {}


def test_megabytes_both_ways_at_once(roles: Path) -> None:
    """As the parties do: each sends before it receives, more than any buffer between them holds."""
    sizes = [0, 1, 16384, 16385, 5_000_001, 9_000_000]
    data = [np.random.default_rng(i).integers(0, 256, n, dtype=np.uint8) for i, n in enumerate(sizes)]

    def talk(channel: TLSChannel) -> None:
        for i, mine in enumerate(data):
            channel.send(Tag(i, "x", 8, mine.size), mine)
        for i, mine in enumerate(data):
            assert np.array_equal(channel.receive(Tag(i, "x", 8, mine.size), mine.size), mine)

    with pair(roles) as (near, far):
        other = threading.Thread(target=talk, args=(far,))
        other.start()
        talk(near)
        other.join(60)
        assert not other.is_alive()


def test_a_goodbye_and_a_cut_are_told_apart(roles: Path) -> None:
    with pair(roles) as (near, far):
        near.close()
        with pytest.raises(PeerLost, match="closed the connection"):
            far.hear()
    with pair(roles) as (near, far):
        raw: Any = near._stream
        raw._socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(PeerLost, match=r"cut|reset"):
            far.hear()


def test_an_abort_gives_its_reason(roles: Path) -> None:
    with pair(roles) as (near, far):
        near.abort("because")
        with pytest.raises(Desync, match="because"):
            far.hear()


def test_an_abort_takes_nothing_from_a_thread_that_receives(roles: Path) -> None:
    """It has the whole message, or is told why this side has closed; never half of the peer's bytes."""
    data = np.random.default_rng(0).integers(0, 256, 20_000_000, dtype=np.uint8)
    tag = Tag(0, "x", 8, data.size)
    found: list[Any] = []

    def receive(channel: TLSChannel) -> None:
        try:
            found.append(channel.receive(tag, data.size))
        except PeerLost as error:
            found.append(error)

    with pair(roles) as (near, far):
        receiving = threading.Thread(target=receive, args=(near,))
        receiving.start()
        far._stream.sendall(pack_header(tag, data.size))
        near.abort("heron")  # the thread waits for the rest of its message
        far._stream.sendall(data)
        far.close()
        receiving.join(60)
        assert not receiving.is_alive()
    if isinstance(found[0], PeerLost):
        assert "dealer was closed by this side (heron)" in str(found[0])
    else:
        assert np.array_equal(found[0], data)


@pytest.mark.parametrize("expected", ["party0", "party1", "client"])
def test_another_role_than_expected_is_refused(roles: Path, expected: str) -> None:
    with listening(roles) as met, pytest.raises(AuthError, match="not valid for"):
        connect(met.address, expected, client_context(identity(roles, "party1")), patience=10.0)


def test_a_role_without_business_is_told_so(roles: Path) -> None:
    with listening(roles) as met:
        with pytest.raises(Desync, match="not allowed to connect here"):
            connect(met.address, "dealer", client_context(identity(roles, "client")), patience=10.0)
        assert met.refused.wait(20) and not met.channels


def test_a_foreign_authority_is_refused_on_both_sides(roles: Path, tmp_path: Path) -> None:
    init(tmp_path / "foreign")
    foreign = identity(tmp_path / "foreign", "party1")
    with listening(roles) as met:
        with pytest.raises(AuthError):
            connect(met.address, "dealer", client_context(foreign), patience=10.0)
        mixed = Identity(identity(roles, "party1").authority, foreign.certificate, foreign.key)
        with pytest.raises(AuthError, match="the other side refused the connection"):
            connect(met.address, "dealer", client_context(mixed), patience=10.0)
        assert met.refused.wait(20) and not met.channels


def test_no_certificate_and_old_versions_are_refused(roles: Path) -> None:
    authority = identity(roles, "party1").authority
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with listening(roles) as met:
            context = ssl.create_default_context(cafile=authority)
            context.maximum_version = version
            with (socket.create_connection(met.address, timeout=20) as raw, pytest.raises((ssl.SSLError, OSError)),
                  context.wrap_socket(raw, server_hostname=host_name("dealer")) as connection):
                connection.sendall(b"x")
                if connection.recv(1) == b"":
                    raise ConnectionError("hung up")
            assert met.refused.wait(20) and not met.channels


def test_a_dripping_handshake_ends(roles: Path) -> None:
    """The deadline is for the whole handshake, not for each byte of it."""
    near, far = socket.socketpair()
    context = server_context(identity(roles, "dealer"))
    stop = threading.Event()

    def drip() -> None:
        hello = b"\x16\x03\x01\x02\x00" + bytes(600)
        for byte in hello:
            if stop.wait(0.05):
                return
            try:
                near.send(bytes([byte]))
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(OSError):
            shake_hands(far, context, server=True, deadline=0.5)
        assert thread.is_alive()  # it had much more to drip
    finally:
        stop.set()
        thread.join()
        near.close()
        far.close()


def test_files_that_do_not_fit_together(roles: Path, tmp_path: Path) -> None:
    good = identity(roles, "party0")
    with pytest.raises(SettingsError, match="does not exist"):
        client_context(Identity(tmp_path / "none.pem", good.certificate, good.key))
    with pytest.raises(SettingsError, match="do not fit"):
        server_context(Identity(good.authority, good.certificate, identity(roles, "party1").key))
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(SettingsError, match="do not fit"):
        server_context(Identity(good.authority, tmp_path / "junk.pem", good.key))


@pytest.mark.parametrize(("certificate", "role"), [
    (None, ""), ({}, ""), ({"subjectAltName": (("DNS", "example.org"),)}, ""),
    ({"subjectAltName": (("DNS", "party0.secformer"), ("DNS", "dealer.secformer"))}, ""),
    ({"subjectAltName": (("IP Address", "party0.secformer"),)}, ""),
    ({"subjectAltName": (("DNS", "party0.secformer"), ("DNS", "x"))}, "party0"),
])
def test_a_certificate_names_exactly_one_role(certificate: Any, role: str) -> None:
    if role:
        assert role_of(certificate) == role == name_of(certificate)
    else:
        with pytest.raises(AuthError, match="exactly one role"):
            role_of(certificate)
