"""Range profiles: measured, saved, read back, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import (
    FILE,
    FORMAT,
    OutdatedProfile,
    RangeProfile,
    Violation,
    builtin_rows,
    leaving,
    measure,
    measure_rows,
)
from secformer.models.ranges.samples import MOST_MEASURED, ODD, PROSE
from secformer.models.run.local import SecureModel, plain_bert, secure_bert, twin
from secformer.mpc.errors import ModelError, RangeError, SettingsError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import ATTENTION, Quantity, Widening, measured, needs
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import CRYPTEN, EXACT, FAITHFUL, MPCFORMER, MPCFORMER_2RELU, PUMA, SECFORMER, Recipe

finite = st.floats(-1e6, 1e6, allow_nan=False)
NORMS = {"input", "gain", "variance", "row_sum"}
MAXIMA = {"value", "score", "spread", "maximum", "exp_sum"}
EXPS = MAXIMA | {"log_mean"}
QUADS = {"value", "score", "quad_sum"}


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
    assert set(at) == EXPS | {"most"}
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
            wide = more.sites[site][quantity]  # the last bits depend on what runs together
            assert wide.low - 1e-12 * abs(r.low) <= r.low <= r.high <= wide.high + 1e-12 * abs(r.high)


def test_texts_of_one_length_are_measured_together(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranges are those of each by itself, and there is never padding."""
    texts = ["the cat sat", "dog", "a bad film", "cat", "the dog ran on the mat"]
    together, seen = measure(folder, texts), list[int]()
    single = [measure(folder, [text]) for text in texts]
    for site, quantities in together.sites.items():
        for name, r in quantities.items():
            ends = [each.sites[site][name] for each in single]
            np.testing.assert_allclose((r.low, r.high), (min(e.low for e in ends), max(e.high for e in ends)),
                                       rtol=1e-9, atol=1e-12)

    def embeddings(self: ModelFolder, batch: Batch) -> np.ndarray:
        assert not batch.padded
        seen.append(batch.size)
        return whole(self, batch)

    whole = ModelFolder.embeddings
    monkeypatch.setattr(ModelFolder, "embeddings", embeddings)
    measure(folder, texts)
    assert sorted(seen) == [1, 2, 2]


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


def widened(quantity: str, r: Range, margin: float) -> Range:
    """As a profile widens it."""
    return RangeProfile("", "exact", 1, 1, margin, {"here": {quantity: r}})("here")[quantity]


@pytest.mark.parametrize("found, allowed, factor", [
    (Range(-9.0, 9.0), Range(-4.0, 4.0), 2.25), (Range(0.0, 5.0), Range(-1.0, 3.0), 2.0),
    (Range(1.0, 30.0), Range(1.0, 10.0), 3.0), (Range(0.25, 5.0), Range(1.0, 10.0), 4.0),
    (Range(0.0, 5.0), Range(1.0, 10.0), 1e6), (Range(0.0, 1.0), Range(0.0, 0.0), 4.0),
])
def test_how_far_a_range_is_left(found: Range, allowed: Range, factor: float) -> None:
    each = Violation("here", "x", found, allowed)
    assert each.factor == pytest.approx(factor)
    assert f"({factor:.3g} times that)" in str(each) and "text" not in str(each)
    assert str(replace(each, text=7)).startswith("text 7: here x: ")


def test_leaving_says_which_text(folder: ModelFolder) -> None:
    rows = folder.tokenizer.rows(["the cat sat", "a bad film , not very good !"], truncation=True)
    profile = measure_rows(folder, rows[:1], margin=1.0)
    assert leaving(folder, profile, rows[:1]) == []
    assert {each.text for each in leaving(folder, profile, rows)} == {1}


# ---- what recipes declare --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe, design, softmax", [
    (FAITHFUL, "exact", EXPS), (EXACT, "exact", {q.name for q in ATTENTION}), (SECFORMER, "secformer", QUADS),
    (MPCFORMER, "mpcformer", QUADS), (MPCFORMER_2RELU, "mpcformer_2relu", {"value", "score", "relu_sum"}),
    (PUMA, "puma", MAXIMA), (CRYPTEN, "crypten", MAXIMA), (replace(FAITHFUL, name="mine"), "exact", EXPS),
    (replace(FAITHFUL, name="mine", gelu=PUMA.gelu), "mine", EXPS),
], ids=lambda v: v.name if isinstance(v, Recipe) else None)
def test_a_profile_holds_what_its_recipe_declares(folder: ModelFolder, recipe: Recipe, design: str,
                                                  softmax: set[str]) -> None:
    """Quantities are the recipe's, functions those of its design; what no text exceeds is known of all layers, but
    for sums behind Quad, which may exceed its input."""
    profile = measure(folder, ["the cat sat", "dog"], recipe=recipe)
    assert profile.design == design and not profile.widenings
    behind = recipe.gelu is MPCFORMER.gelu
    assert {name: set(q) for name, q in profile.sites.items()} == {
        site: (softmax if site.endswith("softmax") else {"input"} if site.endswith("gelu") else NORMS)
        | ({"most"} if site.startswith("layer.") and not (behind and site.endswith("output.layernorm")) else set())
        for site in profile.sites}


def test_a_profile_of_exact_functions_is_the_faithful_ones(folder: ModelFolder) -> None:
    exact, faithful = (measure(folder, ["the cat sat"], recipe=r) for r in (EXACT, FAITHFUL))
    assert exact.design == faithful.design
    for site, quantities in faithful.sites.items():
        assert quantities.items() <= exact.sites[site].items()


def test_missing_quantities_are_told(folder: ModelFolder) -> None:
    """A profile of one recipe, texts checked for another that needs more."""
    less, more = (measure(folder, ["the cat sat"], recipe=r) for r in (FAITHFUL, EXACT))
    assert more.violations(less) == []
    with pytest.raises(SettingsError, match=r"no 'quad_sum' at layer\.0\.softmax.*secformer profile"):
        less.violations(more)


def test_files_of_earlier_versions_are_told_from_broken_ones(folder: ModelFolder, tmp_path: Path) -> None:
    """They lack quantities that protocols need by now: whoever reads one may measure instead."""
    facts = measure(folder, ["the cat sat"]).as_dict()
    assert facts["format"] == FORMAT == 3
    for name, number in (("1", 1), ("2", 2), ("new", FORMAT + 1), ("none", None)):
        (tmp_path / name).write_text(json.dumps(facts | {"format": number}), "utf-8")
    for name in ("1", "2"):
        with pytest.raises(OutdatedProfile, match=rf"format {name} of an earlier version.*secformer profile"):
            RangeProfile.load(tmp_path / name)
    for name in ("new", "none"):
        with pytest.raises(ModelError, match="not a range profile of format 3") as caught:
            RangeProfile.load(tmp_path / name)
        assert not isinstance(caught.value, OutdatedProfile)


def test_files_with_further_quantities(folder: ModelFolder, tmp_path: Path) -> None:
    """A file may hold more than a recipe needs, and no rules; unknown names widen by distance."""
    facts = measure(folder, ["the cat sat"], recipe=SECFORMER).as_dict()
    assert set(facts) == {"format", "model", "design", "texts", "tokens", "margin", "sites"}
    facts["sites"]["layer.0.softmax"] |= {"spread": [-8.0, 0.0], "exp_sum": [1.0, 6.0], "relu_sum": [0.0, 4.0],
                                          "older": [1.0, 2.0]}
    (tmp_path / FILE).write_text(json.dumps(facts), "utf-8")
    at = RangeProfile.load(tmp_path / FILE)("layer.0.softmax")
    assert (at["spread"], at["exp_sum"], at["relu_sum"]) == (Range(-9.25, 0.0), Range(1.0, 9.0), Range(0.0, 6.0))
    assert at["older"] == Range(1.0 - 0.375, 2.0 + 0.375)


def test_the_shipped_profile() -> None:
    """Ranges as its file gives them, widened by quantity."""
    from secformer import demo_model

    profile = RangeProfile.load(Path(demo_model()) / FILE)
    found, at = profile.sites["layer.0.softmax"], profile("layer.0.softmax")
    assert profile.design == "secformer" and set(found) >= {"value", "score", "quad_sum"}
    length = found["score"].high - found["score"].low
    assert at["score"] == Range(found["score"].low - (0.125 * length + 0.25),
                                found["score"].high + (0.125 * length + 0.25))
    assert at["quad_sum"] == Range(found["quad_sum"].low / 1.5, found["quad_sum"].high * 1.5)
    gain = profile.sites["embedding.layernorm"]["gain"]
    assert gain.low == gain.high == profile("embedding.layernorm")["gain"].high


# ---- quantities of one's own -----------------------------------------------------------------------------------------

PEAK = Quantity("peak", lambda xp, scores, values, real: xp.amax(xp.abs(values), axis=-1),
                Widening(ratio=True, least=0.0, most=1000.0))


@needs(*FAITHFUL.needs["softmax"], PEAK)
def softmax_of_scaled_values(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
    """Softmax of values that are scaled to at most 1 first, by a power of two that the range profile gives."""
    scale = 2.0 ** np.ceil(np.log2(measured(at, PEAK).high))
    return FAITHFUL.softmax(s, scores, values * (1.0 / scale), mask, at) * scale


SCALED = replace(FAITHFUL, name="scaled", softmax=softmax_of_scaled_values)


def test_a_quantity_of_ones_own_from_end_to_end(tmp_path: Path) -> None:
    """Measured because the function declares it, kept in the file with its rule, widened by that, used on shares."""
    folder = ModelFolder(write_checkpoint(tmp_path / "m", "BertForSequenceClassification"))
    texts = ["the cat sat on the mat", "a bad film", "dog"]
    profile = measure(folder, texts, recipe=SCALED)
    assert profile.design == "scaled" and profile.widenings == {"peak": PEAK.widening}
    profile.save(tmp_path / "p.json")
    read = RangeProfile.load(tmp_path / "p.json")
    assert read == profile
    at, found = read("layer.1.softmax"), read.sites["layer.1.softmax"]["peak"]
    assert at["peak"] == Range(found.low / 1.5, found.high * 1.5)
    assert {q.name for q in FAITHFUL.needs["softmax"]} | {"peak"} == set(at)  # no `most` behind what declares nothing
    settings: dict[str, Any] = {"recipe": SCALED, "profile": tmp_path / "p.json"}
    got, expected = secure_bert(folder.path, texts, backend="numpy", **settings), twin(folder.path, texts, **settings)
    np.testing.assert_allclose(got.logits, expected.logits, atol=5e-3)
    np.testing.assert_allclose(got.logits, twin(folder.path, texts, recipe="faithful").logits, atol=5e-3)
    with pytest.raises(RangeError, match=r"needs the range of 'peak' at its call site.*secformer profile"):
        twin(folder.path, texts, recipe=SCALED, profile=replace(measure(folder, texts), design="scaled"))


def test_two_quantities_of_one_name_are_refused(folder: ModelFolder) -> None:
    other = needs(Quantity("peak", lambda xp, x: x))(lambda s, x, at: FAITHFUL.gelu(s, x, at))
    with pytest.raises(SettingsError, match="different quantities named 'peak'; rename one"):
        measure(folder, ["cat"], recipe=replace(SCALED, gelu=other))


@pytest.mark.parametrize("rule", [3, {}, {"ratio": 1}, {"ratio": True, "least": "x"}, {"ratio": True, "odd": 1.0},
                                  {"ratio": True, "most": float("nan")}])
def test_bad_rules(rule: object, folder: ModelFolder, tmp_path: Path) -> None:
    facts = measure(folder, ["cat"]).as_dict() | {"widenings": {"peak": rule}}
    (tmp_path / "p.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(ModelError, match="widenings to their rules|NaN is not a number"):
        RangeProfile.load(tmp_path / "p.json")


def test_a_model_with_one_segment_is_measured_without_pairs(tmp_path: Path) -> None:
    """And it runs: the built-in pairs are not the user's fault."""
    folder = ModelFolder(write_checkpoint(tmp_path, type_vocab_size=1))
    rows = builtin_rows(folder)
    assert len(rows) > len(PROSE) + len(ODD) and not any(row.segments.any() for row in rows)
    assert measure(folder).texts == len(rows)
    with SecureModel.from_pretrained(tmp_path, backend="numpy") as model:
        found = model(["the cat sat"]).last_hidden_state
    np.testing.assert_allclose(found, plain_bert(tmp_path, "the cat sat").last_hidden_state, atol=2e-3)


def test_models_of_long_texts_are_measured_up_to_a_length(tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path, max_position_embeddings=MOST_MEASURED + 88))
    assert max(map(len, builtin_rows(folder))) == MOST_MEASURED < folder.architecture.inputs.longest


def test_built_in_texts_that_do_not_suit_are_not_blamed_on_the_user(tmp_path: Path) -> None:
    """A tokenizer of another model, with more words than the table has rows."""
    folder = write_checkpoint(tmp_path, vocab_size=20)
    with pytest.raises(ModelError, match=r"tokenizer does not suit the model.*built-in texts.*input_ids must lie in"):
        twin(folder, {"input_ids": [[2, 5, 3]]})


def test_files_of_before_row_sums_can_be_compared() -> None:
    """Protocols do without some ranges; without others they cannot run."""
    r = Range(0.0, 1.0)
    full = RangeProfile("m", "exact", 1, 1, sites={"here": {"input": r, "row_sum": r, "maximum": r, "log_mean": r}})
    older = replace(full, sites={"here": {"input": r}})
    assert older.violations(full) == []
    with pytest.raises(SettingsError, match="has no 'input' at here"):
        replace(full, sites={"here": {"row_sum": r}}).violations(full)
