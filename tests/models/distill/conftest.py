"""Tiny models gain nothing from torch's threads, and lose much where processors are shared.

A teacher and a student are trained once for all tests of this folder.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from training_lab import DEV, INNER, LOGITS, TASK, TEACH, TRAIN, quiet

from secformer.models.families.folder import ModelFolder
from secformer.protocols.recipes import SECFORMER


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Where teachers start."""
    return ModelFolder(write_checkpoint(tmp_path_factory.mktemp("encoder"), scale=0.4))


@pytest.fixture(scope="session")
def teacher(encoder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has learnt TASK."""
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from secformer.models.distill.finetune import finetune

    out = tmp_path_factory.mktemp("work") / "teacher"
    found = finetune(encoder, TASK, TRAIN, DEV, out, stage=TEACH, tell=quiet)
    assert found["accuracy"] > 0.9
    return out


@pytest.fixture(scope="session")
def student(teacher: Path) -> Path:
    """The teacher's student for SecFormer's functions."""
    from secformer.models.distill.student import distill

    out = teacher.parent / "student"
    distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, out, inner=INNER, logits=LOGITS, tell=quiet)
    return out
