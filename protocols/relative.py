"""Attention scores that depend on how far apart two tokens are: learned biases, and disentangled attention.

Distances are public, so every look-up by distance is local. The tables that are looked up are secret.

B texts, H heads, T tokens of the longest text, N tokens of all texts, D values per head, R rows of a table. An index
(B, T, T), or (1, T, T) for all texts, holds at [b, i, j] the table's row for query i and key j of text b.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from secformer.mpc.errors import ShapeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight
from secformer.protocols.papers import cite

NEAR = 1e-9  # logarithms of exact powers count as whole, whatever the last bits of a machine's library


def index_of(steps: np.ndarray, rows: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The index (B, T, T) of tokens at the places `steps` (B, T) of their texts, or (1, T, T) where all texts have the
    same places. `rows` gives the rows of distances, which are the key's place minus the query's."""
    if (steps == steps[0]).all():
        steps = steps[:1]
    most = int(steps.max())
    return np.asarray(rows(np.arange(-most, most + 1))[steps[:, None, :] - steps[:, :, None] + most])


@cite("raffel2020t5", "relative position buckets")
def shared_buckets(distance: np.ndarray, buckets: int = 32, farthest: int = 128) -> np.ndarray:
    """The bucket of each distance (key minus query), 0 to buckets - 1.

    Half of the buckets is for keys behind the query, half for the others. In each half, near distances have a bucket
    of their own; the others share buckets that grow by a constant factor up to the distance `farthest`, and all beyond
    share the last.
    """
    half, far = buckets // 2, np.abs(distance)
    exact = half // 2
    steps = np.log(np.maximum(far, 1) / exact) / math.log(farthest / exact) * (half - exact)
    large = np.minimum(exact + np.floor(steps + NEAR).astype(np.int64), half - 1)
    return np.asarray(np.where(distance > 0, half, 0) + np.where(far < exact, far, large))


@cite("he2021deberta", "log buckets of version 2, as released")
def log_buckets(distance: np.ndarray, buckets: int, farthest: int) -> np.ndarray:
    """Distances with those beyond buckets / 2 brought nearer: they grow as logarithms do, and `farthest` - 1 becomes
    buckets - 1. Larger distances pass that; whoever looks them up cuts them off. The sign stays."""
    middle, far = buckets // 2, np.abs(distance)
    steps = np.log(np.maximum(far, 1) / middle) / math.log((farthest - 1) / middle) * (middle - 1)
    return np.asarray(np.where(far <= middle, distance,
                               np.sign(distance) * (middle + np.ceil(steps - NEAR).astype(np.int64))))


@cite("he2021deberta", "relative distance")
def table_rows(distance: np.ndarray, span: int, buckets: int = 0, farthest: int = 0) -> np.ndarray:
    """The row of a table of 2 span positions for each distance (key minus query): the query's place minus the key's,
    in log buckets where there are any, moved by span and cut off at the table's ends."""
    ahead = -distance
    if buckets > 0 and farthest > 0:
        ahead = log_buckets(ahead, buckets, farthest)
    return np.asarray(np.clip(ahead + span, 0, 2 * span - 1))


@cite("song2020mpnet", "relative position bias")
@cite("raffel2020t5", "one scalar per bucket and head, added to the scores of every layer")
def position_bias(table: Share, index: np.ndarray) -> Share:
    """What is added to scores (B, H, T, T): table[index] of a secret table (R, H) at public rows. Exact, and local:
    no round, no bytes. Shaped (1, H, T, T) where all texts have the same index."""
    return table[index].transpose(0, 3, 1, 2)


@cite("he2021deberta", "disentangled attention: content to content, content to position, position to content")
def disentangled_scores(
    s: Session, q: Share, k: Share, keys: Weight | None, queries: Weight | None, index: np.ndarray,
    places: np.ndarray, *, magnitude: int,
) -> Share:
    """q_i k_j + q_i keys[index_ij] + k_j queries[index_ij] for q, k (B, H, T, D): (B, H, T, T).

    One round, as without positions; window bits per element of q and k, and once more per element of q for `keys` and
    of k for `queries`. A single text's q is opened once. Dealer: beside the scores', N H R words for each table.
    1. c <- q k^T; u <- q keys; v <- k queries                                   one round
    2. return c_ij + u_i,index_ij + v_j,index_ij                                 local

    keys, queries  secret tables of projected positions, (H, D, R), standing, or None for a term that is left out
    places         (B, T): which of the N tokens stands at each position (padding repeats a token)
    Error: a product's, 2^-16 at most; nothing is rounded before the sum. Only the sum must stay below 2^magnitude:
    terms that are larger and cancel do no harm, as all are computed modulo one window. The result is pending.
    """
    b, h, t, d = q.shape
    if k.shape != q.shape or places.shape != (b, t) or index.shape[-2:] != (t, t) or index.shape[0] not in (1, b):
        raise ShapeError(f"disentangled attention takes queries and keys (B, H, T, D), places (B, T) and an index "
                         f"(B, T, T), got {q.shape}, {k.shape}, {places.shape} and {index.shape}")
    first = np.unique(places, return_index=True)[1]                                              # of each token
    packed_q, packed_k = (x.transpose(1, 0, 2, 3).reshape(h, b * t, d) for x in (q, k))
    if len(first) < b * t:
        packed_q, packed_k = packed_q[:, first], packed_k[:, first]
    elif b == 1:
        q, k = packed_q, packed_k
    terms = [(table, x, at) for table, x, at in ((keys, packed_q, places[:, :, None]),
                                                 (queries, packed_k, places[:, None, :])) if table is not None]
    scores, *found = s.matmul_many([(q, k.swapaxes(-1, -2)), *((x, table) for table, x, _ in terms)],
                                   magnitude=magnitude)                                          # 1
    scores = scores.reshape(b, h, t, t)
    for term, (_, _, at) in zip(found, terms, strict=True):                                      # 2
        scores = scores + term[:, at, index].swapaxes(0, 1)
    return scores
