"""Texts and token ids: what is taken, and what is refused before anything is shared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import MINILM, VOCAB, write_checkpoint
from text_lab import END, TEMPLATE, byte_tokenizer

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import InputError, ModelError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return ModelFolder(write_checkpoint(tmp_path_factory.mktemp("model"))).tokenizer


def ids(*words: str) -> list[int]:
    return [VOCAB.index(w) for w in words]


def test_one_text_many_texts_and_pairs(tokenizer: Tokenizer) -> None:
    (one,) = tokenizer.rows("The CAT sat!")
    assert one.ids.tolist() == ids("[CLS]", "the", "cat", "sat", "!", "[SEP]")
    assert [len(r) for r in tokenizer.rows(["cat", "", "cats"])] == [3, 2, 4]
    for pairs in ([("cat", "dog")], [["cat", "dog"]]):
        (pair,) = tokenizer.rows(pairs)  # type: ignore[arg-type]
        assert pair.ids.tolist() == ids("[CLS]", "cat", "[SEP]", "dog", "[SEP]")
        assert pair.segments.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("texts", [
    [], (), 7, None, b"bytes", 3.5, {"a", "b"}, [1, 2], ["a", None], ["a", ("b", "c")], [("a", "b"), "c"],
    [("a", "b", "c")], [("a",)], [("a", 1)], [b"a"], iter(["a"]),
])
def test_wrong_types(texts: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError):
        tokenizer.rows(texts)


def test_too_long_is_an_error_unless_cut(tokenizer: Tokenizer) -> None:
    long = "cat " * 40
    with pytest.raises(InputError, match=r"text 1 has 42 tokens.*at most 32.*truncation=True"):
        tokenizer.rows(["cat", long])
    cut = tokenizer.rows([long], truncation=True)[0]
    assert (len(cut), cut.ids[-1]) == (32, VOCAB.index("[SEP]"))
    with pytest.raises(InputError, match="at most 32"):
        tokenizer.rows({"input_ids": [[5] * 33]})
    assert len(tokenizer.rows({"input_ids": [[5] * 33]}, truncation=True)[0]) == 32


def test_dict_of_ids(tokenizer: Tokenizer) -> None:
    given_ids = np.array([[2, 5, 6, 3, 0, 0], [2, 7, 3, 0, 0, 0]])
    mask = (given_ids > 0).astype(np.int32)
    a, b = tokenizer.rows({"input_ids": given_ids, "attention_mask": mask})
    assert (a.ids.tolist(), b.ids.tolist()) == ([2, 5, 6, 3], [2, 7, 3])
    assert [len(r) for r in tokenizer.rows({"input_ids": [[2, 5, 3], [2, 3]]})] == [3, 2]
    assert [len(r) for r in tokenizer.rows({"input_ids": [2, 5, 3]})] == [3]
    (holes,) = tokenizer.rows({"input_ids": [[2, 5, 6, 3]], "attention_mask": [[0, 1, 1, 0]]})
    assert (holes.ids.tolist(), holes.mask.tolist()) == ([2, 5, 6], [0, 1, 1])


@pytest.mark.parametrize(("tokens", "words"), [
    ({}, "input_ids"),
    ({"attention_mask": [[1]]}, "input_ids"),
    ({"input_ids": [[2, 3]], "labels": [1]}, "labels"),
    ({"input_ids": [[2, 999]]}, r"0\.\.38"),
    ({"input_ids": [[-1, 3]]}, r"0\.\.38"),
    ({"input_ids": [[2, 3]], "token_type_ids": [[0, 2]]}, r"0\.\.1"),
    ({"input_ids": [[2.5, 3]]}, "whole numbers"),
    ({"input_ids": [["a", "b"]]}, "whole numbers"),
    ({"input_ids": [[[2, 3]]]}, "whole numbers"),
    ({"input_ids": 4}, "list or an array"),
    ({"input_ids": []}, "empty"),
    ({"input_ids": [[]]}, "no token"),
    ({"input_ids": [[2, 3]], "attention_mask": [[0, 0]]}, "no token"),
    ({"input_ids": [[2, 3]], "attention_mask": [[1, 2]]}, "1 .attend. and 0"),
    ({"input_ids": [[2, 3]], "attention_mask": [[1]]}, "same shape"),
    ({"input_ids": [[2, 3]], "token_type_ids": [[0, 0], [0, 0]]}, "same shape"),
])
def test_bad_ids(tokens: dict[str, Any], words: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=words):
        tokenizer.rows(tokens)


def test_tokenizer_missing_or_broken(tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path, tokenizer=False))
    with pytest.raises(ModelError, match="has no tokenizer"):
        folder.tokenizer.rows("cat")
    assert len(folder.tokenizer.rows({"input_ids": [[2, 3]]})) == 1
    (tmp_path / "tokenizer.json").write_text("{broken", "utf-8")
    with pytest.raises(ModelError, match="cannot read the tokenizer"):
        ModelFolder(tmp_path).tokenizer.rows("cat")


def test_tokenizer_with_more_words_than_the_model(tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path, vocab_size=20))
    with pytest.raises(InputError, match="another model"):
        folder.tokenizer.rows("it was !")


@pytest.mark.skipif(not MINILM.is_dir(), reason="the pretrained MiniLM folder is not here")
def test_a_real_tokenizer() -> None:
    rows = ModelFolder(MINILM).tokenizer.rows(["Hello there!", ""])
    assert [r.ids.tolist() for r in rows] == [[101, 7592, 2045, 999, 102], [101, 102]]


# ---- one segment -----------------------------------------------------------------------------------------------------


def one_segment(folder: Path, **facts: Any) -> Path:
    """A model with one row in its segment table, and a tokenizer with these facts."""
    write_checkpoint(folder, type_vocab_size=1)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | facts), "utf-8")
    return folder


def test_a_pair_that_needs_a_second_segment_is_refused_for_what_it_is(tmp_path: Path) -> None:
    tokenizer = ModelFolder(one_segment(tmp_path)).tokenizer
    assert not tokenizer.takes_pairs
    with pytest.raises(InputError, match=r"pair into segment 1, but this model has 1 segment.*type_vocab_size"):
        tokenizer.rows([("cat", "dog")])
    assert len(tokenizer.rows(["cat", "dog"])) == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("types", [1, 2])
@pytest.mark.parametrize("facts", [{"model_input_names": ["input_ids", "attention_mask"]}, {}])
def test_segments_of_pairs_are_those_that_transformers_takes(facts: dict[str, Any], types: int, tmp_path: Path) -> None:
    """A tokenizer that names no segments means zeros, whatever the model has; else the model needs both."""
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, BertModel

    folder = one_segment(tmp_path, **facts)
    if types == 2:
        write_checkpoint(folder, tokenizer=False)
    given = AutoTokenizer.from_pretrained(str(folder))("cat", "the dog", return_tensors="pt")
    model, tokenizer = BertModel.from_pretrained(str(folder)).double().eval(), ModelFolder(folder).tokenizer
    if not tokenizer.takes_pairs:
        with pytest.raises(IndexError), torch.no_grad():
            model(**given)
        return
    with torch.no_grad():
        expected = model(**given).last_hidden_state.numpy()
    found = plain_bert(folder, [("cat", "the dog")])
    np.testing.assert_allclose(found.last_hidden_state, expected, rtol=0.0, atol=1e-10)
    assert (types, facts) != (1, {})


# ---- a prompt --------------------------------------------------------------------------------------------------------


def test_a_prompt_and_lower_case(tokenizer: Tokenizer) -> None:
    """Before every text, and before the first of a pair; ids are taken as they are."""
    given = Tokenizer(tokenizer.folder, replace(tokenizer.inputs, prompt="The dog : ", lower=True))
    assert given.rows("CAT")[0].ids.tolist() == tokenizer.rows("the dog : cat")[0].ids.tolist()
    (pair,) = given.rows([("cat", "mat")])
    assert pair.ids.tolist() == tokenizer.rows([("the dog : cat", "mat")])[0].ids.tolist()
    assert given.rows({"input_ids": [[2, 3]]})[0].ids.tolist() == [2, 3]
    assert given.prompt_tokens == 4  # [CLS] the dog [UNK]
    assert tokenizer.prompt_tokens == 1


# ---- generated text --------------------------------------------------------------------------------------------------


def test_tokens_of_a_text_and_the_text_of_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Spaces stay as they are, and special tokens have no text."""
    assert tokenizer.tokens("the cat") == ids("[CLS]", "the", "cat", "[SEP]")
    assert tokenizer.tokens("the cat", special=False) == ids("the", "cat")
    assert tokenizer.generated(ids("[CLS]", "the", "cat", "[SEP]")) == "the cat"
    found = byte_tokenizer(tmp_path)
    for text in ("hello  world\n\n", " \u4e2d ?", ""):
        assert found.generated(found.tokens(text)) == text
    assert found.generated(found.tokens("\u4e2d")[:1]) == "\ufffd"
    assert (found.special("<|end|>"), found.special("hello"), found.special("<|end|")) == (END, None, None)


def test_chat_templates(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    found = byte_tokenizer(tmp_path)
    assert (found.chat_template, tokenizer.chat_template) == (TEMPLATE, None)
    assert found.chat([{"role": "system", "content": "S"}, {"role": "user", "content": "hello "}]) == (
        "<|start|>system\nS<|end|>\n<|start|>user\nhello<|end|>\n<|start|>assistant\n")
    with pytest.raises(InputError, match="does not take messages with the roles 'user', 'narrator', in this order"):
        found.chat([{"role": "user", "content": "a"}, {"role": "narrator", "content": "b"}])
    found.folder.joinpath("tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', "utf-8")
    found.folder.joinpath("chat_template.jinja").write_text("{{ messages[0].content }}!", "utf-8")
    assert Tokenizer(found.folder, found.inputs).chat([{"role": "user", "content": "a"}]) == "a!"


def test_what_was_read_before_stays(tokenizer: Tokenizer) -> None:
    """Also behind a public prefix, which is left out once."""
    read = tokenizer.read(["a cat", "dog"])
    assert tokenizer.read(read) is read and tokenizer.rows(read, truncation=True) == read.rows
    twice = replace(tokenizer.inputs, before=(2, 6))
    prefixed = Tokenizer(tokenizer.folder, twice)
    (row,) = prefixed.read(prefixed.read({"input_ids": [2, 6, 2, 6, 7]})).rows
    assert row.ids.tolist() == [2, 6, 7]
