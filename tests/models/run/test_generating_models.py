"""Generation: the tokens of transformers' generate; drafts, sampling, ends of all kinds, streams, likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from families_lab import save
from generation_lab import CONTEXT, FAMILIES, IDS, Scripted, decoder_folder, ranges, secure
from text_lab import END, byte_tokenizer

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.sampling import log_softmax
from secformer.models.generation.stops import End
from secformer.models.run.drafts import MOST
from secformer.models.run.generate import Generates, sampling_of
from secformer.models.run.local import PlainModel
from secformer.mpc.errors import InputError, ModelError, ProtocolError, SettingsError, Untrusted

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPT = {"input_ids": [IDS[:6]]}


class Loop:
    """A drafter that knows the script."""

    def __init__(self, script: Sequence[int], wrong_from: int = 10**6):
        self.script, self.wrong_from = script, wrong_from

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        ahead = list(self.script[len(ids) : len(ids) + most])
        return [t if len(ids) + i < self.wrong_from else 9 for i, t in enumerate(ahead)]


class Told(Generates):
    """A model whose texts follow a script."""

    def __init__(self, tokenizer: Tokenizer, script: Sequence[int], guard: str = "mark", **text: Any):
        self.tokenizer, self.guard, self.text = tokenizer, guard, Scripted(script, **text)

    def decoding(self) -> Scripted:
        return self.text

    def _noted(self) -> list[str]:
        return ["a note"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "config.json").write_text(f'{{"model_type": "llama", "architectures": ["LlamaForCausalLM"], '
                                        f'"eos_token_id": {END}}}', "utf-8")
    return byte_tokenizer(folder, CONTEXT)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("llama"), "llama")


# ---- against transformers --------------------------------------------------------------------------------------------


def expected(path: Path, name: str, ids: list[int], new: int) -> list[int]:
    """The tokens of transformers' generate, greedy."""
    torch = pytest.importorskip("torch")
    import transformers

    model = getattr(transformers, name).from_pretrained(str(path), attn_implementation="eager").eval()
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False)
    return out[0, len(ids) :].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    path = decoder_folder(tmp_path, family)
    wanted = expected(path, FAMILIES[family][0], IDS[:6], 12)
    for prefix in (None, tuple(IDS[:2])):
        out = PlainModel.from_pretrained(path, recipe="exact", public_prefix=prefix).generate(PROMPT, max_new_tokens=12)
        assert list(out.tokens) == wanted and out.prompt == tuple(IDS[:6])


def test_on_shares(llama: Path) -> None:
    """The tokens of plaintext, with drafts and without; its logarithms of probabilities; what each step cost."""
    plain = PlainModel.from_pretrained(llama, recipe="exact", public_prefix=tuple(IDS[:2]))
    wanted = plain.generate(PROMPT, max_new_tokens=12)
    with secure(llama, ranges(llama, IDS[:2], [*IDS[2:6], *wanted.tokens]), public_prefix=tuple(IDS[:2])) as model:
        out = model.generate(PROMPT, max_new_tokens=12, draft=None)
        script = [*IDS[:6], *wanted.tokens]
        drafted = model.generate(PROMPT, max_new_tokens=12, draft=Loop(script, 6 + 5))
        own = model.generate(PROMPT, max_new_tokens=12, draft=llama)
        again = [model.generate(PROMPT, max_new_tokens=4, temperature=1.5, seed=7).tokens for _ in range(2)]
    assert out.trusted and out.tokens == drafted.tokens == wanted.tokens
    np.testing.assert_allclose(out.logprobs, wanted.logprobs, atol=2e-2)
    assert [step.tokens for step in out.steps] == [1] * 11 and out.cost.bytes == out.prompt_cost.bytes + sum(
        step.cost.bytes for step in out.steps)
    assert len({step.cost.rounds for step in out.steps}) == 1
    assert drafted.steps[0].tokens == 5 and len(drafted.steps) < 11, "four that were right, and one more"
    assert own.tokens == out.tokens and [step.tokens for step in own.steps] == [8, 1, 1, 1], "a draft by the same model"
    assert own.steps[0].cost.rounds == out.steps[0].cost.rounds, "of eight tokens, as of one"
    assert again[0] == again[1]


# ---- ends ------------------------------------------------------------------------------------------------------------


def scripted(tokenizer: Tokenizer, text: str, *more: int) -> list[int]:
    """The prompt "hello", and what follows it."""
    return [*tokenizer.tokens("hello"), *tokenizer.tokens(text), *more]


def test_an_end_token(tokenizer: Tokenizer) -> None:
    out = Told(tokenizer, scripted(tokenizer, " world", END, 9)).generate("hello", max_new_tokens=30)
    assert (out.text, out.end, out.tokens[-1]) == (" world", End.TOKEN, END)
    assert len(out.logprobs) == len(out.tokens) and out.notes == ("a note",)


@pytest.mark.parametrize("draft", [None, "auto"])
def test_a_stop_text_over_several_tokens(draft: Any, tokenizer: Tokenizer) -> None:
    """What stands before it is given, and nothing behind it, streamed or not."""
    script = scripted(tokenizer, " abc\n\nUser: x", END)
    for stop, text in (("c\n\nUs", " ab"), (["zz", "User:"], " abc\n\n"), ("none", " abc\n\nUser: x")):
        out = Told(tokenizer, script).generate("hello", max_new_tokens=30, stop=stop, draft=draft)
        assert out.text == text and (out.end is End.STOP) == (text != " abc\n\nUser: x")
        stream = Told(tokenizer, script).generate("hello", max_new_tokens=30, stop=stop, stream=True, draft=draft)
        assert "".join(stream) == text == stream.result.text


@pytest.mark.parametrize("new", [1, 3, 9])
@pytest.mark.parametrize("drafter", [None, "loop"])
def test_no_more_tokens_than_asked_for(new: int, drafter: Any, tokenizer: Tokenizer) -> None:
    script = scripted(tokenizer, "abcdefghijklmnop")
    model = Told(tokenizer, script)
    out = model.generate("hello", max_new_tokens=new, draft=Loop(script) if drafter else None)
    assert (out.text, len(out.tokens), out.end) == ("abcdefghijklmnop"[:new], new, End.LENGTH)
    assert model.text.length < len(script) and sum(step.tokens for step in out.steps) == new - 1


def test_drafts_that_are_right_save_steps(tokenizer: Tokenizer) -> None:
    """Each step has one token or all that fit; wrong ones are gone back on; an end token among them ends the text."""
    script = scripted(tokenizer, "abcdefghijklmnopqrstuvwx", END, 9, 9, 9, 9, 9, 9)
    for wrong_from, steps in ((10**6, 4), (7, None), (2, None)):
        model = Told(tokenizer, script)
        out = model.generate("hello", max_new_tokens=40, draft=Loop(script, wrong_from))
        assert (out.text, out.end) == ("abcdefghijklmnopqrstuvwx", End.TOKEN)
        assert {len(ids) for ids in model.text.given[1:]} <= {1, MOST + 1}
        assert steps is None or len(model.text.given) == steps
        assert sum(step.tokens for step in out.steps) == 24


def test_a_stream_that_is_closed(tokenizer: Tokenizer) -> None:
    model = Told(tokenizer, scripted(tokenizer, "abcdef"))
    stream = model.generate("hello", max_new_tokens=6, stream=True)
    with pytest.raises(InputError, match="nothing was generated yet"):
        _ = stream.result
    assert not model.text.turns, "nothing runs before a piece is asked for"
    assert next(stream) + next(stream) == "ab"
    stream.close()
    assert list(stream) == [] and stream.result.text == "ab" and len(model.text.turns) == 2


def test_an_error_in_the_middle(tokenizer: Tokenizer) -> None:
    """It ends the stream, of which what came stays; the text is lost, and said to be."""
    model = Told(tokenizer, scripted(tokenizer, "abcdef"), fails_at=2)
    stream = model.generate("hello", max_new_tokens=6, stream=True)
    assert next(stream) + next(stream) == "ab"
    with pytest.raises(ConnectionError):
        next(stream)
    assert list(stream) == [] and stream.result.text == "ab"
    with pytest.raises(ProtocolError, match="begin a new one"):
        model.generate("hello", max_new_tokens=2)


def test_going_on_with_a_text(tokenizer: Tokenizer) -> None:
    """What a text has in common with the prompt is not asked again."""
    model = Told(tokenizer, scripted(tokenizer, " abcdef"))
    first = model.generate("hello", max_new_tokens=3, draft=None, text=model.text)
    more = model.generate("hello" + first.text, max_new_tokens=2, draft=None, text=model.text)
    assert more.text == "cd" and [len(ids) for ids in model.text.given] == [1, 1, 1, 1, 1]


# ---- what is refused, and what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt, given, error, says", [
    ("", {}, InputError, "the prompt is empty"),
    ("hello", {"max_new_tokens": CONTEXT}, InputError, f"this model's context holds {CONTEXT}"),
    ({"input_ids": [[9] * (CONTEXT + 1)]}, {}, InputError, "context holds"),
    ({"input_ids": [[9], [9]]}, {}, InputError, "must be one text without padding"),
    ("hello", {"max_tokens": 3}, SettingsError, "did you mean 'max_new_tokens'"),
    ("hello", {"max_new_tokens": 0}, SettingsError, "max_new_tokens must be a positive whole number"),
    ("hello", {"draft": "model"}, SettingsError, "draft must be 'auto', None for one token"),
], ids=str)
def test_refused_before_anything_runs(prompt: Any, given: dict[str, Any], error: type[Exception], says: str,
                                      tokenizer: Tokenizer) -> None:
    model = Told(tokenizer, [])
    with pytest.raises(error, match=says):
        model.generate(prompt, **given)
    assert not model.text.turns


def test_prompts_and_the_public_prefix(llama: Path) -> None:
    """A prompt has the prefix, and may fill the context with it."""
    model = PlainModel.from_pretrained(llama, recipe="exact", public_prefix=tuple(IDS[:3]))
    with pytest.raises(InputError, match="does not begin with the model's public prefix of 3 tokens"):
        model.generate({"input_ids": [IDS[1:9]]})
    full = [*IDS, *IDS, *IDS][: CONTEXT - 9]
    assert len(model.generate({"input_ids": [full]}, max_new_tokens=9).tokens) >= 1
    with pytest.raises(InputError, match=f"this model's context holds {CONTEXT}"):
        model.generate({"input_ids": [full]}, max_new_tokens=10)


def test_models_that_generate_nothing(tmp_path: Path) -> None:
    path = save(tmp_path, "LlamaModel", **FAMILIES["llama"][1])
    model = PlainModel.from_pretrained(path, recipe="exact")
    for ask in (model.decoding, lambda: model.generate("cat"), lambda: model.score("cat dog")):
        with pytest.raises(ModelError, match="LlamaModel does not tell the next token"):
            ask()


def test_values_that_cannot_be_trusted(tokenizer: Tokenizer) -> None:
    script = scripted(tokenizer, "abc")
    marked, raised, spoilt = (Told(tokenizer, script, guard, breaches=("layer.0",))
                              for guard in ("mark", "raise", "nan"))
    out = marked.generate("hello", max_new_tokens=2)
    assert not out.trusted and out.breaches == ("layer.0",) and "layer.0" in out.notes[1]
    stream = raised.generate("hello", max_new_tokens=2, stream=True)
    with pytest.raises(Untrusted, match=r"layer\.0"):
        next(stream)
    assert list(stream) == []
    assert np.isnan(spoilt.generate("hello", max_new_tokens=2).logprobs).all()
    assert np.isnan(Told(tokenizer, script, "nan", breaches=("here",)).score("abc").log_likelihood)
    with pytest.raises(Untrusted):
        Told(tokenizer, script, "raise", breaches=("here",)).score("abc")


def test_settings_by_name() -> None:
    assert sampling_of({"top_k": 3, "stop": "x"}).stops == ("x",)


def test_what_is_printed_has_no_text(tokenizer: Tokenizer) -> None:
    out = Told(tokenizer, scripted(tokenizer, "abc")).generate("hello", max_new_tokens=2)
    assert "ab" not in repr(out).replace("breaches", "") and "rounds" not in repr(out) and len(repr(out)) < 200


# ---- likelihoods -----------------------------------------------------------------------------------------------------


def test_likelihoods_are_those_of_whole_texts(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, behind a prefix that a text may begin with, and for several texts."""
    from secformer.models.run.decoding import Decoding

    monkeypatch.setattr(Decoding, "at_once", 3)
    text = "hello world, hello"
    prefix = tuple(Tokenizer(llama, SimpleNamespace(prompt="", lower=False)).tokens("hello"))  # type: ignore[arg-type]
    plain = PlainModel.from_pretrained(llama, recipe="exact", public_prefix=None)
    (row,) = plain.tokenizer.rows(text)
    logits = plain(text).logits
    each = [float(log_softmax(logits[0][i])[row.ids[i + 1]]) for i in range(len(row) - 1)]  # type: ignore[index]
    known = PlainModel.from_pretrained(llama, recipe="exact", public_prefix=prefix)
    for model, first in ((plain, 0), (known, len(prefix))):
        found = model.score(text)
        assert found.tokens == len(row) - 1 - first
        assert found.log_likelihood == pytest.approx(sum(each[first:]), abs=1e-9)
        assert found.perplexity == pytest.approx(np.exp(-sum(each[first:]) / found.tokens))
        assert [x.tokens for x in model.score([text, text])] == [found.tokens] * 2
    assert np.isnan(plain.score("a").perplexity)
