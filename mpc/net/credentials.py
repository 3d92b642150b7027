"""What a role shows and whom it trusts, as its files say now: they may be replaced while the role serves.

New certificates serve the connections that are made from then on. A certificate that has expired, or that the
authority has revoked since the handshake, holds for nothing more; see `Context.objection`. Files that cannot be used,
such as half a file, are reported, and the ones that were read before stay in force.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import (
    Certificate,
    Context,
    Identity,
    client_context,
    expired,
    open_context,
    reason,
    server_context,
)

UNREADABLE = ValueError, x509.InvalidVersion  # what `x509` raises for a file of another form
EVERY = 1.0  # seconds between looks at the files
Seen = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class _Shown:
    """What the files of the certificate and its key have made, and until when it holds."""

    server: Context
    open: Context
    client: Context
    until: datetime


class Credentials:
    """A role's files. Thread-safe.

    report  hears of files that were read again, and of those that cannot be used: (event, problem or "")
    clock   the time as `time.time` gives it
    """

    def __init__(self, identity: Identity, report: Callable[[str, str], None] = lambda event, problem: None,
                 clock: Callable[[], float] = time.time):
        """Raises SettingsError for files that cannot be used."""
        self._identity, self._report, self._clock = identity, report, clock
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._seen = (_seen(self._pair), _seen(self._lists))
        self.generation = 0  # how often the certificate was replaced
        self._shown = self._read_pair()
        self._revoked, self._made = self._read_list()

    @property
    def _pair(self) -> tuple[Path, ...]:
        return self._identity.authority, self._identity.certificate, self._identity.key

    @property
    def _lists(self) -> tuple[Path, ...]:
        revoked = self._identity.revoked
        return () if revoked is None else (self._identity.authority, revoked)

    def server(self) -> Context:
        """For the side that accepts: each handshake shows the newest certificate."""
        return self._newest(server_context(self._identity), lambda: self._shown.server)

    def open(self) -> Context:
        """As `server`, for a side that asks for no certificate."""
        return self._newest(open_context(self._identity), lambda: self._shown.open)

    def client(self) -> Context:
        """For the side that connects: `newest` gives the context for the next connection."""
        self.renew()
        return self._shown.client

    def until(self) -> datetime:
        """When the own certificate expires."""
        return self._shown.until

    def objection(self, certificate: Certificate | None) -> str:
        """Why a certificate that was verified in a handshake does not hold any more; "" if it does."""
        self.renew()
        if problem := expired(certificate, self._clock()):
            return problem
        serial = int(str((certificate or {}).get("serialNumber", "0")), 16)
        return f"was revoked on {self._revoked[serial]:%Y-%m-%d}" if serial in self._revoked else ""

    def renew(self, *, now: bool = False) -> None:
        """Reads the files again if they have changed; looks at them once a second, or `now`."""
        if not now and time.monotonic() - self._looked < EVERY:
            return
        with self._lock:
            self._looked = time.monotonic()
            pair, lists = _seen(self._pair), _seen(self._lists)
            was, self._seen = self._seen, (pair, lists)
            if pair != was[0]:
                self._renew_pair()
            if lists != was[1]:
                self._renew_list()
            if (pair, lists) != (_seen(self._pair), _seen(self._lists)):
                self._seen = ((None,), (None,))  # written to meanwhile: look again next time

    def _renew_pair(self) -> None:
        try:
            self._shown = self._read_pair()
        except SettingsError as error:
            self._report("certificate not renewed", f"{error}; the one that was read before stays in use")
            return
        self.generation += 1
        self._report("certificate renewed", "")

    def _renew_list(self) -> None:
        try:
            revoked, made = self._read_list()
            if made < self._made:
                raise SettingsError(f"{self._identity.revoked} is of {made:%Y-%m-%d %H:%M}, older than the list in "
                                    f"use; copy the newest one")
        except SettingsError as error:
            self._report("revoked certificates not read", f"{error}; the list that was read before stays in force")
            return
        self._revoked, self._made = revoked, made
        self._report("revoked certificates read", "")

    def _newest(self, context: Context, shown: Callable[[], Context]) -> Context:
        def newest(connection: Any, name: str | None, asked: Any) -> None:
            self.renew()
            connection.context = shown()

        context.sni_callback = newest
        context.objection = self.objection
        return context

    def _read_pair(self) -> _Shown:
        server, client = server_context(self._identity), client_context(self._identity)
        server.objection = client.objection = self.objection
        client.successor = self.client
        try:
            certificate = x509.load_pem_x509_certificate(self._identity.certificate.read_bytes())
        except (OSError, *UNREADABLE) as error:
            raise SettingsError(f"{self._identity.certificate} cannot be read: {error}; it must be a certificate as a "
                                f"PEM file") from error
        return _Shown(server, open_context(self._identity), client, certificate.not_valid_after_utc)

    def _read_list(self) -> tuple[dict[int, datetime], datetime]:
        path = self._identity.revoked
        if path is None:
            return {}, datetime.min.replace(tzinfo=UTC)
        try:
            found = x509.load_pem_x509_crl(path.read_bytes())
            authorities = x509.load_pem_x509_certificates(self._identity.authority.read_bytes())
        except FileNotFoundError as error:
            raise SettingsError(f"the list of revoked certificates {path} does not exist; copy `revoked.pem` from the "
                                f"authority's folder, or take the key `revoked` out of [tls] to trust all "
                                f"certificates until they expire") from error
        except (OSError, *UNREADABLE) as error:
            raise SettingsError(f"{path} cannot be read ({error}); it must be a list of revoked certificates as a PEM "
                                f"file, as `secformer revoke` writes it") from error
        if not any(_signed(found, each) for each in authorities):
            raise SettingsError(f"{path} is not signed by the authority in {self._identity.authority}; copy "
                                f"`revoked.pem` from the folder of the authority that made the certificates")
        return {each.serial_number: each.revocation_date_utc for each in found}, found.last_update_utc


def _signed(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return found.issuer == authority.subject and found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _seen(files: tuple[Path, ...]) -> Seen:
    """What changes when files are replaced or written to."""
    def look(file: Path) -> tuple[int, int, int] | None:
        try:
            facts = file.stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    return tuple(map(look, files))


def own_context(certificate: str | Path, key: str | Path) -> Context:
    """For a server whose callers show no certificate, and that belongs to no authority of ours: TLS 1.3. Raises
    SettingsError."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError among them
        why = reason(error) if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(f"{certificate} and {key} cannot be used: {why}; they must be a certificate and its key, "
                            f"as PEM files") from error
    return context
