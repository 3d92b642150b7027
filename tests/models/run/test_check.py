"""Checks: texts within a profile, and texts that leave it."""

from __future__ import annotations

from pathlib import Path

from runs_lab import TEXTS

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
    assert found.violations[0].site == "embedding.layernorm"
