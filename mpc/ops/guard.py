"""A party's side of guards: looks its shares of tables up, and gathers per text what they say, still shared.

A guard's bit (see `mpc/guards`) says that one value failed; the parties hold it as xor shares. For every text and
place, each party xors random words, one per value that its share of the bit names. The words are the same at both
parties. If no value failed, the two results are equal; else they differ, except with probability 2^-64. Who receives
both learns that and nothing else, unless it knows the random words: their difference is uniform.

1. coin: both parties open fresh uniform words, the seed of the random words               one round, 32 bytes
2. at each checked opening: look up, weigh, xor the values of a row                        local
3. witness: values that nothing else opens are opened under a mask of their own            one round for all
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import Guards, Witness, together
from secformer.mpc.guards import Check, Guard, Texts, texts_of
from secformer.mpc.ops.coin import toss
from secformer.mpc.party import Party
from secformer.mpc.shares import Share

ROOM = 1 << 15  # words that are kept ready for what places say


class Watch:
    """What the checked openings of one run say at one party, by text and place."""

    def __init__(self, party: Party, texts: Texts, count: int):
        self._party, self._texts, self._count = party, texts, count
        ((self._weights,),) = party.play(toss(party))                                                   # 1
        self._places: list[np.ndarray] = []  # the text of each row
        self._found: list[Any] = []          # what the rows said, in few arrays
        self._used = 0                       # of the last of these

    def see(self, material: Material, u: Any, guards: Guards, shape: tuple[int, ...], name: str = "guard") -> None:
        """Looks up values that were opened as u, flat, under the mask that `material` has the guards' tables for."""
        kernels, found = self._party.kernels, self._room(shape[0])
        for g, part in enumerate(together(u.size, guards)):                                             # 2
            tables, shifts = material.draw(f"{name}{g}"), [shift for shift, _, _ in part]
            if kernels.fuses:
                self._weights.weigh(tables, u, shifts, found)
                continue
            with self._party.meter.offline():
                each = self._weights.words(u.size * len(part))
            found ^= kernels.breaches(tables, u, shifts, each, shape[0])
        self._places.append(texts_of(self._texts, shape))

    def _room(self, rows: int) -> Any:
        """Zeros for the words of a place, behind those of the place before."""
        if not self._found or self._used + rows > self._found[-1].size:
            self._found[-1:] = [*(a[: self._used] for a in self._found[-1:]),
                                self._party.kernels.xp.zeros(max(rows, ROOM), dtype=np.uint64)]
            self._used = 0
        self._used += rows
        return self._found[-1][self._used - rows : self._used]

    def words(self, apart: bool) -> Any:
        """(texts, places), or xored over places (texts, 1): words that are equal to the other party's where every value
        passed. At party 1 they are negated, so that the sum of both is 0. On the host, or `Later` there."""
        rank, count, places = self._party.rank, self._count, len(self._places)
        rows = [np.where(texts < 0, count, texts) * places + place for place, texts in enumerate(self._places)]
        where = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)  # text -1 is the last row

        def gathered(found: np.ndarray) -> np.ndarray:
            flat = np.zeros((count + 1) * places, dtype=np.uint64)
            np.bitwise_xor.at(flat, where, found[: where.size])
            out = flat.reshape(count + 1, places)[:-1]
            out = out if apart else np.bitwise_xor.reduce(out, axis=1, keepdims=True)
            return out if rank == 0 else np.uint64(0) - out

        backend, found = self._party.kernels.backend, self._found
        found = found or [self._party.kernels.xp.zeros(0, dtype=np.uint64)]
        return backend.fetched(found[0] if len(found) == 1 else backend.joined(found), gathered)


def kind_of(x: Share, check: Check) -> Witness:
    """The correlation of a value that is opened to be checked."""
    return Witness(x.size, x.width, plain(check))


def plain(check: Check | None) -> Guards:
    """A check's guards as a kind has them."""
    return () if check is None else _plain(check.guards)


@lru_cache(maxsize=1 << 12)
def _plain(guards: tuple[Guard, ...]) -> Guards:
    return tuple((g.shift, g.low, g.span) for g in guards)


def witness(party: Party, jobs: Sequence[tuple[Share, Check]]) -> None:
    """Opens values under masks, and looks them up. One round for all."""
    kinds = [kind_of(x, check) for x, check in jobs]
    materials = [party.take(kind) for kind in kinds]
    opened = party.open("witness", [(material.masked("mask", x.data), x.width)
                                    for material, (x, _) in zip(materials, jobs, strict=True)])         # 3
    for material, kind, u, (x, _) in zip(materials, kinds, opened, jobs, strict=True):
        party.see(material, u, kind.guards, x.shape)
