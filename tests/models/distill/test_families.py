"""Teachers of other families than BERT: fine-tuned, distilled, and evaluated on shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bytes_lab import WORDS, write_bytes
from families_lab import save
from training_lab import DEV, INNER, LOGITS, TASK, TEACH, TRAIN, quiet

from secformer.models.distill.evaluate import evaluate
from secformer.models.distill.tasks import Examples
from secformer.models.families.folder import ModelFolder
from secformer.protocols.recipes import SECFORMER

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
                         "max_position_embeddings": 34}
DISTILBERT: dict[str, Any] = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20, "max_position_embeddings": 34}
ROBERTA = SIZES | {"vocab_size": WORDS, "type_vocab_size": 1, "tokenizer": write_bytes}
FACTORISED = SIZES | {"embedding_size": 8}
FEW = Examples(DEV.texts[:24], DEV.labels[:24])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "entries"), [
    ("DistilBertForMaskedLM", DISTILBERT), ("RobertaModel", ROBERTA)])
def test_from_a_pretrained_model_to_a_student_on_shares(name: str, entries: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from secformer.models.distill.finetune import finetune
    from secformer.models.distill.student import distill

    source = ModelFolder(save(tmp_path / "source", name, **entries))
    taught = finetune(source, TASK, TRAIN, FEW, tmp_path / "teacher", stage=TEACH, tell=quiet)
    assert taught["accuracy"] > 0.9
    teacher = ModelFolder(tmp_path / "teacher")
    assert teacher.architecture.spec.architecture.endswith("ForSequenceClassification")
    distill(teacher, SECFORMER, TASK, TRAIN, FEW, tmp_path / "student", inner=replace(INNER, epochs=3), logits=LOGITS,
            tell=quiet)
    found = evaluate(tmp_path / "student", TASK, FEW, secure=True, backend="numpy")
    assert found.recipe == "secformer" and found.secure is not None
    assert found.secure["accuracy"] > 0.8 and found.agreement == 1.0
    assert found.error is not None and found.error < 2e-2 and not found.notes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "entries"), [
    ("RobertaForMaskedLM", ROBERTA), ("AlbertModel", FACTORISED), ("ElectraForPreTraining", FACTORISED)])
def test_the_teacher_is_what_transformers_makes_of_its_folder(name: str, entries: dict[str, Any],
                                                              tmp_path: Path) -> None:
    """The folder that fine-tuning writes has the names that transformers reads."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from secformer.models.distill.finetune import finetune
    from secformer.models.run.local import plain_bert

    source = ModelFolder(save(tmp_path / "source", name, **entries))
    finetune(source, TASK, TRAIN, FEW, tmp_path / "teacher", stage=replace(TEACH, epochs=1), tell=quiet)
    model, said = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "teacher"),
                                                                     output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    given = AutoTokenizer.from_pretrained(str(tmp_path / "teacher"))(FEW.texts[0], return_tensors="pt")
    with torch.no_grad():
        wanted = model.double().eval()(**given).logits.numpy()
    assert plain_bert(tmp_path / "teacher", FEW.texts[:1]).logits == pytest.approx(wanted, abs=1e-5)
