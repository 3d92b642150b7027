"""Folders with and without a fast tokenizer, and tokenizers of other models than the folder's."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bytes_lab import MASK, SENTENCES, WORDS, write_bytes, write_old_bytes
from checkpoints import VOCAB, write_checkpoint
from families_lab import save

from secformer.models.data import tokenizer_files
from secformer.models.data.tokenizer_files import (
    COMPLETE,
    TOKENIZER_FILES,
    conversion,
    has_tokenizer,
    open_tokenizer,
    vocabulary,
)
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import InputError, ModelError
from secformer.mpc.fixed import FixedPoint

ROBERTA: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 7,
    "max_position_embeddings": 34, "type_vocab_size": 1}
pytestmark = pytest.mark.filterwarnings("ignore")


def test_vocabulary_and_merges_make_a_tokenizer(tmp_path: Path) -> None:
    old = save(tmp_path / "old", "RobertaModel", tokenizer=write_old_bytes, **ROBERTA)
    new = save(tmp_path / "new", "RobertaModel", tokenizer=write_bytes, **ROBERTA)
    assert not (old / "tokenizer.json").exists()
    for text in SENTENCES:
        a, b = (ModelFolder(folder).tokenizer.rows(text)[0].ids.tolist() for folder in (old, new))
        assert a == b
    assert vocabulary(old) == vocabulary(new) == ModelFolder(new).tokenizer.opened.get_vocab()
    (old / "merges.txt").unlink()
    assert not has_tokenizer(old)
    with pytest.raises(ModelError, match=r"has no tokenizer \(tokenizer.json or vocab.txt or vocab.json with merges.t"):
        plain_bert(old, "a")


def test_every_file_of_a_tokenizer_is_copied_with_it() -> None:
    assert {name for names in COMPLETE for name in names} <= set(TOKENIZER_FILES)


@pytest.mark.parametrize(("name", "file"), [("XLMRobertaModel", "sentencepiece.bpe.model"),
                                            ("AlbertModel", "spiece.model"), ("DebertaV2Model", "spm.model")])
def test_what_is_missing_to_convert_a_tokenizer_is_said(name: str, file: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "_installed", lambda module: module != "sentencepiece")
    extra = {"embedding_size": 4} if name.startswith("Albert") else {}
    folder = save(tmp_path, name, tokenizer=False, **ROBERTA, **extra)
    (folder / file).write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    with pytest.raises(ModelError, match=rf"no fast tokenizer \(tokenizer.json\), and making one of {file} needs "
                                         r"sentencepiece, not installed here. Make it once where they are \(pip "
                                         r"install sentencepiece protobuf\): python -c .*save_pretrained"):
        plain_bert(folder, "a")
    out = plain_bert(folder, {"input_ids": [[0, 7, 2]]})  # which need no tokenizer
    assert any("give token ids" in note for note in out.notes)


def test_the_conversion_is_one_command(tmp_path: Path) -> None:
    folder = save(tmp_path / "it's old", "RobertaModel", tokenizer=write_old_bytes, **ROBERTA)
    subprocess.run([sys.executable, *shlex.split(conversion(folder))[1:]], check=True, capture_output=True)
    assert (folder / "tokenizer.json").is_file()
    assert ModelFolder(folder).tokenizer.rows("the cat")[0].ids[0] == 0


@pytest.mark.parametrize("kind", ["XLMRoberta", "Camembert", "Albert"])
def test_files_of_another_kind_of_tokenizer(kind: str, tmp_path: Path) -> None:
    """transformers takes no notice of them, and gives a tokenizer that knows no word."""
    extra = {"embedding_size": 4} if kind == "Albert" else {}
    folder = save(tmp_path, f"{kind}Model", tokenizer=write_old_bytes, **ROBERTA, **extra)
    with pytest.raises(ModelError, match=rf"{kind}Tokenizer of .*vocab.json, merges.txt, knows no words"):
        open_tokenizer(folder)


# ---- a tokenizer and a model of different sizes ----------------------------------------------------------------------


def loaded(folder: Path) -> list[str]:
    model = ModelFolder(folder)
    model.verify(FixedPoint(16, 14))
    return model.notes


def test_a_tokenizer_with_more_tokens_than_the_model_has_words(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, vocab_size=20)
    assert loaded(tmp_path) == [f"the tokenizer knows {len(VOCAB)} tokens, but the model has words for 20 (vocab_size "
                                f"in config.json): texts with a token beyond them are refused"]
    with pytest.raises(InputError, match=r"must lie in 0..19"):
        ModelFolder(tmp_path).tokenizer.rows("it was !")
    write_checkpoint(tmp_path / "more", vocab_size=64)
    assert loaded(tmp_path / "more") == [], "rows that no token has are usual"


def test_a_token_of_every_text_must_have_a_word(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gives '\[SEP\]' the id 3, but the model has words for 0..2"):
        loaded(write_checkpoint(tmp_path, vocab_size=3))


def test_a_mask_must_have_a_word_where_words_are_found_for_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"gives '\[MASK\]' the id {MASK}, but the model has words for 0..3"):
        loaded(write_checkpoint(tmp_path / "a", "BertForMaskedLM", vocab_size=4))
    assert len(loaded(write_checkpoint(tmp_path / "b", "BertModel", vocab_size=4))) == 1


def test_another_padding_token_is_told_where_positions_are_counted_without_it(tmp_path: Path) -> None:
    folder = save(tmp_path, "RobertaModel", tokenizer=write_bytes, **ROBERTA | {"pad_token_id": 3})
    (note,) = loaded(folder)
    assert "pads with the id 1, but the model counts positions without the id 3" in note


def test_a_tokenizer_without_segments_that_is_not_fast_tells_both_texts_apart(tmp_path: Path) -> None:
    from secformer.models.data.tokenizer import _places

    out = {"special_tokens_mask": [[1, 0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 1]], "token_type_ids": [[0] * 7, [0] * 5]}
    assert _places(out, 0, ("a b", "c"), False).part.tolist() == [-1, 0, 0, -1, -1, 1, -1]
    assert _places(out, 1, ("", "c"), False).part.tolist() == [-1, -1, -1, 1, -1]
    del out["token_type_ids"]
    assert _places(out, 0, ("a b", "c"), False).word.tolist() == [-1, 1, 2, -1, -1, 5, -1]
    assert _places(out, 0, ("a b c",), False).part.tolist() == [-1, 0, 0, -1, -1, 0, -1]
