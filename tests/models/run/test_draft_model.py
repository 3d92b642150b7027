"""Draft models: what they guess, with a cache that follows any text; the same tokens as without, in fewer steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from decoders_lab import edited
from generation_lab import CONTEXT, IDS, decoder_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from text_lab import WORDS, change_vocabulary

from secformer.models.families.caching import SLOTS
from secformer.models.run.draft_model import DraftModel
from secformer.models.run.drafts import MOST, PAUSE, RECENT
from secformer.models.run.local import PlainModel
from secformer.mpc.errors import ModelError, RangeError

PROMPT = {"input_ids": [IDS[:6]]}
SOME = st.lists(st.integers(3, WORDS - 1), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model itself, others with its vocabulary, and one whose context is shorter."""
    at = tmp_path_factory.mktemp("drafts")
    return {"itself": decoder_folder(at / "itself", "llama"), "random": decoder_folder(at / "random", "llama", seed=4),
            "gpt2": decoder_folder(at / "gpt2", "gpt2"), "mistral": decoder_folder(at / "mistral", "mistral"),
            "short": decoder_folder(at / "short", "llama", max_position_embeddings=24)}


@pytest.fixture(scope="module")
def drafts(folders: dict[str, Path]) -> dict[str, DraftModel]:
    return {name: DraftModel(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> PlainModel:
    return PlainModel.from_pretrained(folders["itself"], recipe="exact", public_prefix=None)


def followed(model: PlainModel, ids: list[int], most: int) -> list[int]:
    """The greedy continuation, of which each token is told by the whole text before it."""
    for _ in range(most):
        logits = model({"input_ids": [ids]}).logits
        ids = [*ids, int(np.argmax(logits[0][-1]))]  # type: ignore[index]
    return ids[-most:]


# ---- what is guessed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["itself", "mistral"])
@settings(max_examples=8, deadline=None)
@given(texts=st.lists(st.tuples(st.integers(0, 20), SOME), min_size=1, max_size=4), most=st.integers(1, 3))
def test_it_follows_any_text(name: str, folders: Any, drafts: Any, texts: Any, most: int) -> None:
    """Each text keeps some first tokens of the one before, with drafted ones or without, and goes on in another way."""
    whole, ids = PlainModel.from_pretrained(folders[name], recipe="exact", public_prefix=None), list[int]()
    for keep, new in texts:
        ids = (ids[:keep] + new)[:CONTEXT - most]
        found = drafts[name].draft(ids, most)
        assert found == followed(whole, ids, most)
        ids += found


def test_wrong_guesses_leave_no_growing_cache(drafts: Any) -> None:
    draft = drafts["random"]
    for i in range(24):
        draft.draft([*IDS, 3 + i], MOST)
        assert draft._text.timeline.used <= 2 * (len(IDS) + 1 + MOST) + SLOTS + MOST


def test_threads_take_turns(drafts: Any) -> None:
    draft, texts = drafts["gpt2"], [[i, *IDS[: 3 + i % 5]] for i in range(3, 19)]
    alone = [draft.draft(ids, 4) for ids in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda ids: draft.draft(ids, 4), texts)) == alone


def test_an_interrupted_draft_is_begun_anew(drafts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = drafts["itself"]
    wanted = draft.draft(IDS, 4)
    with monkeypatch.context() as patched:
        patched.setattr(type(draft._text), "_ask", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            draft.draft([*IDS, 5], 4)
    assert draft.draft(IDS, 4) == wanted


def test_no_further_than_its_context(drafts: Any) -> None:
    text = [3] * 30
    assert len(drafts["short"].draft(text[:18], 7)) == 7 and drafts["short"].draft(text[:19], 7) == []
    assert len(drafts["short"].draft(text[:24], 1)) == 1 and drafts["short"].draft(text[:25], 1) == []


# ---- what is generated -----------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(name=st.sampled_from(["itself", "random", "gpt2", "mistral", "short"]), prompt=SOME, new=st.integers(1, 24),
       data=st.data())
def test_tokens_are_those_without_a_draft(model: PlainModel, drafts: Any, name: str, prompt: list[int], new: int,
                                          data: st.DataObject) -> None:
    """Up to the model's own context, and up to a stop text from anywhere in the answer."""
    asked = {"input_ids": [prompt]}
    one = model.generate(asked, max_new_tokens=new, draft=None)
    found = model.generate(asked, max_new_tokens=new, draft=drafts[name])
    assert (found.tokens, found.text, found.end) == (one.tokens, one.text, one.end)
    assert found.logprobs == pytest.approx(one.logprobs) and len(found.steps) <= len(one.steps)
    if one.text:
        start = data.draw(st.integers(0, len(one.text) - 1))
        stop = one.text[start : start + 3]
        one, found = (model.generate(asked, max_new_tokens=new, draft=draft, stop=stop)
                      for draft in (None, drafts[name]))
        assert (found.tokens, found.text, found.end) == (one.tokens, one.text, one.end)


def test_a_draft_that_is_always_right_saves_steps(model: PlainModel, folders: Any) -> None:
    """33 tokens in 5 steps: the first is the prompt's, then come seven drafted ones and one more in each step."""
    one = model.generate(PROMPT, max_new_tokens=33, draft=None)
    for draft in (folders["itself"], str(folders["itself"]), DraftModel(folders["itself"])):
        found = model.generate(PROMPT, max_new_tokens=33, draft=draft)
        assert found.tokens == one.tokens and [step.tokens for step in found.steps] == [MOST + 1] * 4
    assert len(one.steps) == 32 and found.notes == one.notes


def test_a_draft_that_is_always_wrong_pauses(model: PlainModel, drafts: Any) -> None:
    text = model.decoding()
    found = model.generate(PROMPT, max_new_tokens=33, draft=drafts["random"], text=text)
    assert [step.tokens for step in found.steps] == [1] * 32
    drafted = 2 * RECENT  # steps 1 to 4, and 21 to 24, behind a pause of 16 steps; later ones have no room for a draft
    assert PAUSE == 16 and text.timeline.used == 6 + drafted * (MOST + 1) + 32 - drafted
    text.close()


# ---- what is told and refused ----------------------------------------------------------------------------------------


def test_notes_on_what_is_not_drafted(model: PlainModel, drafts: Any, tmp_path: Path) -> None:
    few = DraftModel(decoder_folder(tmp_path, "llama", vocab_size=max(IDS[:6])))
    one = model.generate(PROMPT, max_new_tokens=30, draft=None)
    for draft, given_, says in ((drafts["short"], {}, "reads 24 tokens, and drafts nothing behind them; .* have 36"),
                                (few, {}, f"has no word for, .* the ids 0..{max(IDS[:6]) - 1}$"),
                                (drafts["itself"], {"temperature": 1.0, "seed": 3}, "tokens are sampled")):
        found = model.generate(PROMPT, max_new_tokens=30, draft=draft, **given_)
        assert len(found.notes) == len(one.notes) + 1
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(found.notes[-1])
        assert (found.tokens == one.tokens) != bool(given_)
    sampled = model.generate(PROMPT, max_new_tokens=30, draft=None, temperature=1.0, seed=3)
    assert found.tokens == sampled.tokens and [step.tokens for step in found.steps] == [1] * 29


def test_ids_must_mean_the_same_tokens(model: PlainModel, folders: Any, tmp_path: Path) -> None:
    swapped, more = (Path(copytree(folders["itself"], tmp_path / name)) for name in ("swapped", "more"))
    change_vocabulary(swapped, hello=200)
    change_vocabulary(more, more=WORDS)
    with pytest.raises(ModelError, match=r"has another vocabulary than the model: the id 200 is 'hello' there, and "
                                         r"'.' in .* \(2 ids differ\). Give a draft model with the same tokenizer"):
        model.generate(PROMPT, draft=swapped)
    assert model.generate(PROMPT, draft=more).tokens == model.generate(PROMPT, draft=None).tokens


def test_folders_that_cannot_draft(folders: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not tell the next token"):
        DraftModel(write_checkpoint(tmp_path / "encoder", "BertModel"))
    bare, broken = (Path(copytree(folders["itself"], tmp_path / name)) for name in ("bare", "broken"))
    (bare / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        DraftModel(bare)
    with pytest.raises(ModelError, match=r"layers\.2"):
        DraftModel(edited(broken, {"num_hidden_layers": 3}))
    (broken / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=r"cannot read .*tokenizer\.json"):
        DraftModel(broken)
    tensors = load_file(folders["itself"] / "model.safetensors")
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, bare / "model.safetensors")
    (bare / "tokenizer.json").write_bytes((folders["itself"] / "tokenizer.json").read_bytes())
    with pytest.raises((ModelError, RangeError), match=r"norm\.weight.* finite"):
        DraftModel(bare)
