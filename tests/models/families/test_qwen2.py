"""Qwen2: against transformers' own class; biases, and windows in later layers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoders_lab import LONG, edited, saved
from families_lab import describes_itself, matches, tokens

from secformer.models.families.folder import ModelFolder
from secformer.models.families.qwen2 import Qwen2
from secformer.mpc.errors import ModelError

# Qwen2's heads are as large as the hidden size says: 5 of 6 entries
SIZES: dict[str, Any] = {"head_dim": None, "num_attention_heads": 5, "num_key_value_heads": 1}
SLIDING = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", Qwen2.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, name, **(SIZES | SLIDING))
    assert ModelFolder(folder).architecture.spec.windows == (0, 5)
    matches(folder, name, tokens(longest=LONG), single=True)


def test_a_window_that_is_not_used(tmp_path: Path) -> None:
    folder = saved(tmp_path, "Qwen2Model", **(SIZES | SLIDING | {"use_sliding_window": False}))
    assert ModelFolder(folder).architecture.spec.windows == (0, 0)
    matches(folder, "Qwen2Model", tokens(longest=LONG), single=True, secure=False)


def test_layers_by_name(tmp_path: Path) -> None:
    """`layer_types` counts, whatever the older keys say."""
    kinds = ["sliding_attention", "full_attention"]
    folder = saved(tmp_path, "Qwen2Model", **(SIZES | SLIDING | {"layer_types": kinds}))
    assert ModelFolder(folder).architecture.spec.windows == (5, 0)
    matches(folder, "Qwen2Model", tokens(longest=LONG), single=True, secure=False)


def test_biases_are_read(tmp_path: Path) -> None:
    names = ModelFolder(saved(tmp_path, "Qwen2Model", **SIZES)).architecture.weights()
    assert "layer.0.qkv.bias" in names and "layer.0.attention.bias" not in names


def test_sites_results_and_facts(tmp_path: Path) -> None:
    describes_itself(saved(tmp_path, "Qwen2ForCausalLM", **(SIZES | SLIDING | {"vocab_size": 41})),
                     ["the cat sat", "dog"])


def test_layers_that_are_not_run(tmp_path: Path) -> None:
    folder = edited(saved(tmp_path, "Qwen2Model", **SIZES), {"layer_types": ["chunked_attention"] * 2})
    with pytest.raises(ModelError, match="layer_types"):
        ModelFolder(folder)
