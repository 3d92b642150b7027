"""Several arrays of shares in one launch each: `random.cu` and `words.cu` take up to eight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from secformer.mpc.kernels.words import Array, Piece

JOBS = 8               # pieces that one launch takes; as in random.cu and words.cu
ALIGNED = 256          # bytes that arrays in one buffer start at a multiple of
THREADS = 256          # threads of a block; as BLOCK in words.cu
EXPANDERS, GROUP = 128, 2048  # threads of a block, and words that it makes; as in random.cu
Parts = Callable[[bytes], tuple[Any, ...]]


class Bundles:
    """Launches for several pieces at once, in arrays of the array module `xp`. `parts` says how a key reaches a
    kernel."""

    def __init__(self, xp: Any, kernel: Mapping[str, Any], parts: Parts):
        self._xp, self._kernel, self._parts = xp, kernel, parts

    def shares(self, keys: Sequence[bytes], pieces: Sequence[Piece]) -> list[Array]:
        """`Kernels.shares`."""
        out, starts, found = self._room(pieces)
        jobs = [(*self._parts(key), *_facts(piece), np.uint64(at))
                for key, piece, at in zip(keys, pieces, starts, strict=True)]
        self._launch("shares", EXPANDERS, GROUP, pieces, jobs, (out,))
        return found

    def corrections(self, keys: Sequence[bytes], values: Sequence[Array], pieces: Sequence[Piece]) -> Array:
        """`Kernels.corrections`."""
        out = self._xp.empty(sum(piece.nbytes for piece in pieces), dtype=np.uint8)
        jobs, at = [], 0
        for key, value, piece in zip(keys, values, pieces, strict=True):
            flat = self._xp.ascontiguousarray(value).reshape(-1).view(np.uint8)
            jobs.append((*self._parts(key), flat, *_facts(piece), np.uint64(at)))
            at += piece.nbytes
        self._launch("corrections", EXPANDERS, GROUP, pieces, jobs, (out,))
        return out

    def unpacked(self, payload: Array, pieces: Sequence[Piece]) -> list[Array]:
        """`Kernels.unpacked`."""
        out, starts, found = self._room(pieces)
        jobs, start = [], 0
        for piece, at in zip(pieces, starts, strict=True):
            jobs.append((np.uint64(start), *_facts(piece), np.uint64(at)))
            start += piece.nbytes
        self._launch("unpacked_all", THREADS, THREADS, pieces, jobs, (payload, out))
        return found

    def _room(self, pieces: Sequence[Piece]) -> tuple[Array, list[int], list[Array]]:
        """One buffer for arrays of words or bytes, where in it each starts, and the arrays."""
        starts, end = [], 0
        for piece in pieces:
            starts.append(end)
            end += -(-piece.length * (1 if piece.raw else 8) // ALIGNED) * ALIGNED
        out = self._xp.empty(end, dtype=np.uint8)
        found = [out[at : at + (p.length if p.raw else 8 * p.length)] for p, at in zip(pieces, starts, strict=True)]
        return out, starts, [a if p.raw else a.view(np.uint64) for a, p in zip(found, pieces, strict=True)]

    def _launch(self, name: str, threads: int, group: int, pieces: Sequence[Piece], jobs: Sequence[tuple[Any, ...]],
                shared: tuple[Any, ...]) -> None:
        """One launch for each `JOBS` pieces that are not empty; jobs beyond the last do nothing."""
        live = [(piece, job) for piece, job in zip(pieces, jobs, strict=True) if piece.length]
        for start in range(0, len(live), JOBS):
            some = live[start : start + JOBS]
            blocks = sum(-(-piece.length // group) for piece, _ in some)
            given = [value for _, job in some for value in job] + [*some[0][1]] * (JOBS - len(some))
            self._kernel[name]((blocks,), (threads,), (np.int32(len(some)), *given, *shared))


def _facts(piece: Piece) -> tuple[Any, ...]:
    return np.uint64(piece.length), np.int32(piece.bits), np.int32(piece.raw)
