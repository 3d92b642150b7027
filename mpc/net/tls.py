"""TLS 1.3 between roles. Who is who is proved by certificates of one private authority: each names its role as a DNS
name, `party0.secformer` and so on, which is what the other side asks for, wherever the role really runs."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secformer.mpc.errors import AuthError, PeerLost, SecformerError, SettingsError
from secformer.mpc.net.channel import DEADLINE
from secformer.mpc.net.tcp import StreamChannel, connect_socket, listening, prompt

Certificate = Mapping[str, Any]  # as `getpeercert` gives it
CertificateRefused = ssl.SSLCertVerificationError
ROLES = ("party0", "party1", "dealer", "client")
DOMAIN = "secformer"
HANDSHAKE = 10.0      # seconds that a connection gets to prove who it is
MOST_HANDSHAKES = 64  # connections that may be proving themselves at once
PIECE = 1 << 18        # bytes that are encrypted, or taken from the socket, at a time


@dataclass(frozen=True)
class Identity:
    """Files (PEM) of one role: the private authority's certificate, its own certificate, its own key; and the
    authority's list of revoked certificates, if any (see `credentials`)."""

    authority: Path
    certificate: Path
    key: Path
    revoked: Path | None = None


class Context(ssl.SSLContext):
    """Settings of connections that last, while certificates expire or are replaced.

    objection  why a certificate that was verified does not hold any more; "" if it does
    successor  the context for the next connection
    """

    def __init__(self, protocol: int):
        self.objection: Callable[[Certificate | None], str] = expired
        self.successor: Callable[[], Context] = lambda: self


def expired(certificate: Certificate | None, now: float | None = None) -> str:
    """When a certificate expired, in words; "" while it is valid. `now` as `time.time` gives it."""
    until = str((certificate or {}).get("notAfter", ""))
    late = until and (time.time() if now is None else now) > ssl.cert_time_to_seconds(until)
    return f"expired on {until}" if late else ""


def server_context(identity: Identity, refused: Callable[[str], None] | None = None) -> Context:
    """For the side that accepts: TLS 1.3, and no connection without a certificate of the authority.

    refused  hears why a handshake failed, for servers (asyncio's) that tell nobody
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    if refused is not None:
        context.sslobject_class = _telling(refused)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # nobody resumes; a peer that never reads would find them in its way
    return context


def _telling(refused: Callable[[str], None]) -> type[ssl.SSLObject]:
    class Telling(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError as error:
                refused(_reason(error))
                raise

    return Telling


def client_context(identity: Identity) -> Context:
    """For the side that connects: TLS 1.3, the authority and the name are checked, the own certificate is shown."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity)


def _context(protocol: int, identity: Identity) -> Context:
    for what, file in (("authority", identity.authority), ("certificate", identity.certificate), ("key", identity.key)):
        if not file.is_file():
            raise SettingsError(f"the {what} file {file} does not exist; `secformer init` makes a set")
    context = Context(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(identity.authority)
        context.load_cert_chain(identity.certificate, identity.key)
    except ssl.SSLError as error:
        raise SettingsError(f"{identity.certificate}, {identity.key} and {identity.authority} do not fit together: "
                            f"{_reason(error)}; they must be PEM files made together") from error
    return context


def host_name(role: str) -> str:
    """The DNS name that a role's certificate carries."""
    return f"{role}.{DOMAIN}"


def role_of(certificate: Mapping[str, Any] | None) -> str:
    """The role that a verified certificate (as `getpeercert` gives it) names. Raises AuthError."""
    names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]
    roles = [role for role in ROLES if host_name(role) in names]
    if len(roles) != 1:
        raise AuthError(f"a certificate must name exactly one role ({', '.join(map(host_name, ROLES))}); this one "
                        f"names {names or 'no DNS name'}. Make a new one with `secformer certify`")
    return roles[0]


def name_of(certificate: Mapping[str, Any] | None) -> str:
    """The common name of a verified certificate, else its role's name."""
    subject = [value for part in (certificate or {}).get("subject", ()) for kind, value in part if kind == "commonName"]
    return str(subject[0]) if subject else role_of(certificate)


class TLSStream:
    """A TLS connection that one thread may read while another writes.

    `ssl.SSLSocket` does not allow that. Here the cipher's state is touched under a lock, and bytes move through the
    socket outside of it.
    """

    def __init__(self, connection: socket.socket, context: Context, *, server: bool, expected: str | None = None,
                 deadline: float = HANDSHAKE):
        """Shakes hands. `expected` is the role that the accepting side must prove. Raises AuthError, OSError."""
        self._socket = prompt(connection)
        self._lock = threading.Lock()
        self._goodbye = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server,
                                     server_hostname=host_name(expected) if expected else None)
        try:
            self._shake_hands(time.monotonic() + deadline)
        except ssl.SSLError as error:
            self._flush_quietly()
            raise AuthError(f"the other side could not be authenticated: {_reason(error)}; check both certificates, "
                            f"the authority and the clocks") from error

    def _shake_hands(self, until: float) -> None:
        """One deadline for all of it: a dripping peer must not hold a place."""
        while True:
            self._socket.settimeout(max(1e-3, until - time.monotonic()))
            try:
                self._tls.do_handshake()
                self._socket.sendall(self._outgoing.read())
                return
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                if not self._take():
                    raise ConnectionError("the connection was closed during the handshake") from None

    def _take(self) -> int:
        data = self._socket.recv(PIECE)
        self._incoming.write(data)
        return len(data)

    def _flush_quietly(self) -> None:
        with suppress(OSError):
            self._socket.sendall(self._outgoing.read())  # the alert that tells the peer why

    @property
    def certificate(self) -> Certificate | None:
        return self._tls.getpeercert()

    @property
    def context(self) -> Context:
        return self._tls.context  # type: ignore[return-value]

    def sendall(self, data: Any, /) -> None:
        view = memoryview(data).cast("B")
        while view:
            with self._lock:
                count = self._tls.write(view[:PIECE])
                sealed = self._outgoing.read()
            self._socket.sendall(sealed)
            view = view[count:]

    def recv_into(self, buffer: Any, /) -> int:
        """Fills at least a byte of the buffer, and as much as has arrived; 0 when the peer has said goodbye.

        Raises ConnectionError where the connection ends without a goodbye: it was cut.
        """
        view = memoryview(buffer).cast("B")
        while view and not self._goodbye:
            with self._lock:
                if count := self._opened(view):
                    return count
            if self._goodbye:
                break
            data = self._socket.recv(PIECE)
            if not data:
                raise ConnectionError("the connection was cut")
            with self._lock:
                self._incoming.write(data)
        return 0

    def _opened(self, view: memoryview) -> int:
        count = 0
        try:
            while count < len(view):
                more = self._tls.read(len(view) - count, view[count:])  # one record, straight into the buffer
                if not (isinstance(more, int) and more):
                    self._goodbye = True
                    break
                count += more
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise ConnectionError(_reason(error)) from error
        return count

    def recv(self, size: int, /) -> bytes:
        """Raw bytes, for those who only wait for the end."""
        return self._socket.recv(size)

    def settimeout(self, seconds: float | None, /) -> None:
        self._socket.settimeout(seconds)

    def shutdown(self, how: int, /) -> None:
        """Says goodbye, so that the peer can tell an end from a cut."""
        with self._lock:
            with suppress(ssl.SSLError):  # the peer's goodbye is not waited for
                self._tls.unwrap()
            sealed = self._outgoing.read()
        self._socket.sendall(sealed)
        self._socket.shutdown(how)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: Any) -> None:
        self._socket.close()


class TLSChannel(StreamChannel):
    """A channel to a peer that proved its role."""

    def __init__(self, stream: TLSStream, deadline: float = DEADLINE):
        self.role, self.name = role_of(stream.certificate), name_of(stream.certificate)
        self._certificate, self._context = stream.certificate, stream.context
        super().__init__(stream, self.role, deadline)

    def check(self) -> None:
        """Ends the channel and raises AuthError where the peer's certificate has expired or was revoked."""
        if problem := self._context.objection(self._certificate):
            self.abort(told := f"the certificate of {self.role} ({self.name}) {problem}; renew it: `secformer certify`")
            raise AuthError(told)


def connect(address: tuple[str, int], expected: str, context: Context, *, patience: float,
            deadline: float = DEADLINE) -> TLSChannel:
    """Connects to a role, trying for `patience` seconds. Raises PeerLost where nobody answers, AuthError where the
    wrong one does."""
    connection = connect_socket(*address, expected, deadline=patience)
    try:
        channel = TLSChannel(TLSStream(connection, context.successor(), server=False, expected=expected), deadline)
    except OSError as error:
        connection.close()
        if isinstance(error, AuthError):
            raise
        raise PeerLost(f"{expected} at {address[0]}:{address[1]} closed the connection ({error}); see its "
                       f"log") from error
    except BaseException:
        connection.close()
        raise
    channel.check()
    return channel


def hang_up(connection: socket.socket) -> None:
    """Ends a connection, also one that another thread is reading: that wakes it up."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's, which is for the reading thread alone


Serve = Callable[[TLSChannel], None]
Report = Callable[[str, str], None]  # (address, what went wrong)


class Listener:
    """Accepts roles on an address and serves each in a thread of its own. Whoever cannot prove an allowed role in time
    is hung up on and reported; that disturbs nobody else.

    most   connections that are served at once; more are hung up on
    """

    def __init__(self, address: tuple[str, int], allowed: Collection[str], context: Context, serve: Serve,
                 report: Report, *, deadline: float = DEADLINE, most: int = MOST_HANDSHAKES):
        self._socket = listening(address)
        self.port: int = self._socket.getsockname()[1]
        self._allowed, self._context, self._serve, self._report = allowed, context, serve, report
        self._deadline, self._room = deadline, threading.BoundedSemaphore(most)
        threading.Thread(target=self._accept, name=f"listening on {self.port}", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, where = self._socket.accept()
            except OSError:
                return  # closed
            shown = f"{where[0]}:{where[1]}"
            if not self._room.acquire(blocking=False):
                self._report(shown, "too many connections at once")
                connection.close()
                continue
            threading.Thread(target=self._meet, args=(connection, shown), name=f"from {shown}", daemon=True).start()

    def _meet(self, connection: socket.socket, shown: str) -> None:
        try:
            try:
                channel = TLSChannel(TLSStream(connection, self._context, server=True), self._deadline)
            except BaseException:
                connection.close()
                raise
            try:
                if channel.role not in self._allowed:
                    raise AuthError(f"{channel.role} ({channel.name}) is not allowed to connect here; only "
                                    f"{' or '.join(self._allowed)} may")
                channel.check()
                self._serve(channel)
            except SecformerError as error:
                channel.abort(str(error))
                raise
            finally:
                channel.close()
        except Exception as error:  # whatever one connection does wrong, the others go on
            self._report(shown, f"{type(error).__name__}: {error}")
        finally:
            self._room.release()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._socket.close()


def _reason(error: ssl.SSLError) -> str:
    return str(getattr(error, "verify_message", "") or error.reason or error).replace("_", " ").lower()
