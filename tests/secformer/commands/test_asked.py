"""Tasks of a folder and of served parties, without parties: which one MODEL names, and what is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from checkpoints import write_checkpoint
from commands_lab import complaint

import secformer
from secformer.cli import main
from secformer.models.data.tokenizer import Reading, Texts
from secformer.models.families.folder import ModelFolder
from secformer.models.run.helpers import Helpers
from secformer.models.run.local import reference
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import Untrusted
from secformer.roles.settings import ClientSettings, template

FILLED = {"party0": "127.0.0.1:1", "party1": "127.0.0.1:2", "model": "."}
PEM = {"authority": "a.pem", "certificate": "c.pem", "key": "c.key"}


class Parties(Helpers):
    """Stands for `connect` and for what it returns: the plaintext model, with the notes of a served one."""

    def __init__(self, folder: Path):
        self.model = reference(ModelFolder(folder))
        self.architecture, self.tokenizer, self.guard = self.model.architecture, self.model.tokenizer, "mark"
        self.asked: list[Any] = []

    def __call__(self, texts: Texts, progress: Any = False) -> SecureOutput:
        self.asked.append(texts)
        return replace(self.model(texts), notes=["served"])

    def _read(self, texts: Texts) -> Reading:
        return self.model._read(texts)

    def connect(self, settings: ClientSettings, *, guard: str) -> Self:
        self.settings, self.guard = settings, guard
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.asked.append("closed")


@pytest.fixture
def parties(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Parties:
    parties = Parties(write_checkpoint(tmp_path / "model", "BertForSequenceClassification", prefix="bert."))
    monkeypatch.chdir(tmp_path)
    text = template(ClientSettings, FILLED, PEM)
    Path("client.toml").write_text(text, "utf-8")
    Path("settings").write_text(text, "utf-8")  # any name will do for a file
    monkeypatch.setattr(secformer, "connect", parties.connect)
    monkeypatch.setattr(secformer, "secure_model", lambda *_, **__: pytest.fail("a folder was run"))
    return parties


@pytest.mark.parametrize("settings", ["client.toml", "settings"])
def test_a_settings_file_leads_to_served_parties(settings: str, parties: Parties,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--guard", "nan", settings, "the cat", "--json", "a dog"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["texts"] == ["the cat", "a dog"] and facts["notes"] == ["served"]
    assert [each["label"] for (each,) in facts["labels"]] == [
        each.label for each in parties.model.classify(["the cat", "a dog"])]
    assert parties.asked == [["the cat", "a dog"], "closed"] and parties.guard == "nan"
    assert parties.settings.party1[1] == 2 and not parties.settings.truncation


def test_truncation_is_the_clients_own(parties: Parties) -> None:
    assert main(["classify", "client.toml", "the cat", "--truncation"]) == 0
    assert parties.settings.truncation


@pytest.mark.parametrize("option", [["--recipe", "puma"], ["--backend", "numpy"], ["--profile", "p"],
                                    ["--embedding", "client"], ["--untrained-recipe"], ["--frac", "12"]], ids=" ".join)
def test_options_that_the_owner_decides_are_refused(option: list[str], parties: Parties,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["classify", "client.toml", "the cat", *option])
    assert left.value.code == 2 and not parties.asked
    assert f"{option[0]} is decided where the model is served" in " ".join(capsys.readouterr().err.split())


def test_a_settings_file_that_is_not_there(parties: Parties, capsys: pytest.CaptureFixture[str]) -> None:
    assert "MODEL gone.toml does not exist; `secformer init`" in complaint(capsys, "embed", "gone.toml", "cat")
    assert "needs a model of the class BertModel" in complaint(capsys, "embed", "client.toml", "cat")
    Path("folder.toml").mkdir()
    assert "config.json" in complaint(capsys, "embed", "folder.toml", "cat"), "a folder, whatever its name"
    assert parties.asked == ["closed"]


def test_a_mark_ends_the_command(parties: Parties, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    real = Parties.__call__
    monkeypatch.setattr(Parties, "__call__", lambda self, *some: replace(real(self, *some), breaches=[(), ("gelu",)]))
    assert "text 1 cannot be trusted (gelu)" in (told := complaint(capsys, "classify", "client.toml", "cat", "dog"))
    assert "--guard nan" in told
    with pytest.raises(Untrusted):
        parties.classify(["cat", "dog"])
