"""The training loop: interruptions do not show, the best is kept, a loss that is no number is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_lab import DEV, INNER, LOGITS, NUMBERS, TASK, TEACH, TRAIN, Stop, interrupted_after, quiet

from secformer.models.distill.tasks import Examples
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import RangeError
from secformer.protocols.recipes import SECFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.finetune import finetune  # noqa: E402
from secformer.models.distill.student import distill  # noqa: E402


def in_two_stages(teacher: Path, out: Path, tell: Callable[[str], None]) -> None:
    inner, logits = replace(INNER, epochs=2, dropout=0.1), replace(LOGITS, epochs=2, dropout=0.1)
    distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN.first(32), DEV.first(16), out, inner=inner, logits=logits,
            tell=tell)


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose training nobody interrupted."""
    out = tmp_path_factory.mktemp("whole")
    in_two_stages(teacher, out, quiet)
    return out


@pytest.mark.parametrize("checks", [0, 1, 2])
def test_interrupted_training_ends_where_it_would_have(teacher: Path, whole: Path, tmp_path: Path, checks: int) -> None:
    """In the first stage, at its end, and in the second: bit for bit."""
    with pytest.raises(Stop):
        in_two_stages(teacher, tmp_path, interrupted_after(checks))
    said: list[str] = []
    in_two_stages(teacher, tmp_path, said.append)
    assert any("resumed at step" in text for text in said) == (checks != 1)
    wanted, found = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path))
    for name, values in wanted.items():
        np.testing.assert_array_equal(values, found[name])


def test_early_stopping_keeps_the_best(encoder: ModelFolder, tmp_path: Path) -> None:
    stage = replace(TEACH, epochs=30, patience=2)
    found = finetune(encoder, TASK, TRAIN, DEV, tmp_path, stage=stage, tell=quiet)
    state = json.loads((tmp_path / "training" / "labels.json").read_text())["state"]
    metrics = [point["metric"] for point in state["history"]]
    assert state["done"] and len(metrics) < 30 and metrics.index(max(metrics)) == len(metrics) - 3
    assert found["accuracy"] == max(metrics) == state["best"]


def test_a_loss_that_is_no_number_is_told(encoder: ModelFolder, tmp_path: Path) -> None:
    huge = Examples(TRAIN.texts, 1e38 * (-1.0) ** np.arange(len(TRAIN)))
    with pytest.raises(RangeError, match="lower the learning rate"):
        finetune(encoder, NUMBERS, huge, DEV, tmp_path, tell=quiet)
