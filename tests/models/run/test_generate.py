"""Generation: with a scripted decoder, whose text is known, and against transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_lab import LIKELY, Scripted
from text_lab import WORDS
from tiny_chat_lab import MESSAGES, tiny_chat

from secformer.models.families.folder import ModelFolder
from secformer.models.generation.stops import End
from secformer.models.run.generate import Generated, Generation, sampling_of
from secformer.models.run.local import PlainModel, reference
from secformer.mpc.errors import InputError, ProtocolError, SettingsError, Untrusted

LOGPROB = LIKELY - math.log(math.exp(LIKELY) + WORDS - 1)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Scripted]:
    return lambda *given, **facts: Scripted(tmp_path, *given, **facts)


class Told:
    """Drafts what was foreseen: right or wrong tokens."""

    def __init__(self, ids: list[int]):
        self.ids = ids

    def draft(self, ids: Any, most: int) -> list[int]:
        return self.ids[:most]


# ---- what is generated -----------------------------------------------------------------------------------------------


def test_greedy_text_and_what_it_cost(made: Any) -> None:
    model = made()
    found = model.generate("xa", max_new_tokens=5, draft=None)
    assert found.text == "bcabc" and found.end is End.LENGTH and len(found.tokens) == 5 and found.trusted
    assert model.tokenizer.generated(found.tokens) == "bcabc"
    assert found.logprobs == pytest.approx([LOGPROB] * 5)
    assert found.prompt_cost.bytes == 200 and [step.tokens for step in found.steps] == [1] * 4
    assert found.cost.rounds == 35 and found.cost.bytes == 600 and found.notes == ("scripted",)
    assert found.per_token is not None and found.per_token["rounds"] == 7 and found.per_token["bytes"] == 100
    assert model.texts[0].steps == [list(found.prompt), *([i] for i in found.tokens[:-1])] and model.texts[0].ended
    assert "bcabc" not in repr(found) and str(found.tokens[0]) not in repr(found)


def test_one_token_has_no_step(made: Any) -> None:
    found = made().generate("a", max_new_tokens=1)
    assert (found.text, found.steps, found.per_token) == ("b", (), None)


def test_pieces_put_together_are_the_text(made: Any) -> None:
    model = made()
    running = model.generate("a", stream=True, max_new_tokens=7, stop="ca", draft=None)
    assert isinstance(running, Generation) and running.text == ""
    with pytest.raises(InputError, match="nothing was generated yet"):
        _ = running.result
    assert list(running) == ["b", "", ""] and running.result.text == running.text == "b"
    assert running.result.end is End.STOP and list(running) == []


def test_drafted_tokens_give_the_same_text_in_fewer_steps(made: Any) -> None:
    model = made()
    one = model.generate("ab", max_new_tokens=20, draft=None)
    a, b, c = (model.tokenizer.tokens(letter)[0] for letter in "abc")
    right = {b: [c, a, b] * 3, c: [a, b, c] * 3, a: [b, c, a] * 3}

    class Knows:
        def draft(self, ids: Any, most: int) -> list[int]:
            return right[ids[-1]][:most]

    for draft, steps in ((Knows(), [8, 8, 1, 1, 1]), (Told([a] * 9), None), ("auto", None), (Told([]), [1] * 19)):
        found = model.generate("ab", max_new_tokens=20, draft=draft)
        assert (found.tokens, found.text, found.end) == (one.tokens, one.text, one.end)
        assert found.logprobs == pytest.approx(one.logprobs)
        assert sum(step.tokens for step in found.steps) == 19
        assert steps is None or [step.tokens for step in found.steps] == steps
    assert len(model.generate("abcabcabc", max_new_tokens=20).steps) < 10, "a text that repeats is looked up"


def test_wrong_drafts_are_taken_back(made: Any) -> None:
    model = made()
    a, c = (model.tokenizer.tokens(letter)[0] for letter in "ac")
    text = model.decoding()
    found = model.generate("a", max_new_tokens=9, draft=Told([c, c, a, a, a, a, a]), text=text)
    assert found.text == "bcabcabca" and len(text.steps[1]) == 8 and found.steps[0].tokens == 2
    assert text.length == 9 and not text.ended, "the last token was never taken"


def test_a_text_goes_on(made: Any) -> None:
    """What a prompt has in common with the text so far is not computed again."""
    model = made()
    text = model.decoding()
    first = model.generate("xxxa", max_new_tokens=3, text=text, draft=None)
    model.generate("xxxa" + first.text + "z", max_new_tokens=2, text=text, draft=None)
    assert text.steps[3] == [first.tokens[-1], *model.tokenizer.tokens("z")]
    model.generate("xxxa", max_new_tokens=1, text=text)
    assert text.steps[-1] == model.tokenizer.tokens("a"), "the last token gives the logits"
    text.close()
    with pytest.raises(ProtocolError, match="this text was closed"):
        model.generate("x", text=text)


# ---- how it ends -----------------------------------------------------------------------------------------------------


def test_closing_early_keeps_what_there_is(made: Any) -> None:
    model, left = made(), list[str]()
    with model.generate("a", stream=True, max_new_tokens=9, draft=None) as running:
        running.leaving.callback(left.append, "left")
        assert next(running) + next(running) == "bc" and left == []
    assert running.result.text == "bc" and running.result.end is End.CLOSED and model.texts[0].ended
    running.close()
    assert list(running) == [] and left == ["left"]


def test_an_interrupt_ends_it(made: Any) -> None:
    model, left = made(interrupted_at=4), list[str]()
    running = model.generate("xa", stream=True, max_new_tokens=9, draft=None)
    running.leaving.callback(left.append, "left")
    with pytest.raises(KeyboardInterrupt):
        list(running)
    assert running.result.text == "bc" and running.result.end is End.CLOSED and left == ["left"]
    assert model.texts[0].ended


def test_leaving_happens_at_the_end_too(made: Any) -> None:
    running = made().generate("a", stream=True, max_new_tokens=2, draft=None)
    left: list[str] = []
    running.leaving.callback(lambda: left.append(running.text))
    next(running)
    assert left == [] and next(running) == "c" and left == ["bc"], "with the last piece, not behind it"


@pytest.mark.parametrize("guard", ["mark", "nan", "raise"])
def test_what_leaves_its_range_is_told(guard: str, made: Any) -> None:
    model = made(guard=guard, breached_at=(3, 4))
    if guard == "raise":
        with pytest.raises(Untrusted, match=r"the text cannot be trusted \(layer\.0\.mlp\)"):
            model.generate("xa", max_new_tokens=4, draft=None)
        assert model.texts[0].ended
        return
    found = model.generate("xa", max_new_tokens=4, draft=None)
    assert not found.trusted and found.breaches == ("layer.0.mlp",) and "cannot be trusted" in found.notes[1]


def test_progress_is_that_of_the_prompt(made: Any) -> None:
    told: list[tuple[str, int, int]] = []
    made().generate("a", max_new_tokens=4, draft=None, progress=lambda *each: told.append(each))
    assert told == [("a step", 1, 9)]


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_prompts_must_begin_with_the_public_prefix(made: Any) -> None:
    model = made(prefix=(1, 85))
    with pytest.raises(InputError, match=r"does not begin with the model's public prefix of 2 tokens.*another public"):
        model.generate("hello")
    with pytest.raises(InputError, match="public prefix"):
        model.generate({"input_ids": [1, 85]})
    assert model.texts[-1].ended and model.texts[-1].steps == []
    model.generate({"input_ids": [1, 85, 90]}, max_new_tokens=1)
    assert model.texts[-1].steps == [[90]]


def test_bad_settings(made: Any) -> None:
    model = made()
    for given, words in (({"max_tokens": 3}, "unknown setting 'max_tokens' of a generation: did you mean 'max_new"),
                         ({"draft": "off"}, "draft must be 'auto', None"), ({"draft": 3}, "or a Drafter; got 3"),
                         ({"temperature": -1}, "temperature must be")):
        with pytest.raises(SettingsError, match=words):
            model.generate("a", **given)
    assert model.texts == [] and sampling_of({"top_k": 3}).top_k == 3
    with pytest.raises(InputError, match="context holds 64"):
        model.generate("a", max_new_tokens=64)


# ---- likelihoods -----------------------------------------------------------------------------------------------------


def test_scores_of_texts(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a prefix and without it, in one step and in several."""
    for prefix in ((), (1, 85)):
        model = made(prefix=prefix)
        likely, not_so, alone = model.score(["abca", "abxa", "a"])
        assert likely.log_likelihood == pytest.approx(3 * LOGPROB) and likely.tokens == 3 and likely.trusted
        assert likely.perplexity == pytest.approx(math.exp(-LOGPROB)) and likely.cost.bytes == 400
        assert not_so.log_likelihood == pytest.approx(3 * LOGPROB - LIKELY) and not_so.tokens == 3
        assert (alone.tokens, alone.log_likelihood) == (0, 0) and math.isnan(alone.perplexity)
        monkeypatch.setattr("secformer.models.run.decoding.Decoding.at_once", 3)
        assert model.score("abca").log_likelihood == pytest.approx(3 * LOGPROB)
        assert [len(step) for step in model.texts[-1].steps] == [3, 1] and all(text.ended for text in model.texts)
    for guard in ("mark", "nan", "raise"):
        model = made(guard=guard, breached_at=(4,))
        if guard == "raise":
            with pytest.raises(Untrusted, match="text 1 cannot"):
                model.score(["ab", "abca"])
        else:
            fine, bad = model.score(["ab", "abca"])
            assert fine.trusted and not bad.trusted and "text 1 cannot be trusted" in bad.notes[-1]
            assert math.isnan(bad.log_likelihood) == (guard == "nan")


# ---- a real family ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> PlainModel:
    return reference(ModelFolder(folder), public_prefix=None)


def theirs(folder: Path, ids: list[int], **given: Any) -> tuple[list[int], Any]:
    torch = pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(str(folder)).double().eval()
    with torch.no_grad():
        found = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **given)
        return found[0, len(ids) :].tolist(), torch.log_softmax(model(found).logits[0], -1).numpy()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_are_those_of_transformers(penalty: float, folder: Path, plain: PlainModel) -> None:
    found = plain.generate(MESSAGES, max_new_tokens=12, repetition_penalty=penalty)
    tokens, likely = theirs(folder, list(found.prompt), max_new_tokens=12, repetition_penalty=penalty, do_sample=False)
    assert list(found.tokens) == tokens
    rows = likely[len(found.prompt) - 1 : -1]
    assert np.allclose(found.logprobs, [row[i] for row, i in zip(rows, tokens, strict=True)], rtol=0, atol=1e-4)


def test_likelihoods_are_those_of_transformers(folder: Path, plain: PlainModel) -> None:
    (ids,) = (row.ids.tolist() for row in plain.tokenizer.rows("hello world, hello"))
    _, likely = theirs(folder, ids, max_new_tokens=1, do_sample=False)
    wanted = sum(likely[i, token] for i, token in enumerate(ids[1:]))
    assert plain.score("hello world, hello").log_likelihood == pytest.approx(wanted, abs=1e-3)


def test_equal_seeds_make_equal_choices(plain: PlainModel) -> None:
    def found(seed: int) -> Generated:
        return plain.generate(MESSAGES, max_new_tokens=8, temperature=2.0, top_k=0, seed=seed)

    assert found(1).tokens == found(1).tokens != found(2).tokens
