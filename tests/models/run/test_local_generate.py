"""`secure_generate` and its reference, on a tiny chat model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from tiny_chat_lab import MESSAGES, measured_chat, tiny_chat

import secformer
from secformer import SecureModel, plain_generate, secure_generate
from secformer.mpc.errors import InputError, ModelError, SettingsError

pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured_chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    with SecureModel.from_pretrained(folder, backend="numpy") as model:
        yield model


def test_a_folder_in_one_call(folder: Path, loaded: SecureModel) -> None:
    """Greedy: the reference's tokens. A model that was loaded for it is closed at the end."""
    wanted, told = plain_generate(folder, MESSAGES, max_new_tokens=5), list[str]()
    found = secure_generate(folder, MESSAGES, max_new_tokens=5, backend="numpy",
                            progress=lambda what, done, total: told.append(what))
    assert (found.tokens, found.text, found.end) == (wanted.tokens, wanted.text, wanted.end) and found.trusted
    assert np.allclose(found.logprobs, wanted.logprobs, rtol=0, atol=1e-3)
    assert found.prompt_cost.bytes > found.steps[0].cost.bytes > 0 and wanted.cost.bytes == 0
    assert told[0] == "sharing the weights" and "layer.0.softmax" in told
    assert secure_generate(loaded, MESSAGES, max_new_tokens=5).tokens == wanted.tokens


def test_a_draft_model(folder: Path, loaded: SecureModel) -> None:
    """The model itself guesses: all of its tokens are right."""
    wanted = secure_generate(loaded, MESSAGES, max_new_tokens=9, draft=None)
    found = secure_generate(loaded, MESSAGES, max_new_tokens=9, draft=str(folder))
    assert (found.tokens, found.notes) == (wanted.tokens, wanted.notes) and [s.tokens for s in found.steps] == [8]


def test_streams_close_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[SecureModel] = []
    close = SecureModel.close
    monkeypatch.setattr(SecureModel, "close", lambda self: (closed.append(self), close(self)))
    running = secure_generate(folder, MESSAGES, stream=True, max_new_tokens=2, backend="numpy", draft=None)
    next(running)
    assert closed == []
    next(running)
    assert len(closed) == 1 and closed[0].world is None and len(running.result.tokens) == 2
    with secure_generate(folder, MESSAGES, stream=True, max_new_tokens=9, backend="numpy") as running:
        next(running)
    assert len(closed) == 2 and len(running.result.tokens) == 1


def test_loaded_models_stay_open(loaded: SecureModel) -> None:
    for _ in range(2):
        with secure_generate(loaded, MESSAGES, stream=True, max_new_tokens=3) as running:
            next(running)
    assert loaded.world is not None
    for given in ({"recipe": "faithful"}, {"backend": "numpy"}, {"truncation": True}, {"public_prefix": None}):
        with pytest.raises(SettingsError, match="already has its recipe"):
            secure_generate(loaded, MESSAGES, **given)


def test_texts_of_a_closed_model_end(folder: Path) -> None:
    model = SecureModel.from_pretrained(folder, backend="numpy")
    running = model.generate(MESSAGES, stream=True, max_new_tokens=5)
    next(running)
    model.close()
    with pytest.raises(SettingsError, match="this SecureModel is closed"):
        next(running)


def test_refusals_come_before_the_weights_are_shared(folder: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = write_checkpoint(tmp_path, "BertModel")
    monkeypatch.setattr(secformer.models.run.local_generate, "SecureModel", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr(secformer.models.run.local_generate, "isinstance", lambda *_: False, raising=False)
    for given, error, words in (({"prompt": ""}, InputError, "prompt is empty"),
                                ({"max_new_tokens": 200}, InputError, "context holds"),
                                ({"top_p": 2}, SettingsError, "top_p"), ({"draft": "yes"}, SettingsError, "draft"),
                                ({"draft": encoder}, ModelError, "BertModel does not tell the next token"),
                                ({"max_tokens": 2}, SettingsError, "unknown setting 'max_tokens'")):
        with pytest.raises(error, match=words):
            secure_generate(folder, **{"prompt": MESSAGES} | given)
    with pytest.raises(ModelError, match="does not tell the next token"):
        secure_generate(encoder, "hello")


def test_public_prefixes(folder: Path, tmp_path: Path) -> None:
    """What a model takes as public, and what it then asks of prompts."""
    own = [{"role": "system", "content": "Be kind."}, *MESSAGES]
    common = plain_generate(folder, own, max_new_tokens=3, public_prefix="auto")
    assert common.tokens == plain_generate(folder, own, max_new_tokens=3).tokens
    with pytest.raises(InputError, match="does not begin with the model's public prefix"):
        plain_generate(folder, MESSAGES, public_prefix="Be kind.")
    system = plain_generate(folder, own, max_new_tokens=3, public_prefix="Be kind.")
    assert system.tokens == common.tokens
    bare = tiny_chat(tmp_path, template=False)
    with pytest.raises(InputError, match="no chat template"):
        plain_generate(bare, "hello", public_prefix="Be kind.")
    behind = plain_generate(bare, "hello", max_new_tokens=3, public_prefix="auto")
    assert behind.tokens == plain_generate(bare, "hello", max_new_tokens=3).tokens
