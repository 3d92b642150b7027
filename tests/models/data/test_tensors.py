"""A model's tensors as the protocol uses them: built from a checkpoint's, and how wide a table is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint

from secformer.models.data.tensors import NARROW, TABLE, table_width
from secformer.models.families.folder import ModelFolder

WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize(("top", "width"), [(1.0, 24), (60.0, 24), (63.99, 32), (1000.0, 32), (16000.0, 32)])
def test_table_width_holds_word_plus_segment(top: float, width: int, tmp_path: Path) -> None:
    found = tensors(config())
    found[WORDS][5, 5] = top
    folder = ModelFolder(write_checkpoint(tmp_path, weights=found))
    chosen = table_width(folder.architecture.tables()[TABLE], folder.checkpoint, 16, 2.0**14)
    reach = top + np.abs(found["embeddings.token_type_embeddings.weight"]).max()
    assert reach < 2.0 ** (chosen - 18)
    assert chosen == width in NARROW
