"""Llama: every class against transformers' own, on tiny random weights of odd sizes; heads that share keys, biases,
tied and untied heads, checkpoints in several files and in bfloat16; certain bounds; variants that are not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders_lab import LONG, edited, saved
from families_lab import describes_itself, expected, matches, tokens
from price_lab import price

from secformer.models.data.checkpoint import Checkpoint
from secformer.models.families.folder import ModelFolder
from secformer.models.families.llama import Llama
from secformer.models.ranges.profile import RangeProfile, measure
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import ModelError
from secformer.protocols.quantities import MOST
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import FAITHFUL
from secformer.protocols.rmsnorm_linear import FINER

CAUSAL = "LlamaForCausalLM"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", Llama.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(saved(tmp_path, name, attention_bias=True, mlp_bias=True), name, tokens(longest=13), single=True)


def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    folder, given = saved(tmp_path, "LlamaModel", outlier=6.0, sharp=1.5), tokens(longest=LONG)
    matches(folder, "LlamaModel", given, single=True, profile=measure(ModelFolder(folder), given))


@pytest.mark.parametrize("entries", [
    {"tie_word_embeddings": True}, {"num_key_value_heads": 1}, {"num_key_value_heads": 6},
    {"num_key_value_heads": None, "head_dim": None, "num_attention_heads": 5}, {"hidden_act": "gelu_pytorch_tanh"},
    {"rms_norm_eps": 0.1}, {"rope_parameters": {"rope_type": "linear", "rope_theta": 99.0, "factor": 3.0}},
    {"rope_parameters": {"rope_type": "llama3", "rope_theta": 99.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 20}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 99.0}},
], ids=str)
def test_variants_in_plaintext(entries: dict[str, Any], tmp_path: Path) -> None:
    matches(saved(tmp_path, CAUSAL, **entries), CAUSAL, tokens(longest=LONG), single=True, secure=False)


def test_a_tied_head_is_the_word_table(tmp_path: Path) -> None:
    """On shares, too; the checkpoint holds it once. A head of its own is not the table."""
    folder = saved(tmp_path / "tied", CAUSAL, tie_word_embeddings=True)
    own, checkpoint = ModelFolder(folder).architecture, Checkpoint(folder, prefix=Llama.prefix)
    assert "lm_head.weight" not in checkpoint
    head = own.weights()["head.weight"].build(checkpoint)
    np.testing.assert_array_equal(head, checkpoint.read(Llama.words, (own.spec.vocab, own.spec.hidden)).T)
    matches(folder, CAUSAL, tokens(longest=13), single=True)
    untied = ModelFolder(saved(tmp_path / "untied", CAUSAL))
    assert np.abs(untied.architecture.weights()["head.weight"].build(untied.checkpoint) - head).max() > 0.1


def test_weights_behind_norms_have_their_gains(tmp_path: Path) -> None:
    """FINER bits finer, and queries and keys with their factors. The norms themselves are no tensors of the program."""
    folder = ModelFolder(saved(tmp_path, CAUSAL))
    spec, layout, read = folder.architecture.spec, folder.architecture.weights(), folder.checkpoint.read
    assert not {name for name in layout if name.endswith("norm.weight")} - {"final.norm.weight"}
    for norm, name, parts in (("input_layernorm", "qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
                              ("post_attention_layernorm", "intermediate", ("mlp.gate_proj", "mlp.up_proj"))):
        gains, built = read(f"layers.1.{norm}.weight", (30,)), layout[f"layer.1.{name}.weight"].build(folder.checkpoint)
        stored = [read(f"layers.1.{part}.weight", folder.checkpoint.shape(f"layers.1.{part}.weight")) for part in parts]
        factors = (2.0 / np.sqrt(spec.size), 0.5, 1.0) if name == "qkv" else (1.0, 1.0)
        wanted = np.concatenate([w * f for w, f in zip(stored, factors, strict=True)]).T * gains[:, None]
        np.testing.assert_allclose(built, 2.0**FINER * wanted)
        assert np.ptp(gains) > 0.1


def test_a_profile_that_has_gains_of_these_norms(tmp_path: Path) -> None:
    """As files of earlier versions have: they serve, and nothing depends on those."""
    folder, given = saved(tmp_path, "LlamaModel"), tokens(longest=9)
    now = measure(ModelFolder(folder), given)
    sites = {site: {**found, "gain": Range(0.001, 0.001)} if site.endswith("norm") and "final" not in site else found
             for site, found in now.sites.items()}
    assert "gain" not in now.sites["layer.0.mlp.norm"] and "gain" in sites["layer.0.mlp.norm"]
    before = RangeProfile.of(replace(now, sites=sites).as_dict(), "here")
    own = ModelFolder(folder).architecture
    prices = [price(own, lambda site, profile=profile: profile(site), 9) for profile in (now, before)]
    assert (prices[0] == prices[1]).all()
    matches(folder, "LlamaModel", given, single=True, profile=before)


@pytest.mark.parametrize("shards", [False, True])
def test_bfloat16_in_several_files(shards: bool, tmp_path: Path) -> None:
    """The values are those that transformers reads."""
    torch = pytest.importorskip("torch")
    import transformers

    folder, given = saved(tmp_path, CAUSAL), tokens(longest=9)
    model = getattr(transformers, CAUSAL).from_pretrained(str(folder), dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8kB" if shards else "1GB")
    assert (len(list(folder.glob("model-*.safetensors"))) > 2) == shards
    exact = getattr(transformers, CAUSAL).from_pretrained(str(folder), dtype=torch.float32,
                                                          attn_implementation="eager").eval()
    with torch.no_grad():
        wanted = exact(**{key: torch.from_numpy(value) for key, value in given.items()}).logits[0].numpy()
    found = plain_bert(folder, given).logits
    assert found is not None
    np.testing.assert_allclose(found[0], wanted, rtol=0.0, atol=1e-5 * np.abs(wanted).max())


def test_sites_results_and_facts(tmp_path: Path) -> None:
    describes_itself(saved(tmp_path, CAUSAL, mlp_bias=True), ["the cat sat", "dog"])


def test_bounds_are_what_no_text_exceeds(tmp_path: Path) -> None:
    """Of queries, keys and values with their scale, and of both halves of the gated layer."""
    folder = ModelFolder(saved(tmp_path, "LlamaModel", attention_bias=True))
    own, profile = folder.architecture, measure(folder, ["the cat sat", "a good film is not a bad film !"])
    bounds = own.certain(lambda name: own.weights()[name].build(folder.checkpoint), FAITHFUL)
    assert set(bounds) == {f"layer.{i}.{name}" for i in range(2) for name in ("softmax", "rope", "silu", "glu")}
    for site, most in bounds.items():
        assert profile.sites[site][MOST.name].high == most
        for name in {"value", "gate", "input"} & profile.sites[site].keys() - ({"input"} if "glu" in site else set()):
            assert profile.sites[site][name].reach <= most < 100.0


def test_texts_of_a_batch_do_not_meet(tmp_path: Path) -> None:
    folder = saved(tmp_path, CAUSAL)
    texts = ["the cat sat", "dog", "a good film is not a bad film , is it ?"]
    together = plain_bert(folder, texts)
    for i, text in enumerate(texts):
        alone = plain_bert(folder, [text]).logits[0]
        np.testing.assert_allclose(together.logits[i][: len(alone)], alone, atol=1e-12)


def test_nothing_depends_on_later_tokens(tmp_path: Path) -> None:
    folder, given = saved(tmp_path, CAUSAL), tokens(longest=9)
    other = dict(given, input_ids=given["input_ids"].copy())
    other["input_ids"][0, 6:] = 7
    a, b = (plain_bert(folder, each).logits[0] for each in (given, other))
    np.testing.assert_array_equal(a[:6], b[:6])
    assert np.abs(a[6:] - b[6:]).max() > 1e-3


@pytest.mark.parametrize("entries, message", [
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 9.0, "factor": 2.0}}, "rope_type of rope_parameters"),
    ({"rope_parameters": {"rope_type": "linear", "rope_theta": 9.0, "factor": -1}}, "factor"),
    ({"hidden_act": "mish"}, "hidden_act must be one of 'gelu'"),
    ({"head_dim": 7}, "even rotary dimension"),
    ({"num_key_value_heads": 4}, "num_attention_heads must be a multiple of num_key_value_heads = 4"),
    ({"num_key_value_heads": 0}, "num_key_value_heads must be a positive integer"),
])
def test_variants_that_are_not_run(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        ModelFolder(edited(saved(tmp_path, "LlamaModel"), entries))


def test_another_vocabulary_than_the_head(tmp_path: Path) -> None:
    folder = edited(saved(tmp_path, CAUSAL), {"vocab_size": 45})
    with pytest.raises(ModelError, match=r"shape \(39, 30\); config.json asks for \(45, 30\)"):
        plain_bert(folder, tokens(longest=9))


def test_expected_is_not_trivial(tmp_path: Path) -> None:
    """The comparison above would see a head or a position that is missing."""
    wanted = expected(saved(tmp_path, CAUSAL), CAUSAL, tokens(longest=9), single=True)["logits"]
    assert np.abs(wanted[0, 1:] - wanted[0, :-1]).min(axis=0).max() > 1e-4
