"""Runs of tiny models: the texts, where the runs compute, and how near two answers must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_checkpoint

from secformer.models.run.check import differences
from secformer.models.run.output import SecureOutput

TEXTS = ["the cat sat on the mat", "dog", "", "a good film is not a bad film !"]
CPU: dict[str, Any] = {"backend": "numpy"}
ANY = CPU | {"untrained_recipe": True}  # recipes on checkpoints that were not trained for them
TIGHT = 2e-3  # secure against twin: a few units in the last place (2^-16) an operation


def folder_of(path: Path, architecture: str = "BertModel", **changes: Any) -> Path:
    """A checkpoint whose encoder's tensors have the prefix that Hugging Face gives them."""
    return write_checkpoint(path, architecture, prefix="" if architecture == "BertModel" else "bert.", **changes)


def close(a: SecureOutput, b: SecureOutput, tolerance: float) -> None:
    """Fails where a result of both outputs differs by more, or where they are not of the same tokens."""
    for name, error in differences(a, b).items():
        assert error <= tolerance, f"{name} differs by {error}"
    np.testing.assert_array_equal(a.attention_mask, b.attention_mask)
