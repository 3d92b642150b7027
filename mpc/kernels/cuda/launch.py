"""Raw CUDA kernels through CuPy, under the reference's names and with its results.

Letters: n elements or rows, k inner, m columns, K harmonics.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.cuda.bundles import Bundled
from secformer.mpc.kernels.cuda.device import SOURCES, Device, current_device
from secformer.mpc.kernels.cuda.guards import Guards
from secformer.mpc.kernels.cuda.keys import Keys
from secformer.mpc.kernels.cuda.products import Products
from secformer.mpc.kernels.cuda.ways import Choice, product_of, recorded
from secformer.mpc.kernels.points import PointKeys, leaves
from secformer.mpc.kernels.tables import STEP_BITS, outcome_patterns, power_factors
from secformer.mpc.kernels.taylor import SQUARINGS
from secformer.mpc.kernels.words import TERMS, Array, Factor, Grid, Guard, Key, Masked, Sealing, whole_bytes
from secformer.mpc.kernels.words import grid as grid_of

THREADS = 256          # threads of a block, in kernels with one thread per element
EXPANDERS = 128        # threads of a block, in kernels that expand a keystream; as in random.cu
GROUP = 2048           # words that such a block makes; as in random.cu
FUNCTIONS = 4          # series that one launch sums up: as in series.cu


class CudaKernels(Bundled):
    """GPU kernels; what is not here runs as CuPy array operations inherited from the reference."""

    name = "cuda"
    fuses = True
    chunk = 1 << 20  # few launches; some hundred megabytes of material at most

    def __init__(self, backend: Backend, device: Device | None = None):
        super().__init__(backend)
        self.device = device or current_device()
        modules = {file: self.device.module(file) for file in SOURCES}
        self._kernel = {name: modules[file].get_function(name) for file, names in SOURCES.items() for name in names}
        choice = Choice(self.device.capability, recorded(self.device.name))
        self.products = Products(self.xp, self._kernel, choice)
        self.guards = Guards(self.xp, self._kernel)
        self.keys = Keys(self.xp)

    # ---- launching ------------------------------------------------------------------------------------------------

    def _each(self, name: str, n: int, *args: Any) -> None:
        """One thread per element."""
        if n:
            self._kernel[name]((-(-n // THREADS),), (THREADS,), args)

    def _expand(self, name: str, n: int, *args: Any) -> None:
        """n words of a keystream."""
        if n:
            self._kernel[name]((-(-n // GROUP),), (EXPANDERS,), args)

    def _flat(self, x: Array) -> Array:
        return self.xp.ascontiguousarray(x).reshape(-1)

    def _words(self, n: int) -> Array:
        return self.xp.empty(n, dtype=np.uint64)

    def _bytes(self, n: int) -> Array:
        return self.xp.empty(n, dtype=np.uint8)

    # ---- randomness -----------------------------------------------------------------------------------------------

    def as_key(self, words: Array) -> Key:
        return self._flat(words)

    def claim_keys(self, table: Array, last: Array) -> None:
        """Ends everything unless `table` (rows, 4) has the keys of a run with a higher number than `last` (1,)."""
        self._kernel["claim_keys"]((1,), (1,), (table, last))

    def keystream(self, key: Key, block: int, nbytes: int) -> Array:
        n = -(-nbytes // 4)
        out = self._bytes(4 * n)
        self._expand("keystream", n, *self.keys(key), np.uint32(block), np.uint64(n), out.view(np.uint32))
        return out[:nbytes]

    def uniform(self, key: Key, block: int, count: int, bits: int) -> Array:
        out = self._words(count)
        self._expand("uniform", count, *self.keys(key), np.uint32(block), np.uint64(count), np.int32(bits), out)
        return out

    def correction(self, key: Key, value: Array, bits: int, xor: bool = False) -> Array:
        value = self._flat(value)
        n = value.size
        if xor:
            out = self._bytes(n)
            self._expand("correction_xor", n, *self.keys(key), value, np.uint64(n), out)
        else:
            out = self._bytes(n * whole_bytes(bits))
            self._expand("correction", n, *self.keys(key), value, np.uint64(n), np.int32(bits), out)
        return out

    def points(self, keys: PointKeys, out: Array) -> None:
        n, columns = out.shape
        whole = out if out.flags.c_contiguous else self.xp.empty(out.shape, dtype=np.uint64)
        given = [self._flat(self.xp.asarray(v)) for v in (keys.seeds, keys.corrections, keys.turns, keys.finals)]
        facts = *map(np.uint32, keys.salt), np.int32(keys.rank), np.int32(keys.depth)
        self._each("points", n * leaves(columns), *given, *facts, *map(np.uint64, (n, leaves(columns), columns)), whole)
        if whole is not out:
            out[...] = whole

    # ---- words ----------------------------------------------------------------------------------------------------

    def pack(self, words: Array, bits: int) -> Array:
        words = self._flat(words)
        out = self._bytes(words.size * whole_bytes(bits))
        name = "pack_narrow" if words.dtype == np.uint32 else "pack"
        self._each(name, words.size, words, np.uint64(words.size), np.int32(bits), out)
        return out

    def unpack(self, payload: Array, count: int, bits: int) -> Array:
        out = self._words(count)
        self._each("unpack", count, self._flat(payload), np.uint64(count), np.int32(bits), out)
        return out

    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array:
        mine = self._flat(mine)
        out = self._words(mine.size)
        self._each("opened", mine.size, mine, self._flat(payload), np.uint64(mine.size), np.int32(bits), np.int32(xor),
                   out)
        return out

    def dropped(self, words: Array, bits: int, up: bool) -> Array:
        if not up:
            return super().dropped(words, bits, up)
        out = self._words(words.size)
        self._each("rounded_up", out.size, self._flat(words), np.uint64(out.size), np.int32(bits), out)
        return out.reshape(words.shape)

    def wraps(self, r: Array, window: int) -> Array:
        r = self._flat(r)
        out = self._words(2 * r.size)
        self._each("wraps", r.size, r, np.uint64(r.size), np.int32(window), out)
        return out

    def added(self, a: Array, up: int, b: Array, more: int, minus: bool) -> Array:
        one = not (up or more)  # CuPy's own operation, which takes operands as they lie
        if one or a.dtype != np.uint64 or b.dtype != np.uint64:
            return super().added(a, up, b, more, minus)
        grid, (x, y) = self.gridded(a, b)
        out = self._words(grid.rows * grid.columns)
        self._each("added", out.size, *_placed(grid, 0, 1), x, np.int32(up), y, np.int32(more), np.int32(minus), out)
        return out.reshape(np.broadcast_shapes(a.shape, b.shape))

    def lifted(self, u: Array, m: Masked | Sealing, wraps: Array | None, window: int, first: bool) -> Array:
        u, rest = self._flat(u), self._flat(m.rest)
        out = self._words(u.size)
        facts = np.uint64(u.size), np.int32(window), np.int32(first), np.int32(wraps is not None)
        self._each("lifted", u.size, u, rest, rest if wraps is None else self._flat(wraps), *facts, out)
        return out

    def factor(self, u: Array, m: Masked | Sealing, wraps: Array | None, window: int, first: bool,
               shape: tuple[int, ...]) -> Factor:
        return Factor(u.reshape(shape), m.rest.reshape(shape), window, True, wraps)

    def share(self, factor: Factor, first: bool) -> Array:
        if not factor.partly:
            return factor.share
        m = Masked(factor.share, factor.share, factor.share)
        return self.lifted(factor.opened, m, factor.wraps, factor.window, first).reshape(factor.share.shape)

    # ---- products -------------------------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array:
        """(..., n, k) @ (..., k, m) of words, right mod 2^bits (uint32: mod 2^32); bits above are anything."""
        return self.products(a, b, product_of(a, b, bits))

    def multiplied(self, x: Factor, y: Factor, terms: Mapping[str, Array], first: bool) -> Array:
        shape = np.broadcast_shapes(x.share.shape, y.share.shape)
        if grid_of([x.share.shape, y.share.shape]) is None:  # repeated, so wraps would stand elsewhere
            x, y = (Factor(v.opened, self.share(v, first), v.window) for v in (x, y))
        grid, (u, share, v, other) = self.gridded(x.opened, x.share, y.opened, y.share)
        out = self._words(math.prod(shape))
        given = [self._flat(terms.get(name, terms["product"])) for name in TERMS]
        self._each("multiplied", out.size, *_placed(grid, 0, 2), u, share, *self._lacking(x, share), v, other,
                   *self._lacking(y, other), np.int32(first), _present(terms), *given, out)
        return out.reshape(shape)

    def _lacking(self, factor: Factor, flat: Array) -> tuple[Any, ...]:
        """How a factor's wraps, its window, and what its share lacks reach a kernel: 1 what was opened, 2 wraps."""
        wraps = flat if factor.wraps is None else self._flat(factor.wraps)
        lacks = int(factor.partly) + 2 * (factor.wraps is not None)
        return wraps, np.uint64(flat.size), np.int32(factor.window), np.int32(lacks)

    def product_terms(self, masks: Sequence[Array], windows: Sequence[int], names: Sequence[str]) -> list[Array]:
        grid, (r, s) = self.gridded(masks[0], masks[-1])
        made = {name: self._words(grid.rows * grid.columns) for name in names}
        given = [made.get(name, made["product"]) for name in TERMS]
        self._each("product_terms", given[0].size, *_placed(grid, 0, 1), r, np.int32(windows[0]), s,
                   np.int32(windows[-1]), np.int32(len(masks) == 1), _present(names), *given)
        return [made[name] for name in names]

    # ---- series ---------------------------------------------------------------------------------------------------

    def turn(self, u: Array, bits: int) -> tuple[Array, Array]:
        u = self._flat(u)
        cos, sin = self.xp.empty(u.size), self.xp.empty(u.size)
        self._each("turn", u.size, u, np.uint64(u.size), *_angle(bits), cos, sin)
        return cos, sin

    def harmonics(self, r: Array, bits: int, count: int, frac: int) -> Array:
        r = self._flat(r)
        out = self.xp.empty((2 * count, r.size), dtype=np.uint64)
        self._each("harmonics", r.size, r, np.uint64(r.size), *_angle(bits), np.int32(count), np.float64(2.0**frac),
                   out)
        return out

    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        u, words = self._flat(u), self._flat(words)
        functions, count = cos.shape
        out = self.xp.empty((functions, u.size), dtype=np.uint64)
        for f in range(0, functions, FUNCTIONS):
            part = slice(f, f + FUNCTIONS)
            factors = self.backend.constant(np.stack([cos[part], sin[part]]) * 2.0**frac)
            self._each("series", u.size, u, np.uint64(u.size), *_angle(bits), np.int32(factors.shape[1]),
                       np.int32(count), factors, words, out[part])
        return out

    # ---- powers of e ----------------------------------------------------------------------------------------------

    def growth(self, v: Array, frac: int) -> Array:
        v = self._flat(v)
        out = self.xp.empty(v.size)
        self._each("growth", v.size, v, np.uint64(v.size), _unit(frac), out)
        return out

    def powers(self, r: Array, bits: int, period_bits: int, top: int, frac: int) -> Array:
        r, factors = self._flat(r), self.backend.constant(power_factors(period_bits, frac))
        out = self.xp.empty((factors.size, r.size), dtype=np.uint64)
        keep = bits - period_bits
        self._each("powers", r.size, r, np.uint64(r.size), np.int32(keep + STEP_BITS), _unit(keep), np.uint64(top),
                   factors, np.int32(factors.size), np.float64(2.0**frac), out)
        return out

    def exponential(self, u: Array, bits: int, period_bits: int, table: Array, frac: int, out: Array) -> None:
        u, keep = self._flat(u), bits - period_bits
        self._each("exponential", u.size, u, np.uint64(u.size), np.int32(keep + STEP_BITS), _unit(keep),
                   self._flat(table), np.float64(2.0**frac), out)

    # ---- comparison -----------------------------------------------------------------------------------------------

    def flip_bits(self, tables: Array, block: Array) -> None:
        self._each("flip_bits", block.size, tables, self._flat(block), np.uint64(block.size),
                   np.int32(tables.shape[1]))

    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        v = self._flat(v)
        equal, less = self._bytes(v.size), self._bytes(v.size)
        self._each("look_up", v.size, self._flat(tables), v, np.uint64(v.size), np.int32(tables.shape[1]), equal, less)
        return equal, less

    def gather(self, tables: Array, e: Array) -> Array:
        (n, entries, columns), e = tables.shape, self._flat(e)
        out = self.xp.empty((columns, n), dtype=np.uint64)
        self._each("gather", n, self._flat(tables), e, np.uint64(n), np.int32(entries), np.int32(columns), out)
        return out

    def outcome(self, tables: Array, v: Array, down: int, bits: int, place: int, last: bool, share: Array) -> None:
        facts = np.int32(tables.shape[1]), np.int32(down), np.int32(bits), np.int32(place), np.int32(last)
        self._each("outcome", v.size, self._flat(tables), self._flat(v), np.uint64(v.size), *facts, share)

    def pick(self, tables: Array, e: Array, place: int, share: Array) -> None:
        self._each("pick", e.size, self._flat(tables), self._flat(e), np.uint64(e.size), np.int32(tables.shape[1]),
                   np.int32(place), share)

    def below(self, tables: Array, u: Array, thresholds: Sequence[int], window: int, start: int,
              planes: Array) -> None:
        octets = (start + u.size + 7) // 8 - start // 8
        facts = np.int32(len(thresholds)), np.int32(window), np.uint64(start), np.uint64(8 * planes.shape[1])
        self._each("below", octets if u.size else 0, self._flat(tables), self._flat(u), np.uint64(u.size),
                   np.int32(tables.shape[1]), self.backend.constant(np.array(thresholds, dtype=np.uint64)), *facts,
                   planes.view(np.uint8))

    def signs(self, r: Array, alpha: Array, window: int) -> Array:
        out = self._words(r.size)
        self._each("signs", r.size, self._flat(r), self._flat(alpha).view(np.uint8), np.uint64(r.size),
                   np.int32(window), out)
        return out

    def reaching(self, bits: Array, e: Array, u: Array, threshold: int, window: int, first: bool) -> Array:
        out = self._words(u.size)
        self._each("reaching", u.size, self._flat(bits), self._flat(e).view(np.uint8), self._flat(u),
                   np.uint64(u.size), np.uint64(threshold), np.int32(window), np.int32(first), out)
        return out

    def outcome_rows(self, r: Array, alpha: Array, window: int, blocks: int) -> Array:
        r, alpha = self._flat(r), self._flat(alpha)
        out = self._bytes(r.size * outcome_patterns(blocks).shape[1])
        self._each("outcome_rows", out.size, r, alpha, np.uint64(r.size), np.int32(window), np.int32(blocks), out)
        return out

    def outcome_tables(self, r: Array, alpha: Array, window: int, blocks: int, columns: int) -> Array:
        r, alpha = self._flat(r), self._flat(alpha)
        entries = r.size << (2 * blocks - 1)
        out = self._words(entries * columns)
        self._each("outcome_tables", entries, r, alpha, np.uint64(r.size), np.int32(window), np.int32(blocks),
                   np.int32(columns), out)
        return out

    # ---- guards ---------------------------------------------------------------------------------------------------

    def guard_tables(self, r: Array, guards: Sequence[Guard], negated: bool = False) -> Array:
        return self.guards.tables(self._flat(r), tuple(guards), negated)

    def breaches(self, tables: Array, u: Array, shifts: Sequence[int], weights: Array, rows: int) -> Array:
        return self.guards.breaches(tables, self._flat(u), tuple(shifts), weights, rows)


def _placed(grid: Grid, x: int, y: int) -> tuple[np.uint64, ...]:
    """How a grid and two of its operands reach a kernel."""
    return tuple(map(np.uint64, (grid.rows * grid.columns, grid.columns, *grid.steps[x], *grid.steps[y])))


def _present(terms: Collection[str]) -> np.int32:
    """Which terms there are beside the product, as bits."""
    return np.int32(sum(1 << i for i, name in enumerate(TERMS[1:]) if name in terms))


def _angle(bits: int) -> tuple[np.int32, np.float64]:
    """How a full turn of 2^bits reaches a kernel."""
    return np.int32(bits), np.float64(2.0 * math.pi / 2.0**bits)


def _unit(frac: int) -> np.float64:
    """What an exponent with `frac` fractional bits is scaled by before its squarings."""
    return np.float64(2.0 ** -(frac + SQUARINGS))
