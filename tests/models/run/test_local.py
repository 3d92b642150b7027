"""The main job on tiny models: secure answers against the twin, settings, reuse, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tensors, write_checkpoint
from cuda_lab import HostModules
from graph_lab import graph_device
from runs_lab import ANY, CPU, TEXTS, TIGHT, close, folder_of

from secformer.models.data.batch import Steps
from secformer.models.families.bert import Bert
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run import local
from secformer.models.run.check import differences
from secformer.models.run.local import SecureModel, plain_bert, secure_bert, twin
from secformer.models.run.options import settings_of
from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import BackendUnavailable, InputError, ModelError, SecformerError, SettingsError
from secformer.mpc.simulate import World
from secformer.protocols.recipes import EXACT, FAITHFUL


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = folder_of(tmp_path_factory.mktemp("classifier"), "BertForSequenceClassification")
    measure(ModelFolder(path)).save(path / FILE)
    return path


@pytest.fixture(scope="module")
def loaded(encoder: Path):
    with SecureModel.from_pretrained(encoder, **CPU) as model:
        yield model


def test_plans_of_the_last_batches_are_kept(loaded: SecureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PLANS", 2)
    loaded._scripts.clear()
    loaded("dog")
    ((first, script),) = loaded._scripts.items()
    for text in ("the cat", "dog", "the cat sat"):
        loaded(text)
    assert len(loaded._scripts) == 2 and loaded._scripts[first] is script


@pytest.mark.parametrize("architecture", Bert.classes)
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


def test_results_with_few_fractional_bits_keep_their_scale(encoder: Path) -> None:
    """Moving the point by a power of two is free and leaves fewer fractional bits than the format's."""
    doubled = replace(FAITHFUL, tanh=lambda s, x, at: s.settle(x)[0] * 2.0)
    close(secure_bert(encoder, "cat", recipe=doubled, **CPU), twin(encoder, "cat", recipe=doubled), TIGHT)


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


# ---- on a GPU, as graphs ---------------------------------------------------------------------------------------------


def on_a_gpu(path: Path, modules: HostModules, **settings: Any) -> tuple[SecureModel, Any]:
    """A model whose world is on a model of a GPU, and that GPU."""
    xp, kernels, _ = graph_device(modules)
    model = SecureModel(ModelFolder(path), "auto", None, settings_of(settings), "numpy")
    model.world = World(kernels=kernels, graph=settings.get("graph", "auto"))
    return model, xp.gpu


SMALL: dict[str, Any] = {"hidden_size": 6, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 5}


def test_texts_of_similar_lengths_share_a_graph(tmp_path: Path, host_modules: HostModules) -> None:
    """Launch by launch, recorded, and repeated for other lengths; the results are those of the texts alone."""
    model, gpu = on_a_gpu(folder_of(tmp_path, **SMALL), host_modules, pad_to=8)
    for text in ("the cat", "the cat sat on", "dog", "a good film"):
        out = model(text)
        close(out, twin(tmp_path, text), TIGHT)
        assert out.trusted is not None and out.trusted.all() and not model.world.notes
    (graph,) = gpu.graphs
    assert graph.launches == 3 and len(model._scripts) == 4


@pytest.mark.parametrize(("settings", "steps"), [({"pad_to": 1}, None), ({"graph": "off"}, None),
                                                 ({}, Steps(16, 32)), ({"pad_to": 5}, Steps(5, 32))])
def test_texts_are_filled_up_where_graphs_are_in_use(tmp_path: Path, host_modules: HostModules,
                                                     settings: dict[str, Any], steps: Steps | None) -> None:
    model, _ = on_a_gpu(folder_of(tmp_path, **SMALL), host_modules, **settings)
    assert model._steps() == steps


def test_texts_keep_their_lengths_on_a_cpu_and_in_families_that_cannot_be_filled(
    loaded: SecureModel, tmp_path: Path, host_modules: HostModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded._steps() is None
    model, _ = on_a_gpu(folder_of(tmp_path, **SMALL), host_modules)
    monkeypatch.setattr(Bert, "fillable", False)
    assert model._steps() is None
