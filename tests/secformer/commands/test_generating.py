"""Which model MODEL names, and how a folder is loaded: a tiny chat model on shares, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from commands_lab import answer, complaint
from scripted_lab import Scripted
from tiny_chat_lab import MESSAGES, measured_chat

import secformer
from secformer.cli import main
from secformer.models.families.folder import ModelFolder
from secformer.models.generation.prompts import as_prompt
from secformer.models.ranges.profile import FILE, RangeProfile
from secformer.models.run.local import reference
from secformer.roles.settings import ClientSettings, template

CPU = ("--backend", "numpy", "--guard", "raise", "--frac", "16")
FILLED = {"party0": "127.0.0.1:1", "party1": "127.0.0.1:2", "model": "."}
PEM = {"authority": "a.pem", "certificate": "c.pem", "key": "c.key"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured_chat(tmp_path_factory.mktemp("chat"))


def test_a_folder_runs_in_this_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    data = answer(capsys, "generate", str(folder), "hello", "--system", "Be.", *CPU,
                  "--max-new-tokens", "3", "--progress")
    own: Any = [{"role": "system", "content": "Be."}, *MESSAGES]
    wanted = reference(ModelFolder(folder), public_prefix=None).generate(own, max_new_tokens=3)
    assert data["tokens"] == list(wanted.tokens) and data["prompt_tokens"] == list(wanted.prompt)
    assert data["cost"]["per_token"]["rounds"] > 0


def test_a_profile_belongs_to_a_public_prefix(folder: Path, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    """`profile` measures behind the prefix that a model is loaded with."""
    texts, out = tmp_path / "texts.txt", tmp_path / "profile.json"
    texts.write_text("hello world\n", "utf-8")
    assert main(["profile", str(folder), "--texts", str(texts), "--out", str(out)]) == 0
    found = RangeProfile.load(out)
    assert found.model == RangeProfile.load(folder / FILE).model
    assert main(["profile", str(folder), "--texts", str(texts), "--out", str(out), "--public-prefix", "none"]) == 0
    assert RangeProfile.load(out).model != found.model
    capsys.readouterr()
    assert "behind another public prefix" in complaint(capsys, "score", str(folder), "x", "--profile", str(out))


def test_models_and_prompts_are_checked_before_weights_are_shared(
        folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secformer.SecureModel, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    encoder = str(write_checkpoint(tmp_path, "BertModel"))
    assert "does not tell the next token" in complaint(capsys, "score", encoder, "x")
    assert "context holds" in complaint(capsys, "generate", str(folder), "x", "--max-new-tokens", "999")
    assert "takes at most" in complaint(capsys, "score", str(folder), "x" * 200)
    assert "nowhere is not a folder" in complaint(capsys, "chat", "nowhere")


def test_a_settings_file_leads_to_served_parties(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Served(Scripted):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            asked.append("closed")

    monkeypatch.setattr(secformer, "connect", lambda settings, guard: asked.append(guard) or Served(tmp_path))
    (tmp_path / "client.toml").write_text(template(ClientSettings, FILLED, PEM), "utf-8")
    file = str(tmp_path / "client.toml")
    data = answer(capsys, "generate", file, "xa", "--continue", "--max-new-tokens", "3", "--guard", "nan")
    assert data["text"] == "bca" and asked == ["nan", "closed"]
    with pytest.raises(SystemExit):
        main(["generate", file, "xa", "--public-prefix", "none"])
    assert "--public-prefix is decided where the model is served" in capsys.readouterr().err


def test_a_served_model_that_generates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(secformer, "connect", lambda settings, guard: Encoder())
    (tmp_path / "client.toml").write_text(template(ClientSettings, FILLED, PEM), "utf-8")
    assert "generates no text" in complaint(capsys, "score", str(tmp_path / "client.toml"), "x")


def test_prompts_by_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = Scripted(tmp_path).tokenizer
    assert as_prompt(tokenizer, "x", system=None) == [{"role": "user", "content": "x"}]
    assert as_prompt(tokenizer, "x", system="y")[0] == {"role": "system", "content": "y"}  # type: ignore[index]
    assert as_prompt(tokenizer, "x", system=None, continued=True) == "x"
