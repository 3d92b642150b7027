"""The systemd units: systemd takes them, they are hardened, and they write where `secformer init` says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deploy_lab import DEPLOY, ENDS, ROLES, unit, unit_of, values

from secformer.cli import main
from secformer.roles.certificates import init
from secformer.roles.settings import load_dealer, load_party

UNITS = {unit_of(role): role for role in (*ROLES, "gateway")}
PROGRAM = re.compile(r"/opt/secformer/(%i|gateway)/bin/secformer\b")
HOME = "/var/lib/secformer/%i"
MOST_EXPOSED = 20  # tenths, of systemd's scale from 0 (fully sandboxed) to 10


def test_every_unit_is_tested() -> None:
    assert {path.name for path in (DEPLOY / "systemd").iterdir()} == set(UNITS)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with programs that are there, for the cell `a` and for the gateway."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    folder = tmp_path_factory.mktemp("units")
    for link in ("a", "gateway"):
        (folder / link / "bin").mkdir(parents=True)
        (folder / link / "bin/secformer").symlink_to(sys.executable)
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text("utf-8")
        assert "=/opt/secformer/" in text
        (folder / name).write_text(text.replace("=/opt/secformer/", f"={folder}/"), "utf-8")
    return folder


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_them(name: str, installed: Path) -> None:
    code, said = analyze("verify", "--man=no", str(installed / name.replace("@.", "@a.")))
    if "Failed to" in said and "manager" in said:
        pytest.skip("systemd's checks do not run here")
    assert code == 0 and not [line for line in said.splitlines() if "secformer" in line], said


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_them_hardened(name: str, installed: Path) -> None:
    code, said = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}",
                         str(installed / name.replace("@.", "@a.")))
    if "unrecognized option" in said:
        pytest.skip("this systemd cannot judge files")
    assert code == 0, said


@pytest.mark.parametrize("name", UNITS)
def test_the_file_system_is_closed(name: str) -> None:
    wanted = {"ProtectSystem": "strict", "NoNewPrivileges": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "",
              "UMask": "0077", "User": "secformer", "LimitCORE": "0", "StateDirectoryMode": "0700"}
    for key, value in wanted.items():
        if key != "StateDirectoryMode" or UNITS[name] != "gateway":
            assert values(name, key) == [value], key
    assert not values(name, "ReadWritePaths")
    assert values(name, "MemoryDenyWriteExecute") == ["no"], "numba could not compile the kernels"
    (environment,) = (value for value in values(name, "Environment") if "NUMBA_CACHE_DIR" in value)
    assert f"NUMBA_CACHE_DIR=/var/cache/{values(name, 'CacheDirectory')[0]} " in environment


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_writes_where_init_says(role: str, tmp_path: Path) -> None:
    init(tmp_path / "roles")
    file = tmp_path / "roles" / role / f"{role}.toml"
    settings: Any = load_dealer(file) if role == "dealer" else load_party(file)
    wanted = {settings.state, settings.audit_folder} | ({settings.store} if role == "party1" else set())
    (folders,) = values(unit_of(role), "StateDirectory")
    assert {Path("/var/lib", folder) for folder in folders.split()} == {
        Path(HOME) / path.relative_to(file.parent) for path in wanted}
    assert values(unit_of(role), "WorkingDirectory") == [HOME]
    assert values(unit_of(role), "AssertPathExists") == [f"{HOME}/{file.name}"]


@pytest.mark.parametrize("role", ROLES)
def test_a_machine_with_two_roles_keys_is_refused(role: str) -> None:
    others = [f"!/var/lib/secformer/*/{other}.key" for other in ROLES if other != role]
    assert sorted(values(unit_of(role), "AssertPathExistsGlob")) == sorted(others)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_waits_for_the_end(name: str) -> None:
    (seconds,) = values(name, "TimeoutStopSec")
    assert int(seconds) > ENDS[UNITS[name]]
    assert values(name, "Restart") == ["on-failure"], "an orderly end is an end"
    reload = [] if UNITS[name] == "gateway" else ["/bin/kill -HUP $MAINPID"]
    assert values(name, "ExecReload") == reload


@pytest.mark.parametrize("name", UNITS)
def test_the_command_is_one_of_ours(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It gets as far as the settings file, which is not there."""
    (line,) = values(name, "ExecStart")
    if UNITS[name] == "gateway":
        (given,) = (value.strip('"') for value in values(name, "Environment") if "GATEWAY=" in value)
        line = line.replace("$GATEWAY", given.removeprefix("GATEWAY="))
    program, *arguments = line.split()
    assert PROGRAM.fullmatch(program) and f"/{'client' if UNITS[name] == 'gateway' else UNITS[name]}.toml" in line
    missing = [word.replace("/var/lib/secformer", str(tmp_path)).replace("/etc/secformer", str(tmp_path))
               for word in arguments]
    assert main(missing) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_units_of_roles_differ_in_the_role_alone() -> None:
    """What keeps one role in keeps the others in."""
    own = {"Description", "AssertPathExists", "AssertPathExistsGlob", "ExecStart", "StateDirectory"}
    rest = [[line for line in unit(unit_of(role)) if line[1] not in own] for role in ROLES]
    assert rest[0] == rest[1] == rest[2]
