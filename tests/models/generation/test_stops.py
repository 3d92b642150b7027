"""Tokens as text: whole characters only, stop texts wherever tokens are cut, nothing behind the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_lab import END, START, byte_tokenizer

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.stops import End, TextStream, end_tokens, write_ends
from secformer.mpc.errors import ModelError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


class Cut:
    """A tokenizer whose tokens are pieces of bytes, for any text cut anywhere."""

    def __init__(self, pieces: Sequence[bytes]):
        self.pieces = pieces

    def generated(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")

    def special(self, text: str) -> int | None:
        return None


def streamed(stream: TextStream, ids: Sequence[int]) -> list[str]:
    return [*(stream.take(i) for i in ids), stream.finish()]


def test_characters_come_whole(tokenizer: Tokenizer) -> None:
    text = "hello é 中 🙂!"
    ids = tokenizer.tokens(text)
    pieces = streamed(TextStream(tokenizer), ids)
    assert "".join(pieces) == text and "\ufffd" not in "".join(pieces)
    assert pieces[0] == "hello" and [p for p in pieces if p][2:] == ["é", " ", "中", " ", "🙂", "!"]
    assert len(ids) > len(text) - 4 and pieces[-1] == ""


def test_an_unfinished_character_is_shown_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.tokens("a🙂")[:-1]
    stream = TextStream(tokenizer)
    assert [stream.take(i) for i in ids] == ["a", "", "", ""]
    assert (stream.finish(), stream.end, stream.text) == ("\ufffd", End.LENGTH, "a\ufffd")
    assert stream.ids == tuple(ids)


def test_a_broken_character_stays_where_it_was(tokenizer: Tokenizer) -> None:
    broken = [*tokenizer.tokens("🙂")[:2], *tokenizer.tokens("b")]
    assert streamed(TextStream(tokenizer), broken) == ["", "", "\ufffdb", ""]


@pytest.mark.parametrize(("text", "stop", "given_text", "end"), [
    ("one. two. three", [". t"], "one", End.STOP),
    ("ab\n\nUser: hi", ["\nUser:", "###"], "ab\n", End.STOP),
    ("xaab", ["aab"], "x", End.STOP),
    ("aaaab", ["aab"], "aa", End.STOP),
    ("abab", ["abc"], "abab", End.LENGTH),   # held to the end, then given
    ("stop", ["stop"], "", End.STOP),
    ("é🙂中", ["🙂"], "é", End.STOP),
    ("xabcd", ["abcd", "bc"], "xa", End.STOP),  # the stop text that is complete first
    ("abc", ["bc", "abc"], "", End.STOP),       # both are complete: the longer one
    ("nothing", [], "nothing", End.LENGTH),
])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_stop_texts_span_tokens(text: str, stop: list[str], given_text: str, end: End, size: int) -> None:
    coded = text.encode()
    pieces = [coded[i : i + size] for i in range(0, len(coded), size)]
    stream = TextStream(Cut(pieces), stop=stop)
    assert "".join(streamed(stream, range(len(pieces)))) == stream.text == given_text
    assert stream.end is end


@given(st.text("ab🙂", max_size=12), st.lists(st.text("ab🙂", min_size=1, max_size=3), max_size=3), st.data())
def test_how_a_text_is_cut_changes_nothing(text: str, stop: list[str], data: st.DataObject) -> None:
    """What is given is the text before the stop text that is complete first; no piece is taken back."""
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    expected = text[: min(ends)[1]] if ends else text
    coded, pieces = text.encode(), []
    while coded:
        size = data.draw(st.integers(1, 5))
        pieces.append(coded[:size])
        coded = coded[size:]
    stream, said = TextStream(Cut(pieces), stop=stop), ""
    for i in range(len(pieces)):
        said += stream.take(i)
        assert expected.startswith(said) and "\ufffd" not in said
    said += stream.finish()
    assert said == stream.text == expected
    assert stream.end is (End.STOP if ends else End.LENGTH)


def test_text_that_may_become_a_stop_text_is_held_back(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, stop=["abc"])
    assert [stream.take(i) for i in tokenizer.tokens("xabdab")] == ["x", "", "", "abd", "", ""]
    assert stream.finish() == "ab"


def test_an_end_token_ends_and_is_not_written(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, stop=["abc"], ends=[END])
    ids = tokenizer.tokens("xab<|end|>yz")
    assert streamed(stream, ids) == ["x", "", "", "ab", "", "", ""]
    assert (stream.end, stream.text, stream.ids) == (End.TOKEN, "xab", tuple(ids[:4]))


def test_a_stop_text_that_is_a_special_token(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, stop=["<|start|>"])
    assert streamed(stream, [*tokenizer.tokens("ab"), START, *tokenizer.tokens("c")]) == ["a", "b", "", "", ""]
    assert stream.end is End.TOKEN
    without = TextStream(tokenizer)
    assert "".join(streamed(without, [START, *tokenizer.tokens("c")])) == "c"


def test_the_prompt_does_not_count(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.tokens("hello world abc")
    stream = TextStream(tokenizer, prompt, stop=["cd"])
    assert "".join(streamed(stream, tokenizer.tokens("d world"))) == "d world"


def test_the_first_space_stays(tmp_path: Path) -> None:
    """Where the tokenizer drops the first space of all that it decodes, as sentencepiece's do."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    words = {"▁": 0, "▁a": 1, "▁b": 2, "a": 3, "b": 4, "<s>": 5}
    backend = Backend(models.BPE(words, [("▁", "a"), ("▁", "b")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    tokenizer = byte_tokenizer(tmp_path / "other")
    tokenizer = Tokenizer(tmp_path, tokenizer.inputs)
    assert tokenizer.generated([2]) == "b"
    assert streamed(TextStream(tokenizer, tokenizer.tokens("a")), [2, 4, 1]) == [" b", "b", " a", ""]


# ---- the tokens that end a text --------------------------------------------------------------------------------------


def folder(at: Path, config: dict[str, Any], generation: Any = None) -> Path:
    (at / "config.json").write_text(json.dumps({"model_type": "gpt2"} | config), "utf-8")
    if generation is not None:
        (at / "generation_config.json").write_text(json.dumps(generation), "utf-8")
    return at


@pytest.mark.parametrize(("config", "generation", "ends"), [
    ({"eos_token_id": 7}, None, {7}), ({"eos_token_id": [7, 9]}, None, {7, 9}), ({"eos_token_id": None}, None, set()),
    ({}, None, {50256}),                                  # the family's own default
    ({"eos_token_id": 7}, {"eos_token_id": [3, 4]}, {3, 4}), ({"eos_token_id": 7}, {"eos_token_id": 3}, {3}),
    ({"eos_token_id": 7}, {"temperature": 0.5}, {7}), ({"eos_token_id": 7}, {"eos_token_id": None}, {7}),
])
def test_end_tokens(config: dict[str, Any], generation: Any, ends: set[int], tmp_path: Path) -> None:
    assert end_tokens(folder(tmp_path, config, generation)) == ends
    (tmp_path / "config.json").unlink()
    write_ends(ends, tmp_path)
    assert end_tokens(tmp_path) == ends, "no default is needed"


@pytest.mark.parametrize("bad", ["7", [7, "8"], True, -1, [True], {"a": 1}])
def test_end_tokens_that_are_no_ids(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"generation_config\.json: eos_token_id must be a token's id"):
        end_tokens(folder(tmp_path, {}, {"eos_token_id": bad}))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder(tmp_path, {})
    (tmp_path / "generation_config.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"cannot read .*generation_config\.json"):
        end_tokens(tmp_path)
