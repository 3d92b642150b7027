"""What roles and clients write down: audit logs, and receipts as they travel and as they are kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.mutators import json_text, lines, raw
from fuzz.target import Read, Target, require, stateless
from secformer.mpc.net.tls import Identity
from secformer.roles import chain, kept_receipts
from secformer.roles.audit import Audit
from secformer.roles.audit_files import AuditFiles
from secformer.roles.certificates import init
from secformer.roles.receipts import Receipt, Statement, checked, signed
from secformer.roles.signing import Signer

ROLE, HEX = "party0", "ab" * 32


@contextmanager
def logs(folder: Path) -> Iterator[Read]:
    """A log that holds is gone on with where it ends."""
    place = folder / "audit"

    def read(data: bytes) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / chain.file_name(1)).write_bytes(data)
        verdict = chain.verify([place], kept=range(3))
        files = AuditFiles(place, ROLE, 1 << 20)
        files.close()
        if verdict.bad is None:
            require(files.head == verdict.head, "a log has one end")

    yield read


def header(data: bytes) -> None:
    """A receipt as it travels. Input: what the header encodes."""
    receipt = Receipt.from_header(b64encode(data).decode())
    require(Receipt.from_header(receipt.header) == receipt, "a receipt has one meaning")
    checked(receipt, ROLE, None)


@contextmanager
def kept(folder: Path) -> Iterator[Read]:
    file = folder / "receipts.jsonl"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        kept_receipts.verify([file])

    yield read


def examples(folder: Path) -> tuple[bytes, bytes, bytes]:
    """A valid log, receipt and file of receipts."""
    init(folder)
    signers = [Signer(Identity(*(folder / role / name for name in ("authority.pem", f"{role}.pem", f"{role}.key"))))
               for role in ("party0", "party1")]
    audit = Audit(folder / "log", ROLE, signers[0], required=True, file_bytes=1 << 20, delay=0.01)
    audit.append(chain.REQUEST, {"request": HEX[:32], "outcome": "answered"})
    audit.close()
    receipts = [signed(Statement(f"party{rank}", HEX[:32], "client", HEX, HEX, HEX, HEX[:32], "live/3", HEX, HEX, HEX,
                                 time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()), audit.chain, 2, HEX), signer)
                for rank, signer in enumerate(signers)]
    line = json.dumps({"received": "", "receipts": [receipt.as_dict() for receipt in receipts]}).encode()
    return ((folder / "log" / chain.file_name(1)).read_bytes(), json.dumps(receipts[0].as_dict()).encode(),
            line + os.linesep.encode())


TARGETS = (
    Target("audit-log", ("secformer/roles/chain.py", "secformer/roles/audit_files.py"), logs, lines("1", "request")),
    Target("receipt", ("secformer/roles/receipts.py", "secformer/roles/signing.py"), stateless(header), json_text()),
    Target("receipts", ("secformer/roles/kept_receipts.py",), kept, raw),
)
