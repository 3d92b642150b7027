"""Recipes: which protocol a model runs for each of its functions. A recipe is a value; a variant is `replace`.

    from dataclasses import replace
    mine = replace(FAITHFUL, name="mine", gelu=my_gelu)

The four functions that every Transformer has are fields of a recipe. A family that has others asks for them by value:
`recipe.of(RELU)` is what the recipe runs for that `Function` (see `activations`).

Protocols declare what else is to be known of them: what they need measured (`quantities.needs`), and how near they come
to the exact functions (`fidelity`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from secformer.mpc.caches import Kept
from secformer.mpc.errors import SettingsError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.crypten import gelu_tanh, layernorm_newton, softmax_limit, tanh_sigmoid
from secformer.protocols.fidelity import faithful, is_faithful, student_of
from secformer.protocols.gelu import gelu_exact, gelu_segmented, gelu_series
from secformer.protocols.layernorm import layernorm_exact, layernorm_goldschmidt, layernorm_series
from secformer.protocols.mpcformer import gelu_quad, softmax_2quad_newton, softmax_2relu
from secformer.protocols.papers import cite
from secformer.protocols.puma import gelu_piecewise, layernorm_octaves, softmax_clipped
from secformer.protocols.quantities import ATTENTION, INPUT, NORM, Quantity, needed
from secformer.protocols.ranges import Site
from secformer.protocols.softmax import softmax_2quad, softmax_exact, softmax_series
from secformer.protocols.tanh import tanh, tanh_exact

Elementwise = Callable[[Session, Share, Site], Share]
Softmax = Callable[[Session, Share, Kept, np.ndarray, Site], Share]
LayerNorm = Callable[[Session, Share, Share, "Share | float", float, Site], Share]
Further = Callable[..., Share]  # (session, one or more shares, what is public, site) -> share
Observer = Callable[["Function", Further], Further]
Needs = Mapping[str, tuple[Quantity, ...]]  # function of a recipe -> the quantities that its call sites must know
# the quantities that are measured for functions that declare none
DEFAULTS: Needs = MappingProxyType({"gelu": (INPUT,), "softmax": ATTENTION, "layernorm": NORM, "tanh": (INPUT,)})


@dataclass(frozen=True)
class Function:
    """A function that some families have beside the four of every recipe: of one share, or of several operands.

    name      in `Recipe.others` and in messages
    protocol  what recipes run that name no other for it
    exact     the same on plain numbers, in the twin
    """

    name: str
    protocol: Further
    exact: Further


@dataclass(frozen=True)
class Recipe:
    """The functions of a Transformer, each as a protocol that takes the ranges of its call site.

    gelu, tanh  (session, x, at) -> share of x's shape
    softmax     (session, scores (B, H, Q, T), values (B, H, T, D), mask, at) -> (B, H, Q, D); the mask (B, T), or of
                four axes that broadcast to the scores
    layernorm   (session, x (N, C), gamma (C,), beta (C,) or 0.0 for a model without, eps, at) -> (N, C)
    others      protocols for further functions, by `Function.name`
    exact       further functions are the exact ones where `others` names none
    observer    what `of` wraps a protocol in (see `models/ranges/observe.py`)
    """

    name: str
    gelu: Elementwise
    softmax: Softmax
    layernorm: LayerNorm
    tanh: Elementwise
    others: Mapping[str, Further] = field(default_factory=dict, hash=False)
    exact: bool = False
    observer: Observer | None = field(default=None, repr=False, compare=False)

    def of(self, function: Function) -> Further:
        """What this recipe runs for a further function: (session, x, at) -> share, or with several operands for x."""
        own = self.others.get(function.name, function.exact if self.exact else function.protocol)
        return own if self.observer is None else self.observer(function, own)

    @property
    def functions(self) -> Mapping[str, Callable[..., Share]]:
        """The protocols by the names of their fields."""
        return {"gelu": self.gelu, "softmax": self.softmax, "layernorm": self.layernorm, "tanh": self.tanh}

    @property
    def _all(self) -> tuple[Callable[..., Share], ...]:
        return (*self.functions.values(), *self.others.values())

    @property
    def needs(self) -> Needs:
        """The quantities that must be measured: what each function declares, or its default."""
        return {name: needed(function, DEFAULTS[name]) for name, function in self.functions.items()}

    @property
    def trained_for(self) -> tuple[str, ...]:
        """Names of the functions that checkpoints must have been trained for, such as 2Quad."""
        return tuple(found.function for f in self._all if (found := student_of(f)))

    @property
    def constants(self) -> dict[str, Any]:
        """The numbers that the weights of those checkpoints are trained around."""
        found: dict[str, Any] = {}
        for function in self._all:
            if student := student_of(function):
                found |= student.constants
        return found

    @property
    def ordinary(self) -> bool:
        """Whether no function is a student's, so that any checkpoint keeps its answers."""
        return not self.trained_for

    @property
    def faithful(self) -> bool:
        """Whether all functions are so near the exact ones that ranges measured with exact functions hold."""
        return all(map(is_faithful, self._all))


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises SettingsError that lists the names."""
    if name not in RECIPES:
        raise SettingsError(f"recipe must be one of {', '.join(RECIPES)} (or a Recipe), got {name!r}")
    return RECIPES[name]


# The exact functions choose nothing by ranges, and declare no needs.


@cite("hendrycks2016gelu", "GeLU")
@faithful
def exact_gelu(s: Session, x: Share, at: Site) -> Share:
    """GeLU in float64, in the twin only."""
    return s.apply(gelu_exact, x)


@cite("devlin2019bert", "the pooler's tanh")
@faithful
def exact_tanh(s: Session, x: Share, at: Site) -> Share:
    """tanh in float64, in the twin only."""
    return s.apply(tanh_exact, x)


@cite("vaswani2017attention", "scaled dot-product attention")
@faithful
def exact_softmax(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """softmax(scores) @ values in float64, in the twin only."""
    weights = s.apply(lambda x: softmax_exact(x, mask), scores)
    return s.matmul(weights, values)


@cite("ba2016layernorm", "layer normalisation")
@faithful
def exact_layernorm(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
    """LayerNorm in float64, in the twin only."""
    return s.mul(s.apply(lambda v: layernorm_exact(v, eps), x), gamma) + beta


SECFORMER = Recipe("secformer", gelu_segmented, softmax_2quad, layernorm_goldschmidt, tanh)
FAITHFUL = Recipe("faithful", gelu_series, softmax_series, layernorm_series, tanh)
MPCFORMER = Recipe("mpcformer", gelu_quad, softmax_2quad_newton, layernorm_newton, tanh_sigmoid)
MPCFORMER_2RELU = Recipe("mpcformer_2relu", gelu_quad, softmax_2relu, layernorm_newton, tanh_sigmoid)
PUMA = Recipe("puma", gelu_piecewise, softmax_clipped, layernorm_octaves, tanh)
CRYPTEN = Recipe("crypten", gelu_tanh, softmax_limit, layernorm_newton, tanh_sigmoid)
EXACT = Recipe("exact", exact_gelu, exact_softmax, exact_layernorm, exact_tanh, exact=True)
RECIPES = MappingProxyType({r.name: r for r in (SECFORMER, FAITHFUL, MPCFORMER, MPCFORMER_2RELU, PUMA, CRYPTEN,
                                                EXACT)})
