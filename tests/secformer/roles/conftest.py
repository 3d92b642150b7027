"""Real roles for the tests of this folder: processes of this machine, started once, with short deadlines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the served roles need the extra `serve`")
pytest.importorskip("uvicorn", reason="the served roles need the extra `serve`")
pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")

from browsers_lab import ORIGIN

from secformer import demo_model
from secformer.roles.certificates import init
from secformer.roles.trial import LocalRoles

SHORT = {"deadline": 20.0, "dealer_wait": 2.0, "request_deadline": 60.0, "header_deadline": 2.0, "queue": 300,
         "max_body_mb": 64, "max_tokens": 1024}


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh certificates and settings of all roles."""
    init(folder := tmp_path_factory.mktemp("init") / "roles")
    return folder


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRoles]:
    """The shipped model, served; tests that end a role start it again."""
    with LocalRoles(tmp_path_factory.mktemp("served"), demo_model(), settings=SHORT, origins=[ORIGIN]) as roles:
        roles.wait_ready()
        yield roles


@pytest.fixture
def up(served: LocalRoles) -> LocalRoles:
    """The served roles, all up and ready."""
    for role in ("dealer", "party0", "party1"):
        if role not in served.processes or served.processes[role].poll() is not None:
            served.processes.pop(role, None)
            served.start(role)
    served.wait_ready()
    return served
