"""Rehearsals find what would go wrong on shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs_lab import CPU, folder_of
from safetensors.numpy import load_file, save_file

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges import rehearsal
from secformer.models.ranges.profile import RangeProfile, builtin_rows, measure
from secformer.models.ranges.rehearsal import EVERY, rehearse, rehearse_values
from secformer.models.run.local import secure_bert
from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import FAITHFUL


def with_huge_keys(path: Path) -> Path:
    """The folder, with keys above 2^14 that no score shows, because queries are 0."""
    found = load_file(path / "model.safetensors")
    for name in found:
        if "attention.self.query" in name:
            found[name] = found[name] * 0
        if "attention.self.key.weight" in name:
            found[name] = found[name] * 12000
    save_file(found, path / "model.safetensors")
    return path


def test_values_that_no_range_records_are_rehearsed(tmp_path: Path) -> None:
    """Keys beyond the number format would give a wrong answer for every text."""
    with pytest.raises(RangeError, match=r"layer\.0/"):
        secure_bert(with_huge_keys(folder_of(tmp_path)), "cat", **CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(folder_of(tmp_path_factory.mktemp("model"), "BertForSequenceClassification"))


@pytest.fixture(scope="module")
def profile(folder: ModelFolder) -> RangeProfile:
    return measure(folder)


def with_range(profile: RangeProfile, site: str, quantity: str, found: Range) -> RangeProfile:
    sites = {name: dict(quantities) for name, quantities in profile.sites.items()}
    sites[site][quantity] = found
    return RangeProfile(profile.model, profile.design, 1, 1, 1.0, sites)


def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that run from now on; their results are not computed."""
    batches: list[Batch] = []
    monkeypatch.setattr(rehearsal, "behind_embedding", lambda s, architecture, sums, f: batches.append(f.batch))
    return batches


def test_a_model_that_fits_passes(folder: ModelFolder, profile: RangeProfile) -> None:
    rehearse(folder, FAITHFUL, profile, FixedPoint())
    rehearse_values(folder, FAITHFUL, profile, FixedPoint())


def test_the_recorder_rehearses_the_longest_text(folder: ModelFolder, profile: RangeProfile,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows grow with a row's sum, and sums with the length."""
    batches = rehearsed(monkeypatch)
    rehearse(folder, FAITHFUL, profile, FixedPoint())
    assert [b.tokens for b in batches] == [folder.architecture.inputs.longest]


def test_the_twin_rehearses_a_few_texts_and_the_longest(folder: ModelFolder, profile: RangeProfile,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    batches, rows = rehearsed(monkeypatch), builtin_rows(folder)
    rehearse_values(folder, FAITHFUL, profile, FixedPoint())
    assert [b.size for b in batches] == [1] * (-(-len(rows) // EVERY) + 1), "each by itself, so without padding"
    assert max(b.tokens for b in batches) == batches[-1].tokens == folder.architecture.inputs.longest
    assert len({b.tokens for b in batches}) > 2


@pytest.mark.parametrize(("site", "quantity", "found"), [
    ("layer.1.attention.layernorm", "variance", Range(1e-9, 1e9)), ("layer.1.softmax", "score", Range(-1e9, 1e9)),
])
def test_the_recorder_refuses_ranges_beyond_a_protocols_domain(folder: ModelFolder, profile: RangeProfile, site: str,
                                                               quantity: str, found: Range) -> None:
    """By shapes and ranges alone, and it says in which layer."""
    with pytest.raises(RangeError, match=r"layer\.1"):
        rehearse(folder, FAITHFUL, with_range(profile, site, quantity, found), FixedPoint())


def test_the_recorder_reads_no_weights(folder: ModelFolder, profile: RangeProfile,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> np.ndarray:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(Checkpoint, "read", read)
    rehearse(folder, FAITHFUL, profile, FixedPoint())


def test_values_are_the_twins_to_find(tmp_path: Path) -> None:
    """Ranges and shapes say nothing about keys: the recorder passes what the twin refuses."""
    folder = ModelFolder(with_huge_keys(folder_of(tmp_path)))
    profile = measure(folder)
    rehearse(folder, FAITHFUL, profile, FixedPoint())
    with pytest.raises(RangeError, match=r"layer\.0/.*holds \|v\| < 2\^"):
        rehearse_values(folder, FAITHFUL, profile, FixedPoint())
