"""The main job on tiny models: secure answers against the twin, settings, reuse, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tensors, write_checkpoint
from safetensors.numpy import load_file, save_file

from secformer.models.families.bert import Bert
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run import local
from secformer.models.run.check import check, differences
from secformer.models.run.local import PlainModel, SecureModel, plain_bert, secure_bert, twin
from secformer.models.run.options import Settings, settings_of
from secformer.models.run.output import SecureOutput
from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import (
    BackendUnavailable,
    InputError,
    ModelError,
    RangeError,
    SecformerError,
    SettingsError,
)
from secformer.protocols.recipes import EXACT, FAITHFUL, RECIPES, SECFORMER

TEXTS = ["the cat sat on the mat", "dog", "", "a good film is not a bad film !"]
CPU: dict[str, Any] = {"backend": "numpy"}
ANY = CPU | {"untrained_recipe": True}  # recipes on checkpoints that were not trained for them
TIGHT = 2e-3  # secure against twin: a few units in the last place (2^-16) an operation


def folder_of(path: Path, architecture: str = "BertModel", **changes: Any) -> Path:
    return write_checkpoint(path, architecture, prefix="" if architecture == "BertModel" else "bert.", **changes)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with its profile beside it."""
    path = folder_of(tmp_path_factory.mktemp("encoder"))
    measure(ModelFolder(path)).save(path / FILE)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = folder_of(tmp_path_factory.mktemp("classifier"), "BertForSequenceClassification")
    measure(ModelFolder(path)).save(path / FILE)
    return path


@pytest.fixture(scope="module")
def loaded(encoder: Path):
    with SecureModel.from_pretrained(encoder, **CPU) as model:
        yield model


def close(a: SecureOutput, b: SecureOutput, tolerance: float) -> None:
    for name, error in differences(a, b).items():
        assert error <= tolerance, f"{name} differs by {error}"
    np.testing.assert_array_equal(a.attention_mask, b.attention_mask)


@pytest.mark.parametrize("architecture", Bert.heads)
def test_secure_agrees_with_twin_and_reference(architecture: str, tmp_path: Path) -> None:
    path = folder_of(tmp_path, architecture, seed=3)
    out, reference = secure_bert(path, TEXTS, **CPU), plain_bert(path, TEXTS)
    close(out, twin(path, TEXTS), TIGHT)
    close(out, reference, 2e-2)
    assert differences(out, reference)
    assert out.attention_mask.sum(axis=1).tolist() == [8, 3, 2, 11]
    assert out.cost is not None
    assert out.cost.bytes > 0
    assert "built-in texts" in out.profile_source
    assert any("profile" in note for note in out.notes)


@pytest.mark.parametrize("recipe", ["faithful", FAITHFUL, "auto"])
def test_recipes_by_name_and_value(recipe: Any, encoder: Path) -> None:
    close(secure_bert(encoder, TEXTS[:2], recipe=recipe, **CPU), plain_bert(encoder, TEXTS[:2]), 2e-2)


def test_the_checkpoint_names_its_recipe(tmp_path: Path) -> None:
    model = PlainModel.from_pretrained(folder_of(tmp_path, secformer={"recipe": "secformer"}))
    assert model.recipe is SECFORMER
    other = PlainModel.from_pretrained(tmp_path, recipe="faithful", untrained_recipe=True)
    assert other.recipe is FAITHFUL


@pytest.mark.parametrize(("entry", "recipe"), [(None, "secformer"), (None, "mpcformer"), ("secformer", "faithful"),
                                               ("secformer", "exact"), ("secformer", "mpcformer")])
def test_functions_that_a_checkpoint_was_not_trained_for(tmp_path: Path, entry: str | None, recipe: str) -> None:
    """2Quad on an ordinary checkpoint, or the reverse, runs only where that is asked for."""
    folder = folder_of(tmp_path, **({} if entry is None else {"secformer": {"recipe": entry}}))
    with pytest.raises(SettingsError, match="untrained_recipe"):
        PlainModel.from_pretrained(folder, recipe=recipe)
    with pytest.raises(SettingsError, match="mean nothing"):
        secure_bert(folder, "cat", recipe=recipe, **CPU)
    assert PlainModel.from_pretrained(folder, recipe=recipe, untrained_recipe=True).recipe is RECIPES[recipe]


@pytest.mark.parametrize("recipe", ["puma", "crypten", replace(FAITHFUL, name="mine", tanh=SECFORMER.tanh)])
def test_stand_ins_run_on_ordinary_checkpoints(tmp_path: Path, recipe: Any) -> None:
    assert PlainModel.from_pretrained(folder_of(tmp_path), recipe=recipe).recipe is not EXACT


def test_a_student_may_change_what_does_not_matter(tmp_path: Path) -> None:
    """Another LayerNorm computes the same function: a student takes it."""
    folder = folder_of(tmp_path, secformer={"recipe": "secformer"})
    mine = replace(SECFORMER, name="mine", layernorm=FAITHFUL.layernorm)
    assert PlainModel.from_pretrained(folder, recipe=mine).recipe is mine


def test_plaintext_of_a_student_is_its_own(tmp_path: Path) -> None:
    """The reference of a 2Quad checkpoint is 2Quad in plaintext, not softmax."""
    folder = folder_of(tmp_path, secformer={"recipe": "secformer", "constants": {"quad_shift": 5.0}})
    own, exact = plain_bert(folder, TEXTS), twin(folder, TEXTS, recipe="exact", untrained_recipe=True)
    close(own, twin(folder, TEXTS), 1e-12)
    assert np.abs(own.last_hidden_state - exact.last_hidden_state).max() > 1e-2
    close(secure_bert(folder, TEXTS, **CPU), own, 1e-2)


def test_a_student_of_other_constants_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, secformer={"recipe": "secformer", "constants": {"quad_shift": 4.0}})
    with pytest.raises(ModelError, match=r"quad_shift.*distil it again"):
        plain_bert(folder, "cat")


def test_secformer_recipe_agrees_with_its_twin(encoder: Path) -> None:
    close(secure_bert(encoder, TEXTS, recipe="secformer", **ANY),
          twin(encoder, TEXTS, recipe="secformer", untrained_recipe=True), 1e-2)


def test_client_embedding_gives_the_same(encoder: Path) -> None:
    out = secure_bert(encoder, TEXTS, embedding="client", **CPU)
    close(out, twin(encoder, TEXTS), TIGHT)


@pytest.mark.parametrize("changes", [
    {"hidden_size": 7, "num_attention_heads": 1, "intermediate_size": 5, "num_hidden_layers": 1},
    {"hidden_size": 15, "num_attention_heads": 3, "intermediate_size": 9, "num_hidden_layers": 1},
])
def test_odd_sizes(changes: dict[str, Any], tmp_path: Path) -> None:
    path = folder_of(tmp_path, seed=1, **changes)
    for tokens in ({"input_ids": [[7]]}, {"input_ids": [[2, 5, 3], [9]], "token_type_ids": [[0, 1, 1], [1]]}):
        close(secure_bert(path, tokens, **CPU), twin(path, tokens), TIGHT)


def test_ids_masks_and_pairs(loaded: SecureModel, encoder: Path) -> None:
    tokens = {"input_ids": [[2, 5, 7, 9, 3, 0], [2, 6, 3, 8, 3, 0]],
              "attention_mask": [[1, 1, 0, 1, 1, 0], [1] * 5 + [0]],
              "token_type_ids": [[0] * 6, [0, 0, 0, 1, 1, 0]]}
    close(loaded(tokens), twin(encoder, tokens), TIGHT)
    pairs = [("the cat", "a dog"), ("good", "not bad")]
    close(loaded(pairs), twin(encoder, pairs), TIGHT)


def test_a_loaded_model_is_called_again_without_sharing_again(loaded: SecureModel, encoder: Path) -> None:
    first, again = loaded("the cat sat"), secure_bert(loaded, ["the cat sat", "dog"])
    close(first, twin(encoder, "the cat sat"), TIGHT)
    close(again, twin(encoder, ["the cat sat", "dog"]), TIGHT)
    assert first.cost.offline_bytes == again.cost.offline_bytes == 0
    assert loaded.provisioning.offline_bytes > 0
    assert "provision" not in first.cost.children


def test_two_runs_agree(loaded: SecureModel) -> None:
    """Every run draws fresh masks; what they round differently stays below the tolerance."""
    close(loaded("a bad film"), loaded("a bad film"), TIGHT)


def test_order_is_kept_across_batches(encoder: Path) -> None:
    close(secure_bert(encoder, TEXTS, batch_tokens=9, **CPU), plain_bert(encoder, TEXTS), 2e-2)


def test_labels_and_head_only(classifier: Path) -> None:
    reference = plain_bert(classifier, TEXTS)
    out = secure_bert(classifier, TEXTS, output="head", **CPU)
    assert out.labels == reference.labels
    np.testing.assert_allclose(out.probabilities, reference.probabilities, atol=1e-2)
    assert (out.last_hidden_state, out.pooler_output) == (None, None)


def test_embeddings(loaded: SecureModel, encoder: Path) -> None:
    cosine = (loaded(TEXTS).embeddings * plain_bert(encoder, TEXTS).embeddings).sum(axis=1)
    assert cosine.min() > 0.9999


def test_progress_reaches_its_end_and_ctrl_c_passes(loaded: SecureModel) -> None:
    told: list[tuple[str, int, int]] = []
    loaded(["cat", "the dog ran"], lambda *some: told.append(some))
    assert told
    assert all(0 <= done <= total for _, done, total in told)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loaded("cat", interrupt)
    loaded("cat")


def test_progress_bar_goes_to_stderr(loaded: SecureModel, capfd: pytest.CaptureFixture[str]) -> None:
    loaded("cat", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err


def test_closed_model(encoder: Path) -> None:
    model = SecureModel.from_pretrained(encoder, **CPU)
    model.close()
    model.close()
    with pytest.raises(SettingsError, match="closed"):
        model("cat")


# ---- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "words"), [
    ({"truncated": True}, "did you mean 'truncation'"),
    ({"batchtokens": 3}, "batch_tokens"),
    ({"colour": 1}, "The settings are"),
    ({"truncation": "yes"}, "truncation"),
    ({"embedding": "public"}, "embedding"),
    ({"output": "everything"}, "output"),
    ({"batch_tokens": 0}, "batch_tokens"),
    ({"batch_tokens": 2.5}, "batch_tokens"),
    ({"deadline": -1}, "deadline"),
    ({"output": "head"}, "head"),
    ({"recipe": "fathful"}, "faithful"),
    ({"recipe": 3}, "recipe"),
    ({"recipe": EXACT}, "plaintext"),
    ({"backend": "torch"}, "backend"),
])
def test_bad_settings(settings: dict[str, Any], words: str, encoder: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        secure_bert(encoder, "cat", **(CPU | settings))


@pytest.mark.parametrize("settings", [{"frac": 40}, {"magnitude": 60}, {"frac": 24, "magnitude": 20}])
def test_formats_that_do_not_fit_a_word(settings: dict[str, int]) -> None:
    with pytest.raises(RangeError):
        settings_of(settings)


def test_settings_have_the_documented_defaults() -> None:
    assert settings_of({}) == Settings(False, "private", "auto", 1024, 16, 14, 60.0)


def test_a_loaded_model_takes_no_settings(loaded: SecureModel) -> None:
    for settings in ({"truncation": True}, {"recipe": "secformer"}, {"backend": "numpy"}):
        with pytest.raises(SettingsError, match="from_pretrained"):
            secure_bert(loaded, "cat", **settings)


def test_cupy_without_a_gpu(encoder: Path) -> None:
    try:
        choose_backend("cupy")
    except BackendUnavailable:
        with pytest.raises(BackendUnavailable, match="use backend='numpy'"):
            secure_bert(encoder, "cat", backend="cupy")
    else:
        pytest.skip("a GPU answers")


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["no such folder", Path("/nowhere/at/all"), 7, None])
def test_bad_models(model: Any) -> None:
    with pytest.raises(ModelError):
        secure_bert(model, "cat", **CPU)


@pytest.mark.parametrize("texts", [[], 5, None, [1], "cat " * 50, {"input_ids": [[99]]}])
def test_bad_texts_are_refused_before_anything_is_shared(texts: Any, encoder: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def untouched(*_: Any, **__: Any) -> None:
        raise AssertionError("a world was made")

    monkeypatch.setattr(local, "World", untouched)
    with pytest.raises(InputError):
        secure_bert(encoder, texts, **CPU)


def test_truncation_on_request(encoder: Path) -> None:
    out = secure_bert(encoder, "cat " * 50, truncation=True, **CPU)
    assert out.attention_mask.sum() == 32


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_bad_weights(value: float, encoder: Path, tmp_path: Path) -> None:
    found = tensors(json.loads((encoder / "config.json").read_text("utf-8")))
    found["encoder.layer.1.output.dense.weight"][2, 3] = value
    path = write_checkpoint(tmp_path, weights=found)
    with pytest.raises(SecformerError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        secure_bert(path, "cat", **CPU)


def test_profile_of_other_weights_is_refused(encoder: Path, tmp_path: Path) -> None:
    path = folder_of(tmp_path, seed=8)
    with pytest.raises(ModelError, match="other weights"):
        secure_bert(path, "cat", profile=encoder / FILE, **CPU)
    with pytest.raises(ModelError, match="cannot read the range profile"):
        secure_bert(path, "cat", profile=tmp_path / "none.json", **CPU)


def test_profile_of_another_recipe(encoder: Path) -> None:
    with pytest.raises(ModelError, match="'exact' functions"):
        secure_bert(encoder, "cat", profile=encoder / FILE, recipe="secformer", **ANY)
    out = secure_bert(encoder, "cat", recipe="secformer", **ANY)
    assert out.profile_source == "measured at load from built-in texts"


def test_given_profiles(encoder: Path) -> None:
    profile = measure(ModelFolder(encoder), TEXTS, margin=2.0)
    out = secure_bert(encoder, TEXTS, profile=profile, **CPU)
    close(out, plain_bert(encoder, TEXTS), 2e-2)
    assert out.profile_source == "given"


# ---- check --------------------------------------------------------------------------------------------------------


def test_check_of_texts_within_the_profile(encoder: Path) -> None:
    found = check(encoder, TEXTS)
    assert found.ok
    assert found.errors["last_hidden_state"] < 2e-2


def test_check_lists_what_leaves_the_profile(encoder: Path) -> None:
    narrow = measure(ModelFolder(encoder), "cat", margin=1.0)
    found = check(encoder, TEXTS, profile=narrow)
    assert not found.ok
    assert found.violations[0].site == "embedding.layernorm"


def test_results_with_few_fractional_bits_keep_their_scale(encoder: Path) -> None:
    """Moving the point by a power of two is free and leaves fewer fractional bits than the format's."""
    doubled = replace(FAITHFUL, tanh=lambda s, x, at: s.settle(x)[0] * 2.0)
    close(secure_bert(encoder, "cat", recipe=doubled, **CPU), twin(encoder, "cat", recipe=doubled), TIGHT)


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


def test_a_format_that_a_recipe_does_not_fit_is_refused_before_anything_is_shared(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared(*_: Any) -> None:
        raise AssertionError("weights were shared")

    monkeypatch.setattr(SecureModel, "provision", shared)
    with pytest.raises(RangeError, match=r"layer\.0: softmax|layernorm|gelu"):
        SecureModel.from_pretrained(encoder, frac=24, magnitude=14, **CPU)
