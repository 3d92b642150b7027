"""The hottest loops compiled for the CPU by numba: same names, same results, no interpreter lock held.

One call uses one core; a matrix product splits its columns over the threads that the backend allows this party.
Compiled code is cached on disk, so the first use of a new installation costs some seconds, which a line on stderr says
(see `compile_notice`); later ones cost none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from secformer.mpc.kernels.cpu import (
    chacha,
    compare,
    guard,
    multiply,
    packing,
    points,
    powers,
    products,
    series,
    sketches,
    thin,
)
from secformer.mpc.kernels.cpu.bundles import Bundled
from secformer.mpc.kernels.cpu.compile_notice import announce
from secformer.mpc.kernels.points import PointKeys
from secformer.mpc.kernels.tables import STEP_BITS, outcome_patterns, outcomes, power_factors
from secformer.mpc.kernels.taylor import SQUARINGS
from secformer.mpc.kernels.threads import spread, threaded
from secformer.mpc.kernels.words import TERMS, Array, Factor, Guard, Masked, Sealing, broadcast, whole_bytes
from secformer.mpc.ring import mask

announce(*(m.__name__ for m in (chacha, compare, guard, multiply, packing, points, powers, products, series, sketches,
                                thin)))


class NumbaKernels(Bundled):
    """Compiled CPU kernels; what is not here is inherited from the reference."""

    name = "numba"
    chunk = 1 << 15  # so many that Python's part of a step is small

    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array:
        if a.shape[-2] <= thin.ROWS:
            return thin.product(a, b, self._pool, self.backend.threads)
        low, (a, b) = bits <= products.LOW_BITS, map(np.ascontiguousarray, (a, b))
        return threaded(lambda *part: products.multiply(*part, low), a, b, self._pool, self.backend.threads)

    def pack(self, words: Array, bits: int) -> Array:
        nbytes, flat = whole_bytes(bits), words.reshape(-1)
        if nbytes == 8 or flat.dtype != np.uint64:
            return super().pack(words, bits)
        out = np.empty(flat.size * nbytes, dtype=np.uint8)
        packing.pack(flat, mask(bits), nbytes, out)
        return out

    def unpack(self, payload: Array, count: int, bits: int) -> Array:
        if (nbytes := whole_bytes(bits)) == 8:
            return super().unpack(payload, count, bits)
        words = np.empty(count, dtype=np.uint64)
        packing.unpack(payload, nbytes, mask(bits), words)
        return words

    def turn(self, u: Array, bits: int) -> tuple[Array, Array]:
        cos, sin = np.empty(u.size), np.empty(u.size)
        series.turn(u, bits, 2.0 * math.pi / 2.0**bits, cos, sin)
        return cos, sin

    def harmonics(self, r: Array, bits: int, count: int, frac: int) -> Array:
        c, s = self.turn(r, bits)
        out = np.empty((2 * count, r.size), dtype=np.uint64)
        series.harmonics(c, s, count, 2.0**frac, out)
        return out

    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        c, s = self.turn(u, bits)
        out = np.zeros((cos.shape[0], u.size), dtype=np.uint64)
        one = 2.0**frac
        cos, sin = np.ascontiguousarray(cos) * one, np.ascontiguousarray(sin) * one
        series.series(c, s, cos, sin, np.ascontiguousarray(words), out)
        return out

    # ---- powers of e ------------------------------------------------------------------------------------------------

    def growth(self, v: Array, frac: int) -> Array:
        out = np.empty(v.size)
        powers.growth(v, 2.0 ** -(frac + SQUARINGS), out)
        return out

    def powers(self, r: Array, bits: int, period_bits: int, top: int, frac: int) -> Array:
        down, factors = bits - period_bits + STEP_BITS, power_factors(period_bits, frac)
        out = np.empty((factors.size, r.size), dtype=np.uint64)
        unit = 2.0 ** -(bits - period_bits + SQUARINGS)
        powers.powers(r, np.uint64(down), unit, np.uint64(top), factors, 2.0**frac, out)
        return out

    def exponential(self, u: Array, bits: int, period_bits: int, table: Array, frac: int, out: Array) -> None:
        unit = 2.0 ** -(bits - period_bits + SQUARINGS)
        powers.exponential(u, np.uint64(bits - period_bits + STEP_BITS), unit, table, 2.0**frac, out)

    # ---- masks --------------------------------------------------------------------------------------------------

    def keystream(self, key: bytes, block: int, nbytes: int) -> Array:
        out = np.empty(-(-nbytes // 4), dtype=np.uint32)
        chacha.keystream(_words(key), block, out)
        return out.view(np.uint8)[:nbytes]

    def uniform(self, key: bytes, block: int, count: int, bits: int) -> Array:
        out = np.empty(count, dtype=np.uint64)
        chacha.uniform(_words(key), block, whole_bytes(bits), mask(bits), out)
        return out

    def correction(self, key: bytes, value: Array, bits: int, xor: bool = False) -> Array:
        flat, nbytes = value.reshape(-1), whole_bytes(bits)
        if nbytes == 8 or value.dtype != (np.uint8 if xor else np.uint64):
            return super().correction(key, value, bits, xor)
        if xor:
            out = np.empty(flat.size, dtype=np.uint8)
            chacha.correction_xor(_words(key), flat, out)
        else:
            out = np.empty(flat.size * nbytes, dtype=np.uint8)
            chacha.correction(_words(key), nbytes, flat, mask(bits), out)
        return out

    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array:
        if xor or (nbytes := whole_bytes(bits)) == 8:  # whole words come as they are: the payload is the peer's
            return super().opened(mine, payload, bits, xor)
        total = np.empty(mine.size, dtype=np.uint64)
        packing.add(mine.reshape(-1), payload, nbytes, mask(bits), total)
        return total

    # ---- rows of clients --------------------------------------------------------------------------------------------

    def points(self, keys: PointKeys, out: Array) -> None:
        facts = (keys.rank, keys.salt, keys.seeds, keys.corrections, keys.turns, keys.finals)
        spread(lambda start, stop: points.rows(start, *facts, out[start:stop]), len(out), self._pool,
               self.backend.threads)

    def sketches(self, rows: Array, start: int, left: Array, right: Array) -> Array:
        out = np.empty((len(rows), 3 * len(left) + 1), dtype=np.uint64)
        vectors = left, right, left * right
        spread(lambda first, stop: sketches.sketches(rows[first:stop], start, *vectors, out[first:stop]), len(rows),
               self._pool, self.backend.threads)
        return out

    # ---- lifts ----------------------------------------------------------------------------------------------------

    def dropped(self, words: Array, bits: int, up: bool) -> Array:
        if not up:
            return words >> np.uint64(bits)
        out = np.empty(words.shape, dtype=np.uint64)
        packing.rounded_up(words.reshape(-1), np.uint64(bits), out.reshape(-1))
        return out

    def wraps(self, r: Array, window: int) -> Array:
        out = np.empty(2 * r.size, dtype=np.uint64)
        packing.wraps(r, np.uint64(window), out)
        return out

    def lifted(self, u: Array, m: Masked | Sealing, wraps: Array | None, window: int, first: bool) -> Array:
        if wraps is None or not isinstance(m, Masked) or m.kept is not None:
            return super().lifted(u, m, wraps, window, first)
        out = np.empty_like(u)
        packing.lifted(u, m.plain, m.words, wraps, np.uint64(window), mask(64 if first else 0), out)
        return out

    # ---- element-wise products --------------------------------------------------------------------------------------

    def multiplied(self, x: Factor, y: Factor, terms: Mapping[str, Array], first: bool) -> Array:
        shape = broadcast(x.share.shape, y.share.shape)
        out = np.empty(math.prod(shape), dtype=np.uint64)
        if out.size:
            grid, (u, share, v, other) = self.gridded(x.opened, x.share, y.opened, y.share)
            none = np.empty(0, dtype=np.uint64)
            given = (terms.get(name, none).reshape(-1) for name in TERMS)
            multiply.multiplied(grid.columns, grid.steps[0], grid.steps[2], u, share, x.offset, np.uint64(x.window),
                                v, other, y.offset, np.uint64(y.window), mask(64 if first else 0), *given, out)
        return out.reshape(shape)

    def product_terms(self, masks: Sequence[Array], windows: Sequence[int], names: Sequence[str]) -> list[Array]:
        grid, operands = self.gridded(masks[0], masks[-1])
        size = grid.rows * grid.columns
        made = {name: np.empty(size if name in names else 0, dtype=np.uint64) for name in TERMS}
        if size:
            facts = [(r, mask(k or 64), np.uint64(k), mask(64 if k else 0))
                     for r, k in zip(operands, (windows[0], windows[-1]), strict=True)]
            multiply.terms(grid.columns, *grid.steps, *facts[0], *facts[1], len(masks) == 1, *made.values())
        return [made[name] for name in names]

    # ---- comparison tables ----------------------------------------------------------------------------------------

    def flip_bits(self, tables: Array, block: Array) -> None:
        compare.flip_bits(tables, block)

    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        equal, less = np.empty(v.size, dtype=np.uint8), np.empty(v.size, dtype=np.uint8)
        compare.look_up(_widest(tables), v, equal, less)
        return equal, less

    def outcome(self, tables: Array, v: Array, down: int, bits: int, place: int, last: bool, share: Array) -> None:
        compare.outcome(_widest(tables), v, np.uint64(down), mask(bits), np.uint64(place), last, share)

    def rectified(self, tables: Array, e: Array, u: Array, r: Array, window: int, first: bool) -> Array:
        out = np.empty(e.size, dtype=np.uint64)
        compare.rectified(tables, e, u, r, np.uint64(window - 1), np.uint64(1 if first else 0), out)
        return out

    def pick(self, tables: Array, e: Array, place: int, share: Array) -> None:
        compare.pick(tables, e, np.uint64(place), share)

    def below(self, tables: Array, u: Array, thresholds: Sequence[int], window: int, start: int,
              planes: Array) -> None:
        if tables.shape[1] % 8:  # shorter than a word
            tables = np.pad(tables, ((0, 0), (0, 8 - tables.shape[1])))
        compare.below(tables.view(np.uint64), u, np.array(thresholds, dtype=np.uint64), mask(window - 1), start,
                      planes.view(np.uint8))

    def signs(self, r: Array, alpha: Array, window: int) -> Array:
        out = np.empty(r.size, dtype=np.uint64)
        compare.signs(r, alpha.view(np.uint8), np.uint64(window - 1), out)
        return out

    def counted(self, bits: Array, e: Array, u: Array, threshold: int, window: int, columns: int, length: int,
                first: bool) -> Array:
        out = np.empty((-(-columns // length), u.size // columns), dtype=np.uint64)
        compare.counted(bits, e.view(np.uint8), u, np.uint64(threshold), np.uint64(window - 1),
                        np.uint64(1 if first else 0), columns, length, out)
        return out.reshape(-1)

    def outcome_rows(self, r: Array, alpha: Array, window: int, blocks: int) -> Array:
        patterns = outcome_patterns(blocks)
        out = np.empty((r.size, patterns.shape[1]), dtype=np.uint8)
        compare.outcome_rows(r, alpha, patterns, np.uint64(window - 1), np.uint64(2 * blocks - 1), out)
        return out.reshape(-1)

    def outcome_tables(self, r: Array, alpha: Array, window: int, blocks: int, columns: int) -> Array:
        below = outcomes(blocks)
        out = np.empty(r.size * below.size * columns, dtype=np.uint64)
        wrap = np.uint64((1 << window) % 2**64 if columns == 3 else 0)
        compare.outcome_tables(r, alpha, below, np.uint64(window - 1), wrap, columns, out)
        return out

    # ---- guards ---------------------------------------------------------------------------------------------------

    def guard_tables(self, r: Array, guards: Sequence[Guard], negated: bool = False) -> Array:
        out = np.empty((len(guards), r.size), dtype=np.uint64)
        for own, (shift, low, span) in zip(out, guards, strict=True):
            guard.tables(r, mask(64 if negated else 0), np.uint64(shift), np.uint64(low), mask(shift + 6),
                         np.uint64(span), own)
        return out.reshape(-1)

    def breaches(self, tables: Array, u: Array, shifts: Sequence[int], weights: Array, rows: int) -> Array:
        out, shape = np.empty(rows, dtype=np.uint64), (len(shifts), u.size)
        guard.breaches(self._view(tables, np.uint64).reshape(shape), u.reshape(-1), np.array(shifts, dtype=np.uint64),
                       weights.reshape(shape), out)
        return out


def _widest(rows: Array) -> Array:
    """Rows of bytes as rows of words, where they are long enough."""
    return rows.view(np.uint64) if rows.shape[1] % 8 == 0 else rows


def _words(key: bytes) -> Array:
    return np.frombuffer(key, dtype="<u4")
