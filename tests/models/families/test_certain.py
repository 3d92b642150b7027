"""Bounds that no text exceeds: they hold for every row that a LayerNorm can give, and are no larger than need be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint
from families_lab import save, tokens
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.models.families.certain import SLACK, STEPS, Normed, attended, bound, fed_forward, gated, layers
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.quantities import GATE, INPUT, MOST, VALUE
from secformer.protocols.recipes import FAITHFUL, MPCFORMER, PUMA

seeds = st.integers(0, 10**6)


def normed(rng: np.random.Generator, c: int) -> Normed:
    return Normed(rng.normal(1.0, 0.5, c), rng.normal(0.0, 0.3, c))


def rows(rng: np.random.Generator, x: Normed, count: int) -> np.ndarray:
    """Results of that LayerNorm: some rows are even, of some a single entry stands out."""
    raw = rng.normal(0.0, 1.0, (count, x.gamma.size)) * np.exp(rng.normal(0.0, 2.0, (count, x.gamma.size)))
    raw = raw - raw.mean(axis=1, keepdims=True)
    raw = raw / raw.std(axis=1, keepdims=True)
    return np.asarray(raw * x.gamma + x.beta)


@given(seeds, st.integers(2, 9), st.integers(1, 12))
def test_a_linear_layer_stays_below_its_bound_and_can_reach_it(seed: int, c: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, w, b = normed(rng, c), rng.normal(0.0, 1.0, (c, m)), rng.normal(0.0, 1.0, m)
    y, most = rows(rng, x, 50) @ w + b, x.through(w, b)
    assert (np.abs(y) <= most * (1.0 + 1e-9)).all()
    assert (np.sqrt(np.square(y - x.beta @ w - b).sum(axis=1)) <= x.total(w, 0.0 * b - x.beta @ w) + 1e-9).all()
    assert (np.abs(rows(rng, x, 50)) <= x.entries + 1e-9).all()
    worst = x.gamma * w[:, 0]
    n = np.sqrt(c) * worst / np.linalg.norm(worst) * np.copysign(1.0, x.beta @ w[:, 0] + b[0])
    assert abs((n * x.gamma + x.beta) @ w[:, 0] + b[0]) == pytest.approx(most[0])


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 6))
def test_attention_stays_below_its_bound_whatever_the_scores(seed: int, heads: int, size: int, tokens: int) -> None:
    rng, c = np.random.default_rng(seed), heads * size + (heads * size == 1)
    heads = 1 if heads * size == 1 else heads
    x = normed(rng, c)
    value, moved = rng.normal(0.0, 1.0, (c, c)), rng.normal(0.0, 1.0, c)
    w, b = rng.normal(0.0, 1.0, (c, c)), rng.normal(0.0, 1.0, c)
    most = attended(x, value, moved, w, b, heads)
    for _ in range(10):
        states = rows(rng, x, tokens)
        v = (states @ value + moved).reshape(tokens, heads, -1)
        p = rng.dirichlet(np.full(tokens, 0.2), (heads, tokens))  # (H, Q, T)
        context = np.einsum("hqt,thd->qhd", p, v).reshape(tokens, c)
        assert (np.abs(states + context @ w + b) <= most + 1e-9).all()


@given(seeds, st.integers(2, 6), st.integers(1, 9))
def test_a_feed_forward_layer_stays_below_its_bound(seed: int, c: int, i: int) -> None:
    rng = np.random.default_rng(seed)
    x, w, b = normed(rng, c), rng.normal(0.0, 1.0, (c, i)), rng.normal(0.0, 1.0, i)
    out, moved = rng.normal(0.0, 1.0, (i, c)), rng.normal(0.0, 1.0, c)
    most = fed_forward(x, x.through(w, b), x.total(w, b), out, moved)
    states = rows(rng, x, 50)
    assert (np.abs(states + gelu_exact(states @ w + b) @ out + moved) <= most + 1e-9).all()


def test_a_profile_says_little_of_a_bound() -> None:
    for value in (0.3, 1.0, 10.0, 133.0):
        found = bound(np.array([value, -1.0]))
        assert found >= SLACK * value and STEPS * np.log2(found) == pytest.approx(round(STEPS * np.log2(found)))
        assert value < 1.0 or found < 2.0 ** (1.0 / STEPS) * SLACK * value * (1.0 + 1e-9)


@examples(15)
@given(seed=seeds, scale=st.floats(0.05, 1.5))
def test_a_models_own_values_stay_below(seed: int, scale: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the twin measures, of a model of that scale; every site of a layer has a bound."""
    path = write_checkpoint(tmp_path_factory.mktemp("m"), weights=tensors(config(), seed, scale))
    sites = measure(ModelFolder(path), ["the cat sat", "dog " * 20, "film not good !"]).sites
    bounded = [site for site, ranges in sites.items() if MOST.name in ranges]
    assert bounded == [f"layer.{i}.{name}" for i in range(2)
                       for name in ("softmax", "attention.layernorm", "gelu", "output.layernorm")]
    for site in bounded:
        reached = sites[site][VALUE.name if site.endswith("softmax") else INPUT.name].reach
        assert reached <= sites[site][MOST.name].high


@given(seeds, st.integers(2, 6), st.integers(1, 5), st.booleans())
def test_gated_layers_stay_below(seed: int, c: int, i: int, biased: bool) -> None:
    """Both halves, and queries, keys and values; with biases and without any."""
    rng = np.random.default_rng(seed)
    x, y = normed(rng, c), normed(rng, c)
    if not biased:
        x, y = Normed(x.gamma, np.zeros(c)), Normed(y.gamma, np.zeros(c))
    stored = {"a.weight": x.gamma, "b.weight": y.gamma, "layer.3.qkv.weight": rng.normal(0.0, 1.0, (c, 3 * c)),
              "layer.3.intermediate.weight": rng.normal(0.0, 1.0, (c, 2 * i))}
    if biased:
        stored |= {"a.bias": x.beta, "b.bias": y.beta, "layer.3.qkv.bias": rng.normal(0.0, 1.0, 3 * c),
                   "layer.3.intermediate.bias": rng.normal(0.0, 1.0, 2 * i)}
    found = gated(stored.__getitem__, stored, [("layer.3", "a", "b")], "silu")
    assert found.keys() == {"layer.3.softmax", "layer.3.silu", "layer.3.glu"}
    for norm, name, site in ((x, "qkv", "softmax"), (y, "intermediate", "silu"), (y, "intermediate", "glu")):
        given_ = rows(rng, norm, 50) @ stored[f"layer.3.{name}.weight"]
        if biased:
            given_ = given_ + stored[f"layer.3.{name}.bias"]
        assert np.abs(given_).max() <= found[f"layer.3.{site}"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["NomicBertModel", "ModernBertModel"])
def test_models_with_gated_layers_stay_below(name: str, tmp_path: Path) -> None:
    facts = {"hidden_size": 30, "num_attention_heads": 5, "intermediate_size": 21, "num_hidden_layers": 2,
             "pad_token_id": 0}
    opened = ModelFolder(save(tmp_path, name, outlier=5.0, **facts))
    sites = measure(opened, tokens()).sites
    bounded = [site for site, ranges in sites.items() if MOST.name in ranges]
    act = opened.architecture.spec.act  # type: ignore[attr-defined]
    assert sorted(bounded) == sorted(f"layer.{i}.{name}" for i in range(2) for name in ("softmax", act, "glu"))
    for site in bounded:
        quantities = [q for q in (VALUE, INPUT, GATE) if q.name in sites[site]]
        assert max(sites[site][q.name].reach for q in quantities) <= sites[site][MOST.name].high


def test_layers_of_the_same_tensors_are_bounded_once() -> None:
    """As ALBERT's; but the first, which takes the embedding's LayerNorm, by itself."""
    rng, read = np.random.default_rng(0), []
    shapes = {"qkv.weight": (2, 6), "qkv.bias": (6,), "attention.weight": (2, 2), "attention.bias": (2,),
              "intermediate.weight": (2, 3), "intermediate.bias": (3,), "output.weight": (3, 2), "output.bias": (2,),
              "attention.layernorm.weight": (2,), "attention.layernorm.bias": (2,), "output.layernorm.weight": (2,),
              "output.layernorm.bias": (2,)}
    stored = {f"l.{name}": rng.normal(0.0, 1.0, shape) for name, shape in shapes.items()}
    stored |= {"first.weight": np.full(2, 9.0), "first.bias": np.ones(2)}

    def values(name: str) -> np.ndarray:
        read.append(name)
        return stored[name]

    found = layers(values, [(f"layer.{i}", "l") for i in range(5)], 1, "gelu", "first", FAITHFUL)
    assert read.count("l.intermediate.weight") == 2 and len(found) == 20
    assert found["layer.0.softmax"] > found["layer.1.softmax"] == found["layer.4.softmax"]


def test_what_is_unknown_has_no_bound(tmp_path: Path) -> None:
    """The first attention behind a projection, and sums behind an activation that may exceed its input."""
    shapes = {"attention.layernorm.weight": (2,), "attention.layernorm.bias": (2,), "intermediate.weight": (2, 3),
              "intermediate.bias": (3,), "output.weight": (3, 2), "output.bias": (2,), "output.layernorm.weight": (2,),
              "output.layernorm.bias": (2,), "qkv.weight": (2, 6), "qkv.bias": (6,), "attention.weight": (2, 2),
              "attention.bias": (2,)}
    values = {f"l.{name}": np.ones(shape) for name, shape in shapes.items()}
    names = [("layer.0", "l"), ("layer.1", "l")]
    assert set(layers(values.__getitem__, names, 1, "tanh", None, FAITHFUL)) == {
        "layer.0.tanh", "layer.1.softmax", "layer.1.attention.layernorm", "layer.1.tanh"}
    assert set(layers(values.__getitem__, names[:1], 1, "gelu", None, FAITHFUL)) == {
        "layer.0.gelu", "layer.0.output.layernorm"}
    for recipe, known in ((MPCFORMER, {"layer.0.gelu"}), (PUMA, {"layer.0.gelu", "layer.0.output.layernorm"}),
                          (replace(FAITHFUL, softmax=lambda *_: None), set())):
        assert set(layers(values.__getitem__, names[:1], 1, "gelu", None, recipe)) == known
    others = {"relu": lambda *_: None}
    for recipe, known in ((FAITHFUL, True), (replace(FAITHFUL, others=others), False), (MPCFORMER, True)):
        found = layers(values.__getitem__, names[:1], 1, "relu", None, recipe)
        assert ("layer.0.output.layernorm" in found) is known
