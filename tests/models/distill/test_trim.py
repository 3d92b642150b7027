"""Small models cut out of large ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from training_lab import DEV, INNER, LOGITS, TASK, TRAIN, quiet

from secformer.models.distill.tasks import Examples
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import ModelError
from secformer.protocols.recipes import SECFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.student import distill  # noqa: E402
from secformer.models.distill.trim import trim  # noqa: E402


def test_trimmed_models(teacher: Path, tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path / "four", "BertForSequenceClassification", prefix="bert.",
                                          labels=2, num_hidden_layers=4))
    (folder.path / "vocab.txt").write_text("\n".join(folder.tokenizer.opened.convert_ids_to_tokens(range(39))))
    words = trim(folder, tmp_path / "words", TRAIN.texts, layers=4, neurons=20, words=39, positions=16)
    a, b = (plain_bert(path, DEV.texts[:5]).logits for path in (words.path, folder.path))
    np.testing.assert_allclose(a, b)
    task = replace(TASK, labels=words.architecture.spec.labels)
    small = trim(words, tmp_path / "small", TRAIN.texts, layers=2, neurons=8, words=39, positions=16)
    spec = small.architecture.spec
    assert (spec.layers, spec.intermediate, spec.positions) == (2, 8, 16)
    labels = np.zeros(len(TRAIN), np.int64)
    distill(words, SECFORMER, task, Examples(TRAIN.texts, labels), DEV, tmp_path / "out", smaller=small,
            inner=replace(INNER, epochs=1), logits=replace(LOGITS, epochs=1), tell=quiet)
    assert ModelFolder(tmp_path / "out").architecture.spec.layers == 2
    odd = trim(words, tmp_path / "odd", TRAIN.texts, layers=3, neurons=8, words=39, positions=16)
    with pytest.raises(ModelError, match="not a multiple"):
        distill(words, SECFORMER, task, TRAIN, DEV, tmp_path / "x", smaller=odd)
    fewer = trim(words, tmp_path / "fewer", TRAIN.texts, layers=2, neurons=8, words=30, positions=16)
    assert fewer.architecture.spec.vocab == 30
    with pytest.raises(ModelError, match="has vocabulary 30"):
        distill(words, SECFORMER, task, TRAIN, DEV, tmp_path / "x", smaller=fewer)
    assert len(fewer.tokenizer.rows(["catsat"])[0]) > 2  # words that were cut fall into pieces
