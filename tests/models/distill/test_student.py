"""Students learn from teachers, and what cannot be learnt is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from training_lab import DEV, INNER, LOGITS, NUMBERS, TASK, TEACH, TRAIN, examples, quiet

from secformer.models.data.batch import Batch
from secformer.models.distill.evaluate import evaluate
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError
from secformer.protocols.recipes import SECFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.finetune import finetune  # noqa: E402
from secformer.models.distill.losses import inner_loss, logits_loss  # noqa: E402
from secformer.models.distill.model import load  # noqa: E402
from secformer.models.distill.student import distill  # noqa: E402
from secformer.models.distill.torch_session import TorchSession  # noqa: E402
from secformer.models.distill.trace import Trace  # noqa: E402


def gap(student: Path, teacher: Path, recipe: Any) -> tuple[float, float]:
    """Inner and logits loss of a student on the dev set."""
    folder = ModelFolder(teacher)
    batch, s = Batch(tuple(folder.tokenizer.rows(DEV.texts))), TorchSession(dtype=torch.float64)
    mine, theirs = Trace(maps=True), Trace(maps=True)
    with torch.no_grad():
        a = load(ModelFolder(student))(s, batch, recipe, mine)
        b = load(folder)(s, batch, EXACT_TORCH, theirs)
        return float(inner_loss(mine, theirs, batch)), float(logits_loss(a, b, TASK))


def test_distillation_brings_a_student_nearer(teacher: Path, student: Path) -> None:
    before, after = gap(teacher, teacher, SECFORMER), gap(student, teacher, SECFORMER)
    assert after[0] < 0.7 * before[0] and after[1] < before[1]


def test_labels_alone_are_no_distillation(teacher: Path, tmp_path: Path) -> None:
    found = distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path / "out", logits=LOGITS,
                    labels_only=True, tell=quiet)
    assert found["accuracy"] > 0.8
    assert [p.name for p in sorted((tmp_path / "out" / "training").glob("logits*"))] == ["logits.json"]
    assert not (tmp_path / "out" / "training" / "inner.json").exists()


def test_regression(encoder: ModelFolder, tmp_path: Path) -> None:
    train, dev = examples(96, 1, NUMBERS), examples(40, 2, NUMBERS)
    teach = replace(TEACH, epochs=6)
    assert finetune(encoder, NUMBERS, train, dev, tmp_path / "t", stage=teach, tell=quiet)["pearson"] > 0.8
    found = distill(ModelFolder(tmp_path / "t"), SECFORMER, NUMBERS, train, dev, tmp_path / "s", inner=INNER,
                    logits=LOGITS, tell=quiet)
    assert found["pearson"] > 0.8
    result = evaluate(tmp_path / "s", NUMBERS, dev.first(8), secure=True, backend="numpy")
    assert result.agreement is None and result.secure == pytest.approx(result.plain, abs=0.02)


def test_models_that_cannot_be_trained(tmp_path: Path, teacher: Path) -> None:
    masked = ModelFolder(write_checkpoint(tmp_path / "masked", "BertForMaskedLM", prefix="bert."))
    tokens = ModelFolder(write_checkpoint(tmp_path / "tokens", "BertForTokenClassification", prefix="bert."))
    with pytest.raises(ModelError, match="fine-tuning takes BertModel or BertForSequenceClassification or BertForMask"):
        finetune(tokens, TASK, TRAIN, DEV, tmp_path / "out")
    with pytest.raises(ModelError, match="is a BertForMaskedLM"):
        distill(masked, SECFORMER, TASK, TRAIN, DEV, tmp_path / "out")
    three = ModelFolder(write_checkpoint(tmp_path / "three", "BertForSequenceClassification", prefix="bert."))
    with pytest.raises(ModelError, match=r"knows the labels|3 label"):
        distill(three, SECFORMER, TASK, TRAIN, DEV, tmp_path / "out")
    with pytest.raises(ModelError, match="already holds a model"):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path / "three")
    with pytest.raises(ModelError, match="the model to start from"):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, teacher)
