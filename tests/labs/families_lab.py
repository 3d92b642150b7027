"""Tiny random models of any family, saved by transformers' own classes, and compared with them.

Weights are drawn so that values look like those of trained models: hidden states of about 1, and, where asked for,
sharp attention and an outlier channel. Everything here needs torch; tests are skipped without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VOCAB, write_tokenizer

from secformer.models.data.inputs import TokenInputs
from secformer.models.families.architecture import Architecture
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.families.program import GUARD
from secformer.models.families.table import architecture_from
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint

RESULTS = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits", "prediction_logits",
           "seq_relationship_logits")
PLAIN = 1e-5   # of the largest value of a result: plain_bert against transformers
SECURE = 1e-3  # the same: shares against plain_bert


def save(folder: Path, name: str, *, seed: int = 0, sharp: float = 1.0, outlier: float = 1.0, labels: int = 3,
         tokenizer: bool | Callable[[Path, int], None] = True, **entries: Any) -> Path:
    """Writes a random model of transformers' class `name` as save_pretrained does, with a WordPiece tokenizer.

    sharp    factor of query and key weights
    outlier  gain of one channel of every LayerNorm
    tokenizer  what writes another tokenizer, for a folder and the most tokens of a text; False: none
    entries  go into the config, whose vocabulary is VOCAB unless they say otherwise
    """
    torch = pytest.importorskip("torch")
    import transformers

    kind = getattr(transformers, name)
    labels = 2 if "QuestionAnswering" in name else labels
    config = kind.config_class(**({"vocab_size": len(VOCAB), "num_labels": labels} | entries))
    model, rng = kind(config).eval(), np.random.default_rng(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.copy_(torch.from_numpy(_drawn(rng, key, tuple(value.shape), sharp, outlier)))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if callable(tokenizer):
        tokenizer(folder, longest(config))
    elif tokenizer:
        write_tokenizer(folder, longest(config), config.pad_token_id or 0)
        file = folder / "tokenizer_config.json"
        facts = json.loads(file.read_text("utf-8"))
        segments = getattr(config, "type_vocab_size", 0) and config.type_vocab_size > 1
        facts |= {"tokenizer_class": "PreTrainedTokenizerFast",
                  "model_input_names": ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]}
        file.write_text(json.dumps(facts), "utf-8")
        if "CausalLM" in name or "LMHead" in name:
            bare(folder)
    return folder


def bare(folder: Path) -> None:
    """The folder's tokenizer puts nothing around a text, as those of most decoders: no token is then public."""
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"post_processor": None}), "utf-8")


def longest(config: Any) -> int:
    """The most tokens of a text, at most."""
    return int(getattr(config, "max_position_embeddings", 32)) - 2


def _drawn(rng: np.random.Generator, key: str, shape: tuple[int, ...], sharp: float, outlier: float) -> np.ndarray:
    last = key.rsplit(".", 2)
    if len(shape) == 1:
        gain = key.endswith("weight")
        drawn = rng.normal(1.0 if gain else 0.0, 0.2, shape)
        if gain:
            drawn[shape[0] // 2] *= outlier
        return drawn.astype(np.float32)
    queries = any(part in key for part in ("query", "key", "q_lin", "k_lin", "q_proj", "k_proj", "Wqkv", "attn.q.",
                                             "attn.k.", "c_attn"))
    size = 0.7 if "embedding" in key else 1.0 / np.sqrt(shape[-1])
    return (rng.normal(0.0, size, shape) * (sharp if queries and "relative" not in last[0] else 1.0)).astype(np.float32)


def tokens(words: int = len(VOCAB), *, pad: int = 0, segments: int = 0, longest: int = 11,
           seed: int = 1) -> dict[str, np.ndarray]:
    """Ids of five texts: full, padded on the right, padded on the left, one token, and one with a gap in its mask.
    Where a text is masked it has the padding token `pad`, and nowhere else."""
    rng = np.random.default_rng(seed)
    ids, mask = rng.integers(5, words, (5, longest)), np.ones((5, longest), np.int64)
    mask[1, longest // 2 :] = 0
    mask[2, : longest // 3] = 0
    mask[3, 1:] = 0
    mask[4, longest // 2] = 0
    found = {"input_ids": np.where(mask == 1, ids, pad), "attention_mask": mask}
    if segments > 1:
        found["token_type_ids"] = (np.arange(longest) >= longest // 2) * mask
    return found


def expected(folder: Path, name: str, given: Mapping[str, np.ndarray], *,
             single: bool = False) -> dict[str, np.ndarray]:
    """What transformers' class answers in float64, or in float32 where it is `single`; results by token are zero beyond
    the last attended token."""
    torch = pytest.importorskip("torch")
    import transformers

    model = getattr(transformers, name).from_pretrained(str(folder), attn_implementation="eager").eval()
    model = model if single else model.double()
    with torch.no_grad():
        out = model(**{key: torch.from_numpy(value) for key, value in given.items()})
    found = {key: out[key].numpy() for key in RESULTS if key in out and out[key] is not None}
    return {key: within(given["attention_mask"], value) for key, value in found.items()}


def within(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values by token (B, T, ...), zero beyond the last attended token; other values as they are."""
    if values.shape[:2] != mask.shape:
        return values
    last = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    there = np.arange(mask.shape[1]) < last[:, None]
    return values * there.reshape(*there.shape, *(1,) * (values.ndim - 2))


def close(found: SecureOutput, wanted: Mapping[str, np.ndarray], tolerance: float) -> None:
    """Every wanted result is there, within the tolerance of its largest value."""
    assert wanted
    for name, values in wanted.items():
        there = getattr(found, name)
        assert there is not None, name
        np.testing.assert_allclose(there, values, rtol=0.0, atol=tolerance * np.abs(values).max(), err_msg=name)


def matches(folder: Path, name: str, given: Mapping[str, np.ndarray], *, secure: bool = True,
            tolerance: float = SECURE, single: bool = False, **settings: Any) -> SecureOutput:
    """Checks plain_bert against transformers and, with `secure`, the answer on shares against plain_bert; returns the
    latter, else the former. Nothing may be marked. `single` as in `expected`."""
    plain = plain_bert(folder, given)
    wanted = expected(folder, name, given, single=single)
    close(plain, wanted, PLAIN)
    if not secure:
        return plain
    with SecureModel.from_pretrained(folder, backend="numpy", **settings) as model:
        out = model(given)
        assert model.profile is not None and tuple(model.profile.sites) == model.architecture.sites
        if model.architecture.head is Head.ENCODER:
            assert wanted.keys() == model.architecture.results.keys()
    assert out.trusted is not None and out.trusted.all(), out.notes
    close(out, {key: getattr(plain, key) for key in wanted}, tolerance)
    return out


def refuses(folder: Path, changes: Mapping[str, Any], says: str) -> None:
    """Checks that a folder whose config is changed like this is refused with this message."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(ModelError, match=says):
        ModelFolder(folder)


def describes_itself(path: Path, texts: list[str]) -> None:
    """Checks that what a checkpoint's architecture says is what its program does: sites, results, facts, tensors."""
    folder = ModelFolder(path)
    own = folder.architecture
    assert tuple(measure(folder, texts).sites) == own.sites
    assert architecture_from(own.model_type, json.loads(json.dumps(own.facts()))) == own
    with SecureModel.from_pretrained(path, backend="numpy") as model:
        assert (*own.results, GUARD) == model.names
    folder.verify(FixedPoint())
    assert not folder.notes

# ---- a tiny encoder of each family, and texts of several lengths -----------------------------------------------------

SIZES: dict[str, Any] = {"hidden_size": 30, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 21,
                         "max_position_embeddings": 40}
DECODER: dict[str, Any] = {  # sizes that no family takes for another; entries that a family has no use for do no harm
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 2,
    "eos_token_id": 3, "sliding_window": 5, "use_sliding_window": True,
    "layer_types": ["full_attention", "sliding_attention"]}
OTHERS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 7}, "electra": {"embedding_size": 7}, "camembert": {"type_vocab_size": 1},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                   "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False},
    "distilbert": {"dim": 30, "n_layers": 2, "n_heads": 5, "hidden_dim": 21},
    **{name: DECODER for name in ("llama", "mistral", "qwen2", "qwen3")},
    "modernbert": {"local_attention": 6, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
                   "sep_token_id": 3},
}
LENGTHS = 23, 22, 21, 22, 23, 23


def tiny(path: Path, family: type[Architecture]) -> tuple[str, ModelFolder]:
    """The class of a family that has no head, and a folder of one."""
    (name,) = (name for name, head in family.classes.items() if head is Head.ENCODER)
    sizes = {} if family.model_type == "distilbert" else SIZES
    return name, ModelFolder(save(path, name, **sizes | OTHERS.get(family.model_type, {})))


def lengthy(inputs: TokenInputs) -> dict[str, np.ndarray]:
    """Texts of LENGTHS, padded behind; of these, one has a gap, and two have padding in front."""
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)
    mask[3, 10] = mask[1, 0] = 0
    mask[4, :6] = 0
    ids = np.random.default_rng(3).integers(5, 39, mask.shape)
    found = {"input_ids": np.where(mask == 1, ids, inputs.pad or 0), "attention_mask": mask}
    return found | ({"token_type_ids": (np.arange(mask.shape[1]) > 9) * mask} if inputs.segments > 1 else {})
