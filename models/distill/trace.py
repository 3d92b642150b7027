"""What distillation looks at inside a model: hidden states and attention maps, taken where a recipe's functions run.

N packed tokens, C hidden, B texts, H heads, T tokens of the longest, D values per head. The encoder's program is that
of secure inference and knows nothing of this: a traced recipe notes what its functions are given and what they answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secformer.models.ranges.observe import observed
from secformer.models.ranges.profile import MARGIN
from secformer.mpc.caches import Kept, whole
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import Quantity
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import Recipe


class Spot(dict[str, Range]):
    """A call site that knows its name, with the ranges of the batch that is there."""

    def __init__(self, name: str, ranges: Mapping[str, Range] = MappingProxyType({})):
        super().__init__(ranges)
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


def traced(recipe: Recipe, trace: Trace, hidden: Collection[str], *, dropout: float = 0.0) -> Recipe:
    """The recipe with functions that tell `trace` what passes through them, and that run, in every call, at the ranges
    of the batch.

    hidden   the sites of LayerNorms whose results are hidden states
    dropout  fraction of GeLU's and attention's results that is set to 0, the rest scaled up
    """
    @wraps(recipe.gelu)
    def gelu(s: Session, x: Share, at: Site) -> Share:
        out = recipe.gelu(s, x, at)
        return out.like(functional.dropout(out.data, dropout)) if dropout else out

    @wraps(recipe.layernorm)
    def layernorm(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
        out = recipe.layernorm(s, x, gamma, beta, eps, at)
        if isinstance(at, Spot) and at.name in hidden:
            trace.hidden_states.append(s.values(out))
        return out

    @wraps(recipe.softmax)
    def softmax(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
        values = whole(values)
        d, t = values.shape[-1], values.shape[-2]
        if trace.maps:  # the map is what the very same protocol makes of the unit matrix
            unit = torch.eye(t, dtype=values.data.dtype, device=values.data.device)
            values = s.concatenate([values, values.like(unit.expand(*values.shape[:-1], t))], -1)
        out = recipe.softmax(s, scores, values, mask, at)
        if trace.maps:
            trace.attention_maps.append(s.values(out)[..., d:])
            out = out[..., :d]
        return out.like(functional.dropout(out.data, dropout)) if dropout else out

    return observed(replace(recipe, gelu=gelu, layernorm=layernorm, softmax=softmax), torch, ranges)


def ranges(at: Site, quantities: tuple[Quantity, ...], *inputs: Tensor) -> Site:
    """For `observed`: the site with the ranges of a batch's values, widened as a profile's are, then made coarse, so
    that constants chosen by them are chosen once."""
    found, inputs = {}, tuple(x.detach() for x in inputs)
    for quantity in quantities:
        low, high = (float(end) for end in torch.aminmax(quantity.of(torch, *inputs)))
        found[quantity.name] = quantity.widening.coarse(quantity.widening(Range(low, high), MARGIN))
    return Spot(at.name, found) if isinstance(at, Spot) else found
