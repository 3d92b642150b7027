"""Which drafter a generation has. Draft models themselves: `test_draft_model.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_lab import byte_tokenizer
from tiny_chat_lab import tiny_chat

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.drafting import LookUp
from secformer.models.generation.sampling import Sampling
from secformer.models.run.draft_model import DraftModel
from secformer.models.run.drafters import advice, drafter_of
from secformer.mpc.errors import SettingsError


class Own:
    def draft(self, ids: Any, most: int) -> list[int]:
        return []


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return byte_tokenizer(tmp_path / "tokenizer")


def test_each_is_told_apart(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a folder is called "auto": as a path it is that folder."""
    own = Own()
    folder = tiny_chat(tmp_path / "auto")
    monkeypatch.chdir(tmp_path)
    opened = DraftModel(folder)
    assert drafter_of("auto", tokenizer) == LookUp() and drafter_of(None, tokenizer) is None
    assert drafter_of(own, tokenizer) is own and drafter_of(opened, tokenizer) is opened
    for path in (folder, str(folder), "./auto", Path("auto")):
        assert isinstance(drafter_of(path, tokenizer), DraftModel)
    assert all(advice(drafter, [5], Sampling(temperature=1.0)) == [] for drafter in (None, own, LookUp()))


@pytest.mark.parametrize("draft", ["off", 3, Own.draft, Path("gone")], ids=["word", "number", "method", "folder"])
def test_what_is_none(draft: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(SettingsError, match=r"draft must be 'auto', None .*, the folder of a draft model, or a Draft"):
        drafter_of(draft, tokenizer)
