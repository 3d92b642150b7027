"""Teachers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_lab import DEV

from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.finetune import dev_logits  # noqa: E402
from secformer.models.distill.model import load  # noqa: E402


def test_dev_logits_come_in_order(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    found = dev_logits(load(folder), folder.tokenizer.rows(DEV.texts), EXACT_TORCH)
    np.testing.assert_allclose(found, plain_bert(teacher, DEV.texts).logits, atol=1e-4)
