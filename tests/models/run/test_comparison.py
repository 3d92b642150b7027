"""Recipes side by side: rows of recipes that run and that cannot, verdicts, parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from comparison_lab import TEXTS

from secformer import plain_bert
from secformer.models.run.comparison import OWN, PARTS, Comparison, compare, parts, verdicts
from secformer.mpc.errors import InputError, ModelError, SettingsError
from secformer.mpc.meter import Cost
from secformer.protocols.recipes import EXACT, FAITHFUL, RECIPES


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder"), "BertModel")


def test_rows(compared: Comparison) -> None:
    """The shipped model was distilled for SecFormer's functions: of the others only the cost counts."""
    faithful, secformer, broken = compared.rows
    assert secformer.agreement == 1.0 and secformer.error is not None and secformer.error < 1e-2
    assert secformer.cosine is not None and secformer.cosine > 0.9999 and not secformer.student
    assert faithful.student and secformer.cost is not None and faithful.cost is not None
    assert faithful.error is not None and faithful.error > 2 * secformer.error
    assert faithful.cost.offline_bytes == 0 and faithful.provisioning is not None
    assert faithful.provisioning.offline_bytes > 0
    assert broken.cost is None and "RangeError" in broken.problem and "nothing below 0" in broken.problem


def test_texts_outside_the_profile_are_told(tmp_path: Path) -> None:
    from secformer.models.families.folder import ModelFolder
    from secformer.models.ranges.profile import FILE, measure

    folder = write_checkpoint(tmp_path / "narrow", "BertModel")
    measure(ModelFolder(folder), ["cat"], recipe=FAITHFUL, margin=1.0).save(folder / FILE)
    (row,) = compare(folder, ["the dog ran , the cat sat !"], [FAITHFUL], runs=1).rows
    assert row.problem or any("outside the range profile" in note and "text 0: " in note for note in row.notes)


def test_ranges_that_are_measured_for_a_comparison_hold_its_texts(encoder: Path) -> None:
    """They are measured on built-in texts and on these, and the row says so."""
    (row,) = compare(encoder, ["? ? ? ? not not cat cat cat"], [FAITHFUL], runs=1).rows
    assert OWN in row.notes and not any("outside" in note for note in row.notes) and not row.problem


def test_errors_of_all_recipes_are_raised(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(ModelError):
        compare(tmp_path / "gone", TEXTS)
    with pytest.raises(InputError):
        compare(encoder, ["cat " * 100])
    with pytest.raises(SettingsError, match="embedding"):
        compare(encoder, ["cat"], embeding="client")


def test_the_reference_is_no_recipe_on_shares(encoder: Path) -> None:
    (row,) = compare(encoder, ["the cat"], [EXACT], runs=1).rows
    assert "exact" in row.problem and row.cost is None


@pytest.mark.parametrize("recipe", [r for r in RECIPES.values() if r is not EXACT], ids=lambda r: r.name)
def test_who_needs_a_distilled_model(recipe: Any) -> None:
    assert recipe.ordinary == (recipe.name in ("faithful", "puma", "crypten"))


@pytest.mark.parametrize(("architecture", "count"), [
    ("BertForSequenceClassification", 2), ("BertForTokenClassification", 7), ("BertForQuestionAnswering", 4),
    ("BertForMaskedLM", 7), ("BertModel", 0),
])
def test_verdicts(architecture: str, count: int, tmp_path: Path) -> None:
    """One a text, one a real token, or the two ends of an answer."""
    out = plain_bert(write_checkpoint(tmp_path, architecture), ["cat", "the cat"])
    assert len(verdicts(out)) == count


def test_parts_add_up() -> None:
    cost = Cost("total", seconds=3.0, bytes=100, rounds=10, children={
        "embedding": Cost("embedding", seconds=1.0, bytes=40, rounds=3, children={
            "layernorm": Cost("layernorm", seconds=0.5, bytes=30, rounds=2)}),
        "layer.0": Cost("layer.0", seconds=1.5, bytes=50, rounds=6, children={
            "gelu": Cost("gelu", seconds=1.5, bytes=50, rounds=6)}),
        "reveal": Cost("reveal", bytes=10, rounds=1)})
    found = parts(cost)
    assert tuple(found) == PARTS
    assert {name: c.bytes for name, c in found.items()} == {
        "embedding": 10, "gelu": 50, "softmax": 0, "layernorm": 30, "linear": 0, "other": 10}
    assert found["other"].rounds == 1 and found["other"].seconds == pytest.approx(0.5)
