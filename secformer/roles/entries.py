"""What a party writes down about each request: a line of its audit log, a line of its log, and the client's receipt."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from secformer.roles.audit import Auditing
from secformer.roles.chain import REQUEST, Head, transcript
from secformer.roles.messages import Answer, Half, body_digest
from secformer.roles.receipts import HEADER, Statement, signed
from secformer.roles.signing import Signer
from secformer.roles.traces import fields_of

log = logging.getLogger(__name__)


class Entries:
    """Where a party writes its requests down.

    party   its role
    model   the digest of its model
    signer  signs receipts; None where there are none
    """

    def __init__(self, party: str, model: str, audit: Auditing, signer: Signer | None):
        self.party, self.model, self.audit, self.signer = party, model, audit, signer

    def begin(self, client: str) -> Entry:
        """A client's request begins."""
        return Entry(self, client)


class Entry:
    """One request. It is written down once: when it is answered, before the client gets the answer, or when it ends
    without one. `half` is set once the request has come completely."""

    def __init__(self, entries: Entries, client: str):
        self._entries, self.client, self._began = entries, client, time.monotonic()
        self.half: Half | None = None
        self.trace = ""  # id of the trace that it belongs to
        self._written = False

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def answered(self, answer: Answer, body: bytes) -> dict[str, str]:
        """Writes down that this body answers the request. Returns the headers of the receipt that goes with it."""
        entries, half, ran, digest = self._entries, self.half, answer.ran, body_digest(body)
        if half is None or ran is None:
            raise ValueError("only a request that came and ran is answered")
        noted = {"epoch": ran.epoch, "run": ran.run, "name": ran.name, "plan": ran.plan, "answer": digest,
                 "bytes": answer.cost.bytes, "rounds": answer.cost.rounds}
        spent = {"packing": round(self.seconds - ran.waiting - ran.material - ran.computing, 3)}
        head = self._write("answered", noted, spent)
        if entries.signer is None:
            return {}
        line = head or Head(0, "")
        said = Statement(
            party=entries.party, request=half.request, client=self.client, model=entries.model,
            shape=half.shape_digest, plan=ran.plan, epoch=ran.epoch, run=ran.run, name=ran.name, half=half.digest,
            answer=digest, time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            chain=entries.audit.chain if head is not None else "", line=line.number, hash=line.digest)
        return {HEADER: signed(said, entries.signer).header}

    def end(self, outcome: str) -> None:
        """Writes down how the request ended, unless that is done."""
        if not self._written:
            self._write(outcome, {}, {})

    def _write(self, outcome: str, ran: dict[str, Any], spent: dict[str, float]) -> Head | None:
        """Public facts, and digests."""
        self._written, half = True, self.half
        facts: dict[str, Any] = {"client": self.client, "request": half.request if half is not None else None,
                                 "outcome": outcome, "seconds": round(self.seconds, 3), **spent}
        noted: dict[str, Any] = {"model": self._entries.model}
        if half is not None:
            noted["shape"] = {"texts": len(half.lengths), "tokens": int(half.lengths.sum()),
                              "digest": half.shape_digest}
            noted["half"] = half.digest
        noted |= ran
        head = self._entries.audit.append(REQUEST, {**facts, **noted, "transcript": transcript(noted)})
        log.info("request ended", extra={"fields": facts | fields_of(self.trace) | (
            {"audit": head.number} if head is not None else {})})
        return head
