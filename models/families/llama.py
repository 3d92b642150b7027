"""Llama (Touvron et al., arXiv:2302.13971) and its relatives: RMSNorm, rotary positions, heads that share keys, SwiGLU.

SmolLM is a Llama. Mistral, Qwen2 and Qwen3 differ in biases, in norms of queries and keys, and in how far back a token
looks.

The gains of a layer's two norms are in the weights behind these: the owner multiplies them in (`RMSNORM_LINEAR`).

N tokens, packed without padding, C hidden, I intermediate, H heads of queries, G heads of keys, D entries of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from secformer.models.data.tensors import Gained, Part, Tensor, linear_layout, vector
from secformer.models.families.activations import NAMES, activating, activation
from secformer.models.families.attending import Attending
from secformer.models.families.blocks import Forward, entering, linear, projecting
from secformer.models.families.certain import Values, gated
from secformer.models.families.config import Config
from secformer.models.families.decoder import Decoder, DecoderSpec
from secformer.models.families.heads import Head
from secformer.models.families.rotary import theta_of
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.glu import GLU
from secformer.protocols.quantities import GATE, opened
from secformer.protocols.recipes import Recipe
from secformer.protocols.rmsnorm import RMSNORM
from secformer.protocols.rmsnorm_linear import FINER, RMSNORM_LINEAR
from secformer.protocols.rope import ROPE, Turning, all_rotations

# the entries that each kind of rotary positions has beside its base
STRETCHES: Mapping[Any, tuple[str, ...]] = MappingProxyType({
    None: (), "default": (), "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
})


KEYS_LESS = 2.0  # what keys are divided by and queries multiplied with: scores stay, and both often fit shorter words


@dataclass(frozen=True, kw_only=True)
class LlamaSpec(DecoderSpec):
    """The public facts of a checkpoint of the Llama family.

    theta     the base of rotary angles
    stretch   how angles are stretched for long texts: (), (factor,), or (factor, low, high, original), as `Turning` has
              them
    windows   for each layer, how many tokens a token meets, itself included; 0: all before it
    qkv_bias, output_bias, mlp_bias  which linear layers have biases
    head_norm queries and keys go through an RMSNorm, head by head
    """

    theta: float
    windows: tuple[int, ...]
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    head_norm: bool
    stretch: tuple[float, ...] = ()

    @property
    def turning(self) -> Turning:
        """How fast queries and keys turn."""
        factor, *band = self.stretch or (1.0,)
        return Turning(self.theta, factor, (band[0], band[1], band[2]) if band else None)


def decoder_classes(stem: str) -> Mapping[str, Head]:
    """Hugging Face's classes of a decoder that are run here."""
    return MappingProxyType({f"{stem}Model": Head.ENCODER, f"{stem}ForCausalLM": Head.CAUSAL})


class Llama(Decoder):
    """A Llama, with the head that tells the next token."""

    model_type = "llama"
    classes = decoder_classes("Llama")
    spec_type: ClassVar = LlamaSpec
    prefix = "model."
    buffers = ("rotary_emb.inv_freq",)
    words = "embed_tokens.weight"

    spec: LlamaSpec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        hidden, heads, layers = (config.size(key) for key in ("hidden_size", "num_attention_heads",
                                                              "num_hidden_layers"))
        groups = heads if config.get("num_key_value_heads") is None else config.size("num_key_value_heads")
        config.require("num_attention_heads", heads % groups == 0, f"a multiple of num_key_value_heads = {groups}")
        if config.get("head_dim") is None:
            config.require("hidden_size", hidden % heads == 0, f"a multiple of num_attention_heads = {heads}")
        size = hidden // heads if config.get("head_dim") is None else config.size("head_dim")
        config.require("head_dim", size % 2 == 0, "even, for rotary positions", size)
        return {
            "architecture": architecture, "vocab": config.size("vocab_size"), "hidden": hidden, "layers": layers,
            "heads": heads, "groups": groups, "size": size, "intermediate": config.size("intermediate_size"),
            "longest": config.size("max_position_embeddings"), "eps": float(config.get("rms_norm_eps")),
            "tied": bool(config.get("tie_word_embeddings")), "act": config.named("hidden_act", NAMES),
            **_rope(config),
            "windows": cls.windows_of(config, layers),
            **dict.fromkeys(("qkv_bias", "output_bias"), bool(config.get("attention_bias"))),
            "mlp_bias": bool(config.get("mlp_bias")), "head_norm": False,
        }

    @classmethod
    def windows_of(cls, config: Config, layers: int) -> tuple[int, ...]:
        """How many tokens a token meets, by layer; 0: all before it."""
        return (0,) * layers

    # ---- tensors -----------------------------------------------------------------------------------------------------

    def layer_layout(self, i: int) -> dict[str, Tensor]:
        spec, here, there = self.spec, f"layer.{i}", f"layers.{i}"
        c, inner, q, k = spec.hidden, spec.intermediate, spec.heads * spec.size, spec.groups * spec.size
        scale = 1.0 if spec.head_norm else KEYS_LESS / math.sqrt(spec.size)
        keys = 1.0 if spec.head_norm else 1.0 / KEYS_LESS
        rows = [(f"{there}.self_attn.{name}_proj", size, factor)
                for name, size, factor in (("q", q, scale), ("k", k, keys), ("v", k, 1.0))]
        both = [(f"{there}.mlp.{name}_proj", inner, 1.0) for name in ("gate", "up")]
        return {
            **_joined(f"{here}.qkv", f"{there}.input_layernorm", rows, c, bias=spec.qkv_bias),
            **(self._head_norm(here, there) if spec.head_norm else {}),
            **linear_layout(f"{here}.attention", f"{there}.self_attn.o_proj", q, c, bias=spec.output_bias),
            **_joined(f"{here}.intermediate", f"{there}.post_attention_layernorm", both, c, bias=spec.mlp_bias),
            **linear_layout(f"{here}.output", f"{there}.mlp.down_proj", inner, c, bias=spec.mlp_bias),
        }

    def _head_norm(self, here: str, there: str) -> dict[str, Tensor]:
        """Gains of all heads of queries, then of keys: ((H + G) D,). Those of queries have the scale of scores."""
        query, key = (Part((f"{there}.self_attn.{name}_norm.weight",), (self.spec.size,), factor=factor)
                      for name, factor in (("q", 1.0 / math.sqrt(self.spec.size)), ("k", 1.0)))
        return {f"{here}.heads.norm.weight": Tensor((query,) * self.spec.heads + (key,) * self.spec.groups)}

    def final_layout(self) -> dict[str, Tensor]:
        return {"final.norm.weight": vector("norm.weight", self.spec.hidden)}

    # ---- the program -------------------------------------------------------------------------------------------------

    def numbers(self, frac: int) -> Iterator[np.ndarray]:
        yield from super().numbers(frac)
        yield from all_rotations(self.spec.longest, self.spec.size, self.spec.turning, frac)

    def normed(self, s: Session, x: Share, f: Forward, site: str) -> Share:
        with s.scope("layernorm"):
            return f.recipe.of(RMSNORM)(s, x, f.parameters.vector(f"{site}.weight"), self.spec.eps, f.at(site))

    def attended(self, s: Session, x: Share, f: Forward, i: int, attending: Attending) -> Share:
        here, window = f"layer.{i}", self.spec.windows[i]
        q, k, v = self.projected(s, x, f, here, attending)
        context = attending(s, q, k, v, f, f.at(f"{here}.softmax"), i, window - 1 if window else None)
        with s.scope("linear"):
            magnitude = self.norming(s, f, self.norms_after(i)[0])
            return linear(s, context, f, f"{here}.attention", bias=self.spec.output_bias, magnitude=magnitude)

    def projected(self, s: Session, x: Share, f: Forward, here: str,
                  attending: Attending) -> tuple[Share, Share, Share]:
        """Queries (N, H, D), keys and values (N, G, D) of the norm of x (N, C), queries and keys turned by their
        positions. All are settled together, in whole words; what turns has a truncation pending then."""
        spec, tokens = self.spec, x.shape[0]
        turning, both = spec.heads + spec.groups, f"{here}.heads.norm"
        qkv = self.behind_norm(s, x, f, f"{here}.attention.norm", f"{here}.qkv", lambda: self.projecting(s, f, here),
                               bias=spec.qkv_bias)
        with s.scope("linear"):
            (qkv,) = s.settle(qkv)
        qkv = qkv.reshape(tokens, turning + spec.groups, spec.size)
        qk, v = qkv[:, :turning], qkv[:, turning:]
        if spec.head_norm:
            gains = f.parameters.vector(f"{both}.weight").reshape(turning, spec.size)
            with s.scope("layernorm"):
                qk = f.recipe.of(RMSNORM)(s, qk, gains, spec.eps, f.at(both))
        with s.scope("linear"):
            qk = f.recipe.of(ROPE)(s, qk, attending.positions, spec.turning, f.at(f"{here}.{ROPE.name}"))
        return qk[:, : spec.heads], qk[:, spec.heads :], v

    def behind_norm(self, s: Session, x: Share, f: Forward, site: str, name: str, bound: Callable[[], int], *,
                    bias: bool) -> Share:
        """The linear layer of that name, of the norm of that site of x (N, C). `bound` gives the magnitude of the
        product and of its sum with the bias, from sites that come after this one."""
        f.at(site)
        magnitude = bound()
        with self.at_norm(site), s.scope("layernorm"):
            y = f.recipe.of(RMSNORM_LINEAR)(s, x, f.parameters.matrix(f"{name}.weight"), self.spec.eps, magnitude,
                                            f.at(site))
        return (y + f.parameters.vector(f"{name}.bias")).promise(y.magnitude) if bias else y

    def projecting(self, s: Session, f: Forward, here: str) -> int:
        """The magnitude of queries, keys and values."""
        return projecting(s, f.at(f"{here}.softmax"))

    def fed(self, s: Session, x: Share, f: Forward, i: int) -> Share:
        """W' (act(a) * b), where a and b are the halves of W norm(x)."""
        spec, here = self.spec, f"layer.{i}"

        def bound() -> int:
            gate = activating(s, f, here, spec.act)
            at = f.at(f"{here}.{GLU.name}")
            # without its bias, the product may be larger than what both halves take
            return max(gate, entering(s, at, GATE), projecting(s, at) if spec.mlp_bias else 1)

        inner = self.behind_norm(s, x, f, f"{here}.mlp.norm", f"{here}.intermediate", bound,
                                 bias=spec.mlp_bias)  # (N, 2I)
        gate, up = inner[:, : spec.intermediate], inner[:, spec.intermediate :]
        gate = activation(s, gate, f, here, spec.act)
        with s.scope(GLU.name):
            inner = f.recipe.of(GLU)(s, gate, up, f.at(f"{here}.{GLU.name}"))
        with s.scope("linear"):
            magnitude = self.norming(s, f, self.norms_after(i)[1])
            return linear(s, inner, f, f"{here}.output", bias=spec.mlp_bias, magnitude=magnitude)

    def norming(self, s: Session, f: Forward, site: str) -> int:
        """The magnitude of what is added to the sum that the norm of that site takes (see `blocks.entering`)."""
        at, taken = f.at(site), RMSNORM if site == "final.norm" else RMSNORM_LINEAR
        return entering(s, at, least=opened(f.recipe.of(taken), s.fixed, at))

    def certain(self, values: Values, recipe: Recipe) -> Mapping[str, float]:
        layers = [(f"layer.{i}", f"layer.{i}.attention.norm", f"layer.{i}.mlp.norm") for i in range(self.spec.layers)]
        stored = self.weights()

        def own(name: str) -> np.ndarray:
            return values(name) * 2.0**-FINER if isinstance(stored[name].formula, Gained) else values(name)

        found = dict(gated(own, stored, layers, self.spec.act))
        if not self.spec.head_norm:  # what turns is what the softmax's site bounds: queries and keys
            found |= {f"{layer}.{ROPE.name}": found[f"{layer}.softmax"] for layer, _, _ in layers
                      if f"{layer}.softmax" in found}
        return found

    @property
    def reaches(self) -> frozenset[int | None]:
        return frozenset(window - 1 if window else None for window in self.spec.windows)

    @property
    def layer_sites(self) -> tuple[str, ...]:
        heads = ("heads.norm",) if self.spec.head_norm else ()
        return ("attention.norm", "softmax", *heads, ROPE.name, "mlp.norm", self.spec.act, GLU.name)


def _joined(here: str, norm: str, rows: list[tuple[str, int, float]], inner: int, *, bias: bool) -> dict[str, Tensor]:
    """Linear layers of one norm's result side by side, with its gains in them: the checkpoint's name, the outputs and
    the factor of each."""
    parts = (Part((f"{name}.weight",), (size, inner), True, factor) for name, size, factor in rows)
    gains = Part((f"{norm}.weight",), (inner,), factor=2.0**FINER)
    gained = Gained(inner, sum(size for _, size, _ in rows))
    found = {f"{here}.weight": Tensor((gains, *parts), standing=True, formula=gained)}
    return found | ({f"{here}.bias": Tensor(tuple(Part((f"{name}.bias",), (size,), False, factor)
                                                  for name, size, factor in rows))} if bias else {})


def _rope(config: Config) -> dict[str, Any]:
    """The base of rotary angles, and how they are stretched. Raises ModelError for another way of stretching."""
    found, key = config.get("rope_parameters"), "rope_parameters"
    found = found if isinstance(found, Mapping) else {}
    kind = found.get("rope_type", found.get("type"))
    names = STRETCHES.get(kind)
    listed = ", ".join(repr(name) for name in STRETCHES if name)
    config.require(f"rope_type of {key}", names is not None, f"one of {listed}", kind)
    stretch = []
    for name in names or ():
        value = found.get(name)
        positive = isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value < math.inf
        config.require(f"{name} of {key}", positive, "a positive number", value)
        stretch.append(float(value or 0.0))
    if len(stretch) > 1:
        config.require(f"high_freq_factor of {key}", stretch[1] < stretch[2], "above low_freq_factor", stretch[2])
    return {"theta": theta_of(config, key, {**found, "rope_type": "default"}), "stretch": tuple(stretch)}
