"""Models that several tests of this folder run."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs_lab import folder_of

from secformer import demo_model
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.provisioning import write_shares


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with its profile beside it."""
    path = folder_of(tmp_path_factory.mktemp("encoder"))
    measure(ModelFolder(path)).save(path / FILE)
    return path


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `secformer provision` writes of the shipped model."""
    out = tmp_path_factory.mktemp("provisioned") / "shares"
    write_shares(demo_model(), out, recipe="auto")
    return out
