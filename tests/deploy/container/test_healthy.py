"""A dealer that runs as the unit and the compose file start it, in a folder that `secformer init` wrote."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_lab import DEPLOY, compose, unit_of, values
from roles_lab import until

from secformer.mpc.net.tcp import free_ports
from secformer.roles.certificates import PORTS

HEALTHY = DEPLOY / "container/healthy.py"
SECFORMER = [sys.executable, "-m", "secformer"]


def healthy(*urls: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, str(HEALTHY), *urls], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


class Dealer:
    """The process, and the folder `a` of its cell."""

    def __init__(self, folder: Path):
        made = subprocess.run([*SECFORMER, "init", str(folder / "roles")], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        self.folder = (folder / "roles/dealer").rename(folder / "a")
        self.given = self.files()
        ports = dict(zip((PORTS["dealer"], PORTS["dealer_metrics"]), free_ports(2), strict=True))
        file = self.folder / "dealer.toml"
        text = file.read_text("utf-8")
        for usual, free in ports.items():
            assert f":{usual}" in text
            text = text.replace(f":{usual}", f":{free}")
        file.write_text(text, "utf-8")
        self.ready = f"http://127.0.0.1:{ports[PORTS['dealer_metrics']]}/readyz"
        (line,) = values(unit_of("dealer"), "ExecStart")
        self.command = line.replace("/var/lib/secformer/%i", str(self.folder)).split()[1:]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*SECFORMER, *self.command], cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def files(self) -> set[Path]:
        return {path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file()}

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def dealer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dealer]:
    dealer = Dealer(tmp_path_factory.mktemp("deployed"))
    try:
        until(lambda: healthy(dealer.ready)[0] == 0 or dealer.process.poll() is not None, 120.0)
        assert dealer.process.poll() is None, dealer.log.read_text("utf-8")
        yield dealer
    finally:
        dealer.process.kill()
        dealer.process.wait()


def test_compose_starts_the_same(dealer: Dealer) -> None:
    """Its working folder is the role's."""
    command = compose("dealer.yaml")["services"]["dealer"]["command"]
    assert [*command[:-1], str(dealer.folder / command[-1])] == dealer.command


def test_a_role_that_works_is_healthy(dealer: Dealer) -> None:
    assert healthy(dealer.ready) == (0, "")
    assert healthy("http://127.0.0.1:1/readyz", dealer.ready) == (0, ""), "one of the usual ports is enough"


def test_others_are_not(dealer: Dealer) -> None:
    code, said = healthy(dealer.ready.replace("readyz", "nothing"))
    assert code == 1 and "Not Found" in said
    code, said = healthy("http://127.0.0.1:1/readyz")
    assert code == 1 and "http://127.0.0.1:1/readyz" in said


def test_usual_ports_are_those_that_init_writes() -> None:
    text = HEALTHY.read_text("utf-8")
    assert f"({PORTS['dealer_metrics']}, {PORTS['metrics0']}, {PORTS['metrics1']})" in text


def test_a_role_writes_into_its_folders_alone(dealer: Dealer) -> None:
    """In those that the unit and the compose file let it write to. SIGHUP, the unit's reload, does not end it, and
    SIGTERM ends it in order. The last test here."""
    dealer.process.send_signal(signal.SIGHUP)
    until(lambda: healthy(dealer.ready)[0] == 0)
    assert dealer.end() == 0
    assert '"ended"' in dealer.log.read_text("utf-8")
    (folders,) = values(unit_of("dealer"), "StateDirectory")
    allowed = {Path(folder).name for folder in folders.split()}
    written = {path.parts[0] for path in dealer.files() - dealer.given}
    assert written == allowed
    assert not (dealer.folder / "state").stat().st_mode & 0o077
