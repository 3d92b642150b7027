"""DeBERTa-v2 and v3 against transformers' own classes: both kinds of distances, every variant, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families_lab import describes_itself, expected, matches, save, tokens
from sentence_lab import put

from secformer.models.data.batch import Batch, blind_batch
from secformer.models.families.deberta_v2 import DebertaV2
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert
from secformer.mpc.errors import InputError, ModelError, RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.ranges import Range

# as version 3: log buckets from distance 4 on, no position table, no segments
SIZES: dict[str, Any] = {
    "hidden_size": 15, "num_attention_heads": 5, "intermediate_size": 17, "num_hidden_layers": 2,
    "max_position_embeddings": 34, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
    "max_relative_positions": -1, "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {"position_buckets": -1, "norm_rel_ebd": "none"},
    "cut off": {"position_buckets": -1, "max_relative_positions": 5},
    "own projections": {"share_att_key": False, "pos_att_type": "c2p|p2c"},
    "keys": {"pos_att_type": "c2p", "share_att_key": False},
    "queries": {"pos_att_type": ["p2c"]},
    "no terms": {"pos_att_type": None},
    "no distances": {"relative_attention": False, "position_biased_input": True},
    "positions, segments and a projection": {"position_biased_input": True, "type_vocab_size": 3, "embedding_size": 9},
    "another activation": {"hidden_act": "silu", "layer_norm_eps": 1e-3},
}
TEXTS = ["the cat sat on the mat", "dog", "a good film is not a bad film !"]
GIVEN = tokens()
NAMES = [*((name, {}) for name in DebertaV2.classes), ("DebertaV2ForMaskedLM", {"legacy": False}),
         ("DebertaV2ForMaskedLM", {"embedding_size": 9}), ("DebertaV2ForMaskedLM", {"tie_word_embeddings": False}),
         ("DebertaV2ForSequenceClassification", {"pooler_hidden_act": "tanh"})]


def right(name: str, folder: Path) -> None:
    """matches, with ranges that were measured on the given tokens, as tokens that nothing attends to are among them."""
    matches(folder, name, GIVEN, profile=measure(ModelFolder(folder), GIVEN))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "entries"), NAMES, ids=lambda p: p if isinstance(p, str) else "-".join(p) or "as is")
def test_every_class_against_transformers(name: str, entries: dict[str, Any], tmp_path: Path) -> None:
    """Masks, padding at both ends, a gap and one token: also what is answered at tokens that nothing attends to."""
    right(name, save(tmp_path, name, **(SIZES | entries)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entries", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_against_transformers(entries: dict[str, Any], tmp_path: Path) -> None:
    given = tokens(segments=entries.get("type_vocab_size", 0))
    matches(save(tmp_path, "DebertaV2Model", **(SIZES | entries)), "DebertaV2Model", given, secure=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["own projections", "cut off", "keys"])
def test_variants_on_shares(name: str, tmp_path: Path) -> None:
    right("DebertaV2Model", save(tmp_path, "DebertaV2Model", **(SIZES | VARIANTS[name])))


@pytest.mark.filterwarnings("ignore")
def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    sizes = SIZES | {"num_hidden_layers": 1}
    right("DebertaV2Model", save(tmp_path, "DebertaV2Model", outlier=20.0, sharp=3.0, **sizes))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("buckets", [256, -1])
def test_long_texts_at_the_released_sizes(buckets: int, tmp_path: Path) -> None:
    """Log buckets begin beyond a distance of 128; without buckets the table has 1,024 rows."""
    sizes = SIZES | {"hidden_size": 6, "num_attention_heads": 2, "intermediate_size": 5, "num_hidden_layers": 1,
                     "max_position_embeddings": 512, "position_buckets": buckets}
    given = {key: value[:2] for key, value in tokens(longest=200).items()}
    matches(save(tmp_path, "DebertaV2Model", **sizes), "DebertaV2Model", given, secure=False)


@pytest.mark.filterwarnings("ignore")
def test_texts_without_padding_in_front_need_no_measuring_of_it(tmp_path: Path) -> None:
    """With built-in texts alone, padding behind a text is trusted. Tokens that nothing attends to may be marked, and
    all others are right."""
    folder = save(tmp_path, "DebertaV2Model", **SIZES)
    with SecureModel.from_pretrained(folder, backend="numpy") as model:
        out = model(GIVEN)
    assert out.trusted is not None and out.trusted[[0, 1, 3]].all()
    attended = GIVEN["attention_mask"][..., None]
    wanted = expected(folder, "DebertaV2Model", GIVEN)["last_hidden_state"] * attended
    np.testing.assert_allclose(out.last_hidden_state * attended, wanted, rtol=0.0, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.filterwarnings("ignore")
def test_scores_that_leave_their_range_are_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path, "DebertaV2Model", sharp=3.0, **SIZES)
    profile = measure(ModelFolder(folder), TEXTS)
    spread = profile.sites["layer.0.softmax"]["spread"]
    narrow = {**profile.sites, "layer.0.softmax": {**profile.sites["layer.0.softmax"],
                                                   "spread": Range(spread.low / 8, spread.high)}}
    with SecureModel.from_pretrained(folder, backend="numpy", profile=replace(profile, sites=narrow)) as model:
        out = model(TEXTS)
    assert out.trusted is not None and not out.trusted.all() and "layer.0.softmax" in " ".join(out.notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DebertaV2.classes)
def test_sites_results_and_facts_are_those_of_the_program(name: str, tmp_path: Path) -> None:
    describes_itself(save(tmp_path, name, **(SIZES | {"embedding_size": 9})), TEXTS[:2])


# ---- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_positions_are_projected_as_in_the_formula(tmp_path: Path) -> None:
    """Entry by entry in float64: LayerNorm of a row, the layer's projection, one head's part; queries carry the
    scale of scores. Texts of 12 tokens reach rows 1 to 15."""
    folder = ModelFolder(save(tmp_path, "DebertaV2Model", **(SIZES | {"max_position_embeddings": 12})))
    layout, read = folder.architecture.weights(), folder.checkpoint.read
    found = {term: layout[f"layer.1.positions.{term}"] for term in ("c2p", "p2c")}
    assert found["c2p"].shape == found["p2c"].shape == (5, 3, 15) and found["c2p"].standing
    table, gain, shift = read("encoder.rel_embeddings.weight", (16, 15)), *(
        read(f"encoder.LayerNorm.{kind}", (15,)) for kind in ("weight", "bias"))
    row = table[6]
    normed = (row - row.mean()) / np.sqrt(row.var() + 1e-7) * gain + shift
    for term, name, factor in (("c2p", "key", 1.0), ("p2c", "query", 1 / 3)):
        there = f"encoder.layer.1.attention.self.{name}_proj"
        wanted = (read(f"{there}.weight", (15, 15)) @ normed + read(f"{there}.bias", (15,))) * factor
        np.testing.assert_allclose(found[term].build(folder.checkpoint)[2, :, 5], wanted[6:9], rtol=0.0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_only_rows_that_texts_reach_are_shared_and_paid_for(tmp_path: Path) -> None:
    """A table of 68 rows; texts of at most 34 tokens reach 67, and 4 tokens reach 7."""
    own = ModelFolder(save(tmp_path, "DebertaV2Model", **(SIZES | VARIANTS["linear"]))).architecture
    assert isinstance(own, DebertaV2)
    assert own.weights()["layer.0.positions.c2p"].shape == (5, 3, 67)
    assert own.reached(34) == (1, 67) and own.reached(4) == (31, 37) and own.reached(1) == (34, 34)
    with SecureModel.from_pretrained(tmp_path, backend="numpy") as model:
        few = [model({"input_ids": np.full((1, n), 5)}).cost for n in (4, 5)]
    assert few[0] is not None and few[1] is not None and few[0].dealer_bytes < few[1].dealer_bytes


@pytest.mark.filterwarnings("ignore")
def test_projected_positions_that_words_cannot_hold(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = save(tmp_path, "DebertaV2Model", **(SIZES | {"norm_rel_ebd": "none"})) / "model.safetensors"
    stored = load_file(file)
    stored["encoder.rel_embeddings.weight"] *= 6000.0  # below 2^14 itself, but not once it is projected
    stored["encoder.layer.0.attention.self.key_proj.weight"] *= 10.0
    save_file(stored, file, {"format": "pt"})
    with pytest.raises(RangeError, match=r"layer.0.positions.c2p, which is computed from encoder.rel_embeddings.*"
                                         r"Raise `magnitude`"):
        ModelFolder(tmp_path).verify(FixedPoint())


@pytest.mark.filterwarnings("ignore")
def test_training_reaches_the_position_table(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from secformer.models.distill.exact import EXACT_TORCH
    from secformer.models.distill.model import load
    from secformer.models.distill.torch_session import TorchSession

    folder = ModelFolder(save(tmp_path, "DebertaV2ForSequenceClassification", **SIZES))
    model = load(folder)
    table = model.trainable(words=False)["encoder.rel_embeddings.weight"]
    logits = model(TorchSession(dtype=torch.float64), Batch(tuple(folder.tokenizer.rows(TEXTS))), EXACT_TORCH)
    np.testing.assert_allclose(logits.detach().numpy(), plain_bert(tmp_path, TEXTS).logits, rtol=0.0, atol=1e-5)
    logits.square().sum().backward()
    assert table.grad is not None and (table.grad.abs().sum(dim=1) > 0).sum() > 8


# ---- inputs, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_lengths(tmp_path: Path) -> None:
    own = ModelFolder(save(tmp_path, "DebertaV2Model", **SIZES)).architecture
    assert own.inputs.longest == 34 and own.inputs.segments == 0
    assert own.positions(blind_batch(np.array([2]), np.ones((1, 2)))).tolist() == [0, 1]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="at most 34"):
        plain_bert(tmp_path, {"input_ids": np.full((1, 35), 5)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["encoder.rel_embeddings.weight", "encoder.LayerNorm.bias",
                                  "encoder.layer.1.attention.self.pos_query_proj.weight"])
def test_a_checkpoint_without_its_tables_is_refused(name: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = save(tmp_path, "DebertaV2Model", **(SIZES | {"share_att_key": False})) / "model.safetensors"
    stored = load_file(file)
    del stored[name]
    save_file(stored, file, {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks tensor '{name}'"):
        plain_bert(tmp_path, TEXTS)


@pytest.mark.parametrize("entries, message", [
    ({"conv_kernel_size": 3}, "conv_kernel_size must be 0.*deberta-v2-xlarge"),
    ({"talking_head": True}, "talking_head must be false"),
    ({"attention_head_size": 4}, "attention_head_size must be 3"),
    ({"pooler_hidden_size": 4}, "pooler_hidden_size must be 15"),
    ({"pos_att_type": ["c2p", "p2p"]}, "pos_att_type must be made of c2p and p2c"),
    ({"pooler_hidden_act": "mish"}, "pooler_hidden_act must be one of"),
    ({"hidden_act": "tanh"}, "hidden_act must be one of"),
    ({"position_buckets": 66}, "position_buckets must be above 1 and below .* = 66"),
    ({"position_buckets": 1}, "position_buckets must be above 1"),
    ({"architectures": ["DebertaV2ForMaskedLM"], "legacy": False, "embedding_size": 9}, "embedding_size must be"),
    ({"model_type": "deberta", "architectures": ["DebertaModel"]}, "Supported:.*type 'deberta-v2'"),
])
def test_variants_that_are_refused(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    put(tmp_path / "config.json", {"model_type": "deberta-v2", "architectures": ["DebertaV2Model"], **SIZES, **entries})
    with pytest.raises(ModelError, match=message):
        ModelFolder(tmp_path)
