"""Qwen3: against transformers' own class; norms of queries and keys, head by head, whose gains differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders_lab import LONG, saved
from families_lab import describes_itself, matches, tokens

from secformer.models.families.folder import ModelFolder
from secformer.models.families.qwen3 import Qwen3

SLIDING = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", Qwen3.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(saved(tmp_path, name, tie_word_embeddings=True), name, tokens(longest=13), single=True)


@pytest.mark.parametrize("entries", [{"attention_bias": True}, SLIDING, {"num_key_value_heads": 3}], ids=str)
def test_variants_in_plaintext(entries: dict[str, Any], tmp_path: Path) -> None:
    name = "Qwen3ForCausalLM"
    matches(saved(tmp_path, name, **entries), name, tokens(longest=LONG), single=True, secure=False)


def test_gains_of_heads(tmp_path: Path) -> None:
    """Of six heads of queries with the scale of scores in them, then of two heads of keys."""
    folder = ModelFolder(saved(tmp_path, "Qwen3Model"))
    own = folder.architecture
    gains = own.weights()["layer.1.heads.norm.weight"].build(folder.checkpoint).reshape(8, own.spec.size)
    q, k = (folder.checkpoint.read(f"layers.1.self_attn.{name}_norm.weight", (8,)) for name in "qk")
    np.testing.assert_allclose(gains, np.concatenate([[q / np.sqrt(8.0)] * 6, [k] * 2]))


def test_sites_results_and_facts(tmp_path: Path) -> None:
    describes_itself(saved(tmp_path, "Qwen3ForCausalLM"), ["the cat sat", "dog"])
