"""All three roles as processes on this machine, with temporary certificates: for trials, tests and benches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER
from secformer.models.run.share_file import share_file
from secformer.mpc.errors import ProtocolError
from secformer.mpc.net.tcp import free_ports
from secformer.roles.certificates import init
from secformer.roles.hosts import LOOPBACK

ROLES = ("dealer", "party0", "party1")
START = 120.0  # seconds in which the roles must become ready
END = 10.0     # seconds in which a role must end before it is killed
LISTENERS = ("dealer", "link", "party0", "party1", "browsers0", "browsers1", "metrics0", "metrics1", "dealer_metrics")


class LocalRoles:
    """A folder with certificates, settings, share files and logs, and the three roles as processes.

    Use it as a context manager: entering it starts the processes, leaving it ends them.
    """

    def __init__(self, folder: Path, model: Any, *, settings: Mapping[str, Any] | None = None,
                 origins: Sequence[str] = (), **provisioning: Any):
        """Makes the files; starts no process. `settings` go into the parties' settings files, `provisioning` to
        `write_shares`. Pages of the `origins` may ask the parties from browsers; without, the parties have no port for
        browsers. Raises ModelError, SettingsError, OSError."""
        self.folder = folder
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        init(folder / "roles", ports=self.ports, parties=settings or {}, origins=origins)
        shares = folder / "shares"
        self.public = write_shares(model, shares, **provisioning)
        for rank in (0, 1):
            (shares / share_file(rank)).rename(self.role_folder(f"party{rank}") / "model.safetensors")
        (shares / CLIENT_FOLDER).rename(self.role_folder("client") / "model")
        shares.rmdir()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environments: dict[str, Mapping[str, str]] = {}  # by role: what its process finds beside ours
        self._logs: list[IO[bytes]] = []

    def role_folder(self, role: str) -> Path:
        return self.folder / "roles" / role

    def settings(self, role: str) -> Path:
        """A role's settings file."""
        return self.role_folder(role) / f"{role}.toml"

    def url(self, rank: int) -> str:
        """Where browsers reach a party, if it has a port for them."""
        return f"https://{LOOPBACK}:{self.ports[f'browsers{rank}']}"

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def start(self, role: str) -> None:
        """Starts one role's process; its output is appended to its log."""
        output = self.log(role).open("ab")
        self._logs.append(output)
        self.processes[role] = subprocess.Popen(self.command(role), stdin=subprocess.DEVNULL, stdout=output,
                                                stderr=output, start_new_session=True,
                                                env={**os.environ, **self.environments.get(role, {})})

    def command(self, role: str) -> list[str]:
        """What starts a role's process."""
        command = ["dealer"] if role == "dealer" else ["party", "--rank", role[-1]]
        return [sys.executable, "-m", "secformer", *command, "--settings", str(self.settings(role))]

    def wait_ready(self, seconds: float = START, told: Callable[[str], None] = lambda reason: None) -> None:
        """Waits until both parties answer requests. Raises ProtocolError with the reason if they do not."""
        end, reason = time.monotonic() + seconds, ""
        while True:
            states = [self.ready(rank) for rank in (0, 1)]
            if all(state == "" for state in states):
                return
            for role, process in self.processes.items():
                if process.poll() is not None:
                    raise ProtocolError(f"the {role} ended: {self._last_words(role)}")
            if (now := next(state for state in states if state)) != reason:
                told(reason := now)
            if time.monotonic() > end:
                raise ProtocolError(f"the roles were not ready within {seconds:g} s: {reason}; see the logs in "
                                    f"{self.folder}")
            time.sleep(0.05)

    def ready(self, rank: int) -> str:
        """Why a party does not answer requests; "" if it does."""
        from http.client import HTTPConnection

        connection = HTTPConnection("127.0.0.1", self.ports[f"metrics{rank}"], timeout=5.0)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            return "" if answer.status == 200 else text or "not ready"
        except OSError as error:
            return f"party {rank} does not answer yet ({error})"
        finally:
            connection.close()

    def stop(self, role: str, how: int = signal.SIGTERM) -> None:
        """Ends one role's process and waits for it."""
        process = self.processes.pop(role)
        process.send_signal(how)
        _wait(process)

    def watch(self, stop: threading.Event) -> None:
        """Waits until `stop` is set. Raises ProtocolError if a role ends by itself."""
        while not stop.wait(0.5):
            for role, process in self.processes.items():
                if process.poll() is not None:
                    raise ProtocolError(f"the {role} ended: {self._last_words(role)}")

    def __enter__(self) -> Self:
        for role in ROLES:
            self.start(role)
        return self

    def __exit__(self, *args: Any) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            _wait(process)
        self.processes.clear()
        for file in self._logs:
            file.close()

    def _last_words(self, role: str) -> str:
        lines = self.log(role).read_text("utf-8", "replace").strip().splitlines()
        for line in reversed(lines):
            try:
                facts = json.loads(line)
                return str(facts.get("problem") or facts.get("event"))
            except (ValueError, AttributeError):
                return line
        return "its log is empty"


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that was asked to end, and kills it if it does not."""
    try:
        process.wait(END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
