"""GPT-2: every class against transformers' own, on tiny random weights of odd sizes; DistilGPT2's config; checkpoints
of old versions; certain bounds; variants that are not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VOCAB
from families_lab import describes_itself, matches, refuses, save, tokens

from secformer.models.families.config import read_config
from secformer.models.families.folder import ModelFolder
from secformer.models.families.gpt2 import GPT2
from secformer.models.families.table import architecture_of
from secformer.models.generation.sampling import Chooser, Sampling
from secformer.models.generation.stops import end_tokens
from secformer.models.ranges.profile import measure
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.quantities import MOST
from secformer.protocols.recipes import FAITHFUL

CAUSAL = "GPT2LMHeadModel"
SIZES: dict[str, Any] = {"n_embd": 35, "n_head": 5, "n_layer": 3, "n_inner": 27, "n_positions": 21, "pad_token_id": 0,
                         "bos_token_id": 2, "eos_token_id": 3}
DISTILGPT2: dict[str, Any] = {  # its config.json, without sizes
    "_num_labels": 1, "activation_function": "gelu_new", "attn_pdrop": 0.1, "embd_pdrop": 0.1,
    "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02, "label2id": {"LABEL_0": 0}, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "architectures": [CAUSAL]}
pytestmark = pytest.mark.filterwarnings("ignore")


def saved(folder: Path, name: str = CAUSAL, **entries: Any) -> Path:
    return save(folder, name, **SIZES | entries)


@pytest.mark.parametrize("name", GPT2.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(saved(tmp_path, name), name, tokens(longest=13), single=True)


def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    """Sums of embeddings are as small as a real model's, about 0.2, so the first norm makes rounding errors larger."""
    folder, given = saved(tmp_path, outlier=20.0, sharp=3.0), tokens(longest=19)
    matches(folder, CAUSAL, given, single=True, tolerance=2e-3, profile=measure(ModelFolder(folder), given))


@pytest.mark.parametrize("entries", [
    {"n_inner": None}, {"tie_word_embeddings": False}, {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True}, {"activation_function": "relu"},
    {"activation_function": "gelu"}, {"layer_norm_epsilon": 0.1}, {"n_head": 1}, {"n_head": 35},
], ids=str)
def test_variants_in_plaintext(entries: dict[str, Any], tmp_path: Path) -> None:
    matches(saved(tmp_path, **entries), CAUSAL, tokens(longest=19), single=True, secure=False)


def test_scores_that_shrink_with_depth_on_shares(tmp_path: Path) -> None:
    folder, given = saved(tmp_path, scale_attn_by_inverse_layer_idx=True, sharp=3.0), tokens(longest=9)
    matches(folder, CAUSAL, given, single=True, profile=measure(ModelFolder(folder), given))


def test_every_position_has_its_own_row(tmp_path: Path) -> None:
    folder = saved(tmp_path, "GPT2Model")
    same = plain_bert(folder, {"input_ids": [[7] * 21]}).last_hidden_state
    assert same is not None and len({row.tobytes() for row in same[0]}) == 21
    with pytest.raises(ValueError, match="at most 21"):
        plain_bert(folder, {"input_ids": [[7] * 22]})


def test_distilgpt2(tmp_path: Path) -> None:
    folder = saved(tmp_path, n_layer=2, n_inner=None, n_embd=20)
    sizes = {"n_ctx": 21, "n_embd": 20, "n_head": 5, "n_layer": 2, "n_positions": 21, "vocab_size": len(VOCAB)}
    (folder / "config.json").write_text(json.dumps(DISTILGPT2 | sizes), "utf-8")
    own, given = ModelFolder(folder).architecture, tokens(longest=9)
    assert isinstance(own, GPT2) and own.spec.intermediate == 80 and own.spec.tied
    matches(folder, CAUSAL, given, single=True, profile=measure(ModelFolder(folder), given))


@pytest.mark.parametrize("sizes", [{}, {"n_layer": 6}], ids=["gpt2", "distilgpt2"])
def test_the_real_sizes(sizes: dict[str, Any], tmp_path: Path) -> None:
    """Those that a config means that leaves them out, as the real ones of the smallest models have them."""
    (tmp_path / "config.json").write_text(json.dumps(DISTILGPT2 | sizes), "utf-8")
    own = architecture_of(read_config(tmp_path))
    assert isinstance(own, GPT2)
    assert (own.spec.vocab, own.spec.longest, own.spec.hidden, own.spec.heads) == (50257, 1024, 768, 12)
    assert (own.spec.layers, own.spec.intermediate) == (sizes.get("n_layer", 12), 3072)
    assert own.tables()["embedding.table"].shape == (50257, 768)
    assert sum(np.prod(tensor.shape) for name, tensor in own.weights().items() if not name.startswith("head")) + (
        50257 * 768) == {12: 124_439_808, 6: 81_912_576}[own.spec.layers]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_are_those_of_generate(penalty: float, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    folder, ids = saved(tmp_path, sharp=2.0, tie_word_embeddings=False), [7, 9, 30]
    model = transformers.GPT2LMHeadModel.from_pretrained(str(folder)).eval()
    wanted = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, repetition_penalty=penalty)
    chooser, ends = Chooser(Sampling(repetition_penalty=penalty)), end_tokens(folder)
    while len(ids) < 15 and not ends & {ids[-1]}:
        logits = plain_bert(folder, {"input_ids": [ids]}).logits
        assert logits is not None
        ids.append(chooser.choose(logits[0, -1], ids).token)
    assert ids == wanted[0].tolist() and len(set(ids[3:])) > 2


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("head", [True, False])
def test_checkpoints_of_old_versions(prefixed: bool, head: bool, tmp_path: Path) -> None:
    """With the masks that they stored, and with or without `transformer.` before their names, whatever the class."""
    from safetensors.numpy import load_file, save_file

    folder = saved(tmp_path, CAUSAL if head else "GPT2Model", tie_word_embeddings=True)
    file, wanted = folder / "model.safetensors", plain_bert(folder, tokens(longest=9)).last_hidden_state
    plain = {name.removeprefix("transformer."): value for name, value in load_file(file).items()}
    for i in range(3):
        plain |= {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 21, 21), np.uint8)),
                  f"h.{i}.attn.masked_bias": np.array(-1e4, np.float32)}
    save_file({("transformer." if prefixed else "") + name: value for name, value in plain.items()}, file)
    opened = ModelFolder(folder)
    opened.verify(FixedPoint())
    assert not opened.notes
    np.testing.assert_array_equal(plain_bert(folder, tokens(longest=9)).last_hidden_state, wanted)


def test_a_tied_head_is_the_word_table(tmp_path: Path) -> None:
    tied, own = ModelFolder(saved(tmp_path / "a")), ModelFolder(saved(tmp_path / "b", tie_word_embeddings=False))
    for folder, same in ((tied, True), (own, False)):
        head, table = (folder.architecture.weights()["head.weight"].build(folder.checkpoint),
                       folder.checkpoint.read(GPT2.words, (len(VOCAB), 35)).T)
        assert np.array_equal(head, table) is same


def test_scales_go_into_queries_alone(tmp_path: Path) -> None:
    folder = ModelFolder(saved(tmp_path, scale_attn_by_inverse_layer_idx=True))
    weights, read = folder.architecture.weights(), folder.checkpoint.read
    for i in range(3):
        for end, shape in (("weight", (35, 105)), ("bias", (105,))):
            stored = read(f"h.{i}.attn.c_attn.{end}", shape)
            expected = stored * np.repeat([1 / np.sqrt(7) / (i + 1), 1, 1], 35)
            np.testing.assert_allclose(weights[f"layer.{i}.qkv.{end}"].build(folder.checkpoint), expected, rtol=1e-15)


def test_sites_results_and_facts(tmp_path: Path) -> None:
    describes_itself(saved(tmp_path), ["the cat sat", "dog"])


def test_bounds_are_what_no_text_exceeds(tmp_path: Path) -> None:
    """Of queries, keys and values with their scale, and of what the feed-forward layer's activation takes."""
    folder = ModelFolder(saved(tmp_path))
    own, profile = folder.architecture, measure(folder, ["the cat sat", "a good film is not a bad film !"])
    bounds = own.certain(lambda name: own.weights()[name].build(folder.checkpoint), FAITHFUL)
    assert set(bounds) == {f"layer.{i}.{name}" for i in range(3) for name in ("softmax", "gelu_new")}
    for site, most in bounds.items():
        assert profile.sites[site][MOST.name].high == most
        for name in {"value", "input"} & profile.sites[site].keys():
            assert 0 < profile.sites[site][name].reach <= most < 100.0


@pytest.mark.parametrize(("entries", "message"), [
    ({"n_head": 4}, "n_embd must be a multiple of n_head = 4"), ({"n_layer": 0}, "n_layer must be a positive integer"),
    ({"activation_function": "mish"}, "activation_function must be one of 'gelu'"),
    ({"add_cross_attention": True}, "add_cross_attention must be false"),
    ({"architectures": ["GPT2DoubleHeadsModel"]}, "which this version does not run.*GPT2LMHeadModel"),
    ({"n_inner": -3}, "n_inner must be a positive integer"),
])
def test_variants_that_are_not_run(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    refuses(saved(tmp_path), entries, message)


def test_another_vocabulary_than_the_table(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"vocab_size": 45}), "utf-8")
    with pytest.raises(ModelError, match=rf"shape \({len(VOCAB)}, 35\); config.json asks for \(45, 35\)"):
        plain_bert(folder, tokens(longest=9))
