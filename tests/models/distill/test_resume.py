"""Training that goes on: with the same settings only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from training_lab import DEV, INNER, TASK, TRAIN, Stop, interrupted_after, quiet

from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import SettingsError
from secformer.protocols.recipes import MPCFORMER, SECFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.student import distill  # noqa: E402


def test_other_settings_do_not_go_on(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path, inner=INNER, tell=interrupted_after(0))
    with pytest.raises(SettingsError, match=r"other settings \(differing: design, stages\)"):
        distill(ModelFolder(teacher), MPCFORMER, TASK, TRAIN, DEV, tmp_path, inner=replace(INNER, rate=1.0), tell=quiet)
