"""The interface of all kernels: hot loops on arrays of words.

What every backend must have is abstract; what is made of that stands here as its plain steps. A backend with fused
kernels overrides those steps: results are the same, bit for bit.

Words are uint64 arrays (uint32 where a caller works mod 2^32). Letters: n elements or rows, k inner, m columns,
K harmonics. `key` is a stream's 256-bit key, `block` the 64-byte block that it starts at.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.bundles import Bundles
from secformer.mpc.kernels.points import PointKeys
from secformer.mpc.kernels.tables import outcome_patterns, outcomes
from secformer.mpc.kernels.words import (
    BLOCK_BYTES,
    Array,
    Factor,
    Grid,
    Guard,
    Key,
    Masked,
    Sealing,
    broadcast,
    drawn,
    spans,
    whole_bytes,
)
from secformer.mpc.kernels.words import dropped as dropped_of
from secformer.mpc.kernels.words import grid as grid_of
from secformer.mpc.ring import mask


class Kernels(Bundles):
    """What parties and the dealer compute with."""

    name: str
    backend: Backend
    xp: Any  # the backend's array module
    ahead = 1 << 29  # bytes of material, or one message, that may wait for a party: how far the dealer may run ahead
    fuses = False  # whether a mask is better expanded into the sum that it masks than ahead of it
    chunk = 8192  # elements of material that are best made, sent and used at once: here what stays in a core's cache

    # ---- what every backend has -----------------------------------------------------------------------------------

    @abstractmethod
    def keystream(self, key: Key, block: int, nbytes: int) -> Array:
        """`nbytes` of the ChaCha20 keystream (RFC 8439, zero nonce) from 64-byte block number `block` on, as uint8."""

    def as_key(self, words: Array) -> Key:
        """Four words as the key of a stream. On a GPU they stay there."""
        return np.ascontiguousarray(self.backend.to_host(words)).tobytes()

    @abstractmethod
    def pack(self, words: Array, bits: int) -> Array:
        """The low `bits` bits of flat words, in whole bytes, as planes of 8, or 4, 2 and 1 bytes: (n * bytes,) uint8.

        Bits above are cut off: they are not covered by the mask of whoever opens `bits` bits, so they must not travel.
        """

    @abstractmethod
    def unpack(self, payload: Array, count: int, bits: int) -> Array:
        """The words behind `pack`, reduced mod 2^bits: (count,) uint64."""

    @abstractmethod
    def _view(self, payload: Array, dtype: Any) -> Array:
        """Bytes as wider numbers, copied where they are not aligned."""

    @abstractmethod
    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array:
        """Exact (..., n, k) @ (..., k, m) of words mod 2^64, or mod 2^32 for uint32.

        `bits` says that the caller wants the product mod 2^bits only; what stands above is then anything.
        """

    @abstractmethod
    def turn(self, u: Array, bits: int) -> tuple[Array, Array]:
        """cos and sin of 2 pi u / 2^bits for u < 2^bits (bits <= 52), the same bits on every backend. Error < 2^-51."""

    @abstractmethod
    def harmonics(self, r: Array, bits: int, count: int, frac: int) -> Array:
        """Words of cos(k t), then of sin(k t), k = 1..count, t = 2 pi r / 2^bits, with `frac` fractional bits:
        (2 count, n)."""

    @abstractmethod
    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        """One party's sum over the harmonics of x = u - r for F functions: (F, n) words.

        u (n,) opened; cos, sin (F, K) coefficients; words (2K, n) this party's shares of cos(k r), sin(k r).
        """

    @abstractmethod
    def growth(self, v: Array, frac: int) -> Array:
        """e^(v / 2^frac) for v <= 2^(frac + 4), the same bits on every backend. Relative error < 2^-45."""

    @abstractmethod
    def powers(self, r: Array, bits: int, period_bits: int, top: int, frac: int) -> Array:
        """The tables of `ExpMask`, (entries, n) words of e^(16 U - r) with `frac` fractional bits."""

    @abstractmethod
    def exponential(self, u: Array, bits: int, period_bits: int, table: Array, frac: int, out: Array) -> None:
        """One party's shares of e^x for x = u - r, to out (n,): table (entries, n) its shares of `powers`, `frac` the
        fractional bits of the public factor, u (n,) opened."""

    @abstractmethod
    def flip_bits(self, tables: Array, block: Array) -> None:
        """Flips bit `block[i]` of row i in place: tables (n, bytes) uint8."""

    @abstractmethod
    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        """Bit v[i] of row i, and the parity of the bits above it: this party's xor shares of [v = r] and [v < r].

        tables (n, bytes) uint8, v (n,) uint64 -> two (n,) uint8.
        """

    @abstractmethod
    def gather(self, tables: Array, e: Array) -> Array:
        """Row i's entry e[i]: tables (n, entries, columns), e (n,) -> (columns, n)."""

    @abstractmethod
    def guard_tables(self, r: Array, guards: Sequence[Guard], negated: bool = False) -> Array:
        """The tables of guards (see `mpc/guards`), one guard after the other, for masks r (n,), or for -r where
        `negated`: (guards * n,) words. Bit U of a word is 1 unless every x with u = x + r, whose bits from `shift` on
        are U, lies in [low, low + span] modulo 2^(shift + 6)."""

    @abstractmethod
    def breaches(self, tables: Array, u: Array, shifts: Sequence[int], weights: Array, rows: int) -> Array:
        """One party's share of what its rows' values say, (rows,) words: tables its shares of `guard_tables`, as the
        bytes that they are dealt in, u (n,) opened, weights (guards * n,) random words, of which those of values that
        failed are xored."""

    @abstractmethod
    def points(self, keys: PointKeys, out: Array) -> None:
        """Writes one party's shares of the rows behind keys of points to out (N, V) (see `mpc/points`)."""

    # ---- what is made of it: masks --------------------------------------------------------------------------------

    def uniform(self, key: Key, block: int, count: int, bits: int) -> Array:
        """`count` uniform words below 2^bits as uint64, of as many bytes as hold them (see `drawn`)."""
        stream = self.keystream(key, block, BLOCK_BYTES * drawn(count, bits))
        if whole_bytes(bits) == 8:
            words = stream.view(np.uint64)[:count]
        else:
            words = self.joined(self.planes(stream, count, bits, BLOCK_BYTES), count)
        return words & mask(bits) if bits % 8 else words

    def planes(self, data: Array, count: int, bits: int, unit: int = 1) -> list[Array]:
        """The planes of `count` words of fewer than eight bytes in a payload or a keystream, in which each starts at a
        multiple of `unit` bytes: of four, two and one byte per word, empty where the words have none."""
        return [self._view(data[start:end], dtype) for start, end, dtype in spans(count, bits, unit)]

    def joined(self, planes: list[Array], count: int) -> Array:
        """The words that planes were cut from: (count,) uint64."""
        words, shift = self.xp.zeros(count, dtype=np.uint64), 0
        for plane in planes:
            if plane.size:
                words |= plane.astype(np.uint64) << np.uint64(shift)
                shift += 8 * plane.itemsize
        return words

    def correction(self, key: Key, value: Array, bits: int, xor: bool = False) -> Array:
        """The payload that turns party 1's share into value minus (xor: bytes) the stream's first words."""
        if xor:
            return value ^ self.keystream(key, 0, value.size)
        return self.pack(value - self.uniform(key, 0, value.size, bits), bits)

    # ---- checks of rows -------------------------------------------------------------------------------------------

    def sketches(self, rows: Array, start: int, left: Array, right: Array) -> Array:
        """Inner products of rows (N, C), in the V columns from `start` on, with public vectors (R, V): with those of
        `left`, of `right`, of their products entry by entry, and with ones: (N, 3 R + 1)."""
        ones = self.xp.ones((1, left.shape[1]), dtype=np.uint64)
        vectors = self.backend.joined([left, right, left * right, ones])
        columns = rows[:, start : start + left.shape[1]]
        return self.matmul(self.xp.ascontiguousarray(columns), self.xp.ascontiguousarray(vectors.T))

    # ---- openings, lifts ------------------------------------------------------------------------------------------

    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array:
        """mine + theirs (or xor) mod 2^bits, flat, with theirs as it came from the peer."""
        mine, theirs = mine.reshape(-1), self.unpack(payload, mine.size, bits)
        total = mine ^ theirs if xor else mine + theirs
        return total if bits == 64 else total & mask(bits)

    def dropped(self, words: Array, bits: int, up: bool) -> Array:
        """Words without their lowest `bits` bits, moved down (see `words.dropped`)."""
        return dropped_of(words, bits, up)

    def wraps(self, r: Array, window: int) -> Array:
        """The values of `Lift`, (2 n,) words, of mask words' sums r (n,)."""
        carry = r >> np.uint64(window)
        return self.backend.joined([carry + ((r >> np.uint64(window - 1)) & np.uint64(1)), carry])

    def lifted(self, u: Array, m: Masked | Sealing, wraps: Array | None, window: int, first: bool) -> Array:
        """One party's share of what it opened u (n,) of, under m (see `ops/truncate`): wraps (2 n,) its share of those
        of `Lift`, None where nothing wraps: (n,) words."""
        share = m.rest + u if first else m.rest
        if wraps is None:
            return share
        low, high = wraps.reshape(2, -1)
        return share + (self.xp.where((u >> np.uint64(window - 1)) == 1, high, low) << np.uint64(window))

    # ---- element-wise products ------------------------------------------------------------------------------------

    def multiplied(self, x: Factor, y: Factor, terms: Mapping[str, Array], first: bool) -> Array:
        """One party's share of x y, broadcasting (see `ops/linear`): `terms` has its shares of a pair's terms in
        `Hadamard`, flat. A square is the pair of the same factor."""
        shape = broadcast(x.share.shape, y.share.shape)
        u, share, v, other = map(self.xp.atleast_1d, (x.opened, x.share, y.opened, y.share))  # numbers would overflow
        e, f = u - x.offset, v - y.offset
        rest = share - e if first else share
        # of a square, e x + e (x - e) is one multiplication
        z = e * (share + rest) if x is y else e * other + f * rest
        z += terms["product"].reshape(z.shape)
        for name, lifted in (("left", ((u, x.window),)), ("right", ((v, y.window),)),
                             ("both", ((u, x.window), (v, y.window)))):
            if name in terms:
                term = terms[name].reshape(z.shape) << np.uint64(sum(window for _, window in lifted))
                for opened, window in lifted:  # counts where the top bit of what was opened is 0
                    term &= (opened >> np.uint64(window - 1)) - np.uint64(1)
                z += term
        return z.reshape(shape)

    def product_terms(self, masks: Sequence[Array], windows: Sequence[int], names: Sequence[str]) -> list[Array]:
        """The terms of a pair in `Hadamard` that are named, flat, from the two operands' masks; from one mask those of
        its square. A window is 0 where an operand is not lifted."""
        each = zip(map(self.xp.atleast_1d, masks), windows, strict=True)
        lifted = [(np.uint64(0) - (r & mask(k)), (r >> np.uint64(k - 1)) & np.uint64(1)) if k else (r, np.uint64(0))
                  for r, k in each]
        (a, m), (b, n) = lifted[0], lifted[-1]
        makes: dict[str, Callable[[], Array]] = {
            "product": lambda: a * b,
            "left": lambda: m * (a + a + (np.uint64(1) << np.uint64(windows[0])) if len(masks) == 1 else b),
            "right": lambda: a * n,
            "both": lambda: m * n,
        }
        return [makes[name]().reshape(-1) for name in names]

    def gridded(self, *operands: Array) -> tuple[Grid, list[Array]]:
        """The grid in which operands broadcast, and the operands, flat: repeated where no grid has the axes."""
        found = grid_of([v.shape for v in operands])
        if found is None:
            operands = tuple(self.xp.broadcast_arrays(*operands))
            found = Grid(1, operands[0].size, ((0, 1),) * len(operands))
        return found, [self.xp.ascontiguousarray(v).reshape(-1) for v in operands]

    # ---- comparisons ----------------------------------------------------------------------------------------------

    def outcome(self, tables: Array, v: Array, down: int, bits: int, place: int, last: bool, share: Array) -> None:
        """Looks one block of v up, the `bits` bits from bit `down` on, and xors this party's shares of [block < r's]
        into bit `place` of `share`, in place, and those of [block = r's] into the next, but for the last block.

        tables (n, bytes) uint8; v, share (n,) uint64, share contiguous.
        """
        block = (v >> np.uint64(down)) & mask(bits)
        equal, less = self.look_up(tables, block)
        share ^= less.astype(np.uint64) << np.uint64(place)
        if not last:
            share ^= equal.astype(np.uint64) << np.uint64(place + 1)

    def rectified(self, tables: Array, e: Array, u: Array, r: Array, window: int, first: bool) -> Array:
        """One party's shares of max(x, 0) for x = u - r: tables (n, entries, columns) its shares of `Relu`, e (n,) the
        opened outcomes, u, r (n,), r its share of the mask -> (n,).

        Where msb(u) = 0, b = 1 - c and b (r - w 2^k) is the second column; where it is 1, b = c, nothing wraps, and b r
        is the third column, or mod 2^k r without the second.
        """
        c, low, *high = self.gather(tables, e)
        upper = c * u - (high[0] if high else r - low)
        lower = (np.uint64(1 if first else 0) - c) * u - low
        return self.xp.where((u >> np.uint64(window - 1)) == 1, upper, lower)

    def pick(self, tables: Array, e: Array, place: int, share: Array) -> None:
        """Xors bit e[i] of row i into bit `place` of share[i], in place: tables (n, bytes) uint8, e, share (n,)."""
        bit, _ = self.look_up(tables, e)
        share ^= bit.astype(np.uint64) << np.uint64(place)

    def below(self, tables: Array, u: Array, thresholds: Sequence[int], window: int, start: int,
              planes: Array) -> None:
        """Looks u - c up for every threshold c, and xors this party's shares of [its low window - 1 bits < those of r]
        into the bits from `start` on of the threshold's row of `planes`, in place.

        tables (n, bytes) uint8; u (n,); planes (thresholds, words), contiguous, 64 bits a word.
        """
        lead, n = start % 8, u.size
        octets = planes.view(np.uint8)[:, start // 8 : (start + n + 7) // 8]
        for row, c in zip(octets, thresholds, strict=True):
            _, less = self.look_up(tables, (u - np.uint64(c)) & mask(window - 1))
            bits = self.xp.zeros(8 * row.size, dtype=np.uint8)
            bits[lead : lead + n] = less
            row ^= (bits.reshape(-1, 8) << self.xp.arange(8, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)

    def spread(self, words: Array, count: int) -> Array:
        """The first bits of flat words, one in each word: (count,)."""
        places = self.xp.arange(64, dtype=np.uint64)
        return ((words[:, None] >> places) & np.uint64(1)).reshape(-1)[:count]

    def signs(self, r: Array, alpha: Array, window: int) -> Array:
        """The bits of `Reached`: bit i of the words alpha, xor the top bit of r[i], a value of `window` bits: (n,)."""
        return self.spread(alpha, r.size) ^ (r >> np.uint64(window - 1))

    def reaching(self, bits: Array, e: Array, u: Array, threshold: int, window: int, first: bool) -> Array:
        """One party's shares of [x >= threshold] for x = u - r: bits (n,) its shares of `signs`, e the words of opened
        bits, u (n,) -> (n,) words."""
        negative = ((u - np.uint64(threshold)) >> np.uint64(window - 1)) & np.uint64(1)
        return self.xp.where(self.spread(e, u.size) == negative, np.uint64(1 if first else 0) - bits, bits)

    def counted(self, bits: Array, e: Array, u: Array, threshold: int, window: int, columns: int, length: int,
                first: bool) -> Array:
        """Sums of `reaching` over each segment of `length` values of rows of `columns`, the last perhaps shorter:
        (segments * rows,), by segment."""
        own = self.reaching(bits, e, u, threshold, window, first).reshape(u.size // columns, columns)
        sums = [own[:, a : a + length].sum(axis=1, dtype=np.uint64) for a in range(0, columns, length)]
        return self.backend.joined(sums)

    def outcome_rows(self, r: Array, alpha: Array, window: int, blocks: int) -> Array:
        """The values of the last tables of `Less`, (n * bytes,) uint8."""
        bits = 2 * blocks - 1
        own = (alpha & mask(bits)).astype(np.int64)
        rows = self.xp.asarray(outcome_patterns(blocks))[own]
        flipped = (r >> np.uint64(window - 1)) ^ (alpha >> np.uint64(bits))
        return (rows ^ (flipped * np.uint64(255)).astype(np.uint8)[:, None]).reshape(-1)

    def outcome_tables(self, r: Array, alpha: Array, window: int, blocks: int, columns: int) -> Array:
        """The values of the table of `Relu`, (n * 2^(2 blocks - 1) * columns,) words; with three columns modulo more
        than 2^window."""
        below = outcomes(blocks)
        e = np.arange(below.size, dtype=np.uint64)
        lower = self.xp.asarray(below)[(alpha[:, None] ^ self.xp.asarray(e)).astype(np.int64)]
        part = r[:, None]
        flipped = (part >> np.uint64(window - 1)) ^ lower
        wrap = lower << np.uint64(window) if columns == 3 else np.uint64(0)
        table = [flipped, (np.uint64(1) - flipped) * (part - wrap), flipped * part]
        return self.xp.stack(table[:columns], axis=-1).reshape(-1)
