"""Signatures of roles: made with the key of a role's certificate, checked against the private authority.

Every signature is over a purpose and a text, so that one made for a receipt cannot be shown as an audit log's anchor.
TLS signs texts of another form with the same key.
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from secformer.mpc.errors import AuthError, SettingsError
from secformer.mpc.net.credentials import UNREADABLE
from secformer.mpc.net.tls import Certificate, Identity, name_of, role_of

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
HASH = hashes.SHA256()
PSS = padding.PSS(padding.MGF1(HASH), padding.PSS.DIGEST_LENGTH)
MAX_PEM = 1 << 14  # bytes of a certificate that somebody else sends


@dataclass(frozen=True)
class Signed:
    """A signature (base64) and the certificate (PEM) of the key that made it."""

    signature: str
    certificate: str = field(repr=False)


class Signer:
    """Signs as a role. It reads the certificate and the key again when their files change. Thread-safe."""

    def __init__(self, identity: Identity):
        """Raises SettingsError for a key or a certificate that cannot be used."""
        self._identity, self._lock = identity, threading.Lock()
        self._read_at = self._changed()
        self._key, self._certificate = _load(identity)

    @property
    def certificate(self) -> str:
        """The certificate (PEM) of the key that signs next."""
        with self._lock:
            self._refresh()
            return self._certificate

    def sign(self, purpose: str, text: str) -> Signed:
        """Takes tens of microseconds with a key on a curve."""
        with self._lock:
            self._refresh()
            key, certificate = self._key, self._certificate
        return Signed(b64encode(_signature(key, _message(purpose, text))).decode(), certificate)

    def _refresh(self) -> None:
        """A half-copied pair of files does not fit together; then the old pair stays until it does."""
        try:
            if (changed := self._changed()) != self._read_at:
                self._key, self._certificate = _load(self._identity)
                self._read_at = changed
        except (SettingsError, OSError):
            pass

    def _changed(self) -> tuple[int, int]:
        try:
            return (self._identity.certificate.stat().st_mtime_ns, self._identity.key.stat().st_mtime_ns)
        except OSError as error:
            raise SettingsError(f"cannot read {error.filename}: {error.strerror}; `secformer certify` makes a "
                                f"certificate and its key") from error


class Authority:
    """Whose certificates are believed: the private authority's file (PEM), which may hold several."""

    def __init__(self, path: Path):
        """Raises SettingsError for a file that holds no certificate."""
        try:
            self._certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, *UNREADABLE) as error:
            raise SettingsError(f"{path} holds no certificate of an authority that can be read ({error}); give "
                                f"authority.pem, which `secformer init` writes") from error

    def require(self, certificate: str, role: str, at: datetime) -> None:
        """Raises AuthError unless this authority issued the certificate for this role, and it was valid at the
        time."""
        leaf = _parsed(certificate)
        if not any(_issued(leaf, authority) for authority in self._certificates):
            raise AuthError(f"the certificate of {role} was not issued by the authority that is trusted here")
        if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
            raise AuthError(f"the certificate of {role} was valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
                            f"{leaf.not_valid_after_utc:%Y-%m-%d}, but the signature is of {at:%Y-%m-%d}")
        if (named := role_in(certificate)) != role:
            raise AuthError(f"the certificate must be {role}'s, but it is {named}'s")


def require_signature(signed: Signed, purpose: str, text: str) -> None:
    """Raises AuthError unless the certificate's key signed this text for this purpose."""
    leaf, message = _parsed(signed.certificate), _message(purpose, text)
    try:
        key = leaf.public_key()
        signature = b64decode(signed.signature, validate=True)
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(HASH))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, PSS, HASH)
        else:
            raise AuthError(f"signatures of a {type(key).__name__} are not known; keys are ECDSA, Ed25519 or RSA")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise AuthError("the signature does not fit: the text, the signature or the certificate was changed") from error


def role_in(certificate: str) -> str:
    """The role that a certificate (PEM) names. Raises AuthError."""
    return role_of(shown(certificate))


def der_of(certificate: str) -> bytes:
    """A certificate (PEM) in its short form. Raises AuthError."""
    return _parsed(certificate).public_bytes(serialization.Encoding.DER)


def pem_of(certificate: bytes) -> str:
    """The inverse of `der_of`. Raises AuthError."""
    try:
        return x509.load_der_x509_certificate(certificate).public_bytes(serialization.Encoding.PEM).decode()
    except UNREADABLE as error:
        raise AuthError(f"this is not a certificate in DER form ({error})") from error


def shown(certificate: str) -> Certificate:
    """Of a certificate (PEM), as `getpeercert` gives it: who it names, and what tells whether it has expired or was
    revoked. Raises AuthError."""
    leaf = _parsed(certificate)
    until = leaf.not_valid_after_utc
    try:
        names = tuple((("commonName", str(each.value)),)
                      for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    except ValueError as error:
        raise AuthError(f"the subject of this certificate cannot be read ({error})") from error
    return {"subject": names, "subjectAltName": tuple(("DNS", name) for name in _dns_names(leaf)),
            "serialNumber": f"{leaf.serial_number:X}", "notAfter": f"{until:%b} {until.day:2d} {until:%H:%M:%S %Y} GMT"}


def name_in(path: Path) -> str:
    """The common name of a certificate file, as `tls.name_of` gives it. Raises SettingsError."""
    try:
        return name_of(shown(path.read_text("ascii")))
    except (OSError, ValueError, AuthError) as error:
        raise SettingsError(f"{path} holds no certificate that can be read ({error})") from error


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []


def _message(purpose: str, text: str) -> bytes:
    return f"secformer {purpose} 1\0{text}".encode()


def _parsed(certificate: str) -> x509.Certificate:
    try:
        if len(certificate) > MAX_PEM:
            raise ValueError(f"it has more than {MAX_PEM} bytes")
        return x509.load_pem_x509_certificate(certificate.encode("ascii"))
    except UNREADABLE as error:
        raise AuthError(f"this is not a certificate in PEM form ({error})") from error


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        if not authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        leaf.verify_directly_issued_by(authority)
        return True
    except (x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False


def _signature(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(HASH))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, PSS, HASH)


def _load(identity: Identity) -> tuple[PrivateKey, str]:
    try:
        pem = identity.certificate.read_text("ascii")
        key = serialization.load_pem_private_key(identity.key.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except (OSError, TypeError, *UNREADABLE) as error:
        raise SettingsError(f"{identity.certificate} and {identity.key} cannot be used to sign ({error}); `secformer "
                            f"certify` makes a pair") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise SettingsError(f"{identity.key} holds a {type(key).__name__}, but roles sign with ECDSA, Ed25519 or RSA; "
                            f"`secformer certify` makes such a key")
    if certificate.public_key() != key.public_key():
        raise SettingsError(f"{identity.key} is not the key of {identity.certificate}; copy both files again")
    return key, certificate.public_bytes(serialization.Encoding.PEM).decode()
