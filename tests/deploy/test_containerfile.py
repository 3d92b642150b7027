"""The Containerfile and what a build may read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from deploy_lab import DEPLOY, USER
from tree import ROOT

from secformer.roles.certificates import init

TEXT = (DEPLOY / "container/Containerfile").read_text("utf-8")
LINES = [line for line in re.sub(r"\\\n\s*", "", TEXT).splitlines() if line and not line.startswith("#")]
LAST = LINES[max(number for number, line in enumerate(LINES) if line.startswith("FROM")):]


def of(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in LAST if line.startswith(word)]


def test_the_base_is_pinned_and_can_be_replaced() -> None:
    (base,) = (line.partition("=")[2] for line in LINES if line.startswith("ARG BASE="))
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-[a-z]+", base)
    assert [line for line in LINES if line.startswith("FROM")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert of("USER") == [f"{USER}:{USER}"]
    assert of("ENTRYPOINT") == ['["/opt/secformer/bin/secformer"]'], "a shell would keep SIGTERM from the role"
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert not of("VOLUME"), "a forgotten mount must be an error"
    assert not of("ADD") and of("COPY") == ["--from=build /opt/secformer /opt/secformer",
                                            "deploy/container/healthy.py /opt/secformer/healthy.py"]


def matches(pattern: str, path: str) -> bool:
    """As builders read such a file, for the patterns that are in ours: a name of a folder holds all that is in it."""
    if pattern.startswith("**/"):
        return bool(re.search(rf"(^|/){re.escape(pattern[3:]).replace(re.escape('*'), '[^/]*')}(/|$)", path))
    return pattern == "*" or path == pattern or path.startswith(f"{pattern}/")


def taken(path: str) -> bool:
    """Whether a build may read a file."""
    found = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#") and matches(line.removeprefix("!"), path):
            found = line.startswith("!")
    return found


def test_builds_read_no_secret(tmp_path: Path) -> None:
    """Wherever somebody keeps the folders of roles in a checkout; and what a wheel is made of is read."""
    init(tmp_path / "roles")
    secrets = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "roles").rglob("*") if path.is_file()]
    assert secrets and not [name for name in secrets if taken(name)]
    keys = [name for name in secrets if name.endswith((".key", ".pem"))]
    assert not [name for name in keys if taken(f"secformer/{name}")]
    others = "shares/party0.safetensors", ".git/config", ".env", "tests/labs/tree.py"
    assert not [name for name in others if taken(name)]
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "mpc/ring.py", "secformer/cli.py",
                 "secformer/page/static/index.html", "models/demo/model.safetensors", "deploy/container/healthy.py"):
        assert taken(name), name


def test_what_a_build_reads_is_what_the_package_holds() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    tops = {name.split("/")[0] for name in listed.stdout.splitlines() if taken(name)}
    assert tops == {"LICENSE", "MANIFEST.in", "README.md", "deploy", "models", "mpc", "protocols", "pyproject.toml",
                    "secformer", "setup.cfg"}
