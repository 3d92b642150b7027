"""Token ids of another model's tokenizer are noticed, as far as they can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import VOCAB, write_checkpoint
from text_lab import byte_tokenizer

from secformer.gateway.token_ids import require_own
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import InputError


def ids(*words: str) -> list[int]:
    return [VOCAB.index(w) for w in words]


def test_ids_of_another_tokenizer(tmp_path: Path) -> None:
    """They lack the tokens that stand around every text; a tokenizer that puts none there cannot tell."""
    tokenizer = ModelFolder(write_checkpoint(tmp_path / "model")).tokenizer
    require_own(tokenizer, [ids("[CLS]", "cat", "[SEP]"), ids("[CLS]", "[SEP]")])
    for other in (ids("cat"), ids("[CLS]", "cat"), ids("cat", "[SEP]")):
        with pytest.raises(InputError, match=r"text 1: token ids must be those of this model's own tokenizer, with the "
                                             r"ids \[2, 3\]"):
            require_own(tokenizer, [ids("[CLS]", "cat", "[SEP]"), other])
    require_own(byte_tokenizer(tmp_path / "none"), [[7], [9, 8]])
    begins = byte_tokenizer(tmp_path / "begins", template=None, start=True)
    require_own(begins, [[1, 9]])
    with pytest.raises(InputError, match="text 0"):
        require_own(begins, [[9, 8]])
    require_own(Tokenizer(tmp_path, tokenizer.inputs), [[9]])  # a folder without a tokenizer takes ids alone
