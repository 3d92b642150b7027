"""Range profiles: measured, saved, read back, compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FORMAT, RangeProfile, measure, widened
from secformer.models.ranges.samples import BUILTIN_TEXTS
from secformer.mpc.errors import ModelError, SettingsError
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import SECFORMER

finite = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(write_checkpoint(tmp_path_factory.mktemp("model"), "BertForMaskedLM", prefix="bert."))


def test_measures_every_site_and_quantity(folder: ModelFolder) -> None:
    profile = measure(folder, ["the cat sat", "dog"])
    layers = [f"layer.{i}.{s}" for i in range(2) for s in ("softmax", "gelu", "attention.layernorm",
                                                           "output.layernorm")]
    assert set(profile.sites) == {"embedding.layernorm", *layers, "head.gelu", "head.layernorm"}
    assert (profile.texts, profile.tokens) == (2, 8)
    at = profile.sites["layer.0.softmax"]
    assert set(at) == {"score", "spread", "exp_sum"}
    assert at["spread"].high == 0.0
    assert 1.0 <= at["exp_sum"].low <= at["exp_sum"].high <= 5.0
    assert profile.sites["embedding.layernorm"]["variance"].low > 0.0
    assert profile.sites["layer.1.gelu"]["input"].low < profile.sites["layer.1.gelu"]["input"].high


def test_a_recipe_with_other_functions_is_measured_with_those(folder: ModelFolder) -> None:
    exact, quad = measure(folder, ["the cat sat"]), measure(folder, ["the cat sat"], recipe=SECFORMER)
    assert (exact.design, quad.design) == ("exact", "secformer")
    assert quad.sites["layer.0.softmax"]["quad_sum"].low > 0.0
    first, second = (abs(quad.sites[s]["score"].high - exact.sites[s]["score"].high)
                     for s in ("layer.0.softmax", "layer.1.softmax"))
    assert first < 1e-3
    assert second > 1e-2


def test_more_texts_never_narrow_a_range(folder: ModelFolder) -> None:
    few, more = measure(folder, ["the cat sat"]), measure(folder, ["the cat sat", "a bad film"])
    for site, quantities in few.sites.items():
        for quantity, r in quantities.items():
            assert more.sites[site][quantity].low <= r.low <= r.high <= more.sites[site][quantity].high


def test_round_trip(folder: ModelFolder, tmp_path: Path) -> None:
    profile = measure(folder, ["the cat sat"], margin=1.5)
    profile.save(tmp_path / "p.json")
    assert RangeProfile.load(tmp_path / "p.json") == profile
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize("change", [
    {"format": FORMAT + 1}, {"extra": 1}, {"sites": 3}, {"sites": {"a": {"b": [1]}}}, {"sites": {"a": {"b": "xy"}}},
    {"margin": 0.5}, {"margin": None}, {"sites": {"a": {"b": [0, float("inf")]}}},
])
def test_bad_files(change: dict[str, object], folder: ModelFolder, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    measure(folder, ["cat"]).save(file)
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ModelError):
        RangeProfile.load(file)


@pytest.mark.parametrize("text", ["", "[", "[]", "3"])
def test_files_that_are_no_profile(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text, "utf-8")
    with pytest.raises(ModelError):
        RangeProfile.load(tmp_path / "p.json")
    with pytest.raises(ModelError, match="cannot read"):
        RangeProfile.load(tmp_path / "none.json")


def test_unknown_site(folder: ModelFolder) -> None:
    with pytest.raises(SettingsError, match=r"layer\.9\.gelu"):
        measure(folder, ["cat"])("layer.9.gelu")


def test_violations_name_site_and_quantity(folder: ModelFolder) -> None:
    profile = measure(folder, ["the cat sat", "dog ran on the mat", "!"])
    assert profile.violations(profile) == []
    sites = {s: dict(q) for s, q in profile.sites.items()}
    sites["layer.1.gelu"]["input"] = Range(-1000.0, 0.0)
    wider = RangeProfile(profile.model, profile.design, 1, 1, 1.25, sites)
    (violation,) = profile.violations(wider)
    assert (violation.site, violation.quantity, violation.found.low) == ("layer.1.gelu", "input", -1000.0)
    assert "layer.1.gelu" in str(violation)


@given(finite, finite, st.sampled_from(["input", "score"]), st.floats(1.0, 3.0))
def test_widening_contains_the_range(a: float, b: float, quantity: str, margin: float) -> None:
    r = Range(min(a, b), max(a, b))
    w = widened(quantity, r, margin)
    assert w.low <= r.low <= r.high <= w.high
    if margin == 1.0:
        assert (w.low, w.high) == (r.low, r.high)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_widening_keeps_positive_quantities_positive(a: float, b: float) -> None:
    r = Range(min(a, b), max(a, b))
    w = widened("variance", r, 1.25)
    np.testing.assert_allclose((w.low, w.high), (r.low / 1.5, r.high * 1.5))
    assert widened("exp_sum", Range(1.0, 5.0), 1.25).low == 1.0
    assert widened("spread", Range(-8.0, 0.0), 1.25).high == 0.0


def test_builtin_texts_are_varied() -> None:
    assert len(BUILTIN_TEXTS) >= 40
    assert any(isinstance(t, tuple) for t in BUILTIN_TEXTS)
    assert max(len(" ".join(t if isinstance(t, tuple) else (t,)).split()) for t in BUILTIN_TEXTS) >= 50
