"""The audit log that a role writes: what it did for whom, as a chain of lines that nobody can change unnoticed.

Lines are chained at once, in memory, and written and synced by a thread of their own, at most `DELAY` seconds later. So
no request waits for the disk. A crash loses the lines of that time; the next start says that there was one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from secformer.mpc.errors import StoreError
from secformer.mpc.prg import fresh_seed
from secformer.roles.audit_files import AuditFiles
from secformer.roles.chain import (
    ANCHOR,
    BEGAN,
    ENDED,
    FORMAT,
    LOST,
    RESUMED,
    UNSYNCED,
    Head,
    anchored_text,
    digest,
    written,
)
from secformer.roles.signing import Signer
from secformer.version import __version__

DELAY = 0.2             # seconds in which lines are gathered before they are written and synced together
RETRY = 1.0             # seconds after which a disk that failed is tried again
ANCHORED = 256          # lines after which an anchor is due
ANCHOR_SECONDS = 60.0   # seconds after which one is due, if there are new lines
MOST_HELD = 1 << 24     # bytes of lines that wait for the disk; further lines are lost, and counted
NAME_DIGITS = 32        # hexadecimal digits of a chain's name
REQUIRED, BEST, OFF = "required", "best effort", "off"
CHOICES = (REQUIRED, BEST, OFF)

log = logging.getLogger(__name__)


class Auditing(Protocol):
    """Where a role notes what it did."""

    chain: str

    def append(self, event: str, facts: Mapping[str, Any]) -> Head | None:
        """Notes an event. Returns its line's place in the chain, None if it was not noted. Never waits for a disk."""

    @property
    def problem(self) -> str:
        """Why the role must not serve; "" if it may."""

    @property
    def figures(self) -> dict[str, float]:
        """For metrics: `failing` is 1 while lines cannot be written; `lines` noted, `lost`, and `unwritten`."""

    def close(self) -> None: ...


class Unaudited:
    """No audit log: `audit = "off"`."""

    chain, problem = "", ""

    def append(self, event: str, facts: Mapping[str, Any]) -> Head | None:
        return None

    @property
    def figures(self) -> dict[str, float]:
        return {"failing": 0.0, "lines": 0.0, "lost": 0.0, "unwritten": 0.0}

    def close(self) -> None: ...


class Audit:
    """A role's log in a folder. Thread-safe.

    required    whether the role may not serve while lines cannot be written
    file_bytes  size at which a file ends and the next one goes on

    Raises StoreError for a folder that cannot be used: another process writes there, or the log's end cannot be read.
    """

    def __init__(self, folder: Path, role: str, signer: Signer, *, required: bool, file_bytes: int,
                 delay: float = DELAY):
        self._role, self._signer, self._required = role, signer, required
        self._delay, self._retry = delay, min(RETRY, 5 * delay)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._held = deque[tuple[Head, bytes]]()  # lines for the disk that its thread has not taken yet
        self._bytes, self._lost, self._reason = 0, 0, ""
        try:
            self._files = AuditFiles(folder, role, file_bytes)
        except OSError as error:
            raise StoreError(f"the audit log in {folder} cannot be opened: {error.strerror or error}; give another "
                             f"folder as audit_folder, or make room") from error
        self.chain, self._head = self._files.chain or fresh_seed().hex()[:NAME_DIGITS], self._files.head
        self._durable, self._doubted, self._batch = self._head, 0, deque[tuple[Head, bytes]]()
        with self._changed:
            if self._head.number or self._files.cut is not None:
                self._signed(RESUMED, {"version": __version__, "cut": self._files.cut, "in order": self._files.ended})
            else:
                self._signed(BEGAN, {"version": __version__})
        self._thread = threading.Thread(target=self._write, name="audit log", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why the role must not serve; "" if it may."""
        reason = self._reason
        return f"the audit log cannot be written: {reason}" if reason and self._required else ""

    @property
    def durable(self) -> Head:
        """The last line that is on disk, synced."""
        with self._changed:
            return self._durable

    @property
    def figures(self) -> dict[str, float]:
        with self._changed:
            return {"failing": float(bool(self._reason)), "lines": float(self._head.number), "lost": float(self._lost),
                    "unwritten": float(self._head.number - self._durable.number)}

    def append(self, event: str, facts: Mapping[str, Any]) -> Head | None:
        """Notes an event. Returns its line's place in the chain, None if too many lines wait for the disk."""
        with self._changed:
            if self._closing.is_set():
                return None
            if self._bytes > MOST_HELD:
                self._lost += 1
                return None
            if self._lost and not self._reason:  # what could not be noted is said as soon as there is room
                lost, self._lost = self._lost, 0
                self._chained(LOST, {"lines": lost})
            return self._chained(event, facts)

    def _chained(self, event: str, facts: Mapping[str, Any]) -> Head:
        number = self._head.number + 1
        line = written({"number": number, "previous": self._head.digest, "chain": self.chain, "role": self._role,
                        "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts})
        self._head = Head(number, digest(line))
        self._held.append((self._head, line + b"\n"))
        self._bytes += len(line) + 1
        self._changed.notify_all()
        return self._head

    def _signed(self, event: str, facts: Mapping[str, Any]) -> Head:
        """Notes an event, with a signature over the line before: an anchor of the chain so far."""
        signed = self._signer.sign(ANCHOR, anchored_text(self.chain, self._role, self._head))
        head = self._chained(event, {**facts, "format": FORMAT, "signature": signed.signature,
                                      "certificate": signed.certificate})
        self._anchored, self._anchor_due = head.number, time.monotonic() + ANCHOR_SECONDS
        return head

    # ---- the thread that writes -----------------------------------------------------------------------------------

    def _write(self) -> None:
        while not self._closing.is_set():
            with self._changed:
                waits = ANCHOR_SECONDS if self._anchored < self._head.number else None
                self._changed.wait_for(lambda: self._held or self._batch or self._closing.is_set(), timeout=waits)
            self._closing.wait(self._retry if self._reason else self._delay)
            self._flush()

    def _flush(self) -> None:
        """Writes and syncs what waits. After a failure the rest still waits, whole or in part."""
        with self._changed:
            anchored = self._signed(ANCHOR, {}) if self._due() else None
            self._batch.extend(self._held)
            self._held.clear()
        try:
            self._files.write(self._batch)
            self._sync()
        except OSError as error:
            self._failed(error.strerror or str(error))
        else:
            self._worked()
        finally:
            with self._changed:
                self._bytes = sum(len(line) for _, line in (*self._batch, *self._held))
        if anchored is not None:  # whoever keeps this role's log elsewhere, too, can tell when the chain is cut
            log.info("audit head", extra={"fields": {"chain": self.chain, "head": anchored.shown}})

    def _sync(self) -> None:
        try:
            self._files.sync()
        except OSError:  # the system may have dropped what it could not write, so a later success proves nothing
            with self._changed:
                if self._files.head.number > self._doubted:
                    self._doubted = self._files.head.number
                    self._chained(UNSYNCED, {"from": self._durable.number + 1, "to": self._doubted})
            raise

    def _due(self) -> bool:
        """Whether an anchor is due."""
        fresh = self._head.number - self._anchored
        late = time.monotonic() >= self._anchor_due
        return not self._reason and not self._closing.is_set() and (fresh >= ANCHORED or (fresh > 0 and late))

    def _failed(self, reason: str) -> None:
        if not self._reason:
            log.error("audit log fails", extra={"fields": {
                "problem": reason, "then": "nothing is served" if self._required else "serving goes on"}})
        self._reason = reason

    def _worked(self) -> None:
        with self._changed:
            self._durable = self._files.head
        if self._reason:
            log.warning("audit log works again", extra={"fields": {"line": self._durable.number}})
        self._reason = ""

    def close(self) -> None:
        """Notes the end, and writes what waits. Nothing can be noted any more. Closing twice is allowed."""
        with self._changed:
            if self._closing.is_set():
                return
            self._signed(ENDED, {})
            self._closing.set()
            self._changed.notify_all()
        self._thread.join()
        self._flush()
        if self._batch:
            log.error("audit lines are lost", extra={"fields": {"lines": len(self._batch), "problem": self._reason}})
        self._files.close()


def opened(choice: str, folder: Path, role: str, signer: Signer, megabytes: int) -> Auditing:
    """The log that a role's settings ask for. Raises StoreError."""
    if choice == OFF:
        return Unaudited()
    return Audit(folder, role, signer, required=choice == REQUIRED, file_bytes=megabytes << 20)
