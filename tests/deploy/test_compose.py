"""The compose files: one for each role, valid, hardened, and with the folders that `secformer init` writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deploy_lab import DEPLOY, ENDS, IMAGE, ROLES, USER, compose, compose_text

from secformer.roles.certificates import PORTS, init
from secformer.roles.settings import load_dealer, load_party

yaml = pytest.importorskip("yaml")

INSIDE = Path("/srv/secformer")
FILES = {"dealer.yaml", "party0.yaml", "party1.yaml", "gateway.yaml", "trial.yaml"}
SERVICES = [(file, name) for file in sorted(FILES) for name in compose(file)["services"]]
OUTSIDE = {"dealer": {"dealer"}, "party0": {"party0", "link"}, "party1": {"party1"}}  # ports that others reach

OPENING = {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "env_file", "environment"}


def test_every_file_is_tested() -> None:
    assert {path.name for path in (DEPLOY / "compose").iterdir()} == FILES


@pytest.mark.parametrize("file", sorted(FILES))
def test_files_are_of_the_specification(file: str) -> None:
    specification = pytest.importorskip("compose_spec")
    plain = yaml.safe_dump({key: value for key, value in compose(file).items() if not key.startswith("x-")})
    specification.PyCompose.from_yaml(plain).validate()


@pytest.mark.parametrize("file", sorted(FILES))
def test_docker_takes_them(file: str) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker compose here")
    command = [docker, "compose", "--file", str(DEPLOY / "compose" / file), "config", "--quiet"]
    done = subprocess.run(command, env=os.environ | {"SECFORMER_IMAGE": IMAGE}, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", [*ROLES, "gateway"])
def test_a_file_starts_one_role(role: str) -> None:
    """No project holds two roles: each belongs to another organisation."""
    assert list(compose(f"{role}.yaml")["services"]) == [role]
    assert compose(f"{role}.yaml")["name"] == f"secformer-{role}"
    text = (DEPLOY / f"compose/{role}.yaml").read_text("utf-8")
    assert "image: ${SECFORMER_IMAGE:?" in text, "nothing runs unless its image is named"


def test_the_trial_says_so() -> None:
    assert compose("trial.yaml")["name"] == "secformer-trial-only"
    assert "Never for production" in (DEPLOY / "compose/trial.yaml").read_text("utf-8")
    assert not any("ports" in service for service in compose("trial.yaml")["services"].values())


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_services_are_hardened(file: str, name: str) -> None:
    service = compose(file)["services"][name]
    assert service["read_only"] is True and service["init"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == f"{USER}:{USER}"
    assert service["mem_limit"] and service["pids_limit"] > 0
    assert not OPENING & service.keys()
    assert all(each["target"].startswith(("/srv/secformer", "/var/cache/secformer")) for each in service["volumes"])
    if name in ENDS:
        assert int(service["stop_grace_period"].removesuffix("s")) > ENDS[name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `secformer init` writes for three machines."""
    folder = tmp_path_factory.mktemp("init") / "roles"
    init(folder, hosts={role: f"{role}.example" for role in ROLES})
    return folder


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_writes_is_mounted(role: str, made: Path) -> None:
    """State, store and audit log lie in folders of their own that can be written, and nothing else can be."""
    file = made / role / f"{role}.toml"
    settings: Any = load_dealer(file) if role == "dealer" else load_party(file)
    wanted = {settings.state, settings.audit_folder} | ({settings.store} if role == "party1" else set())
    service = compose(f"{role}.yaml")["services"][role]
    binds = {Path(each["target"]): each for each in service["volumes"] if each["type"] == "bind"}
    written = {path for path, each in binds.items() if not each.get("read_only")}
    assert written == {INSIDE / path.relative_to(made / role) for path in wanted}
    assert binds.keys() - written == {INSIDE}
    assert all(each["bind"] == {"create_host_path": False} for each in binds.values()), "a mistyped folder is an error"
    assert {Path(each["source"]): path for path, each in binds.items()} == {
        Path(role) / path.relative_to(INSIDE): path for path in binds}
    assert service["working_dir"] == str(INSIDE) and service["command"][-1] == file.name


@pytest.mark.parametrize("role", ROLES)
def test_ports_are_those_that_init_writes(role: str) -> None:
    service = compose(f"{role}.yaml")["services"][role]
    assert service["ports"] == [f"{port}:{port}" for port in sorted(PORTS[name] for name in OUTSIDE[role])]
    metrics = PORTS["dealer_metrics" if role == "dealer" else f"metrics{role[-1]}"]
    assert service["healthcheck"]["test"][-1] == f"http://127.0.0.1:{metrics}/readyz"
    assert compose("trial.yaml")["services"][role]["healthcheck"]["test"] == service["healthcheck"]["test"]


def test_the_gateway_is_not_open_to_the_network() -> None:
    assert compose("gateway.yaml")["services"]["gateway"]["ports"] == ["127.0.0.1:8000:8000"]
    command = compose("gateway.yaml")["services"]["gateway"]["command"]
    assert {"--certificate", "--key", "--api-key-file"} <= set(command)


def test_variables_have_defaults_or_are_asked_for() -> None:
    for file in FILES:
        assert "${" not in compose_text(file).replace("$${", "")
