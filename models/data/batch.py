"""Tokens of texts, and texts that run together.

B texts of a batch, T tokens of the longest text, N tokens of all texts together, packed without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby

import numpy as np

PADDING = 11, 10  # a batch has at most 11 positions in attention per 10 tokens; so has each of its texts,
FEW = 8           # or so many more than tokens: in texts below 80 tokens, their scores cost little beside the rest


@dataclass(frozen=True)
class Row:
    """One text: ids, segments and mask (1 = attend), each (T,) int64, without padding at the end. `repr` shows what is
    public: the mask, and how many of the tokens, the last ones, are fillers.

    A filler is a copy of the text's first token, in its place, that nothing attends to. So whatever a model computes
    of a filler, it computes of the first token.
    """

    ids: np.ndarray = field(repr=False)
    segments: np.ndarray = field(repr=False)
    mask: np.ndarray
    fillers: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, most: int) -> Row:
        """The first `most` tokens, or all of fewer."""
        return self if len(self) <= most else Row(self.ids[:most], self.segments[:most], self.mask[:most])

    @property
    def own(self) -> int:
        """The number of tokens without fillers."""
        return len(self) - self.fillers

    def filled(self, length: int) -> Row:
        """The same text with fillers, so that it has `length` tokens; the text itself where it is as long already."""
        more = length - len(self)
        if more <= 0:
            return self
        ids, segments = (np.concatenate([x, np.repeat(x[:1], more)]) for x in (self.ids, self.segments))
        mask = np.concatenate([self.mask, np.zeros(more, self.mask.dtype)])
        return Row(ids, segments, mask, self.fillers + more)


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts that run together. Their lengths, masks and numbers of fillers are public.

    Tokens are packed as (N, ...), so token-wise work spends nothing on padding. Attention unpacks the tokens to
    (B, T, ...). There, padding repeats each text's first token, so the padding stays within every measured range.
    """

    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        return len(self.rows)

    @cached_property
    def public(self) -> tuple[bytes, bytes, bytes]:
        """All that parties know of the batch: lengths, masks and fillers. Batches that have it in common run alike."""
        return self.lengths.tobytes(), self.mask.tobytes(), self.own_lengths.tobytes()

    @cached_property
    def longest(self) -> int:
        return max(len(r) for r in self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(B,): the tokens of each text, fillers included."""
        return np.array([len(r) for r in self.rows])

    @cached_property
    def own_lengths(self) -> np.ndarray:
        """(B,): the tokens of each text, without fillers."""
        return np.array([r.own for r in self.rows])

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
        """(B, T) bool: the positions that hold a token, be it a filler, rather than padding."""
        return np.asarray(np.arange(self.longest) < self.lengths[:, None])

    @cached_property
    def own(self) -> np.ndarray:
        """(B, T) bool: the positions that hold a token of the text itself, neither padding nor a filler."""
        return np.asarray(np.arange(self.longest) < self.own_lengths[:, None])

    @cached_property
    def steps(self) -> np.ndarray:
        """(B, T): the place in its text of the token at each position. Padding and fillers stand for the first token of
        their text."""
        return np.where(self.own, np.arange(self.longest), 0)

    @cached_property
    def like(self) -> np.ndarray:
        """(N,): the packed index of the token that each is computed like: its own, a filler's text's first."""
        return np.asarray((self.starts[:, None] + self.steps)[self.present])

    @cached_property
    def unpacking(self) -> np.ndarray:
        """(B T,): the packed index of the token at each position. Padding takes the first token of its text."""
        return np.asarray(self.starts[:, None] + np.where(self.present, np.arange(self.longest), 0)).reshape(-1)

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
        to count, too: poolers and clients may read them. So do fillers, which are as their text's first token."""
        return {self.tokens: np.repeat(np.arange(self.size), self.lengths), self.size: np.arange(self.size)}

    @cached_property
    def ids(self) -> np.ndarray:
        return np.concatenate([r.ids for r in self.rows])

    @cached_property
    def segments(self) -> np.ndarray:
        return np.concatenate([r.segments for r in self.rows])

    @cached_property
    def positions(self) -> np.ndarray:
        """(N,): the place of each token in its text."""
        return np.asarray(self.steps[self.present])

    def counted(self, pad: int) -> np.ndarray:
        """(N,): for an attended token, how many there are in its text up to it, plus `pad`; for all others, `pad`."""
        counts = np.concatenate([np.cumsum(r.mask) * r.mask for r in self.rows])
        return np.asarray(counts[self.like] + pad)


@dataclass(frozen=True)
class Steps:
    """The lengths that texts are filled up to: multiples of `step`, and `most`, which none exceeds."""

    step: int
    most: int

    def length(self, tokens: int) -> int:
        """The next such length."""
        return max(tokens, min(-(-tokens // self.step) * self.step, self.most))


def batches(rows: Sequence[Row], limit: int, least: int = 1,
            steps: Steps | None = None) -> Iterator[tuple[list[int], Batch]]:
    """Puts texts of similar length into batches. Yields each batch with the places of its texts in `rows`.

    limit  the most positions (texts times longest text) per batch; a text that is longer runs alone
    least  batches, which then run at the same time: where there are fewer, the largest are cut in two, down to single
           texts
    steps  lengths that texts are filled up to, so that few programs differ. All texts of a batch then get its longest
           text's length

    Attention pads the texts of a batch, and only attention does. A batch has at most 1.1 positions per token (PADDING),
    and no text has more than that, or than FEW positions beyond its tokens. So another's padding adds at most about a
    tenth to what a text costs (scores grow with the square, but are a part of it). Texts of equal length run together
    unless `limit` parts them. Subject to that, there are as few batches as can be, because each batch has rounds of its
    own; and of the cuts with as few batches, this is one with the fewest positions.
    """
    if steps is not None:
        rows = [row.filled(steps.length(len(row))) for row in rows]
    lengths = [len(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (lengths[i], i))
    parts: list[list[int]] = []  # of equal length each, in ascending order: what the batches are made of
    for length, run in groupby(order, key=lambda i: lengths[i]):
        places, most = list(run), max(1, limit // length)
        parts += [places[k : k + most] for k in range(0, len(places), most)]
    cuts = _fewest([(lengths[part[0]], len(part)) for part in parts], limit)
    for places in _cut([[i for part in parts[start:stop] for i in part] for start, stop in cuts], lengths, least):
        longest = 0 if steps is None else max(lengths[i] for i in places)
        yield places, Batch(tuple(rows[i].filled(longest) for i in places))


def _fewest(parts: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Cuts parts (length, texts), ascending in length, into the fewest batches [start, stop) within both bounds."""
    most, per = PADDING
    best = [(0, 0, 0)]  # of the first n parts: batches, positions, and where the last batch starts
    for stop, (longest, _) in enumerate(parts, start=1):
        found: list[tuple[int, int, int]] = []
        texts = tokens = 0
        for start in range(stop - 1, -1, -1):  # each step adds shorter texts: more positions, and more per token
            length, count = parts[start]
            texts, tokens = texts + count, tokens + length * count
            positions = texts * longest
            padded = longest > length + FEW and per * longest > most * length
            if start < stop - 1 and (padded or positions > limit or per * positions > most * tokens):
                break
            found.append((best[start][0] + 1, best[start][1] + positions, start))
        best.append(min(found))
    cuts, stop = [], len(parts)
    while stop:
        cuts.append((best[stop][2], stop))
        stop = best[stop][2]
    return cuts[::-1]


def _cut(chunks: list[list[int]], lengths: Sequence[int], least: int) -> list[list[int]]:
    """Cuts the chunk of the most tokens in two, as evenly as can be, until there are `least` chunks or none has two
    texts. Each chunk's texts ascend in length."""
    while 0 < len(chunks) < least:
        size, at = max((sum(lengths[i] for i in chunk) * (len(chunk) > 1), k) for k, chunk in enumerate(chunks))
        if not size:
            break
        chunk, before = chunks[at], list(accumulate(lengths[i] for i in chunks[at]))
        half = 1 + min(range(len(chunk) - 1), key=lambda k: abs(2 * before[k] - size))
        chunks[at : at + 1] = [chunk[:half], chunk[half:]]
    return chunks


def blind_batch(lengths: np.ndarray, mask: np.ndarray) -> Batch:
    """A batch as a party knows it: lengths (B,) and attention mask (B, T). Every id is 0."""
    rows = []
    for length, attend in zip(lengths, mask, strict=True):
        nothing = np.zeros(int(length), dtype=np.int64)
        rows.append(Row(nothing, nothing, attend[: int(length)].astype(np.int64)))
    return Batch(tuple(rows))
