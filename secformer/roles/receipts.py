"""Receipts: what each party signs for its client about a request that it answered, and what a client checks in them.

A receipt travels as a header beside the half of the answer that it is about. Its text is a JSON object, signed as it
stands, with the key of the party's certificate.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Self

from secformer.mpc.errors import AuthError
from secformer.mpc.net.tls import Certificate
from secformer.mpc.strict_json import read_own
from secformer.roles.signing import Authority, Signed, Signer, require_signature, shown

HEADER = "X-Secformer-Receipt"
PURPOSE = "receipt"  # of the signature
VERSION = 1          # of the text's form
MOST = 1 << 14       # characters of a receipt in its header
PARTIES = ("party0", "party1")
COMMON = ("request", "client", "model", "shape", "plan", "epoch", "run", "name")  # what both say alike
LINE_FACTS = ("request", "client", "model", "plan", "epoch", "run", "name", "half", "answer")  # as its line has them


@dataclass(frozen=True)
class Statement:
    """What a party says of a request: who asked what of which model, how it ran (the run as "space/serial" and by its
    name, see `mpc/dealer/names`), the digests of the half that came and of the half that went, and the line of the
    party's audit log (0 and "" without one)."""

    party: str
    request: str
    client: str
    model: str
    shape: str
    plan: str
    epoch: str
    run: str
    name: str
    half: str
    answer: str
    time: str
    chain: str = ""
    line: int = 0
    hash: str = ""
    version: int = VERSION

    @property
    def text(self) -> str:
        """The one text of this statement."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Self:
        """The inverse of `text`. Raises AuthError."""
        try:
            given = read_own(text)
            if not isinstance(given, dict) or set(given) != {f.name for f in fields(cls)}:
                raise ValueError(f"it must have the fields {', '.join(f.name for f in fields(cls))}")
            for name, value in given.items():
                wanted = int if name in ("line", "version") else str
                if not isinstance(value, wanted) or isinstance(value, bool):
                    raise ValueError(f"{name} must be {wanted.__name__}, got {type(value).__name__}")
            said = cls(**given)
            if said.version != VERSION:
                raise ValueError(f"it is of form {said.version}, but this version reads form {VERSION}")
            if said.text != text:
                raise ValueError("it is not in the one form that is signed")
            if datetime.fromisoformat(said.time).tzinfo is None:
                raise ValueError("its time has no zone")
        except ValueError as error:
            raise AuthError(f"the receipt cannot be read ({error}); do all roles run the same version?") from error
        return said


@dataclass(frozen=True)
class Receipt:
    """A statement, as the text that was signed, and its signature."""

    statement: str
    signed: Signed

    def as_dict(self) -> dict[str, str]:
        return {"statement": self.statement, "signature": self.signed.signature, "certificate": self.signed.certificate}

    @classmethod
    def from_dict(cls, given: Any) -> Self:
        """Raises AuthError."""
        names = {"statement", "signature", "certificate"}
        if not isinstance(given, Mapping) or set(given) != names or not all(isinstance(v, str) for v in given.values()):
            raise AuthError(f"a receipt must be an object of the texts {', '.join(sorted(names))}")
        return cls(given["statement"], Signed(given["signature"], given["certificate"]))

    @property
    def header(self) -> str:
        """As it travels."""
        return b64encode(json.dumps(self.as_dict(), separators=(",", ":")).encode()).decode()

    @classmethod
    def from_header(cls, header: str) -> Self:
        """Raises AuthError."""
        try:
            if len(header) > MOST:
                raise ValueError(f"it has more than {MOST} characters")
            given = read_own(b64decode(header, validate=True))
        except ValueError as error:
            raise AuthError(f"the receipt cannot be read ({error}); do all roles run the same version?") from error
        return cls.from_dict(given)


def signed(statement: Statement, signer: Signer) -> Receipt:
    """The receipt of a statement."""
    return Receipt(statement.text, signer.sign(PURPOSE, statement.text))


def checked(receipt: Receipt, party: str, authority: Authority | None,
            objection: Callable[[Certificate | None], str] | None = None) -> Statement:
    """What a party's receipt says, once its signature has been checked.

    authority  must have issued the certificate for this party, valid when the receipt says that it was made; without
               one, only the signature is checked
    objection  why the certificate does not hold now, where that matters, too

    Raises AuthError.
    """
    said = Statement.read(receipt.statement)
    if said.party != party:
        raise AuthError(f"the receipt must be {party}'s, but it says {said.party[:40]!r}")
    require_signature(receipt.signed, PURPOSE, receipt.statement)
    if authority is not None:
        authority.require(receipt.signed.certificate, party, datetime.fromisoformat(said.time))
    if objection is not None and (problem := objection(shown(receipt.signed.certificate))):
        raise AuthError(f"the certificate of {party}'s receipt {problem}")
    return said


def require_pair(first: Statement, second: Statement) -> None:
    """Raises AuthError unless both parties' statements are about the same run of the same request."""
    for name in COMMON:
        mine, theirs = getattr(first, name), getattr(second, name)
        if mine != theirs:
            raise AuthError(f"the receipts do not fit together: {name} is {mine[:80]!r} at party 0 and {theirs[:80]!r} "
                            f"at party 1")


def require_facts(said: Statement, facts: Mapping[str, str]) -> None:
    """Raises AuthError unless the statement says these facts."""
    for name, value in facts.items():
        if (got := getattr(said, name)) != value:
            raise AuthError(f"the receipt of {said.party} does not fit what was sent and received: {name} must be "
                            f"{value[:80]!r}, but it says {str(got)[:80]!r}")
