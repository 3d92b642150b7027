"""Which keys each query meets: all of its text's, those within reach, or those before it, in blocks of queries.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, H heads, D = C / H, n blocks,
w queries of a block, k keys that they meet, G heads of keys, each of which R = H / G heads of queries share. Everything
here is public. Blocks lie along the axis of heads, since the first axis of whatever a protocol gets counts texts or
tokens. Queries that share keys lie along the axis of queries, so that keys are not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from secformer.models.data.batch import Batch
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import bits

SCORE_COST, KEY_COST = 17, 7  # bytes that a party sends for a score, and for an entry of a key or a value


@dataclass(frozen=True, eq=False)
class Meeting:
    """Which packed tokens stand in each block.

    queries  (B, n, w), keys (B, n, k): packed indices
    mask     as softmax takes it: (B, T), or (B, n, w, k)
    places   (N,): where each token is among the B n w queries
    alone    (N,) bool: tokens that have nothing to attend to within reach; another query stands in their place

    Fillers have the results of their text's first token.
    """

    queries: np.ndarray
    keys: np.ndarray
    mask: np.ndarray
    places: np.ndarray
    alone: np.ndarray

    @classmethod
    def everywhere(cls, batch: Batch) -> Self:
        """Every query meets all keys of its text."""
        index = batch.unpacking.reshape(batch.size, 1, batch.longest)
        return cls(index, index, batch.mask, batch.packing, np.zeros(batch.tokens, bool))

    @classmethod
    def within(cls, batch: Batch, reach: int, size: int, block: int | None = None, *, causal: bool = False) -> Self:
        """Every query meets the keys that are at most `reach` tokens away and, where it is `causal`, not behind it.
        `size` is D, by which w is chosen, unless it is given as `block`."""
        t, b = batch.longest, batch.size
        after = 0 if causal else reach
        w = block or block_size(t, reach, size, after)
        n = -(-t // w)
        k = min(t, w + reach + after)
        seen = np.pad(batch.mask.cumsum(axis=1), ((0, 0), (1, 0)))
        steps = np.arange(t)
        near = seen[:, np.minimum(steps + after + 1, t)] - seen[:, np.maximum(steps - reach, 0)]
        live = batch.own & (near > 0)  # (B, T): has something to attend to
        here = np.pad(live, ((0, 0), (0, n * w - t))).reshape(b, n, w)
        # a block without a live query is a copy of one that has some, and so is, within a block, every other query:
        # each row of scores is a real one, whatever a recipe asks of rows
        some = here.any(axis=2)
        taken = np.where(some, np.arange(n), some.argmax(axis=1)[:, None])              # (B, n)
        here = np.take_along_axis(here, taken[..., None], axis=1)
        step = np.where(here, np.arange(w), here.argmax(axis=2)[..., None])             # (B, n, w)
        queries = taken[..., None] * w + step
        keys = np.clip(taken * w - reach, 0, t - k)[..., None] + np.arange(k)           # (B, n, k)
        text, index = np.arange(b)[:, None, None], batch.unpacking.reshape(b, t)
        before = queries[..., None] - keys[..., None, :]
        mask = (-after <= before) & (before <= reach)
        mask &= batch.mask[text, keys][..., None, :]
        places = np.flatnonzero(np.pad(batch.present, ((0, 0), (0, n * w - t))))[batch.like]
        return cls(index[text, queries], index[text, keys], mask, places, ~live[batch.present][batch.like])

    def of_queries(self, x: Share, heads: int, groups: int | None = None) -> Share:
        """Queries (N, C) to (B, G n, R w, D). By default G = H, and R = 1."""
        found = _spread(x, self.queries, heads)                          # (B, H n, w, D)
        b, _, w, d = found.shape
        if groups in (None, heads):
            return found
        found = found.reshape(b, groups, heads // groups, -1, w, d).transpose(0, 1, 3, 2, 4, 5)
        return found.reshape(b, -1, heads // groups * w, d)

    def of_keys(self, x: Share, heads: int) -> Share:
        """Keys or values of G heads (N, G D) to (B, G n, k, D)."""
        return _spread(x, self.keys, heads)

    def real(self, heads: int, groups: int | None = None) -> np.ndarray:
        """The mask that softmax takes, for scores (B, G n, R w, k)."""
        if self.mask.ndim == 2:
            return self.mask
        b, n, w, k = self.mask.shape
        groups = groups or heads
        shared = np.broadcast_to(self.mask[:, None, :, None], (b, groups, n, heads // groups, w, k))
        return shared.reshape(b, groups * n, -1, k)

    def joined(self, x: Share, heads: int, groups: int | None = None) -> Share:
        """Results (B, G n, R w, D) to (N, C), each token's own."""
        groups, n, w = groups or heads, *self.queries.shape[1:]
        x = x.reshape(x.shape[0], groups, n, heads // groups, w, x.shape[-1]).transpose(0, 2, 4, 1, 3, 5)
        return x.reshape(-1, heads * x.shape[-1])[self.places]


def block_size(longest: int, reach: int, size: int, after: int | None = None) -> int:
    """w, at which attention within reach costs about least, for texts of `longest` tokens: large blocks have many
    keys that a query does not need, and neighbouring small ones open the same keys and values again.
    Keys are at most `after` tokens behind a query, by default `reach`.

    Chosen for the power of two that bounds the length, so that the keys of a block, too, have one such bound: what a
    recipe fits for row sums is the same for all these lengths, as books have it (see `models/run/public.py`).
    """
    most, both = 2 ** bits(longest), reach + (reach if after is None else after)
    n = np.arange(1, most + 1)
    each = -(-most // n)
    keys = np.minimum(most, each + both)
    w = int(each[np.argmin(n * (SCORE_COST * each * keys + 2 * KEY_COST * size * keys))])
    even = -(-longest // -(-longest // w))  # so that the last block is nearly full
    same = bits(min(longest, even + both)) == bits(min(longest, w + both))
    return even if same else min(w, longest)


def alone_as_mean(s: Session, x: Share, values: Share, meeting: Meeting, batch: Batch) -> Share:
    """Attention's results x (N, C), where each token that has nothing to attend to gets the mean of its text's values
    (N, C): so `transformers` has it. Local."""
    if not meeting.alone.any():
        return x
    owner, every, means = batch.owners[batch.tokens], np.arange(batch.tokens), []
    for text in np.unique(owner[meeting.alone]):
        mine = np.flatnonzero((owner == text) & (batch.like == every))
        mean = (values[mine].sum(0, keepdims=True) * (1.0 / len(mine))).promise(x.magnitude)
        means.append(s.broadcast_to(mean, (int(meeting.alone[mine].sum()), values.shape[-1])))
    there = np.flatnonzero(meeting.alone & (batch.like == every))  # in the order of texts, without fillers
    mixed = s.concatenate([x, *means])     # at one scale
    index = every.copy()
    index[there] = batch.tokens + np.arange(len(there))
    found = mixed[index[batch.like]]
    return found if x.interval is None else found.expecting(x.interval)


def _spread(x: Share, index: np.ndarray, heads: int) -> Share:
    """Packed tokens (N, C) at `index` (B, n, j) to (B, H n, j, D)."""
    b, n, j = index.shape
    x = x[index.reshape(-1)].reshape(b, n, j, heads, x.shape[-1] // heads).transpose(0, 3, 1, 2, 4)
    return x.reshape(b, heads * n, j, x.shape[-1])
