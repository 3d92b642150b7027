"""Rehearsals find what would go wrong on shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs_lab import CPU, folder_of
from safetensors.numpy import load_file, save_file

from secformer.models.run.local import secure_bert
from secformer.mpc.errors import RangeError


def test_values_that_no_range_records_are_rehearsed(tmp_path: Path) -> None:
    """Attention values beyond the softmax protocols' promise would give a wrong answer for every text."""
    path = folder_of(tmp_path)
    file = path / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if "attention.self.value.weight" in name:
            tensors[name] = tensors[name] * 3000
    save_file(tensors, file)
    with pytest.raises(RangeError, match=r"layer\.0/"):
        secure_bert(path, "cat", **CPU)
