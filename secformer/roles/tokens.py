"""Tokens: what a page in a browser shows a party instead of a certificate.

A client signs a token with the key of its certificate. A token is for one party and one provisioned model, for minutes,
and for a number of requests. Whoever holds it may ask this party in the client's name until it expires. As text, it is
its claims (JSON), the client's certificate (DER) and the signature, each in base64url without padding, with dots
between.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from secformer.models.run.public import PublicModel
from secformer.mpc.errors import AuthError, InputError, SettingsError
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.notes import hexadecimal, text, whole
from secformer.mpc.net.tls import Certificate, name_of, role_of
from secformer.mpc.prg import fresh_seed
from secformer.mpc.strict_json import read_own
from secformer.roles.settings import ClientSettings
from secformer.roles.signing import Authority, Signed, Signer, der_of, pem_of, require_signature, shown

PURPOSE = "token"     # of the signature
VERSION = 1           # of the claims' form
SKEW = 30             # seconds by which the clocks of a client and a party may differ
MOST = 1 << 13        # characters of a token
MOST_SECONDS = 86400  # of a token's life, whatever a party allows
MOST_REQUESTS = 1_000_000  # that a token may be good for
MOST_TOKENS = 1024    # tokens of one client that are counted at the same time
ID_BYTES = 16
_TEXT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class TokenRefused(AuthError):
    """A token that does not hold. `why` is one of a few words, for metrics."""

    def __init__(self, why: str, message: str):
        super().__init__(message)
        self.why = why


@dataclass(frozen=True)
class Claims:
    """What a client signs: for which party of which model, with which certificate (the SHA-256 of its DER form), from
    when until when (seconds since 1970), for how many requests, and a random id."""

    party: str
    model: str
    certificate: str
    start: int
    until: int
    requests: int
    id: str
    version: int = VERSION

    @property
    def text(self) -> str:
        """The one text of these claims."""
        return json.dumps(vars(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def read(cls, given: str) -> Self:
        """The inverse of `text`. Raises ValueError."""
        found: Any = read_own(given)
        names = {f.name for f in fields(cls)}
        if not isinstance(found, dict) or set(found) != names:
            raise ValueError(f"its claims must be {', '.join(sorted(names))}")
        claims = cls(text(found["party"]), text(found["model"]), hexadecimal(found["certificate"], 32).hex(),
                     whole(found["start"]), whole(found["until"]), whole(found["requests"], 1, MOST_REQUESTS),
                     hexadecimal(found["id"], ID_BYTES).hex(), whole(found["version"]))
        if claims.version != VERSION:
            raise ValueError(f"it is of form {claims.version}, but this version reads form {VERSION}")
        if claims.text != given:
            raise ValueError("its claims are not in the one form that is signed")
        return claims


@dataclass(frozen=True)
class Token:
    """Claims, as the text that was signed, and the signature with its certificate."""

    claims: Claims
    signed: Signed = field(repr=False)

    @property
    def text(self) -> str:
        """As it travels: a secret until it expires."""
        parts = self.claims.text.encode(), der_of(self.signed.certificate), b64decode(self.signed.signature)
        return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)

    @classmethod
    def read(cls, given: str) -> Self:
        """The inverse of `text`. Raises ValueError, AuthError."""
        if len(given) > MOST or not _TEXT.fullmatch(given):
            raise ValueError(f"it must be three parts in base64url with dots between, {MOST} characters at most")
        claims, certificate, signature = (urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in given.split("."))
        token = cls(Claims.read(claims.decode()), Signed(b64encode(signature).decode(), pem_of(certificate)))
        if token.text != given:
            raise ValueError("it is not in the one form that a token has")
        if token.claims.certificate != sha256(certificate).hexdigest():  # parts of it are under no signature
            raise ValueError("it carries another certificate than it was signed with")
        return token


def make(signer: Signer, rank: int, model: str, seconds: int, requests: int, *, now: float | None = None) -> str:
    """A token for a party of the model with this digest, which holds for so many seconds and requests from now on.

    `now` as `time.time` gives it. Raises InputError for numbers that no party would take.
    """
    for value, what, most in ((seconds, "a whole number of seconds", MOST_SECONDS),
                              (requests, "for a number of requests", MOST_REQUESTS)):
        if type(value) is not int or not 1 <= value <= most:
            raise InputError(f"a token must hold {what} from 1 to {most}, got {value!r}")
    start = math.floor(time.time() if now is None else now)
    certificate = signer.certificate
    claims = Claims(f"party{rank}", model, sha256(der_of(certificate)).hexdigest(), start, start + seconds, requests,
                    fresh_seed()[:ID_BYTES].hex())
    signed = signer.sign(PURPOSE, claims.text)
    if signed.certificate != certificate:  # it was renewed at this moment
        return make(signer, rank, model, seconds, requests, now=now)
    return Token(claims, signed).text


@dataclass(frozen=True)
class Pair:
    """A client's tokens for both parties. `expires`: seconds since 1970."""

    party0: str = field(repr=False)
    party1: str = field(repr=False)
    expires: int

    def as_dict(self) -> dict[str, Any]:
        """What a page is given."""
        return dict(vars(self))


def pair(settings: ClientSettings, seconds: int, requests: int) -> Pair:
    """Fresh tokens of this client. Raises InputError, SettingsError, ModelError."""
    signer, model, now = Signer(settings.tls), PublicModel.load(settings.model).digest, time.time()
    party0, party1 = (make(signer, rank, model, seconds, requests, now=now) for rank in (0, 1))
    return Pair(party0, party1, math.floor(now) + seconds)


class Tokens:
    """A party's check of tokens. Thread-safe.

    rank         the party's
    model        the digest of the model that it holds
    longest      seconds that a token may hold, from its start
    credentials  know which certificates are revoked
    authority    the file of the authority that issues clients' certificates; read again when the credentials are
    clock        the time as `time.time` gives it
    """

    def __init__(self, rank: int, model: str, longest: float, credentials: Credentials, authority: Path,
                 clock: Callable[[], float] = time.time):
        """Raises SettingsError for an authority that cannot be read."""
        self._party, self._model, self._longest = f"party{rank}", model, longest
        self._credentials, self._path, self._clock = credentials, authority, clock
        self._lock = threading.Lock()
        self._generation, self._authority = credentials.generation, Authority(authority)
        self._used: dict[str, dict[str, _Use]] = {}  # by client, by the token's id

    def check(self, given: str) -> Certificate:
        """The certificate of the client who signed the token, as `getpeercert` gives it. Counts a request. Raises
        TokenRefused."""
        try:
            token = Token.read(given)
            certificate = shown(token.signed.certificate)
        except (ValueError, AuthError) as error:
            raise TokenRefused("malformed", f"the token cannot be read: {error}") from error
        self._check_claims(token.claims)
        if problem := self._credentials.objection(certificate):
            raise TokenRefused("certificate", f"the certificate of the client who signed the token {problem}")
        self._check_certificate(token.signed.certificate, certificate)
        try:
            require_signature(token.signed, PURPOSE, token.claims.text)
        except AuthError as error:
            raise TokenRefused("signature", f"the token does not hold: {error}") from error
        self._count(name_of(certificate), token.claims)
        return certificate

    def _check_claims(self, claims: Claims) -> None:
        now, life = self._clock(), claims.until - claims.start
        if claims.party != self._party:
            raise TokenRefused("other party", f"the token is for {claims.party[:64]!r}, but this is {self._party}; "
                                              f"each party needs its own")
        if claims.model != self._model:
            raise TokenRefused("other model", "the token is for another model than this party holds; make it with the "
                                              "clients' folder of the same provisioning")
        if not 0 < life <= self._longest:
            raise TokenRefused("too long", f"a token may hold {self._longest:g} s here, but this one was made for "
                                           f"{life} s")
        if now < claims.start - SKEW:
            raise TokenRefused("too early", f"the token holds in {claims.start - now:.0f} s; are both clocks right?")
        if now >= claims.until + SKEW:
            raise TokenRefused("expired", f"the token expired {now - claims.until:.0f} s ago; make a new one")

    def _check_certificate(self, pem: str, certificate: Certificate) -> None:
        try:
            role = role_of(certificate)
            self._newest().require(pem, role, datetime.fromtimestamp(self._clock(), UTC))
        except AuthError as error:
            raise TokenRefused("authority", f"the token does not hold: {error}") from error
        if role != "client":
            raise TokenRefused("role", f"tokens are signed by clients, but this certificate is {role}'s")

    def _newest(self) -> Authority:
        with self._lock:
            if self._generation != self._credentials.generation:
                with suppress(SettingsError):  # the credentials report files that cannot be read
                    self._generation, self._authority = self._credentials.generation, Authority(self._path)
            return self._authority

    def _count(self, client: str, claims: Claims) -> None:
        now = self._clock()
        with self._lock:
            kept = {key: use for key, use in self._used.get(client, {}).items() if now < use.until}
            self._used[client] = kept
            if claims.id not in kept and len(kept) >= MOST_TOKENS:
                raise TokenRefused("too many", f"one client may use {MOST_TOKENS} tokens at the same time; use those "
                                               f"that are there until they expire")
            use = kept.setdefault(claims.id, _Use(claims.until + SKEW))
            if use.requests >= claims.requests:
                raise TokenRefused("spent", f"the token was good for {claims.requests} requests; make a new one")
            use.requests += 1


@dataclass
class _Use:
    """How often a token was used. `until`: when it can be forgotten."""

    until: float
    requests: int = 0
