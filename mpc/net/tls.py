"""TLS 1.3 between roles. Who is who is proved by certificates of one private authority: each names its role as a DNS
name, `party0.secformer` and so on, which is what the other side asks for, wherever the role really runs."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secformer.mpc.errors import AuthError, PeerLost, SettingsError
from secformer.mpc.net.channel import DEADLINE
from secformer.mpc.net.tcp import StreamChannel, connect_socket, limit_silence, prompt

Certificate = Mapping[str, Any]  # as `getpeercert` gives it
CertificateRefused = ssl.SSLCertVerificationError
TLSError = ssl.SSLError
HUNG_UP = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
ROLES = ("party0", "party1", "dealer", "client")
DOMAIN = "secformer"
HANDSHAKE = 10.0      # seconds that a connection gets to prove who it is
PIECE = 1 << 18       # bytes that are encrypted, or taken from the socket, at a time
RETRY = 0.05, 0.5     # seconds between attempts to connect: at first, at most
LEAST = 0.1           # seconds that the last attempt gets
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)  # takes descriptors of any number, if it can
WELCOME, REFUSED = b"\1", b"\0"  # what the accepting side says first: the peer is let in, or is told why not


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


def server_context(identity: Identity) -> Context:
    """For the side that accepts: TLS 1.3, and no connection without a certificate of the authority."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # nobody resumes; a peer that never reads would find them in its way
    return context


def open_context(identity: Identity) -> Context:
    """For a side that accepts whoever comes, and asks later who it is: TLS 1.3, without client certificates."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0
    return context


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
                            f"{reason(error)}; they must be PEM files made together") from error
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


class Handshake:
    """One side's handshake and, later, its cipher. It has no socket: bytes of the peer go in, bytes for the peer come
    out."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, expected: str | None = None):
        """`expected` is the role that the accepting side must prove."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server,
                                    server_hostname=host_name(expected) if expected else None)

    def complete(self, data: bytes) -> bool:
        """Takes bytes of the peer; whether the handshake is complete. What `outgoing` holds must then be sent, also
        where this raises AuthError: it tells the peer why."""
        self.incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise AuthError(f"the other side could not be authenticated: {reason(error)}; check both certificates, "
                            f"the authority and the clocks") from error
        return True


def shake_hands(connection: socket.socket, context: ssl.SSLContext, *, server: bool, expected: str | None = None,
                deadline: float = HANDSHAKE) -> TLSStream:
    """The TLS connection over a socket. The deadline is for the whole handshake, not for each byte of it: a dripping
    peer must not hold a place. Raises AuthError, OSError."""
    hands, until, data = Handshake(context, server=server, expected=expected), time.monotonic() + deadline, b""
    while True:
        try:
            done = hands.complete(data)
        except AuthError:
            with suppress(OSError):
                connection.sendall(hands.outgoing.read())
            raise
        connection.settimeout(max(1e-3, until - time.monotonic()))
        connection.sendall(hands.outgoing.read())
        if done:
            return TLSStream(connection, hands)
        data = connection.recv(PIECE)
        if not data:
            raise ConnectionError("the connection was closed during the handshake")


class TLSStream:
    """A TLS connection that one thread may read while another writes.

    `ssl.SSLSocket` does not allow that. Here the cipher's state is touched under a lock, and bytes move through the
    socket outside of it.
    """

    def __init__(self, connection: socket.socket, hands: Handshake):
        """`hands` have completed the handshake over the connection."""
        self._socket = prompt(connection)
        self._lock = threading.Lock()
        self._goodbye = False
        self._incoming, self._outgoing, self._tls = hands.incoming, hands.outgoing, hands.tls

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
            if "ALERT" in (error.reason or ""):  # in TLS 1.3, a certificate is refused after the own handshake
                raise AuthError(f"the other side refused the connection: {reason(error)}; check both certificates, the "
                                f"authority and the clocks") from error
            raise ConnectionError(reason(error)) from error
        return count

    def comes(self, seconds: float) -> bool:
        """Whether the peer sends something, or hangs up, within so many seconds. No thread may read meanwhile."""
        with self._lock:
            if self._goodbye or self._incoming.pending or self._tls.pending():
                return True
        with _Selector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(seconds))

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
        self._certificate, self._context, self._secured = stream.certificate, stream.context, stream
        super().__init__(stream, self.role, deadline)

    def comes(self, seconds: float) -> bool:
        """Whether the peer sends something, or hangs up, within so many seconds. No thread may read meanwhile."""
        return self._secured.comes(seconds)

    def lasts(self) -> bool:
        """Whether a side that has connected may go on with this channel while nothing is due on it: its own certificate
        is still its newest, the peer's still holds, and the peer has not hung up."""
        return (self._context is self._context.successor() and not self._context.objection(self._certificate)
                and not self.comes(0.0))

    def check(self) -> None:
        """Ends the channel and raises AuthError where the peer's certificate has expired or was revoked."""
        if problem := self._context.objection(self._certificate):
            self.abort(told := f"the certificate of {self.role} ({self.name}) {problem}; renew it: `secformer certify`")
            raise AuthError(told)


def connect(address: tuple[str, int], expected: str, context: Context, *, patience: float,
            deadline: float = DEADLINE, silence: float | None = None) -> TLSChannel:
    """Connects to a role that a `Listener` serves, and returns once it has let this side in. A connection that ends
    before that is made again for `patience` seconds, because strangers may have been in the way.

    silence  seconds after which the connection fails if the peer's system does not confirm what was sent, where this
             system can tell; None: only the deadline counts

    Raises PeerLost where nobody answers, AuthError where the wrong one does, Desync where this side has no business.
    """
    end, pause = time.monotonic() + patience, RETRY[0]
    while True:
        try:
            return _let_in(address, expected, context, max(LEAST, end - time.monotonic()), deadline, silence)
        except PeerLost:
            if time.monotonic() + pause >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, RETRY[1])


def _let_in(address: tuple[str, int], expected: str, context: Context, patience: float, deadline: float,
            silence: float | None) -> TLSChannel:
    connection = connect_socket(*address, expected, deadline=patience)
    try:
        if silence is not None:
            limit_silence(connection, silence)
        stream, said = shake_hands(connection, context.successor(), server=False, expected=expected,
                                   deadline=min(HANDSHAKE, patience)), bytearray(1)
        if not stream.recv_into(said):
            raise ConnectionError("closed before it said anything")
        channel = TLSChannel(stream, deadline)
    except OSError as error:
        connection.close()
        raise PeerLost(f"{expected} at {address[0]}:{address[1]} closed the connection or did not let this side in "
                       f"({error}); see its log") from error
    except BaseException:
        connection.close()
        raise
    if said != WELCOME:
        try:
            channel.hear()  # raises, with the reason
        finally:
            channel.close()
    channel.check()
    return channel


def hang_up(connection: socket.socket) -> None:
    """Ends a connection, also one that another thread is reading: that wakes it up."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's, which is for the reading thread alone


def reason(error: ssl.SSLError) -> str:
    """What went wrong, in the library's own words."""
    return str(getattr(error, "verify_message", "") or error.reason or error).replace("_", " ").lower()
