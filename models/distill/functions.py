"""Exact functions on tensors, as a recipe for `TorchSession`: what a teacher computes."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from secformer.models.distill.session import TorchSession
from secformer.mpc.errors import SettingsError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import faithful
from secformer.protocols.quantities import needs
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Recipe


@faithful
@needs()
def gelu(s: Session, x: Share, at: Site) -> Share:
    """GeLU of every entry."""
    return _on_tensors(s).apply(functional.gelu, x)


@faithful
@needs()
def tanh(s: Session, x: Share, at: Site) -> Share:
    """tanh of every entry."""
    return _on_tensors(s).apply(torch.tanh, x)


@faithful
@needs()
def softmax(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
    """softmax(scores) @ values over real columns: scores (B, H, T, T), values (B, H, T, D), mask (B, T)."""
    hidden = torch.from_numpy(~mask).to(scores.data.device)[:, None, None, :]
    weights = _on_tensors(s).apply(lambda x: x.masked_fill(hidden, -torch.inf).softmax(-1), scores)
    return s.matmul(weights, values)


@faithful
@needs()
def layernorm(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
    """LayerNorm over the last axis."""
    return _on_tensors(s).apply(lambda v: functional.layer_norm(v, v.shape[-1:], gamma.data, beta.data, eps), x)


def _on_tensors(s: Session) -> TorchSession:
    if not isinstance(s, TorchSession):
        raise SettingsError(f"exact functions of tensors run in a TorchSession, got a {type(s).__name__}")
    return s


EXACT_TORCH = Recipe("exact", gelu, softmax, layernorm, tanh)
