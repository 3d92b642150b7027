"""What a page is told of a model, and the models that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from sentence_lab import write_sentence

from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import ModelError
from secformer.page.model import page_model


def provisioned(folder: Path, out: Path, **how: Any) -> Path:
    """The clients' folder of a model."""
    write_shares(folder, out, **how)
    return out / "client"


@pytest.mark.parametrize(("architecture", "kind", "names"), [
    ("BertForSequenceClassification", "labels", ["logits"]), ("BertModel", "embedding", ["last_hidden_state"]),
    ("BertForTokenClassification", "tokens", ["logits"]), ("BertForMaskedLM", "tokens", ["logits"])])
def test_the_facts_of_every_kind(tmp_path: Path, architecture: str, kind: str, names: list[str]) -> None:
    clients = provisioned(write_checkpoint(tmp_path / "model", architecture), tmp_path / "out")
    files = page_model(clients)
    assert set(files) == {"model.json", "tokenizer.json"}
    facts, public = json.loads(files["model.json"]), PublicModel.load(clients)
    assert facts["kind"] == kind and facts["digest"] == public.digest and set(names) <= set(facts["names"])
    assert facts["guarded"] is True and facts["by_token"].keys() == set(facts["names"]) - {"guard"}
    assert (facts["words"], facts["segments"], facts["longest"]) == (len(json.loads(
        files["tokenizer.json"])["model"]["vocab"]), 2, 32)
    assert (facts["mask"] is not None) == (architecture == "BertForMaskedLM")
    assert str(tmp_path) not in str(files), "the owner's paths are nobody's business"


def test_files_hold_no_secret(tmp_path: Path) -> None:
    """What a page holds is what every client's folder holds already, and the tables of characters."""
    clients = provisioned(write_checkpoint(tmp_path / "model"), tmp_path / "out")
    facts = json.loads(page_model(clients)["model.json"])
    assert facts.keys() == {"format", "kind", "digest", "words", "segments", "longest", "context", "prompt", "pad",
                            "prefix", "frac", "guarded", "names", "by_token", "labels", "problem", "score", "unit",
                            "mask", "notes", "tokenizer"}


def test_models_that_a_page_cannot_serve_are_refused(tmp_path: Path) -> None:
    question = write_checkpoint(tmp_path / "question", "BertForQuestionAnswering")
    plain = write_checkpoint(tmp_path / "plain")
    lower = write_sentence(tmp_path / "lower", settings={"max_seq_length": 32, "do_lower_case": True})
    bare = provisioned(plain, tmp_path / "4")
    (bare / "tokenizer.json").unlink()
    for i, (clients, problem) in enumerate((
            (provisioned(question, tmp_path / "1"), "tells where an answer starts and ends"),
            (provisioned(plain, tmp_path / "2", embedding="client"), "would give them to everyone who opens it"),
            (provisioned(lower, tmp_path / "3"), "puts its texts into lower case"),
            (bare, "has no tokenizer"), (tmp_path / "nowhere", "cannot read"))):
        with pytest.raises(ModelError, match=problem):
            page_model(clients)
            pytest.fail(f"case {i} is taken")
