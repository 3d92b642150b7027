"""Exact functions on tensors, as a recipe for `TorchSession`: what a teacher computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secformer.mpc.caches import Kept
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.activations import RELU
from secformer.protocols.fidelity import faithful
from secformer.protocols.gates import GELU_NEW, QUICK, QUICK_GELU, SILU
from secformer.protocols.quantities import needs
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Elementwise, Recipe
from secformer.protocols.softmax import spread_out


def _elementwise(fn: Callable[[Tensor], Tensor]) -> Elementwise:
    """An exact function of every entry, as a recipe's."""
    @faithful
    @needs()
    def exact(s: Session, x: Share, at: Site) -> Share:
        return s.apply(fn, x, on=Tensor)

    return exact


@faithful
@needs()
def gelu(s: Session, x: Share, at: Site) -> Share:
    """GeLU of every entry."""
    return s.apply(functional.gelu, x, on=Tensor)


@faithful
@needs()
def tanh(s: Session, x: Share, at: Site) -> Share:
    """tanh of every entry."""
    return s.apply(torch.tanh, x, on=Tensor)


@faithful
@needs()
def softmax(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """softmax(scores) @ values over real columns, as `protocols/softmax` takes them."""
    hidden = torch.from_numpy(~spread_out(mask))
    weights = s.apply(lambda x: x.masked_fill(hidden.to(x.device), -torch.inf).softmax(-1), scores, on=Tensor)
    return s.matmul(weights, values)


@faithful
@needs()
def layernorm(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
    """LayerNorm over the last axis."""
    def normalised(v: Tensor) -> Tensor:
        moved = s.values(beta) if isinstance(beta, Share) else None
        return functional.layer_norm(v, v.shape[-1:], s.values(gamma), moved, eps)

    return s.apply(normalised, x, on=Tensor)


OTHERS = {
    RELU.name: _elementwise(torch.relu), SILU.name: _elementwise(functional.silu),
    GELU_NEW.name: _elementwise(lambda x: functional.gelu(x, approximate="tanh")),
    QUICK_GELU.name: _elementwise(lambda x: x * torch.sigmoid(QUICK * x)),
}
EXACT_TORCH = Recipe("exact", gelu, softmax, layernorm, tanh, OTHERS)
