"""What the values of a model can reach at most, whatever its texts are: certain bounds, from its weights alone.

A row of a LayerNorm's or an RMSNorm's result, before gains and biases, has the length sqrt(C) at most. So a linear
layer behind one is bounded by the lengths of its columns; attention by those of its values times its output's columns,
since a weighted mean is never longer than the longest of its values; and a feed-forward layer by its largest singular
value. A product that holds its bound cannot wrap, however far a text leaves the range that was measured.

C hidden, I intermediate, H heads, D = C / H. Weights are (in, out).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from secformer.protocols.fidelity import is_declared, student_of
from secformer.protocols.recipes import Recipe

Values = Callable[[str], np.ndarray]  # a tensor, by its name in a layout
SLACK = 1.06                          # factor: inverse roots are off by 2^-5 where no guard sees it, and words round
STEPS = 4                             # per octave, that bounds are rounded up to
LINEAR = frozenset({"gelu", "relu", "silu", "gelu_new", "quick_gelu"})  # activations whose results are not above |x|


@dataclass(frozen=True)
class Normed:
    """What a LayerNorm gives: x = n gamma + beta, each row of n being of the length sqrt(C) at most."""

    gamma: np.ndarray = field(repr=False)
    beta: np.ndarray = field(repr=False)

    @cached_property
    def length(self) -> float:
        return float(np.sqrt(self.gamma.size))

    @cached_property
    def entries(self) -> np.ndarray:
        """Bounds of |x|, by entry: (C,)."""
        return np.asarray(self.length * np.abs(self.gamma) + np.abs(self.beta))

    def through(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Bounds of |x W + b|, by entry: (M,)."""
        lengths = np.sqrt(np.square(self.gamma[:, None] * weight).sum(axis=0))
        return np.asarray(self.length * lengths + np.abs(self.beta @ weight + bias))

    def total(self, weight: np.ndarray, bias: np.ndarray) -> float:
        """A bound of the length of a row of x W + b."""
        scaled = self.gamma[:, None] * weight
        gram = scaled @ scaled.T if scaled.shape[0] <= scaled.shape[1] else scaled.T @ scaled
        largest = np.sqrt(max(0.0, float(np.linalg.eigvalsh(gram)[-1])))
        return float(self.length * largest + np.linalg.norm(self.beta @ weight + bias))


def attended(x: Normed, value: np.ndarray, moved: np.ndarray, weight: np.ndarray, bias: np.ndarray,
             heads: int) -> np.ndarray:
    """Bounds of |x + W softmax(scores) V + b| by entry, V = x `value` + `moved`: (C,)."""
    size = value.shape[1] // heads
    found = np.abs(x.beta + moved @ weight + bias + x.beta @ value @ weight) + x.length * np.abs(x.gamma)
    scaled = x.gamma[:, None] * value
    for i in range(0, value.shape[1], size):
        head, out = scaled[:, i : i + size], weight[i : i + size]
        squares = ((head.T @ head @ out) * out).sum(axis=0)  # of the lengths of the columns of head @ out
        found = found + x.length * np.sqrt(np.maximum(squares, 0.0))
    return np.asarray(found)


def fed_forward(x: Normed, inner: np.ndarray, total: float, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Bounds of |x + W' act(h) + b| by entry, where |act(h)| <= |h|, `inner` bounds |h| by entry, (I,), and `total`
    the length of its rows: (C,)."""
    either = np.minimum(total * np.sqrt(np.square(weight).sum(axis=0)), inner @ np.abs(weight))
    return np.asarray(x.entries + np.abs(bias) + either)


def bound(found: np.ndarray) -> float:
    """What a profile, which is public, says of them: the least number of STEPS per octave above all."""
    return float(2.0 ** (math.ceil(STEPS * math.log2(max(1.0, SLACK * found.max()))) / STEPS))


def layers(values: Values, names: Sequence[tuple[str, str]], heads: int, act: str, first: str | None,
           recipe: Recipe) -> dict[str, float]:
    """By site, the bounds of an encoder's layers, LayerNorm(x + attention(x)) and LayerNorm(x + W' act(W x)).

    names   of each layer: its sites', and its tensors'
    act     the activation's name, which is also that of its site
    first   the LayerNorm before the first layer; None where something else is between
    recipe  what runs. Nothing is known of values behind a function that declares nothing (`protocols/fidelity.py`), nor
            of sums behind an activation that replaces the model's, such as Quad
    """
    found: dict[str, float] = {}
    if not (is_declared(recipe.layernorm) and is_declared(recipe.softmax)):
        return found
    own = is_declared(recipe.gelu) and student_of(recipe.gelu) is None if act == "gelu" else act not in recipe.others
    known: dict[tuple[str | None, str], dict[str, float]] = {}  # several layers may have the same tensors
    before = first
    for site, stored in names:
        if (before, stored) not in known:
            known[before, stored] = _layer(values, stored, heads, act, _normed(values, before) if before else None,
                                            own and act in LINEAR)
        found |= {f"{site}.{name}": most for name, most in known[before, stored].items()}
        before = f"{stored}.output.layernorm"
    return found


def _layer(values: Values, stored: str, heads: int, act: str, before: Normed | None, linear: bool) -> dict[str, float]:
    """The bounds of one layer, by its sites' own names. `linear`: whether |act(x)| <= |x|."""
    found: dict[str, float] = {}
    x = _normed(values, f"{stored}.attention.layernorm")
    c = x.gamma.size
    if before is not None:
        qkv, b = values(f"{stored}.qkv.weight"), values(f"{stored}.qkv.bias")
        found["softmax"] = bound(before.through(qkv, b))
        sums = attended(before, qkv[:, 2 * c :], b[2 * c :], values(f"{stored}.attention.weight"),
                        values(f"{stored}.attention.bias"), heads)
        found["attention.layernorm"] = bound(sums)
    first_layer = values(f"{stored}.intermediate.weight"), values(f"{stored}.intermediate.bias")
    inner = x.through(*first_layer)
    found[act] = bound(inner)
    if linear:
        sums = fed_forward(x, inner, x.total(*first_layer), values(f"{stored}.output.weight"),
                           values(f"{stored}.output.bias"))
        found["output.layernorm"] = bound(sums)
    return found


def gated(values: Values, stored: Collection[str], layers: Sequence[tuple[str, str, str]],
          act: str) -> dict[str, float]:
    """The bounds of `before_halves`, and those of a gated layer. What it gives is a product, of which weights say too
    little."""
    found = before_halves(values, stored, layers, act)
    return found | {f"{layer}.glu": found[f"{layer}.{act}"] for layer, _, _ in layers}


def before_halves(values: Values, stored: Collection[str], layers: Sequence[tuple[str, str, str]],
                  act: str) -> dict[str, float]:
    """By site, the bounds of what attention and the feed-forward layer take directly from LayerNorms.

    stored  the names of all tensors: biases may be missing, and gains where the weights behind the norm have them
    layers  of each: the name of its sites and tensors, and of the LayerNorms before its two halves
    act     the activation's name, one of LINEAR, which is also that of its site
    """
    def vector(name: str, size: int) -> np.ndarray:
        return values(name) if name in stored else np.zeros(size)

    def linear(norm: str, name: str) -> float:
        weight = values(f"{name}.weight")
        gamma = values(f"{norm}.weight") if f"{norm}.weight" in stored else np.ones(len(weight))
        x = Normed(gamma, vector(f"{norm}.bias", gamma.size))
        return bound(x.through(weight, vector(f"{name}.bias", weight.shape[1])))

    found: dict[str, float] = {}
    for layer, attends, feeds in layers:
        found[f"{layer}.softmax"] = linear(attends, f"{layer}.qkv")
        found[f"{layer}.{act}"] = linear(feeds, f"{layer}.intermediate")
    return found


def _normed(values: Values, name: str) -> Normed:
    return Normed(values(f"{name}.weight"), values(f"{name}.bias"))
