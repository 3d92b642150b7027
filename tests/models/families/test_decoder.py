"""What decoders share: one that is not a Llama runs on the same base; both ways of looking words up; costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from decoders_lab import saved
from families_lab import matches, tokens
from price_lab import price

from secformer.models.data.batch import Batch, Row
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors
from secformer.models.data.tensors import TABLE, Tensor, linear_layout, norm_layout, vector
from secformer.models.families.attending import Attending
from secformer.models.families.blocks import Forward, layernorm, linear
from secformer.models.families.config import Config
from secformer.models.families.decoder import Decoder, DecoderSpec
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.families.llama import Llama, LlamaSpec
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert
from secformer.mpc.errors import RangeError
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL

C = 128
AT: Site = {"input": Range(-12.0, 12.0), "gate": Range(-8.0, 8.0), "gain": Range(2.0, 2.0), "score": Range(-14.0, 14.0),
            "mean_square": Range(0.3, 6.0), "value": Range(-8.0, 8.0), "spread": Range(-28.0, 0.0),
            "exp_sum": Range(1.0, 150.0), "log_mean": Range(0.0, 2.0)}


def llama(layers: int, *, groups: int = 2, window: int = 0) -> Llama:
    return Llama(LlamaSpec(
        architecture="LlamaModel", vocab=50, hidden=C, layers=layers, heads=2, groups=groups, size=64, longest=2000,
        intermediate=2 * C, eps=1e-5, tied=True, act="silu", theta=1e4, windows=(window,) * layers, qkv_bias=False,
        output_bias=False, mlp_bias=False, head_norm=False))


def test_shared_keys_and_windows_cost_less() -> None:
    one, two = price(llama(1), AT, 512), price(llama(2), AT, 512)
    assert (two - one)[0] <= 20, "rounds of a layer"
    assert (price(llama(2), AT, 16) - price(llama(1), AT, 16))[0] <= 16, "and of one that few tokens go through"
    shared = price(llama(2, groups=1), AT, 512) - price(llama(1, groups=1), AT, 512)
    near = price(llama(2, window=64), AT, 512) - price(llama(1, window=64), AT, 512)
    assert shared[1] < (two - one)[1] and shared[0] <= (two - one)[0]
    assert near[1] < 0.75 * (two - one)[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("embedding", ["private", "client"])
def test_both_ways_of_looking_words_up(embedding: str, tmp_path: Path) -> None:
    folder, given = saved(tmp_path, "LlamaForCausalLM", tie_word_embeddings=True), tokens(longest=9)
    plain = plain_bert(folder, given).logits
    with SecureModel.from_pretrained(folder, backend="numpy", embedding=embedding) as model:
        found = model(given).logits
    assert plain is not None and found is not None
    np.testing.assert_allclose(found, plain, rtol=0.0, atol=1e-3 * np.abs(plain).max())


@pytest.mark.filterwarnings("ignore")
def test_a_layer_that_adds_more_than_the_sessions_magnitude(tmp_path: Path) -> None:
    """The sum is lifted, once, before it takes what narrow words would not hold."""
    from safetensors.numpy import load_file, save_file

    name, channel = "LlamaModel", 4
    folder, given = saved(tmp_path, name, num_hidden_layers=3), tokens(longest=9)
    found = load_file(folder / "model.safetensors")
    found["layers.1.mlp.down_proj.weight"][channel] *= 25e3
    for key in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.gate_proj"):
        found[f"layers.2.{key}.weight"][:, channel] /= 25e3
    save_file(found, folder / "model.safetensors", {"format": "pt"})
    profile = measure(ModelFolder(folder), given)
    assert profile.sites["layer.1.mlp.norm"]["input"].reach < 2.0**10
    assert 2.0**14 < profile.sites["layer.2.attention.norm"]["input"].reach < 2.0**19
    matches(folder, name, given, single=True, profile=profile)


@pytest.mark.parametrize("position", [0, 300])
def test_values_that_words_do_not_hold(position: int) -> None:
    """The message says what helps: a public prefix, where there is none."""
    own, length = llama(1), 5
    own = own.behind((1,)) if position else own
    tensors, nothing = GhostTensors(own.layout(None)), np.zeros(length, np.int64)
    huge = AT | {"input": Range(-1e6, 1e6), "mean_square": Range(1.0, 1e9)}

    def program(s: PlanRecorder) -> None:
        forward = Forward(Batch((Row(nothing, nothing, nothing + 1),)), load_weights(s, tensors), FAITHFUL,
                          lambda site: huge if site == "layer.0.mlp.norm" else AT)
        own.hidden(s, s.accept(ghost((length, C))), forward, Nowhere(*range(position, position + length)))

    message = r"layer\.0: mlp\.norm: .*RMSNorm's input reaches 1e\+06; words .* too coarse"
    with pytest.raises(RangeError, match=message) as e:
        PlanRecorder().record(program)
    assert ("values at position 0 that words cannot hold without a public prefix" in str(e.value)) == (position == 0)


class Learned(Decoder):
    """A decoder as GPT-2 is one: learned positions, LayerNorm, a feed-forward layer without a gate; H = 1."""

    model_type, spec_type, words = "learned", DecoderSpec, "wte.weight"
    classes: ClassVar = {"LearnedModel": Head.ENCODER, "LearnedLMHeadModel": Head.CAUSAL}

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        raise NotImplementedError

    def position_layout(self) -> dict[str, Tensor]:
        return {"positions": vector("wpe.weight", self.spec.longest * self.spec.hidden)}

    def layer_layout(self, i: int) -> dict[str, Tensor]:
        c, here = self.spec.hidden, f"layer.{i}"
        return {**norm_layout(f"{here}.attention.norm", "a", c), **linear_layout(f"{here}.qkv", "b", c, 3 * c),
                **norm_layout(f"{here}.mlp.norm", "c", c), **linear_layout(f"{here}.mlp", "d", c, c)}

    def final_layout(self) -> dict[str, Tensor]:
        return norm_layout("final.norm", "e", self.spec.hidden)

    def placed(self, s: Session, x: Share, f: Forward, attending: Attending) -> Share:
        table = f.parameters.vector("positions").reshape(self.spec.longest, self.spec.hidden)
        return x + table[attending.positions]

    def normed(self, s: Session, x: Share, f: Forward, site: str) -> Share:
        return layernorm(s, x, f, site, self.spec.eps)

    def attended(self, s: Session, x: Share, f: Forward, i: int, attending: Attending) -> Share:
        qkv = linear(s, x, f, f"layer.{i}.qkv").reshape(len(x), 3, self.spec.hidden)
        return attending(s, *(qkv[:, j : j + 1] for j in range(3)), f, {}, i, None)

    def fed(self, s: Session, x: Share, f: Forward, i: int) -> Share:
        return linear(s, x, f, f"layer.{i}.mlp")

    @property
    def layer_sites(self) -> tuple[str, ...]:
        return "attention.norm", "softmax", "mlp.norm"


class Nowhere:
    """Tokens that meet themselves alone, at positions of their own."""

    def __init__(self, *positions: int):
        self.positions = np.array(positions)

    def __call__(self, s: Session, q: Share, k: Share, v: Share, *others: Any) -> Share:
        return v.reshape(len(v), v.shape[1] * v.shape[2])


def test_learned_positions_come_from_the_attending() -> None:
    spec = DecoderSpec(architecture="LearnedLMHeadModel", vocab=9, hidden=6, layers=1, heads=1, groups=1, size=6,
                       intermediate=6, longest=400, eps=1e-5, tied=True, act="gelu_new")
    own, s, rng = Learned(spec), PlainSession(), np.random.default_rng(0)
    assert own.results == {"last_hidden_state": True, "logits": True} and own.sites[-1] == "final.norm"
    assert list(own.tables()) == [TABLE] and next(iter(own.weights())) == "positions"
    values = {name: rng.normal(size=tensor.shape) for name, tensor in own.weights().items()}
    parameters = load_weights(s, type("Drawn", (), {"layout": own.weights(), "get": lambda _, name: values[name]})())
    few = np.zeros(1, np.int64)
    forward = Forward(Batch((Row(few, few, few + 1),)), parameters, EXACT, lambda site: {})
    table = values["positions"].reshape(400, 6)
    x = rng.normal(size=(1, 6))
    placed = own.placed(s, s.accept(x), forward, Nowhere(300))
    np.testing.assert_allclose(s.values(placed), x + table[300])
    there, elsewhere = (s.values(own.logits(s, own.hidden(s, s.accept(x), forward, Nowhere(p)), forward))
                        for p in (300, 3))
    assert there.shape == (1, 9) and np.abs(there - elsewhere).max() > 1e-3


def causal(**facts: Any) -> Llama:
    own = llama(2)
    spec = replace(own.spec, architecture="LlamaForCausalLM", **facts)
    return Llama(spec)


def test_a_tied_head_is_the_shared_table() -> None:
    """Only where the table is shared, and then in whole words; a head of its own stays."""
    tied, own = causal(), causal(tied=False)
    assert "head.weight" not in tied.layout(32) and tied.layout(32)[TABLE].width == WORD_BITS
    assert "head.weight" in tied.layout(None) and TABLE not in tied.layout(None)
    assert "head.weight" in own.layout(32) and own.layout(32)[TABLE].width == 32


def test_a_decoder_behind_a_prefix() -> None:
    """Keys and values are tensors, by layer; texts have fewer tokens."""
    known = causal().behind([5, 6, 7])
    assert known.spec.prefix == (5, 6, 7) and causal().spec.prefix == () and not causal().prefix_layout()
    layout = known.prefix_layout()
    assert list(layout) == ["prefix.0.keys", "prefix.0.values", "prefix.1.keys", "prefix.1.values"]
    assert {tensor.shape for tensor in layout.values()} == {(3, 128)} and layout.keys() <= known.weights().keys()
    assert (known.inputs.longest, known.inputs.context, known.inputs.before) == (1997, 2000, (5, 6, 7))
