"""Causal attention of whole texts, and another `Attending` in its place: token by token, with keys kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from decoders_lab import LONG, saved
from families_lab import tokens
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.models.data.batch import Batch, Row
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import PlainTensors
from secformer.models.families.attending import Causal, prefix_names
from secformer.models.families.blocks import Forward
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import InputError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import EXACT

D = 4
masks = st.lists(st.lists(st.booleans(), min_size=1, max_size=13).filter(any), min_size=1, max_size=3)


def batch_of(rows: list[list[bool]]) -> Batch:
    """Texts with these masks; as in a batch of ours, nothing stands behind the last attended token."""
    cut = [row[: len(row) - row[::-1].index(True)] for row in rows]
    return Batch(tuple(Row(np.zeros(len(r), np.int64), np.zeros(len(r), np.int64), np.array(r, np.int64)) for r in cut))


def wanted(batch: Batch, q: np.ndarray, k: np.ndarray, v: np.ndarray, reach: int | None) -> np.ndarray:
    """Text by text and head by head, with whole matrices; the mean of all where there is nothing to attend to."""
    out = np.zeros_like(q)
    for start, row in zip(batch.starts, batch.rows, strict=True):
        here, t = slice(start, start + len(row)), np.arange(len(row))
        before = t[:, None] - t
        real = (before >= 0) & (before <= (len(row) if reach is None else reach)) & (row.mask == 1)
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            e = np.where(real, np.exp(q[here, h] @ k[here, g].T), 0.0)
            e[~real.any(axis=1)] = 1.0
            out[here, h] = e / e.sum(axis=1, keepdims=True) @ v[here, g]
    return out.reshape(len(q), -1)


@given(masks, st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]), st.one_of(st.none(), st.integers(0, 14)),
       st.integers(0, 9))
@examples(60)
def test_attention_of_whole_texts(rows: list[list[bool]], heads: tuple[int, int], reach: int | None,
                                  seed: int) -> None:
    """Padding, gaps, tokens before which nothing is attended to, blocks that no text fills, heads that share keys."""
    batch, rng, s = batch_of(rows), np.random.default_rng(seed), PlainSession()
    q, k, v = (rng.normal(size=(batch.tokens, n, D)) for n in (heads[0], heads[1], heads[1]))
    f: Any = SimpleNamespace(recipe=EXACT)
    found = Causal(batch)(s, *(s.accept(x) for x in (q, k, v)), f, {}, 0, reach)
    np.testing.assert_allclose(s.values(found), wanted(batch, q, k, v, reach), atol=1e-12)


def test_windows_are_computed_in_blocks() -> None:
    """Keys that no query of a block meets are not opened."""
    ones = np.ones(512, np.int64)
    causal = Causal(Batch((Row(ones, ones, ones),)))
    near, all_of_them = causal._meeting(15, 64), causal._meeting(512, 64)
    assert near.mask.size < 0.2 * all_of_them.mask.size and all_of_them.queries.shape == (1, 1, 512)
    assert causal._meeting(15, 64) is near


class Kept:
    """Keys and values of one text's earlier tokens, in plaintext: what a cache does."""

    def __init__(self) -> None:
        self.positions = np.zeros(0, np.int64)
        self.layers: dict[int, list[np.ndarray]] = {}

    def __call__(self, s: Any, q: Share, k: Share, v: Share, f: Forward, at: Site, layer: int,
                 reach: int | None) -> Share:
        new = [s.values(x) for x in (k, v)]
        if layer in self.layers:
            new = [np.concatenate(pair) for pair in zip(self.layers[layer], new, strict=True)]
        self.layers[layer] = new
        keys, values = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in new)
        before = self.positions[:, None] - np.arange(len(keys))
        real = (before >= 0) & (before <= (len(keys) if reach is None else reach))
        scores = np.where(real, np.einsum("nhd,thd->hnt", s.values(q), keys), -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return s.accept(np.einsum("hnt,thd->nhd", weights, values).reshape(len(q), -1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, entries", [
    ("LlamaForCausalLM", {}), ("MistralForCausalLM", {"sliding_window": 4}), ("Qwen3ForCausalLM", {})])
def test_token_by_token_with_kept_keys(name: str, entries: dict[str, Any], tmp_path: Path) -> None:
    """`hidden` and `logits` of single tokens at later positions are those of the whole text: the places of tokens come
    from the `Attending` alone."""
    folder = ModelFolder(saved(tmp_path, name, **entries))
    ids = tokens(longest=LONG)["input_ids"][:1]
    logits = plain_bert(tmp_path, {"input_ids": ids, "attention_mask": np.ones_like(ids)}).logits
    own, s, kept = folder.architecture, PlainSession(strict=False), Kept()
    assert isinstance(own, Decoder) and logits is not None
    parameters = load_weights(s, PlainTensors(own.layout(None), folder.checkpoint))
    for start, stop in ((0, 7), (7, 8), (8, 11), *((i, i + 1) for i in range(11, LONG))):
        few, nothing = ids[0, start:stop], np.zeros(stop - start, np.int64)
        batch = Batch((Row(few, nothing, np.ones_like(few)),))
        forward = Forward(batch, parameters, EXACT, lambda site: {})
        kept.positions = np.arange(start, stop)
        x = own.hidden(s, s.accept(folder.embeddings(batch)), forward, kept)
        np.testing.assert_allclose(s.values(own.logits(s, x[-1:], forward)), logits[0, stop - 1 : stop], atol=1e-9)


@given(st.integers(1, 5), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.one_of(st.none(), st.integers(0, 12)),
       st.integers(0, 9))
@examples(40)
def test_texts_behind_a_public_prefix(prefix: int, lengths: list[int], reach: int | None, seed: int) -> None:
    """What whole texts give that begin with it, each of them, within windows too."""
    rng, s = np.random.default_rng(seed), PlainSession()
    batch, heads = batch_of([[True] * n for n in lengths]), (4, 2, 2)
    qkv = [rng.normal(size=(batch.tokens, n, D)) for n in heads]
    known = [rng.normal(size=(prefix, 2, D)) for _ in range(2)]
    weights = {name: s.open_weight(x.reshape(prefix, -1)) for name, x in zip(prefix_names(3), known, strict=True)}
    f: Any = SimpleNamespace(recipe=EXACT, parameters=SimpleNamespace(matrix=weights.get))
    causal = Causal(batch, prefix)
    found = s.values(causal(s, *map(s.accept, qkv), f, {}, 3, reach))
    for start, n in zip(batch.starts, lengths, strict=True):
        here, one = slice(start, start + n), batch_of([[True] * (prefix + n)])
        q, k, v = (np.concatenate([before, x[here]]) for before, x in zip(
            [np.zeros((prefix, 4, D)), *known], qkv, strict=True))
        np.testing.assert_allclose(found[here], wanted(one, q, k, v, reach)[prefix:], atol=1e-12)
        np.testing.assert_array_equal(causal.positions[here], np.arange(prefix, prefix + n))


def test_padding_behind_a_public_prefix() -> None:
    with pytest.raises(InputError, match="must be attended to whole; leave padding out"):
        Causal(batch_of([[True, True], [False, True]]), 2)
    Causal(batch_of([[True, True], [True]]), 2)
