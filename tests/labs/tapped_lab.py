"""Real roles whose parties note a digest of every message that a request's connections bring: what the other party
opens. The same words under the same masks give the same digests.

As a script: `tapped_lab.py FILE [--nonces-repeat] party --settings ...` is `secformer party ...` with such notes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from secformer import connect
from secformer.models.run.output import SecureOutput
from secformer.roles.trial import LocalRoles

ROLES = ("dealer", "party0", "party1")
REPEAT = "--nonces-repeat"  # a fault, for control: the nonces are always the same


class TappedRoles(LocalRoles):
    """Roles as processes, whose parties are tapped."""

    nonces_repeat = False

    def command(self, role: str) -> list[str]:
        command = super().command(role)
        if role == "dealer":
            return command
        options = [REPEAT] if self.nonces_repeat else []
        return [sys.executable, __file__, str(self._taps(role)), *options, *command[3:]]

    def _taps(self, role: str) -> Path:
        return self.folder / f"{role}.taps"

    def asked(self, text: str) -> tuple[SecureOutput, list[str]]:
        """The answer to a request that is the same words for both parties each time, and what each party opened."""
        before = self.taps()
        with mock.patch("secformer.roles.halves.fresh_seed", lambda: bytes(32)), \
                mock.patch("secformer.roles.client.fresh_id", lambda: os.urandom(16).hex()), \
                connect(self.settings("client")) as model:
            out = model.infer(text)
        return out, self.taps()[len(before) :]

    def taps(self) -> list[str]:
        """All that was noted so far at party 0: what party 1 has opened."""
        path = self._taps("party0")
        return path.read_text().splitlines() if path.exists() else []

    def stop(self, role: str, how: int = signal.SIGKILL) -> None:
        """At once, as a machine does that is set back."""
        super().stop(role, how)

    def stop_all(self) -> None:
        for role in ROLES:
            if role in self.processes:
                self.stop(role)

    def start_all(self) -> None:
        for role in ROLES:
            if role not in self.processes:
                self.start(role)
        self.wait_ready()

    @contextmanager
    def copied(self, *kinds: tuple[str, str]) -> Iterator[Any]:
        """A backup of folders, each (role, "state" or "store"); calling what this gives restores it."""
        backup = self.folder / "backup"
        for role, kind in kinds:
            if (folder := self.role_folder(role) / kind).exists():
                shutil.copytree(folder, backup / role / kind)

        def restore() -> None:
            for role, kind in kinds:
                shutil.rmtree(self.role_folder(role) / kind, ignore_errors=True)
                if (backup / role / kind).exists():
                    shutil.copytree(backup / role / kind, self.role_folder(role) / kind)

        try:
            yield restore
        finally:
            shutil.rmtree(backup, ignore_errors=True)


def tapped(path: Path) -> None:
    """Notes what this process receives in slots from now on."""
    from secformer.mpc.net.tls import TLSChannel

    receive, writing = TLSChannel.receive, threading.Lock()

    def noting(self: TLSChannel, tag: Any, nbytes: int) -> Any:
        payload = receive(self, tag, nbytes)
        if threading.current_thread().name.startswith("slot "):
            digest = hashlib.sha256(np.ascontiguousarray(payload).tobytes()).hexdigest()
            with writing, path.open("a") as file:
                file.write(f"{tag.verb} {digest}\n")
        return payload

    TLSChannel.receive = noting  # type: ignore[method-assign]


def main() -> int:
    path, *arguments = sys.argv[1:]
    if arguments[0] == REPEAT:
        from secformer.mpc.dealer import names

        names.fresh_seed = lambda: bytes(32)
        arguments = arguments[1:]
    tapped(Path(path))
    from secformer.cli import main as secformer

    return int(secformer(arguments))


if __name__ == "__main__":
    sys.exit(main())
