"""A checkpoint as torch parameters is the plaintext model, and keeps a head that fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

from secformer.models.data.batch import Batch
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import PlainModel, plain_bert
from secformer.protocols.recipes import RECIPES

torch = pytest.importorskip("torch")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.model import load, start  # noqa: E402
from secformer.models.distill.torch_session import TorchSession  # noqa: E402

TEXTS = ["the cat sat on the mat", "a good film", "it was not very bad!", "dog"]


def double() -> TorchSession:
    return TorchSession(dtype=torch.float64)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"), "BertForSequenceClassification", prefix="bert.")


def test_the_encoder_program_on_tensors_is_the_plaintext_model(classifier: Path) -> None:
    folder = ModelFolder(classifier)
    batch = Batch(tuple(folder.tokenizer.rows(TEXTS)))
    assert batch.padded
    found = load(folder)(double(), batch, EXACT_TORCH)
    np.testing.assert_allclose(found.numpy(), plain_bert(classifier, TEXTS).logits, atol=1e-9)


@pytest.mark.parametrize("name", ["secformer", "mpcformer"])
def test_students_in_training_are_students_in_use(classifier: Path, name: str) -> None:
    """The twin's constants follow a profile, training's the batch: only what an iteration leaves open differs."""
    folder = ModelFolder(classifier)
    batch = Batch(tuple(folder.tokenizer.rows(TEXTS)))
    expected = PlainModel.from_pretrained(classifier, recipe=name, untrained_recipe=True)(TEXTS).logits
    found = load(folder)(double(), batch, RECIPES[name]).numpy()
    tolerance = {"secformer": 2e-3, "mpcformer": 3e-2}[name]
    assert np.abs(found - expected).max() < tolerance
    assert np.abs(found - plain_bert(classifier, TEXTS).logits).max() > tolerance


def test_a_classifier_keeps_a_head_that_fits(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    again, other = start(folder, ("no", "yes"), seed=0), start(folder, ("a", "b", "c"), seed=0)
    head = folder.checkpoint.read("classifier.weight", (2, 12))
    np.testing.assert_allclose(again.tensors["classifier.weight"].numpy(), head, rtol=1e-6)
    assert other.tensors["classifier.weight"].shape == (3, 12)
