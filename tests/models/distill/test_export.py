"""What training writes is an ordinary checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_lab import DEV, LOGITS, TASK, TRAIN, quiet

from secformer.models.distill.evaluate import evaluate
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert, secure_bert
from secformer.protocols.recipes import MPCFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.student import distill  # noqa: E402


def test_a_teacher_is_an_ordinary_checkpoint(teacher: Path) -> None:
    config = json.loads((teacher / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and "secformer" not in config
    assert config["id2label"] == {"0": "bad", "1": "good"} and config["label2id"] == {"bad": 0, "good": 1}
    assert {"bert.pooler.dense.weight", "classifier.bias"} <= set(load_file(teacher / "model.safetensors"))
    assert (teacher / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((teacher / "training").glob("*.safetensors"))
    assert json.loads((teacher / "training" / "result.json").read_text())["accuracy"] > 0.9
    out = secure_bert(teacher, ["a good film", "it was bad"], backend="numpy")
    assert out.labels == ["good", "bad"]


def test_transformers_reads_what_is_written(teacher: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(teacher)
    tokens = transformers.AutoTokenizer.from_pretrained(teacher)(list(DEV.texts[:4]), padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model.eval()(**tokens).logits.numpy()
    np.testing.assert_allclose(theirs, plain_bert(teacher, DEV.texts[:4]).logits, atol=1e-4)


def test_float16_weights_are_those_that_were_measured(teacher: Path, tmp_path: Path) -> None:
    found = distill(ModelFolder(teacher), MPCFORMER, TASK, TRAIN, DEV, tmp_path / "half", inner=None,
                    logits=replace(LOGITS, epochs=1), half=True, tell=quiet)
    assert {a.dtype for a in load_file(tmp_path / "half" / "model.safetensors").values()} == {np.dtype(np.float16)}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["secformer"]["constants"]["quad"] == [
        0.125, 0.25, 0.5]
    assert evaluate(tmp_path / "half", TASK, DEV).plain == pytest.approx(found)
