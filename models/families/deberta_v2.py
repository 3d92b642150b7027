"""DeBERTa versions 2 and 3 (He et al., ICLR 2021; 2023): attention that keeps contents and distances apart.

The projections of relative positions depend on the model alone. The model's owner computes them, and shares them as
weights: a request pays for products with them, and for nothing else.

B texts, T tokens of the longest, N tokens of all texts, C hidden, H heads, D = C / H, R rows of the position table that
texts can reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import Formula, Part, Tensor, linear_layout, matrix, norm_layout, vector
from secformer.models.families.activations import NAMES, TANH
from secformer.models.families.blocks import Forward, attending, layernorm, linear, norming
from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import EncoderSpec, Names, classes
from secformer.models.families.heads import Head, TextHead, WordHead
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight
from secformer.protocols.ranges import Site, bits
from secformer.protocols.relative import disentangled_scores, index_of, table_rows

KEYS, QUERIES = "c2p", "p2c"  # content to position, position to content: projected positions stand as keys, as queries
POOLED: Mapping[str, str] = MappingProxyType({**NAMES, TANH: TANH})
NEW_HEAD = "lm_predictions.lm_head"
SHARP = 24  # bits of 1 / T as a whole number


@dataclass(frozen=True, kw_only=True)
class DebertaSpec(EncoderSpec):
    """EncoderSpec, and:

    embedding  entries of a word's embedding; where it is not C, a projection follows
    longest    the most tokens of a text
    terms      which of KEYS and QUERIES scores have
    span       half of the rows of the position table; 0: attention has no relative positions
    buckets, farthest   the log buckets of distances; buckets is 0 where distances are rows themselves
    shared     positions go through the layer's own projections of keys and queries
    normed     the position table goes through a LayerNorm first
    legacy     the head that finds words has the layout of transformers' first version
    head_act   the activation of the text head, a value of POOLED
    """

    embedding: int
    longest: int
    terms: tuple[str, ...]
    span: int
    buckets: int
    farthest: int
    shared: bool
    normed: bool
    legacy: bool = True
    head_act: str = "gelu"


@dataclass(frozen=True)
class Positions(Formula):
    """Projected positions, (H, D, R): rows first to last of the position table, through a LayerNorm if there is an
    epsilon, and a projection; times a factor."""

    heads: int
    size: int
    first: int
    last: int
    factor: float
    eps: float | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.heads, self.size, self.last - self.first + 1

    def __call__(self, xp: Any, *parts: Any) -> Any:
        table, weight, bias, *norm = parts
        x = table[self.first : self.last + 1]
        if self.eps is not None:
            x = x - xp.mean(x, axis=-1, keepdims=True)
            x = x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + self.eps) * norm[0] + norm[1]
        y = (x @ weight + bias) * self.factor
        return y.reshape(len(x), self.heads, self.size).swapaxes(0, 1).swapaxes(1, 2)


class DebertaV2(Encoder):
    """A DeBERTa encoder of version 2 or 3, with the heads that Hugging Face has for it.

    Tokens that nothing attends to attend to all tokens of their text alike, as they do in transformers for texts
    without padding behind them.
    """

    model_type = "deberta-v2"
    classes = classes("DebertaV2")
    spec_type = DebertaSpec
    prefix = "deberta."
    names = Names(query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj")
    word_head = WordHead("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
                         "cls.predictions.decoder", "cls.predictions.bias")

    spec: DebertaSpec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        found = super().facts_of(config, architecture)
        hidden, longest = found["hidden"], found["positions"]
        kernel = config.get("conv_kernel_size") or 0
        config.require("conv_kernel_size", kernel == 0, "0: the convolution behind the first layer, as in "
                       "deberta-v2-xlarge and -xxlarge, is missing here")
        config.require("talking_head", not config.get("talking_head"), "false")
        for key, size in (("pooler_hidden_size", hidden), ("attention_head_size", hidden // found["heads"])):
            config.require(key, config.get(key, size) == size, f"{size}, which follows from hidden_size")
        terms = tuple(config.get("pos_att_type") or ())
        config.require("pos_att_type", set(terms) <= {KEYS, QUERIES}, f"made of {KEYS} and {QUERIES}")
        relative = bool(config.get("relative_attention"))
        farthest = config.get("max_relative_positions") or 0
        farthest = farthest if farthest >= 1 else longest
        buckets = max(0, config.get("position_buckets") or 0)
        config.require("position_buckets", not relative or not buckets or 1 <= buckets // 2 < farthest - 1,
                       f"above 1 and below 2 (max_relative_positions - 1) = {2 * (farthest - 1)}")
        legacy, embedding = bool(config.get("legacy", True)), config.get("embedding_size") or hidden
        config.require("embedding_size", legacy or cls.classes[architecture] is not Head.MASKED or embedding == hidden,
                       f"hidden_size = {hidden} for a head without legacy")
        return found | {
            "positions": longest if config.get("position_biased_input", True) else 0, "longest": longest,
            "embedding": embedding, "terms": tuple(t for t in (KEYS, QUERIES) if t in terms),
            "span": (buckets or farthest) if relative else 0, "buckets": buckets, "farthest": farthest,
            "shared": bool(config.get("share_att_key", False)),
            "normed": "layer_norm" in [x.strip() for x in str(config.get("norm_rel_ebd", "none")).lower().split("|")],
            "legacy": legacy, "head_act": config.named("pooler_hidden_act", POOLED),
        }

    # ---- tensors -----------------------------------------------------------------------------------------------------

    @property
    def embedded(self) -> int:
        return self.spec.embedding

    def embedding_layout(self) -> dict[str, Tensor]:
        spec = self.spec
        projection = {"embedding.projection.weight": matrix("embeddings.embed_proj.weight", spec.embedding,
                                                            spec.hidden)}
        return (projection if spec.embedding != spec.hidden else {}) | norm_layout(
            "embedding.layernorm", self.names.norm, spec.hidden)

    def layer_layout(self, here: str, there: str) -> dict[str, Tensor]:
        return super().layer_layout(here, there) | {
            f"{here}.positions.{term}": self.projected(there, term) for term in self.position_terms}

    def projected(self, there: str, term: str) -> Tensor:
        """The positions' keys, or their queries, of the layer that the checkpoint keeps under `there`."""
        spec, c = self.spec, self.spec.hidden
        own, factor = (self.names.key, 1.0) if term == KEYS else (self.names.query, self.scale)
        if not spec.shared:
            own = f"attention.self.pos_{'key' if term == KEYS else 'query'}_proj"
        parts = [Part(("encoder.rel_embeddings.weight",), (2 * spec.span, c)),
                 Part((f"{there}.{own}.weight",), (c, c), True), Part((f"{there}.{own}.bias",), (c,))]
        if spec.normed:
            parts += [Part((f"encoder.LayerNorm.{kind}",), (c,)) for kind in ("weight", "bias")]
        first, last = self.reached(spec.longest)
        formula = Positions(spec.heads, c // spec.heads, first, last, factor, spec.eps if spec.normed else None)
        return Tensor(tuple(parts), standing=True, formula=formula)

    @property
    def position_terms(self) -> tuple[str, ...]:
        """Which terms of KEYS and QUERIES scores really have."""
        return self.spec.terms if self.spec.span else ()

    @property
    def scale(self) -> float:
        return 1.0 / math.sqrt(self.spec.hidden // self.spec.heads * (1 + len(self.spec.terms)))

    def rows(self, distance: np.ndarray) -> np.ndarray:
        """The row of the position table for each distance, the key's place minus the query's."""
        return table_rows(distance, self.spec.span, self.spec.buckets, self.spec.farthest)

    def reached(self, tokens: int) -> tuple[int, int]:
        """The first and the last row that texts of so many tokens reach."""
        last, first = self.rows(np.array([1 - tokens, tokens - 1])).tolist()
        return first, last

    @property
    def text_head(self) -> TextHead:  # type: ignore[override]
        return TextHead("classifier", "pooler.dense", self.spec.head_act)

    def word_layout(self) -> dict[str, Tensor]:
        if self.spec.legacy:
            return super().word_layout()
        c, words = self.spec.hidden, self.spec.vocab
        return {**linear_layout("head.transform", f"{NEW_HEAD}.dense", c, c),
                **norm_layout("head.layernorm", f"{NEW_HEAD}.LayerNorm", c),
                "head.weight": matrix(self.names.words, c, words), "head.bias": vector(f"{NEW_HEAD}.bias", words)}

    # ---- the program -------------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> TokenInputs:
        return TokenInputs(self.spec.vocab, self.spec.types, self.spec.longest, self.embedded)

    def enter(self, s: Session, x: Share, f: Forward) -> Share:
        """The projection if there is one, LayerNorm, and 0 at tokens that nothing attends to."""
        if self.spec.embedding != self.spec.hidden:
            with s.scope("linear"):
                magnitude = norming(s, f, "embedding.layernorm")
                x = linear(s, x, f, "embedding.projection", bias=False, magnitude=magnitude)
        x = layernorm(s, x, f, "embedding.layernorm", self.spec.eps)
        real = f.batch.mask[f.batch.present][f.batch.like]  # (N,); fillers as their text's first token
        return x if real.all() else x * real.astype(np.int64)[:, None]

    def scores(self, s: Session, q: Share, k: Share, f: Forward, at: Site, weights: str) -> Share:
        if not self.position_terms:
            return super().scores(s, q, k, f, at, weights)
        batch = f.batch
        base, (first, last) = self.reached(self.spec.longest)[0], self.reached(batch.longest)

        def table(term: str) -> Weight | None:
            if term not in self.position_terms:
                return None
            return f.parameters.matrix(f"{weights}.positions.{term}").columns(first - base, last + 1 - base)

        return disentangled_scores(s, q, k, table(KEYS), table(QUERIES), index_of(batch.steps, self.rows) - first,
                                   batch.unpacking.reshape(batch.size, batch.longest),
                                   magnitude=attending(s, f, at))

    def context(self, s: Session, scores: Share, v: Share, f: Forward, at: Site) -> Share:
        found, batch = super().context(s, scores, v, f, at), f.batch
        # (B, T); fillers as their text's first token
        idle = batch.present & ~np.take_along_axis(batch.mask, batch.steps, axis=1)
        if not idle.any():
            return found
        every = (v * batch.own.astype(np.int64)[:, None, :, None]).sum(2, keepdims=True)  # (B, H, 1, D)
        longest = min(v.magnitude + bits(batch.longest), v.width - v.frac - 2)
        (every,) = s.lift(every.promise(longest))  # values are as wide as a product, and 1 / T has many bits
        parts = np.rint(2.0**SHARP / batch.own_lengths).astype(np.int64)[:, None, None, None]
        mean = (every * parts * 2.0**-SHARP).promise(found.magnitude)
        idle = idle[:, None, :, None]
        mixed: Share = found * (~idle).astype(np.int64) + mean * idle.astype(np.int64)
        return mixed if found.interval is None else mixed.expecting(found.interval)
