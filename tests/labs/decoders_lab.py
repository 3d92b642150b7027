"""Tiny decoders of odd sizes, and texts that a decoder's batch must keep apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from families_lab import save

SIZES: dict[str, Any] = {
    "hidden_size": 30, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 21,
    "num_hidden_layers": 2, "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}
LONG = 19  # tokens: more than any window here


def saved(folder: Path, name: str, **entries: Any) -> Path:
    """A random decoder of transformers' class `name`. Entries as in `families_lab.save`; those that are None stay at
    transformers' own."""
    return save(folder, name, **{key: value for key, value in (SIZES | entries).items() if value is not None})


def edited(folder: Path, entries: dict[str, Any], *without: str) -> Path:
    """The folder with other entries in its config, and without some."""
    file = folder / "config.json"
    found = json.loads(file.read_text("utf-8")) | entries
    file.write_text(json.dumps({key: value for key, value in found.items() if key not in without}), "utf-8")
    return folder
