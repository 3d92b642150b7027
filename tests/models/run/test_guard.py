"""Answers that say when they cannot be trusted: what is marked, what is not, and what a user may ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from runs_lab import ANY, CPU, TEXTS, folder_of

from secformer import demo_model
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import GUARD
from secformer.models.ranges.profile import RangeProfile, measure
from secformer.models.run.guard import ADVICE, SHOWN, SOMEWHERE, TELL, named, note, refuse
from secformer.models.run.local import SecureModel, plain_bert, secure_bert, twin
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import SettingsError, Untrusted
from secformer.protocols.quantities import MOST
from secformer.protocols.recipes import RECIPES, recipe_named

REPEATED = ["good " * 80, "good " * 126, "film " * 126, "word " * 60, "love " * 126]
FINE = "A wonderful film, warm and funny from start to finish."
DOCUMENTED = 2e-3  # what a secure answer may be off, relative to the largest entry (docs/accuracy.md)
MARKING = "faithful", "puma", "crypten"  # recipes whose answers are the exact model's wherever they are not marked
ROLES = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


@pytest.fixture(scope="module")
def narrow() -> RangeProfile:
    """Ranges of the shipped model on one plain sentence."""
    return measure(ModelFolder(demo_model()), [FINE], recipe=recipe_named("secformer"))


def off(out: SecureOutput, exact: SecureOutput, name: str) -> np.ndarray:
    """(B,): the largest difference per text, relative to the largest entry of the exact answer, if that is above 1."""
    mine, theirs = (getattr(each, name) for each in (out, exact))
    return np.abs(mine - theirs).reshape(len(mine), -1).max(axis=1) / max(1.0, np.abs(theirs).max())


# ---- what is caught --------------------------------------------------------------------------------------------------


def test_texts_far_from_what_was_measured_are_marked(narrow: RangeProfile) -> None:
    out = secure_bert(demo_model(), [FINE, *REPEATED], profile=narrow, **CPU)
    exact = plain_bert(demo_model(), [FINE, *REPEATED])
    wrong = np.abs(out.logits - exact.logits).max(axis=1) > 0.01
    assert out.trusted[0] and not wrong[0]
    assert wrong[1:].any() and not out.trusted[wrong].any()
    assert all(bool(places) != trusted for places, trusted in zip(out.breaches, out.trusted, strict=True))
    assert sum("cannot be trusted (layer." in said for said in out.notes) == (~out.trusted).sum()


def test_the_same_texts_with_the_shipped_profile_are_right() -> None:
    out, exact = secure_bert(demo_model(), REPEATED, **CPU), plain_bert(demo_model(), REPEATED)
    assert out.trusted.all() and np.abs(out.logits - exact.logits).max() < 0.01


@pytest.mark.parametrize(("recipe", "factor"), [
    *((r.name, 60.0) for r in RECIPES.values() if not r.exact), *((name, 10.0) for name in MARKING)])
def test_a_rare_token_of_large_embedding(recipe: str, factor: float, tmp_path: Path) -> None:
    """A token that the range profile did not meet: texts with it are marked where they are wrong, others are not."""
    found = tensors(config())
    profile = profile_of(folder_of(tmp_path / "before"), recipe)
    found["embeddings.word_embeddings.weight"][15] *= factor  # "film"
    path = write_checkpoint(tmp_path / "after", weights=found)
    texts = ["the cat sat", "a good film", "it is not bad", "film film film"]
    out = secure_bert(path, texts, recipe=recipe, profile=profile(path), **ANY)
    exact = twin(path, texts, recipe="exact", untrained_recipe=True)
    assert out.trusted[[0, 2]].all()
    if recipe in MARKING:
        assert not out.trusted[off(out, exact, "last_hidden_state") > 0.1].any()


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """claims(seed): what `profile_of` makes of the checkpoint with these weights, measured once."""

    @cache
    def of(seed: int) -> Any:
        return profile_of(write_checkpoint(tmp_path_factory.mktemp("before"), weights=tensors(config(), seed)),
                          "faithful")

    return of


@examples(15)
@given(seed=st.integers(0, 10**6), layer=st.integers(0, 1), role=st.sampled_from([*ROLES, "word_embeddings"]),
       octaves=st.floats(-2.0, 9.0))
def test_no_unmarked_answer_is_far_off(seed: int, layer: int, role: str, octaves: float, claims: Any,
                                       tmp_path_factory: pytest.TempPathFactory) -> None:
    """Activations of one layer are scaled until they leave what was measured: the answer is marked, or it is right."""
    found, profile = tensors(config(), seed % 7), claims(seed % 7)
    for name in found:
        if role in name and (f"layer.{layer}." in name or "embeddings" in name):
            found[name] = found[name] * 2.0**octaves
    path = write_checkpoint(tmp_path_factory.mktemp("scaled"), weights=found)
    rng = np.random.default_rng(seed)
    words = ["the", "cat", "dog", "good", "bad", "film", "not", "?"]
    texts = [" ".join(rng.choice(words, size=n)) for n in (1, 4, 9, 20)]
    out = secure_bert(path, texts, profile=profile(path), magnitude=22, frac=16, **CPU)
    error = off(out, plain_bert(path, texts), "last_hidden_state")
    assert not (out.trusted & (error > 10 * DOCUMENTED)).any(), (error, out.breaches)


def profile_of(path: Path, recipe: str) -> Any:
    """The ranges of one checkpoint, claimed for another: what a stale or a careless profile would say. Only what no
    text exceeds is a fact of the weights, and so the other's own."""
    texts = [*TEXTS, "it was very bad", "?", "dog " * 20]
    measured = measure(ModelFolder(path), texts, recipe=recipe_named(recipe))

    def claimed(other: Path) -> RangeProfile:
        own = measure(ModelFolder(other), ["a"], recipe=recipe_named(recipe))
        sites = {site: {q: own.sites[site][q] if q == MOST.name else r for q, r in ranges.items()}
                 for site, ranges in measured.sites.items()}
        return replace(measured, model=own.model, sites=sites)

    return claimed


@pytest.mark.parametrize(("tensor", "change"), [
    ("layer.1.intermediate.dense.bias", (0, 64.0)), ("layer.1.intermediate.dense.bias", (0, -64.0)),
    ("layer.1.intermediate.dense.bias", (0, 96.0)), ("layer.1.attention.self.value.bias", (0, 45.0)),
    ("layer.1.attention.self.value.bias", (0, 130.0)), ("layer.1.attention.self.value.bias", (0, 500.0)),
    ("layer.1.attention.output.dense.bias", (0, 256.0)), ("layer.1.output.dense.bias", (0, -256.0)),
    ("layer.1.attention.self.query.bias", (0, 256.0)),
], ids=str)
def test_a_single_channel_that_leaves_alone(tensor: str, change: tuple[int, float], tmp_path: Path) -> None:
    """It may leave by just as much as an opening cannot tell apart; then nothing around it gives it away."""
    found = tensors(config(), 3)
    profile = profile_of(write_checkpoint(tmp_path / "before", weights=found), "faithful")
    name = f"encoder.{tensor}"
    found[name] = found[name].copy()
    found[name][change[0]] += change[1]
    behind = name.replace("intermediate.dense.bias", "output.dense.weight").replace(
        "self.value.bias", "output.dense.weight")
    if behind != name:
        found[behind] = found[behind].copy()
        found[behind][:, change[0]] *= 0.05  # so that what follows hardly notices
    path = write_checkpoint(tmp_path / "after", weights=found)
    out = secure_bert(path, TEXTS, profile=profile(path), magnitude=18, **CPU)
    error = off(out, plain_bert(path, TEXTS), "last_hidden_state")
    assert not (out.trusted & (error > 10 * DOCUMENTED)).any(), (error, out.breaches)


def test_tokens_that_nothing_attends_to_count(tmp_path: Path) -> None:
    """The pooler reads the first token, whatever the attention mask says."""
    found = tensors(config())
    profile = profile_of(write_checkpoint(tmp_path / "before", weights=found), "faithful")
    found["embeddings.word_embeddings.weight"][0] *= 8.0  # [PAD]
    path = write_checkpoint(tmp_path / "after", weights=found)
    left = {"input_ids": np.array([[0, 0, 2, 6, 7, 3]]), "attention_mask": np.array([[0, 0, 1, 1, 1, 1]])}
    assert not secure_bert(path, left, profile=profile(path), **CPU).trusted[0]


@pytest.mark.parametrize("recipe", [r.name for r in RECIPES.values() if not r.exact])
def test_what_was_measured_is_not_marked(recipe: str, tmp_path: Path) -> None:
    """With the ranges of these very texts: padding, holes in the attention mask, one-sided channels."""
    found = tensors(config(), 5)
    for name in found:
        if name.endswith(("LayerNorm.bias", "value.bias")):
            found[name] = found[name].copy()
            found[name][2] = -20.0
    path = write_checkpoint(tmp_path, weights=found)
    rows = {"input_ids": np.array([[2, 6, 0, 7, 0, 3], [2, 8, 3, 0, 0, 0], [2, 9, 7, 7, 8, 3]]),
            "attention_mask": np.array([[1, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])}
    for texts in (TEXTS, rows):
        profile = measure(ModelFolder(path), texts, recipe=recipe_named(recipe))
        out = secure_bert(path, texts, recipe=recipe, profile=profile, **ANY)
        assert out.trusted.all(), out.breaches


def test_too_few_fractional_bits_are_refused() -> None:
    """With 4, all logits of this model were exactly 0, and nobody noticed."""
    with pytest.raises(SettingsError, match=r"frac must be 12 to 16: .*, got 4"):
        secure_bert(demo_model(), ["Fine."], frac=4)


# ---- what a user may ask for -----------------------------------------------------------------------------------------


def test_texts_of_one_batch_are_told_apart(narrow: RangeProfile) -> None:
    texts = [FINE, "film " * 126, "", "good " * 100]
    with SecureModel.from_pretrained(demo_model(), profile=narrow, **CPU) as model:
        alone = [bool(model(text).trusted[0]) for text in texts]
        together = model(texts).trusted.tolist()
    assert together == alone and True in alone and False in alone


def test_marks_are_in_json(narrow: RangeProfile) -> None:
    out = secure_bert(demo_model(), [FINE, "film " * 126], profile=narrow, **CPU)
    said = json.loads(json.dumps(out.as_dict(), allow_nan=False))
    assert said["trusted"] == [True, False] and said["breaches"][0] == [] and len(said["breaches"][1]) > 2
    assert any(note.startswith("text 1 cannot be trusted (") for note in said["notes"])


def test_numbers_are_left_out_on_request(narrow: RangeProfile) -> None:
    out = secure_bert(demo_model(), [FINE, "film " * 126], profile=narrow, guard="nan", **CPU)
    assert np.isfinite(out.logits[0]).all() and np.isnan(out.logits[1]).all() and np.isnan(out.probabilities[1]).all()
    assert out.labels[0] == "positive" and out.labels[1] is None
    said = json.loads(json.dumps(out.as_dict(hidden=True), allow_nan=False))
    assert said["logits"][1] == [None, None] and said["trusted"] == [True, False]


def test_an_exception_on_request(narrow: RangeProfile) -> None:
    with SecureModel.from_pretrained(demo_model(), profile=narrow, guard="raise", **CPU) as model:
        assert model(FINE).trusted.all()
        with pytest.raises(Untrusted, match=r"^text 1 cannot be trusted \(layer\.") as caught:
            model([FINE, "film " * 126])
        assert "secformer profile" in str(caught.value)
        assert model(FINE).trusted.all(), "the model stays usable"


def test_nothing_is_checked_on_request(narrow: RangeProfile) -> None:
    with SecureModel.from_pretrained(demo_model(), profile=narrow, guard="off", **CPU) as model:
        out = model("film " * 126)
    assert GUARD not in model.names and out.trusted is None and out.breaches == []
    assert "trusted" not in out.as_dict()


def test_the_twin_marks_the_same(narrow: RangeProfile) -> None:
    texts = [FINE, *REPEATED]
    mine = twin(demo_model(), texts, profile=narrow)
    assert mine.trusted.tolist() == secure_bert(demo_model(), texts, profile=narrow, **CPU).trusted.tolist()
    assert plain_bert(demo_model(), texts).trusted is None, "the reference holds any value"


def test_what_it_costs(tmp_path: Path) -> None:
    """Three rounds and little traffic; dealers deal tables."""
    path, costs = folder_of(tmp_path), []
    for guard in ("mark", "off"):
        with SecureModel.from_pretrained(path, guard=guard, **CPU) as model:
            costs.append(model("the cat sat on the mat").cost)
    with_guard, without = costs
    assert 0 < with_guard.rounds - without.rounds <= 6
    assert with_guard.dealer_bytes > without.dealer_bytes


# ---- the client's word -----------------------------------------------------------------------------------------------


def test_places_are_named_or_not() -> None:
    words = np.array([[0.0, 0.0, 0.0], [2.0**-9, 0.0, -1.0], [0.0, 1.0, 1.0]])
    apart = named({GUARD: words, "logits": np.ones(3)}, ["a: input", "b: sum", "a: input"])
    assert apart[GUARD].tolist() == [(), ("a: input",), ("b: sum", "a: input")]
    assert named({GUARD: words[:, :1]})[GUARD].tolist() == [(), (SOMEWHERE,), ()]
    assert named({"logits": np.ones(2)})["logits"].tolist() == [1.0, 1.0]


def test_notes_name_the_first_places() -> None:
    assert note(3, ("a", "b")) == f"text 3 cannot be trusted (a, b): {ADVICE}"
    assert note(1, tuple("abcde")).startswith(f"text 1 cannot be trusted (a, b, c and {5 - SHOWN} more): ")
    assert note(0, (SOMEWHERE,)) == f"text 0 cannot be trusted: {TELL}"
    refuse([(), ()])
    with pytest.raises(Untrusted, match=r"text 1 cannot .*; text 2 cannot"):
        refuse([(), ("a",), ("b",)])
