"""ModernBERT (Warner et al., arXiv:2412.13663): rotary positions, LayerNorm before each half of a layer, GeGLU, and
local attention in all but every third layer.

B texts, N tokens of all texts packed without padding, C hidden, L labels, V words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from secformer.models.data.tensors import Part, Tensor, linear_layout, matrix, norm_layout, rows_layout, vector
from secformer.models.families.activations import NAMES, activating, activation
from secformer.models.families.blocks import Forward, layernorm, linear
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import Names, classes
from secformer.models.families.heads import Head
from secformer.models.families.pooling import summed
from secformer.models.families.rotary import RotaryEncoder, RotarySpec, theta_of
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.glu import GLU
from secformer.protocols.rope import ROPE

LOCAL: Mapping[str, bool] = MappingProxyType({"sliding_attention": True, "full_attention": False})


@dataclass(frozen=True, kw_only=True)
class ModernBertSpec(RotarySpec):
    """The public facts of a ModernBERT checkpoint.

    local     for each layer, whether it attends to tokens within reach alone
    reach     how many tokens away a key may be in such a layer
    thetas    bases of rotary angles, in other layers and in such
    norm_bias, attention_bias, mlp_bias, head_bias, decoder_bias  which layers have biases
    pooling   what classifiers read of a text: "cls", its first token, or "mean"
    head_act  the activation of heads, a value of `activations.NAMES`
    """

    local: tuple[bool, ...]
    reach: int
    thetas: tuple[float, float]
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    head_bias: bool
    decoder_bias: bool
    pooling: str
    head_act: str


class ModernBert(RotaryEncoder):
    """A ModernBERT encoder, with the heads that Hugging Face has for it."""

    model_type = "modernbert"
    classes = classes("ModernBert")
    spec_type: ClassVar = ModernBertSpec
    prefix = "model."
    names = Names(words="embeddings.tok_embeddings.weight", norm="embeddings.norm", layer="layers.{}", pooler=None)

    spec: ModernBertSpec

    @classmethod
    def act_key(cls) -> str:
        return "hidden_activation"

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        found = super().facts_of(config, architecture)
        kinds, rope = list(config.get("layer_types") or ()), config.get("rope_parameters") or {}
        known = " or ".join(map(repr, LOCAL))
        config.require("layer_types", len(kinds) == found["layers"] and set(kinds) <= LOCAL.keys(),
                       f"{known}, for each of the {found['layers']} layers", kinds)
        theta = {kind: theta_of(config, f"rope_parameters.{kind}", rope.get(kind)) for kind in set(kinds)}
        pooling = config.get("classifier_pooling")
        config.require("classifier_pooling", pooling in ("cls", "mean"), "'cls' or 'mean'")
        biases = {key: bool(config.get(key)) for key in ("norm_bias", "attention_bias", "mlp_bias", "decoder_bias")}
        return found | biases | {
            "eps": float(config.get("norm_eps")), "local": tuple(LOCAL[kind] for kind in kinds),
            "reach": config.size("local_attention") // 2, "pooling": pooling,
            "thetas": tuple(theta.get(kind, 0.0) for kind in ("full_attention", "sliding_attention")),
            "head_bias": bool(config.get("classifier_bias")), "head_act": config.named("classifier_activation", NAMES),
        }

    # ---- tensors -----------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        norm = norm_layout("final.layernorm", "final_norm", self.spec.hidden, bias=self.spec.norm_bias)
        head = self.head_layout()
        return {name: tensor for name, tensor in super().weights().items() if name not in head} | norm | head

    def embedding_layout(self) -> dict[str, Tensor]:
        return norm_layout("embedding.layernorm", self.names.norm, self.spec.hidden, bias=self.spec.norm_bias)

    def layer_layout(self, here: str, there: str) -> dict[str, Tensor]:
        spec, c, i = self.spec, self.spec.hidden, self.spec.intermediate
        before = {} if here == "layer.0" else norm_layout(f"{here}.attention.layernorm", f"{there}.attn_norm", c,
                                                          bias=spec.norm_bias)  # the embedding's is in its place
        return {
            **before,
            **rows_layout(f"{here}.qkv", f"{there}.attn.Wqkv", c, (self.scale, 1.0, 1.0), bias=spec.attention_bias),
            **linear_layout(f"{here}.attention", f"{there}.attn.Wo", c, c, bias=spec.attention_bias),
            **norm_layout(f"{here}.mlp.layernorm", f"{there}.mlp_norm", c, bias=spec.norm_bias),
            **linear_layout(f"{here}.intermediate", f"{there}.mlp.Wi", c, 2 * i, bias=spec.mlp_bias),
            **linear_layout(f"{here}.output", f"{there}.mlp.Wo", i, c, bias=spec.mlp_bias),
        }

    def head_layout(self) -> dict[str, Tensor]:
        spec, c = self.spec, self.spec.hidden
        if self.head is Head.ENCODER:
            return {}
        found = {**linear_layout("head.transform", "head.dense", c, c, bias=spec.head_bias),
                 **norm_layout("head.layernorm", "head.norm", c, bias=spec.norm_bias)}
        if self.head is not Head.MASKED:
            return found | linear_layout("head", "classifier", c, len(spec.labels) or 2)
        names = ("decoder.weight", *((self.names.words,) if spec.tied else ()))
        decoder = replace(matrix(names[0], c, spec.vocab), parts=(Part(names, (spec.vocab, c), True),))
        return found | {"head.weight": decoder} | (
            {"head.bias": vector("decoder.bias", spec.vocab)} if spec.decoder_bias else {})

    # ---- the program -------------------------------------------------------------------------------------------------

    def encode(self, s: Session, x: Share, f: Forward) -> Share:
        with s.scope("embedding"):
            x = self.normed(s, x, f, "embedding.layernorm")
        for i in range(self.spec.layers):
            with s.scope(f"layer.{i}"):
                x = self.block(s, x, f, i)
        with s.scope("final"):
            return self.normed(s, x, f, "final.layernorm")

    def block(self, s: Session, x: Share, f: Forward, i: int) -> Share:
        """Layer i: x + attention(norm(x)), then x + gated(norm(x)). What is added up stays pending: only what
        LayerNorms take of it is ever truncated."""
        spec, here = self.spec, f"layer.{i}"
        inner = self.normed(s, x, f, f"{here}.attention.layernorm") if i else x
        x = x + self.attended(s, inner, f, here, here, theta=spec.thetas[spec.local[i]],
                              reach=spec.reach if spec.local[i] else None, bias=spec.attention_bias)
        inner = self.normed(s, x, f, f"{here}.mlp.layernorm")
        return x + self.gated(s, inner, f, here, here, bias=spec.mlp_bias)

    def normed(self, s: Session, x: Share, f: Forward, site: str) -> Share:
        return layernorm(s, x, f, site, self.spec.eps, bias=self.spec.norm_bias)

    def norms_of(self, i: int) -> tuple[str, str]:
        return (f"layer.{i}.attention.layernorm" if i else "embedding.layernorm"), f"layer.{i}.mlp.layernorm"

    def answers(self, s: Session, x: Share, f: Forward, out: Mapping[str, Share]) -> dict[str, Share]:
        if self.head is Head.ENCODER:
            return {}
        if self.head is Head.SEQUENCE:  # (B, C)
            if self.spec.pooling == "mean":
                (x,) = s.settle(x)
                x = summed(s, x, f.batch, "mean", f.batch.mask)
            else:
                x = x[f.batch.starts]
        magnitude = activating(s, f, "head", self.spec.head_act)
        x = linear(s, x, f, "head.transform", bias=self.spec.head_bias, magnitude=magnitude)
        x = activation(s, x, f, "head", self.spec.head_act)
        x = self.normed(s, x, f, "head.layernorm")
        return {"logits": linear(s, x, f, "head", bias=self.head is not Head.MASKED or self.spec.decoder_bias)}

    @property
    def sites(self) -> tuple[str, ...]:
        norms = [("attention.layernorm",) if i else () for i in range(self.spec.layers)]
        layers = (f"layer.{i}.{name}" for i, norm in enumerate(norms)
                  for name in (*norm, ROPE.name, "softmax", "mlp.layernorm", self.spec.act, GLU.name))
        head = () if self.head is Head.ENCODER else (f"head.{self.spec.head_act}", "head.layernorm")
        return ("embedding.layernorm", *layers, "final.layernorm", *head)
