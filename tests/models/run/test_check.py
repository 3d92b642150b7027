"""Checks: texts within a profile, and texts that leave it."""

from __future__ import annotations

from pathlib import Path

from runs_lab import TEXTS, folder_of
from safetensors.numpy import load_file, save_file

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.check import check


def test_check_of_texts_within_the_profile(encoder: Path) -> None:
    found = check(encoder, TEXTS)
    assert found.ok
    assert found.errors["last_hidden_state"] < 2e-2


def test_check_lists_what_leaves_the_profile(encoder: Path) -> None:
    narrow = measure(ModelFolder(encoder), "cat", margin=1.0)
    found = check(encoder, TEXTS, profile=narrow)
    assert not found.ok
    first = found.violations[0]
    assert first.site == "embedding.layernorm" and first.factor > 1.0


def test_check_says_which_text_leaves_which_range(encoder: Path) -> None:
    """By its number, and by how much; and what the twin computes of all texts all the same."""
    profile = measure(ModelFolder(encoder), TEXTS[:3], margin=1.0)
    found = check(encoder, TEXTS, profile=profile)
    assert {v.text for v in found.violations} == {3} and found.errors["last_hidden_state"] > 0.0
    assert str(found.violations[0]).startswith("text 3: ") and " times that)" in str(found.violations[0])


def test_check_goes_on_where_the_twin_would_stop(tmp_path: Path) -> None:
    """Values that no profile records: keys beyond the format, which queries of 0 hide from the scores."""
    path = folder_of(tmp_path)
    tensors = load_file(path / "model.safetensors")
    for name in tensors:
        if "attention.self.query" in name:
            tensors[name] = tensors[name] * 0
        if "layer.0.attention.self.key.weight" in name:
            tensors[name] = tensors[name] * 12000
    save_file(tensors, path / "model.safetensors")
    texts = ["dog", "the cat"]
    found = check(path, texts, profile=measure(ModelFolder(path), texts))
    assert not found.ok and not found.violations
    assert "text 0: layer.0/linear: " in found.problem and "; text 1: layer.0/linear: " in found.problem
    assert found.errors["last_hidden_state"] < 0.05
