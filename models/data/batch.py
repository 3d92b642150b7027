"""Tokens of texts, and texts that run together.

B texts of a batch, T tokens of the longest text, N tokens of all texts together, packed without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Row:
    """One text: ids, segments and mask (1 = attend), each (T,) int64, without padding at the end. `repr` shows the mask
    alone, which is public."""

    ids: np.ndarray = field(repr=False)
    segments: np.ndarray = field(repr=False)
    mask: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, most: int) -> Row:
        """The first `most` tokens, or all of fewer."""
        return self if len(self) <= most else Row(self.ids[:most], self.segments[:most], self.mask[:most])


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts that run together. Their lengths and masks are public.

    Tokens are packed as (N, ...), so token-wise work spends nothing on padding. Attention unpacks the tokens to
    (B, T, ...). There, padding repeats each text's first token, so the padding stays within every measured range.
    """

    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        return len(self.rows)

    @cached_property
    def longest(self) -> int:
        return max(len(r) for r in self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(r) for r in self.rows])

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def mask(self) -> np.ndarray:
        """(B, T) bool: the tokens that may be attended to."""
        mask = np.zeros((self.size, self.longest), dtype=bool)
        for out, row in zip(mask, self.rows, strict=True):
            out[: len(row)] = row.mask
        return mask

    @cached_property
    def starts(self) -> np.ndarray:
        """(B,): the packed index of each text's first token."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)

    @cached_property
    def present(self) -> np.ndarray:
        """(B, T) bool: the positions that hold a token rather than padding."""
        return np.asarray(np.arange(self.longest) < self.lengths[:, None])

    @cached_property
    def steps(self) -> np.ndarray:
        """(B, T): the place in its text of the token at each position. Padding takes the first token of its text."""
        return np.where(self.present, np.arange(self.longest), 0)

    @cached_property
    def unpacking(self) -> np.ndarray:
        """(B T,): the packed index of the token at each position. Padding takes the first token of its text."""
        return np.asarray(self.starts[:, None] + self.steps).reshape(-1)

    @cached_property
    def packing(self) -> np.ndarray:
        """(N,): the index of each token among the B T positions."""
        return np.flatnonzero(self.present)

    @property
    def padded(self) -> bool:
        return self.tokens < self.size * self.longest

    @cached_property
    def owners(self) -> dict[int, np.ndarray]:
        """Which text each row of an array belongs to, for arrays of N rows and of B rows. Tokens that nothing attends
        to count, too: poolers and clients may read them."""
        return {self.tokens: np.repeat(np.arange(self.size), self.lengths), self.size: np.arange(self.size)}

    @cached_property
    def ids(self) -> np.ndarray:
        return np.concatenate([r.ids for r in self.rows])

    @cached_property
    def segments(self) -> np.ndarray:
        return np.concatenate([r.segments for r in self.rows])

    @cached_property
    def positions(self) -> np.ndarray:
        return np.concatenate([np.arange(len(r)) for r in self.rows])

    def counted(self, pad: int) -> np.ndarray:
        """(N,): for an attended token, how many there are in its text up to it, plus `pad`; for all others, `pad`."""
        return np.concatenate([np.cumsum(r.mask) * r.mask for r in self.rows]) + pad


def batches(rows: Sequence[Row], limit: int) -> Iterator[tuple[list[int], Batch]]:
    """Puts texts of similar length into batches. Yields each batch with the places of its texts in `rows`.

    limit  the most positions (texts times longest text) per batch; a text that is longer runs alone
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    chunk: list[int] = []
    for i in order:
        if chunk and (len(chunk) + 1) * len(rows[i]) > limit:
            yield chunk, Batch(tuple(rows[j] for j in chunk))
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk, Batch(tuple(rows[j] for j in chunk))


def blind_batch(lengths: np.ndarray, mask: np.ndarray) -> Batch:
    """A batch as a party knows it: lengths (B,) and attention mask (B, T). Every id is 0."""
    rows = []
    for length, attend in zip(lengths, mask, strict=True):
        nothing = np.zeros(int(length), dtype=np.int64)
        rows.append(Row(nothing, nothing, attend[: int(length)].astype(np.int64)))
    return Batch(tuple(rows))
