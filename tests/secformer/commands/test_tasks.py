"""embed, rerank, classify, entities, fill-mask and answer on the command line, in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from commands_lab import answer, complaint, help_of

from secformer.cli import main
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import reference

CPU = ("--backend", "numpy")
KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"architecture": "BertModel"},
    "one": {"architecture": "BertForSequenceClassification", "labels": 1},
    "classes": {"architecture": "BertForSequenceClassification"},
    "token": {"architecture": "BertForTokenClassification", "seed": 10,
              "id2label": {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC", "4": "I-LOC", "5": "MISC"}},
    "masked": {"architecture": "BertForMaskedLM"},
    "question": {"architecture": "BertForQuestionAnswering"},
}
WITH_OPTIONS = ("embed", "rerank", "classify", "entities", "fill-mask", "answer")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    base = tmp_path_factory.mktemp("kinds")

    def folder(kind: str) -> str:
        if not (base / kind).exists():
            write_checkpoint(base / kind, prefix="" if kind == "encoder" else "bert.", scale=0.7, num_hidden_layers=1,
                             **KINDS[kind])
        return str(base / kind)

    return folder


def plain(folder: str) -> Any:
    return reference(ModelFolder(folder))


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_embed(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, texts = folders("encoder"), ["the cat sat", "a dog"]
    data = answer(capsys, "embed", folder, *texts, *CPU)
    assert data["texts"] == texts and data["cost"]["rounds"] > 0 and data["notes"] and data["profile"]
    assert np.allclose(data["embeddings"], plain(folder).embed(texts), rtol=0, atol=1e-3)
    out = shown(capsys, "embed", *CPU, folder, texts[0], "--embedding", "client", "--progress")
    assert "cosine to the first" in out and "rounds" in out


def test_rerank(folders: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents from arguments and from standard input, and every order of options."""
    folder, documents = folders("one"), ["the cat sat", "a dog", "it was [b]not[/b] good"]
    wanted = plain(folder).rerank("who sat?", documents)
    for arguments in ((folder, "who sat?", "-", *CPU), (*CPU, folder, "--top-k", "all", "who sat?", "-"),
                      (folder, "--guard", "mark", "who sat?", *CPU, "-")):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(documents) + "\n\n"))
        data = answer(capsys, "rerank", *arguments)
        assert data["query"] == "who sat?" and data["documents"] == documents
        assert [each["corpus_id"] for each in data["ranking"]] == [each.corpus_id for each in wanted]
        assert np.allclose([each["score"] for each in data["ranking"]], [each.score for each in wanted], atol=1e-3)
        assert [each["text"] for each in data["ranking"]] == [each.text for each in wanted]
    out = shown(capsys, "rerank", folder, "who sat?", *documents, *CPU, "--top-k=1")
    assert wanted[0].text in out and wanted[1].text not in out and f"{wanted[0].score:.3f}"[:4] in out


def test_classify(folders: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = folders("classes")
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the cat\ton the mat\na dog\tran\n", "utf-8")
    data = answer(capsys, "classify", folder, "--pairs", str(pairs), *CPU, "--top-k", "all")
    wanted = plain(folder).classify([("the cat", "on the mat"), ("a dog", "ran")], top_k=None)
    assert data["texts"] == [["the cat", "on the mat"], ["a dog", "ran"]]
    assert [[each["label"] for each in some] for some in data["labels"]] == [
        [each.label for each in some] for some in wanted]
    assert abs(data["labels"][0][0]["score"] - wanted[0][0].score) < 1e-3
    best = plain(folder).classify("the cat")
    assert [each["label"] for each in answer(capsys, "classify", folder, "the cat", *CPU)["labels"][0]] == [best.label]
    assert best.label in shown(capsys, "classify", folder, "the cat", *CPU)


def test_entities(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, text = folders("token"), "The CAT sat on the mat, and a dog ran!"
    (data,), wanted = answer(capsys, "entities", folder, text, *CPU)["entities"], plain(folder).entities(text)
    assert [(e["label"], e["text"], e["start"], e["end"]) for e in data] == [
        (e.label, e.text, e.start, e.end) for e in wanted] and wanted
    out = shown(capsys, "entities", folder, text, "", *CPU)
    assert wanted[0].text in out and f"{wanted[0].start}..{wanted[0].end}" in out and "(none)" in out


def test_fill_mask(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, text = folders("masked"), "the [MASK] sat on [MASK]"
    data = answer(capsys, "fill-mask", folder, text, "a [MASK]", *CPU, "--top-k", "2")["words"]
    wanted = plain(folder).fill_mask([text, "a [MASK]"], 2)
    assert [[w["token"] for w in words] for words in data[0]] == [[w.token for w in words] for words in wanted[0]]
    assert [w["sequence"] for w in data[1]] == [w.sequence for w in wanted[1]]
    assert wanted[1][0].sequence in shown(capsys, "fill-mask", folder, "a [MASK]", *CPU)
    assert "text 1 has no [MASK]" in complaint(capsys, "fill-mask", folder, text, "the cat")


def test_answer(folders: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, passages = folders("question"), ["The CAT sat on the mat", "a dog ran"]
    data = answer(capsys, "answer", folder, "who sat?", *passages, *CPU)
    wanted = plain(folder).answer("who sat?", passages)
    assert data["texts"] == [["who sat?", each] for each in passages]
    for mine, other, passage in zip(data["answers"], wanted, passages, strict=True):
        assert mine["text"] == other.text == passage[mine["start"] : mine["end"]]
        assert abs(mine["score"] - other.score) < 1e-3
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(f"who sat?\t{passages[0]}\n", "utf-8")
    assert wanted[0].text in shown(capsys, "answer", folder, "--pairs", str(pairs), *CPU)


def test_wrong_heads_and_texts_are_told_before_weights_are_shared(folders: Any, capsys: pytest.CaptureFixture[str],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    import secformer

    monkeypatch.setattr(secformer, "secure_model", lambda *_, **__: pytest.fail("the model was loaded"))
    assert "embed needs a model of the class BertModel" in complaint(capsys, "embed", folders("one"), "cat")
    assert "call classify" in complaint(capsys, "rerank", folders("classes"), "cat", "dog")
    assert "so call answer" in complaint(capsys, "fill-mask", folders("question"), "cat")
    assert "top_k must be" in complaint(capsys, "classify", folders("classes"), "cat", "--top-k", "0")
    assert "context 0 has no token" in complaint(capsys, "answer", folders("question"), "who?", "")
    assert "gone.json" in complaint(capsys, "embed", folders("encoder"), "cat", "--profile", "gone.json")
    assert "nowhere is not a folder" in complaint(capsys, "embed", "nowhere", "cat")


@pytest.mark.parametrize("arguments", [
    ["rerank", "folder", "query"], ["answer", "folder", "question", "passage", "--pairs", "file"],
    ["answer", "folder"], ["answer", "folder", "question"], ["embed", "folder", "text", "--pairs", "file"],
], ids=" ".join)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and "give" in capsys.readouterr().err


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_every_task_explains_model_and_guard(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of(capsys, name).split())
    assert "or a client's settings file" in text and f"secformer {name} client.toml" in text
    assert "mark, raise: the command fails (mark is the default)" in text
