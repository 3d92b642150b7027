"""What distillation looks at inside a model: hidden states and attention maps, taken where a recipe's functions run.

N packed tokens, C hidden, B texts, H heads, T tokens of the longest, D values a head. The encoder's program is the one
of secure inference and knows nothing of this: a traced recipe notes what its functions are given and what they answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secformer.models.ranges.profile import MARGIN, RATIOS, widened
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import Recipe
from secformer.protocols.softmax import QUAD_SHIFT

HIDDEN = ("embedding.layernorm", ".output.layernorm")  # ends of the sites whose results are hidden states


class Spot(dict[str, Range]):
    """A call site that knows its name. It has no ranges of its own: they are this batch's."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name


@dataclass
class Trace:
    """Collects, over one forward pass, the hidden states (N, C) of the embedding and every layer and, where `maps` is
    set, every layer's attention map (B, H, T, T)."""

    maps: bool = False
    hidden_states: list[Tensor] = field(default_factory=list)
    attention_maps: list[Tensor] = field(default_factory=list)

    def site(self, name: str) -> Site:
        return Spot(name)


def traced(recipe: Recipe, trace: Trace, *, ranges: bool, dropout: float = 0.0) -> Recipe:
    """The recipe with functions that tell `trace` what passes through them.

    ranges   measure, in every call, the ranges that the recipe's protocols choose their constants by
    dropout  share of GeLU's and attention's results that is set to 0, the rest scaled up
    """
    def gelu(s: Session, x: Share, at: Site) -> Share:
        out = recipe.gelu(s, x, met(input=x.data) if ranges else at)
        return out.like(functional.dropout(out.data, dropout)) if dropout else out

    def tanh(s: Session, x: Share, at: Site) -> Share:
        return recipe.tanh(s, x, met(input=x.data) if ranges else at)

    def layernorm(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
        here = met(variance=_variance(x.data.detach())) if ranges else at
        out = recipe.layernorm(s, x, gamma, beta, eps, here)
        if isinstance(at, Spot) and at.name.endswith(HIDDEN) and ".attention." not in at.name:
            trace.hidden_states.append(out.data)
        return out

    def softmax(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
        here = _attention_ranges(scores.data.detach(), mask) if ranges else at
        d, t = values.shape[-1], values.shape[-2]
        if trace.maps:  # the map is what the very same protocol makes of the unit matrix
            unit = torch.eye(t, dtype=values.data.dtype, device=values.data.device)
            values = s.concatenate([values, values.like(unit.expand(*values.shape[:-1], t))], -1)
        out = recipe.softmax(s, scores, values, mask, here)
        if trace.maps:
            trace.attention_maps.append(out.data[..., d:])
            out = out[..., :d]
        return out.like(functional.dropout(out.data, dropout)) if dropout else out

    return replace(recipe, gelu=gelu, tanh=tanh, layernorm=layernorm, softmax=softmax)


def met(**quantities: Tensor) -> Site:
    """The ranges of a batch's values, widened as a profile's are, then rounded outward: ratios to powers of two, others
    to whole numbers, so that constants chosen by them are chosen once."""
    found = {}
    for quantity, values in quantities.items():
        low, high = (float(v) for v in torch.aminmax(values.detach()))
        r = widened(quantity, Range(low, high), MARGIN)
        if quantity in RATIOS:
            found[quantity] = Range(_power(r.low, math.floor), _power(r.high, math.ceil))
        else:
            found[quantity] = Range(float(math.floor(r.low)), float(math.ceil(r.high)))
    return found


def _variance(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (centred * centred).mean(-1)


def _power(x: float, rounded: Callable[[float], int]) -> float:
    return float(2.0 ** rounded(math.log2(x))) if x > 0.0 else 0.0


def _attention_ranges(scores: Tensor, mask: np.ndarray) -> Site:
    """What the softmax protocols ask for, over real columns."""
    real = torch.from_numpy(mask).to(scores.device)[:, None, None, :]
    some = scores.masked_fill(~real, 0.0)
    below = scores.masked_fill(~real, -torch.inf)
    spread = some - below.amax(-1, keepdim=True)
    return met(
        score=some,
        spread=spread.masked_fill(~real, 0.0),
        exp_sum=(spread.exp() * real).sum(-1),
        quad_sum=((some + QUAD_SHIFT) ** 2 * real).sum(-1),
        relu_sum=some.clamp(min=0.0).sum(-1),
    )
