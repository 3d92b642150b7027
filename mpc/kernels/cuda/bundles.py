"""Several arrays in one launch each, fields of a message or items of an opening: `random.cu` and `words.cu` take up to
sixteen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from secformer.mpc.kernels.bundles import Item
from secformer.mpc.kernels.cuda.keys import Keys
from secformer.mpc.kernels.cuda.products import MOST_BLOCKS, Products, Split
from secformer.mpc.kernels.cuda.ways import BYTES, digits, product_of
from secformer.mpc.kernels.reference import NumpyKernels
from secformer.mpc.kernels.standing import Standing
from secformer.mpc.kernels.words import Array, Dropped, Key, Mask, Masked, Piece, Sealing, whole_bytes

JOBS = 16              # arrays that one launch takes; as in random.cu and words.cu
WATCHED = 32           # guards whose values one launch weighs; as in random.cu
ALIGNED = 256          # bytes that arrays in one buffer start at a multiple of
THREADS = 256          # threads of a block; as BLOCK in words.cu
EXPANDERS, GROUP = 128, 2048  # threads of a block, and words that it makes; as in random.cu


class Bundled(NumpyKernels):
    """The kernels that take several arrays at once: see `Bundles`."""

    keys: Keys
    products: Products
    _kernel: Mapping[str, Any]

    def combined(self, keys: Sequence[tuple[Key, Key]], masks: Sequence[Mask]) -> list[Array]:
        out, starts, found = self._room([Piece(mask.length, mask.bits) for mask in masks])
        jobs = [(*self.keys(a), *self.keys(b), np.uint64(mask.length), np.int32(mask.bits), np.int32(mask.xor),
                 np.int32(mask.carries), np.uint64(at))
                for (a, b), mask, at in zip(keys, masks, starts, strict=True)]
        self._launch("combined", EXPANDERS, GROUP, [mask.length for mask in masks], jobs, (out,))
        return found

    def shares(self, keys: Sequence[Key], pieces: Sequence[Piece]) -> list[Array]:
        out, starts, found = self._room(pieces)
        jobs = [(*self.keys(key), *_facts(piece), np.uint64(at))
                for key, piece, at in zip(keys, pieces, starts, strict=True)]
        self._launch("shares", EXPANDERS, GROUP, [piece.length for piece in pieces], jobs, (out,))
        return found

    def corrections(self, keys: Sequence[Key], values: Sequence[Array], pieces: Sequence[Piece]) -> Array:
        out = self.xp.empty(sum(piece.nbytes for piece in pieces), dtype=np.uint8)
        jobs, at = [], 0
        for key, value, piece in zip(keys, values, pieces, strict=True):
            flat = self.xp.ascontiguousarray(value).reshape(-1).view(np.uint8)
            jobs.append((*self.keys(key), flat, *_facts(piece), np.uint64(at)))
            at += piece.nbytes
        self._launch("corrections", EXPANDERS, GROUP, [piece.length for piece in pieces], jobs, (out,))
        return out

    def unpacked(self, payload: Array, pieces: Sequence[Piece]) -> list[Array]:
        out, starts, found = self._room(pieces)
        jobs, start = [], 0
        for piece, at in zip(pieces, starts, strict=True):
            jobs.append((np.uint64(start), *_facts(piece), np.uint64(at)))
            start += piece.nbytes
        self._launch("unpacked_all", THREADS, THREADS, [piece.length for piece in pieces], jobs, (payload, out))
        return found

    def joint(self, lefts: Sequence[Array], rights: Sequence[Array] | Standing, onto: Array, bits: int) -> Array:
        shape = product_of(lefts[0], rights if isinstance(rights, Standing) else rights[0], bits)
        if not shape.work or shape.batch > MOST_BLOCKS or self.products.choice(shape) != BYTES:
            return super().joint(lefts, rights, onto, bits)
        (z, n, k, m), outer = (shape.batch, shape.n, shape.k, shape.m), lefts[0].shape[:-1]
        rows = [self.xp.ascontiguousarray(v).reshape(z, n, k) for v in lefts]
        d = digits(bits)

        def split(words: Sequence[Array]) -> Split:
            return self.products.split("columns", [self.xp.ascontiguousarray(v).reshape(z, k, m) for v in words], d)

        lane = self.backend.lane_number()
        right = rights.made((d, lane), split) if isinstance(rights, Standing) else split(rights)
        return self.products.joint(rows, right, onto.reshape(z, n, m), shape).reshape(*outer, m)

    def weigh(self, key: Key, block: int, tables: Array, u: Array, shifts: Sequence[int], out: Array) -> None:
        if len(shifts) > WATCHED:
            super().weigh(key, block, tables, u, shifts, out)
        elif u.size:
            blocks = -(-u.size * len(shifts) // GROUP)
            each = map(np.int32, (len(shifts), *shifts, *[0] * (WATCHED - len(shifts))))
            facts = np.uint64(u.size), np.uint64(u.size // out.size), *each
            self._kernel["weigh"]((blocks,), (EXPANDERS,), (*self.keys(key), np.uint32(block), tables, u, *facts, out))

    def seal(self, items: Sequence[Item]) -> Array:
        sizes = [item.size * whole_bytes(bits) for item, bits in items]
        out, at, jobs, counts = self.xp.empty(sum(sizes), dtype=np.uint8), 0, [], []
        for (item, bits), size in zip(items, sizes, strict=True):
            if isinstance(item, Sealing):
                jobs.append(self._job(item, bits, at))
                counts.append(item.size)
            elif size:
                words = self.xp.ascontiguousarray(item.words if isinstance(item, Masked) else item).reshape(-1)
                self._kernel["pack"]((-(-words.size // THREADS),), (THREADS,),
                                     (words, np.uint64(words.size), np.int32(bits), out[at : at + size]))
            at += size
        self._launch("seal", EXPANDERS, GROUP, counts, jobs, (out,))
        return out

    def _job(self, item: Sealing, bits: int, at: int) -> tuple[Any, ...]:
        """How words that are sealed reach the kernel. Makes room for their rest."""
        drops = item.words if isinstance(item.words, Dropped) else Dropped(item.words, 0)
        words = self.xp.ascontiguousarray(drops.words).reshape(-1)
        item.rest = self.xp.empty(words.size if item.keeps else 1, dtype=np.uint64)
        return (*self.keys(item.key), np.uint32(item.block), words.view(np.uint8), np.int32(words.dtype.itemsize),
                np.int32(drops.bits), np.int32(drops.up), np.uint64(item.constant), np.uint64(words.size),
                np.int32(bits), np.int32(item.away), np.int32(item.keeps), np.uint64(at), item.rest)

    def unseal(self, items: Sequence[Item], mine: Array, theirs: Array, xor: bool = False) -> list[Array]:
        out, starts, found = self._room([Piece(item.size, bits) for item, bits in items])
        jobs, start = [], 0
        for (item, bits), at in zip(items, starts, strict=True):
            jobs.append((np.uint64(start), np.uint64(item.size), np.int32(bits), np.uint64(at)))
            start += item.size * whole_bytes(bits)
        self._launch("unseal", THREADS, THREADS, [item.size for item, _ in items], jobs,
                     (mine, theirs, np.int32(xor), out))
        return found

    def _room(self, pieces: Sequence[Piece]) -> tuple[Array, list[int], list[Array]]:
        """One buffer for arrays of words or bytes, where in it each starts, and the arrays."""
        starts, end = [], 0
        for piece in pieces:
            starts.append(end)
            end += -(-piece.length * (1 if piece.raw else 8) // ALIGNED) * ALIGNED
        out = self.xp.empty(end, dtype=np.uint8)
        found = [out[at : at + (p.length if p.raw else 8 * p.length)] for p, at in zip(pieces, starts, strict=True)]
        return out, starts, [a if p.raw else a.view(np.uint64) for a, p in zip(found, pieces, strict=True)]

    def _launch(self, name: str, threads: int, group: int, counts: Sequence[int], jobs: Sequence[tuple[Any, ...]],
                shared: tuple[Any, ...]) -> None:
        """One launch for each `JOBS` arrays that are not empty; jobs beyond the last do nothing."""
        live = [(count, job) for count, job in zip(counts, jobs, strict=True) if count]
        for start in range(0, len(live), JOBS):
            some = live[start : start + JOBS]
            blocks = sum(-(-count // group) for count, _ in some)
            given = [value for _, job in some for value in job] + [*some[0][1]] * (JOBS - len(some))
            self._kernel[name]((blocks,), (threads,), (np.int32(len(some)), *given, *shared))


def _facts(piece: Piece) -> tuple[Any, ...]:
    return np.uint64(piece.length), np.int32(piece.bits), np.int32(piece.raw)
