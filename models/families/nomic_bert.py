"""NomicBERT (Nussbaum et al., arXiv:2402.01613): BERT with rotary positions, SwiGLU and no biases in its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from secformer.models.data.tensors import Part, Tensor, matrix, norm_layout, rows_layout
from secformer.models.families.blocks import Forward, layernorm, norming
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import Names, classes
from secformer.models.families.heads import Head, TextHead, WordHead
from secformer.models.families.rotary import RotaryEncoder, RotarySpec, theta_of
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.glu import GLU
from secformer.protocols.rope import ROPE

# What the first configs say in words of their own, which `transformers` ignores: by key, the key that it reads instead.
FORMER: Mapping[str, str] = MappingProxyType({
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
})
# And what they may say of variants: by key, the only value that is run.
ONLY: Mapping[str, Any] = MappingProxyType({
    "activation_function": "swiglu", "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "qkv_proj_bias": False, "mlp_fc1_bias": False,
    "mlp_fc2_bias": False, "prenorm": False, "use_rms_norm": False, "parallel_block": False, "causal": False,
    "num_experts": 0, "moe_every_n_layers": 0,
})


@dataclass(frozen=True, kw_only=True)
class NomicBertSpec(RotarySpec):
    """The public facts of a NomicBERT checkpoint. theta: the base of rotary angles."""

    theta: float


class NomicBert(RotaryEncoder):
    """A NomicBERT encoder, with the heads that Hugging Face has for it."""

    model_type = "nomic_bert"
    classes: ClassVar[Mapping[str, Head]] = MappingProxyType(
        {name: head for name, head in classes("NomicBert").items() if head is not Head.QUESTION})
    spec_type = NomicBertSpec
    prefix = "nomic_bert."
    names = Names(norm="emb_ln", layer="encoder.layers.{}", attention="attn.out_proj", attention_norm="norm1",
                  output="mlp.fc2", output_norm="norm2")
    pooled = (Head.SEQUENCE,)
    text_head = TextHead("classifier")
    word_head = WordHead("cls.predictions.transform.dense", "cls.predictions.transform.layer_norm",
                         "cls.predictions.decoder", "cls.predictions.bias")

    spec: NomicBertSpec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        for key, ours in FORMER.items():
            config.require(key, config.get(key) in (None, config.get(ours)), f"{ours} = {config.get(ours)}")
        for key, only in ONLY.items():
            config.require(key, config.get(key) in (None, only), repr(only))
        theta = theta_of(config, "rope_parameters", config.get("rope_parameters"))
        former = config.get("rotary_emb_base")
        config.require("rotary_emb_base", former in (None, theta), f"rope_parameters' rope_theta = {theta:g}")
        config.size("type_vocab_size")
        return super().facts_of(config, architecture) | {"theta": theta}

    def layer_layout(self, here: str, there: str) -> dict[str, Tensor]:
        c, i, names = self.spec.hidden, self.spec.intermediate, self.names
        halves = tuple(Part((f"{there}.mlp.{name}.weight",), (i, c), True) for name in ("fc12", "fc11"))
        return {
            **rows_layout(f"{here}.qkv", f"{there}.attn.Wqkv", c, (self.scale, 1.0, 1.0), bias=False),
            f"{here}.attention.weight": matrix(f"{there}.{names.attention}.weight", c, c),
            **norm_layout(f"{here}.attention.layernorm", f"{there}.{names.attention_norm}", c),
            f"{here}.intermediate.weight": Tensor(halves, standing=True),
            f"{here}.output.weight": matrix(f"{there}.{names.output}.weight", i, c),
            **norm_layout(f"{here}.output.layernorm", f"{there}.{names.output_norm}", c),
        }

    def attention(self, s: Session, x: Share, f: Forward, site: str, weights: str) -> Share:
        norm = f"{site}.attention.layernorm"
        x = x + self.attended(s, x, f, site, weights, theta=self.spec.theta, norm=norm)
        return layernorm(s, x.promise(norming(s, f, norm)), f, norm, self.spec.eps, f"{weights}.attention.layernorm")

    def feed_forward(self, s: Session, x: Share, f: Forward, site: str, weights: str) -> Share:
        norm = f"{site}.output.layernorm"
        x = x + self.gated(s, x, f, site, weights, norm=norm)
        return layernorm(s, x.promise(norming(s, f, norm)), f, norm, self.spec.eps, f"{weights}.output.layernorm")

    def norms_of(self, i: int) -> tuple[str, str]:
        before = f"layer.{i - 1}.output.layernorm" if i else "embedding.layernorm"
        return before, f"layer.{i}.attention.layernorm"

    @property
    def layer_sites(self) -> tuple[str, ...]:
        return (ROPE.name, "softmax", "attention.layernorm", self.spec.act, GLU.name, "output.layernorm")
