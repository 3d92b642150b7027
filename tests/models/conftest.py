"""A family of another package, installed where the tests look for packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import toy_family
from toy_family import installed


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path on which the family is installed, here and in processes that are started."""
    site, labs = installed(tmp_path / "site"), Path(toy_family.__file__).parent
    monkeypatch.syspath_prepend(site)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(labs), *([before] if before else [])]))
    return site
