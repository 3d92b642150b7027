"""Blocks that families are made of: the context of a forward pass, linear layers, norms, attention's reshapes.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, H heads, D = C / H, V words,
S segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secformer.models.data.batch import Batch
from secformer.models.data.parameters import Parameters
from secformer.models.data.tensors import TABLE
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import Quantity
from secformer.protocols.ranges import Site, bits
from secformer.protocols.recipes import Recipe

Sites = Callable[[str], Site]


@dataclass(frozen=True)
class Forward:
    """What one forward pass needs beside its input. Everything here is public, except the parameters' values.

    at   returns the measured ranges of a site, by the site's name
    """

    batch: Batch
    parameters: Parameters
    recipe: Recipe
    at: Sites


def linear(s: Session, x: Share, f: Forward, name: str, *, bias: bool = True, magnitude: int | None = None) -> Share:
    """x (N, K) @ W (K, M) + b; without b where the model has none. `magnitude` as in `Session.matmul`."""
    y = s.matmul(x, f.parameters.matrix(f"{name}.weight"), magnitude=magnitude)
    return y + f.parameters.vector(f"{name}.bias") if bias else y


def reaching(s: Session, at: Site, quantity: Quantity) -> int:
    """The magnitude of a product whose range is measured at its next call site: the session's, or more where the range
    reaches farther."""
    return max(s.fixed.magnitude, bits(at[quantity.name].reach) if quantity.name in at else 0)


def layernorm(s: Session, x: Share, f: Forward, site: str, eps: float, weights: str | None = None, *,
              bias: bool = True) -> Share:
    """LayerNorm of x (N, C). The names of its parameters begin with `weights`, by default the site's name. Without
    bias where the model has none."""
    p = f.parameters.inside(weights or site)
    with s.scope("layernorm"):
        return f.recipe.layernorm(s, x, p.vector("weight"), p.vector("bias") if bias else 0.0, eps, f.at(site))


def look_up(s: Session, rows: Share, f: Forward) -> Share:
    """Secret one-hot rows (N, V + S) times the secret table (V + S, C): (N, C).

    The product has the table's narrow width; one lift widens it.
    """
    (found,) = s.lift(s.matmul(rows, f.parameters.matrix(TABLE)))
    return found


def split_heads(x: Share, batch: Batch, heads: int) -> Share:
    """(N, C) to (B, H, T, D)."""
    if batch.padded:
        x = x[batch.unpacking]
    return x.reshape(batch.size, batch.longest, heads, x.shape[-1] // heads).transpose(0, 2, 1, 3)


def join_heads(x: Share, batch: Batch) -> Share:
    """(B, H, T, D) to (N, C)."""
    b, h, t, d = x.shape
    x = x.transpose(0, 2, 1, 3).reshape(b * t, h * d)
    return x[batch.packing] if batch.padded else x
