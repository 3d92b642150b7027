"""GPT-2 (Radford et al., 2019) and DistilGPT2: learned positions, LayerNorms with biases, one layer for queries, keys
and values, a feed-forward layer without a gate, and a head that is the word table.

Checkpoints store linear layers (in, out), as the program has them.

N tokens, packed without padding, C hidden, I intermediate, H heads, D = C / H, P positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from secformer.models.data.tensors import Part, Tensor, norm_layout, vector
from secformer.models.families.activations import NAMES, activating, activation
from secformer.models.families.attending import Attending
from secformer.models.families.blocks import Forward, layernorm, linear, projecting
from secformer.models.families.certain import Values, before_halves
from secformer.models.families.config import Config
from secformer.models.families.decoder import Decoder, DecoderSpec
from secformer.models.families.heads import Head
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import is_declared
from secformer.protocols.recipes import Recipe

POSITIONS = "positions"  # the program's name of the table of positions


@dataclass(frozen=True, kw_only=True)
class GPT2Spec(DecoderSpec):
    """The public facts of a GPT-2's checkpoint.

    scales  what scores are multiplied with, layer by layer
    """

    scales: tuple[float, ...]


class GPT2(Decoder):
    """A GPT-2, with the head that tells the next token."""

    model_type = "gpt2"
    classes: ClassVar[Mapping[str, Head]] = MappingProxyType({"GPT2Model": Head.ENCODER,
                                                              "GPT2LMHeadModel": Head.CAUSAL})
    spec_type: ClassVar = GPT2Spec
    prefix = "transformer."
    words = "wte.weight"

    spec: GPT2Spec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        hidden, heads, layers = (config.size(key) for key in ("n_embd", "n_head", "n_layer"))
        config.require("n_embd", hidden % heads == 0, f"a multiple of n_head = {heads}")
        config.require("add_cross_attention", not config.get("add_cross_attention"), "false: there is no encoder")
        scale = 1.0 / math.sqrt(hidden // heads) if config.get("scale_attn_weights") else 1.0
        deeper = bool(config.get("scale_attn_by_inverse_layer_idx"))
        # reorder_and_upcast_attn is about the order of the same float operations, so it changes nothing here
        return {
            "architecture": architecture, "vocab": config.size("vocab_size"), "hidden": hidden, "layers": layers,
            "heads": heads, "groups": heads, "size": hidden // heads,
            "intermediate": 4 * hidden if config.get("n_inner") is None else config.size("n_inner"),
            "longest": config.size("n_positions"), "eps": float(config.get("layer_norm_epsilon")),
            "tied": bool(config.get("tie_word_embeddings")), "act": config.named("activation_function", NAMES),
            "scales": tuple(scale / (i + 1 if deeper else 1) for i in range(layers)),
        }

    @property
    def buffers(self) -> tuple[str, ...]:  # type: ignore[override]  # their names tell layers apart
        return tuple(f"h.{i}.attn.{name}" for i in range(self.spec.layers) for name in ("bias", "masked_bias"))

    # ---- tensors -----------------------------------------------------------------------------------------------------

    def position_layout(self) -> dict[str, Tensor]:
        return {POSITIONS: Tensor((Part(("wpe.weight",), (self.spec.longest, self.spec.hidden)),))}

    def layer_layout(self, i: int) -> dict[str, Tensor]:
        spec, here, there = self.spec, f"layer.{i}", f"h.{i}"
        c, inner = spec.hidden, spec.intermediate
        return {
            **norm_layout(f"{here}.attention.norm", f"{there}.ln_1", c),
            **_columns(f"{here}.qkv", f"{there}.attn.c_attn", c, (spec.scales[i], 1.0, 1.0)),
            **_stored(f"{here}.attention", f"{there}.attn.c_proj", c, c),
            **norm_layout(f"{here}.mlp.norm", f"{there}.ln_2", c),
            **_stored(f"{here}.intermediate", f"{there}.mlp.c_fc", c, inner),
            **_stored(f"{here}.output", f"{there}.mlp.c_proj", inner, c),
        }

    def final_layout(self) -> dict[str, Tensor]:
        return norm_layout("final.norm", "ln_f", self.spec.hidden)

    # ---- the program -------------------------------------------------------------------------------------------------

    def placed(self, s: Session, x: Share, f: Forward, attending: Attending) -> Share:
        """Words are secret, positions are public."""
        return x + f.parameters.vector(POSITIONS)[attending.positions]

    def normed(self, s: Session, x: Share, f: Forward, site: str) -> Share:
        return layernorm(s, x, f, site, self.spec.eps)

    def attended(self, s: Session, x: Share, f: Forward, i: int, attending: Attending) -> Share:
        here, heads = f"layer.{i}", (x.shape[0], self.spec.heads, self.spec.size)
        x = self.norm(s, x, f, f"{here}.attention.norm")
        with s.scope("linear"):
            qkv = linear(s, x, f, f"{here}.qkv", magnitude=projecting(s, f.at(f"{here}.softmax")))
            (qkv,) = s.settle(qkv)  # (N, 3C): one truncation for its three uses
        q, k, v = (qkv[:, j * self.spec.hidden : (j + 1) * self.spec.hidden].reshape(*heads) for j in range(3))
        context = attending(s, q, k, v, f, f.at(f"{here}.softmax"), i, None)
        with s.scope("linear"):
            return linear(s, context, f, f"{here}.attention")

    def fed(self, s: Session, x: Share, f: Forward, i: int) -> Share:
        """W' act(W norm(x))."""
        here = f"layer.{i}"
        x = self.norm(s, x, f, f"{here}.mlp.norm")
        with s.scope("linear"):
            inner = linear(s, x, f, f"{here}.intermediate", magnitude=activating(s, f, here, self.spec.act))
        inner = activation(s, inner, f, here, self.spec.act)
        with s.scope("linear"):
            return linear(s, inner, f, f"{here}.output")

    @property
    def layer_sites(self) -> tuple[str, ...]:
        return "attention.norm", "softmax", "mlp.norm", self.spec.act

    def certain(self, values: Values, recipe: Recipe) -> Mapping[str, float]:
        layers = [(f"layer.{i}", f"layer.{i}.attention.norm", f"layer.{i}.mlp.norm") for i in range(self.spec.layers)]
        return before_halves(values, self.weights(), layers, self.spec.act) if is_declared(recipe.layernorm) else {}


def _stored(here: str, there: str, inner: int, outer: int) -> dict[str, Tensor]:
    """Weight and bias of a linear layer that is stored (inner, outer)."""
    return {f"{here}.weight": Tensor((Part((f"{there}.weight",), (inner, outer)),), standing=True),
            f"{here}.bias": vector(f"{there}.bias", outer)}


def _columns(here: str, there: str, size: int, factors: tuple[float, ...]) -> dict[str, Tensor]:
    """Weight and bias of a linear layer that joins several square ones side by side, each times its factor."""
    outer, ends = size * len(factors), [(j * size, (j + 1) * size) for j in range(len(factors))]
    each = list(zip(ends, factors, strict=True))
    weights = tuple(Part((f"{there}.weight",), (size, outer), factor=factor, columns=at) for at, factor in each)
    biases = tuple(Part((f"{there}.bias",), (outer,), factor=factor, rows=at) for at, factor in each)
    return {f"{here}.weight": Tensor(weights, standing=True), f"{here}.bias": Tensor(biases)}
