"""query on the command line, without parties: what it asks, and how it shows the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import secformer
from secformer.cli import main
from secformer.models.run.output import SecureOutput


class Parties:
    """Stands for `connect`; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __call__(self, settings: str, *, guard: str, receipts: str | None) -> Self:
        assert receipts is None
        self.asked.append(settings)
        self.guard = guard
        return self

    def infer(self, texts: Any, progress: bool) -> SecureOutput:
        self.asked += [texts, progress]
        return SecureOutput(np.ones((1, 1)), labels=["good"], probabilities=np.array([[0.9, 0.1]]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: Any) -> None:
        self.asked.append("closed")


@pytest.fixture
def parties(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Parties:
    parties = Parties()
    monkeypatch.chdir(tmp_path)
    for name in ("client.toml", "c.toml"):
        Path(name).write_text("", "utf-8")
    monkeypatch.setattr(secformer, "connect", parties)
    return parties


def test_texts_go_to_the_parties(parties: Parties, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "--settings", "client.toml", "A film.", "--progress"]) == 0
    assert parties.asked == ["client.toml", ["A film."], True, "closed"] and parties.guard == "mark"
    assert "good" in capsys.readouterr().out


def test_pairs_and_json(parties: Parties, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.tsv").write_text("a\tb\n", "utf-8")
    assert main(["query", "--settings", "c.toml", "--pairs", str(tmp_path / "pairs.tsv"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["texts"] == [["a", "b"]] and facts["labels"] == ["good"]


@pytest.mark.parametrize("arguments", [["A film."], ["--settings", "c.toml"]], ids=" ".join)
def test_usage(parties: Parties, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["query", *arguments])
    assert left.value.code == 2 and not parties.asked


@pytest.mark.parametrize("texts", [["fine", "caf\udce9"], ["--", "fine", "caf\udce9"]], ids=repr)
def test_texts_are_checked_before_anybody_is_asked(texts: list[str], parties: Parties,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "--settings", "c.toml", *texts]) == 1
    assert "text 1 is not valid UTF-8: character 3" in capsys.readouterr().err and not parties.asked
