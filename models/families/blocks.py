"""Blocks that families are made of: the context of a forward pass, linear layers, norms, attention's reshapes.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, H heads, D = C / H, V words,
S segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from secformer.models.data.batch import Batch
from secformer.models.data.parameters import Parameters
from secformer.models.data.tensors import TABLE
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight
from secformer.protocols.quantities import INPUT, MOST, SCORE, SPREAD, Quantity, apart, opened
from secformer.protocols.ranges import Site, bits, roomiest, with_air
from secformer.protocols.recipes import Recipe

Sites = Callable[[str], Site]
AT_ONCE = 1 << 22  # entries of one-hot rows that are multiplied in one round; each takes some 40 bytes meanwhile


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
    """x (N, K) @ W (K, M) + b; without b where the model has none. `magnitude` bounds the sum (see `entering`)."""
    y = s.matmul(x, f.parameters.matrix(f"{name}.weight"), magnitude=magnitude)
    return (y + f.parameters.vector(f"{name}.bias")).promise(y.magnitude) if bias else y


def entering(s: Session, at: Site, quantity: Quantity = INPUT, *, least: int = 1) -> int:
    """The magnitude of a linear layer's result, from the range that it has at the call site that takes it; the
    session's where that range is unknown.

    It holds the range, with the air that a guard leaves, and `least`. In a guarded session it also keeps a value
    outside from looking like one inside: either no value can be so large (`families/certain`), or the product has ROOM
    times the range, or as much as the session's magnitude gives.
    """
    if quantity.name not in at:
        return max(least, s.fixed.magnitude)
    r = with_air(at[quantity.name])
    least = max(least, bits(r.reach))
    if s.guarded:
        least = max(least, min(apart(at, r), s.fixed.magnitude))
    return _filled(s, least)


def attending(s: Session, f: Forward, at: Site) -> int:
    """The magnitude of scores, from what softmax takes (see `entering`). A softmax of spreads opens those, and checks
    them by what that opens, so scores need no room. What bounds queries, keys and values does not bound scores."""
    least = opened(f.recipe.softmax, s.fixed, at)
    if SPREAD.name in at and SCORE.name in at:
        return _filled(s, max(least, bits(with_air(at[SCORE.name]).reach)))
    return entering(s, {name: r for name, r in at.items() if name != MOST.name}, SCORE, least=least)


def projecting(s: Session, at: Site) -> int:
    """The magnitude of queries, keys and values: what no text exceeds, or the session's where that is unknown or less.
    """
    most = at[MOST.name].high if MOST.name in at else math.inf
    return _filled(s, bits(most)) if most < 2.0**s.fixed.magnitude else s.fixed.magnitude


def _filled(s: Session, least: int) -> int:
    """The largest magnitude whose product takes no more bytes than the least; what a word holds, where that is less."""
    return roomiest(min(least, s.fixed.whole), lambda m: (s.fixed.window(2 * s.fixed.frac, m),))


def layernorm(s: Session, x: Share, f: Forward, site: str, eps: float, weights: str | None = None, *,
              bias: bool = True) -> Share:
    """LayerNorm of x (N, C). The names of its parameters begin with `weights`, by default the site's name. Without
    bias where the model has none."""
    p = f.parameters.inside(weights or site)
    with s.scope("layernorm"):
        return f.recipe.layernorm(s, x, p.vector("weight"), p.vector("bias") if bias else 0.0, eps, f.at(site))


def norming(s: Session, f: Forward, site: str) -> int:
    """The magnitude of the sum that the LayerNorm of that site takes (see `entering`)."""
    at = f.at(site)
    return entering(s, at, least=opened(f.recipe.layernorm, s.fixed, at))


def added(s: Session, x: Share, y: Share, f: Forward, name: str, site: str, *, bias: bool = True) -> Share:
    """x + y @ W + b, which the LayerNorm of that site takes: x (N, M), y (N, K) -> (N, M)."""
    magnitude = norming(s, f, site)
    return (x + linear(s, y, f, name, bias=bias, magnitude=magnitude)).promise(magnitude)


def look_up(s: Session, rows: Share, f: Forward) -> Share:
    """Secret one-hot rows (N, V + S) times the secret table (V + S, C): (N, C).

    The result has the table's narrow width; what takes it lifts it. Price: one round per AT_ONCE entries of the rows,
    which bounds the memory; N (V + S) words of that width.
    """
    tables, step = f.parameters.blocks(TABLE), max(1, AT_ONCE // rows.shape[1])
    found = [_sums(s, rows[i : i + step], tables) for i in range(0, rows.shape[0], step)]
    return found[0] if len(found) == 1 else s.concatenate(found)


def _sums(s: Session, rows: Share, tables: Sequence[Weight]) -> Share:
    """rows (n, V + S) times a table in blocks of its rows: (n, C). One round. A sum over blocks is as small as each
    row's own entries in the table."""
    ends = [0, *accumulate(table.shape[0] for table in tables)]
    parts = s.matmul_many([(rows[:, i:j], table) for (i, j), table in zip(pairwise(ends), tables, strict=True)])
    return sum(parts[1:], parts[0]).promise(parts[0].magnitude) if len(parts) > 1 else parts[0]


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
