"""The products of a session: which bits they are computed in, and how each operand enters them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from secformer.mpc.caches import Cached, Entering
from secformer.mpc.errors import SettingsError, ShapeError
from secformer.mpc.guarding import Guarding
from secformer.mpc.kernels.words import broadcast, whole_bytes
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.rounds import Beside, Job, Round, Shape, Steps
from secformer.mpc.scales import Operand, distinct, lifted_window, product_width
from secformer.mpc.shares import Share, Weight

Pair = tuple[Share, "Share | Weight | Cached"]


class Products(Guarding):
    """Element-wise and matrix products, several in one round, and verbs that share a round with them."""

    _round: Round | None = None  # what was put off waits here
    _off = False                 # whether verbs are put off

    @contextmanager
    def one_round(self) -> Iterator[None]:
        """Inside, products and series are put off, and open what they open in one round. It comes when the block ends,
        or when something asks for a result: then what follows may share another.

            with s.one_round():
                context = s.matmul(weights, values)
                (inverse,) = s.series(sums, [reciprocal])

        Whatever operands need before, such as a truncation, is done where they are given. Price: that of the dearest.
        """
        if self._off:
            raise SettingsError("verbs are put off in one block at a time; a block in a block would add nothing")
        with self._gathering() as waiting, self._putting_off():
            yield
            waiting.run()

    @contextmanager
    def beside(self, steps: Steps) -> Iterator[Beside]:
        """Runs steps beside the block. What a step puts off waits for the next product or series of the block, and
        shares its round; then comes the next step. What is left at the end of the block has rounds of its own.

            def steps():
                x2 = s.square(x)
                yield
                return s.square(x2)

        Steps ask for no data but those of earlier steps, and need not know the block. Price: no round, where the block
        has as many products or series as there are steps, in rounds of their own.
        """
        found = Beside()

        def advance() -> None:
            with self._putting_off():
                try:
                    next(steps)
                except StopIteration as end:
                    found.result, found.over = end.value, True
                else:
                    waiting.when_over(advance)

        with self._gathering() as waiting:
            advance()
            yield found
            while not found.over:
                waiting.run()

    @contextmanager
    def _gathering(self) -> Iterator[Round]:
        """Where verbs wait: one place for all blocks that are open."""
        before = self._round
        self._round = found = before or Round(self._together)
        try:
            yield found
        finally:
            self._round = before

    @contextmanager
    def _putting_off(self) -> Iterator[None]:
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    def _given(self, job: Job, shapes: Sequence[Shape]) -> list[Any]:
        """The data, of these shapes, that a job of one round gives; where verbs are put off, what they will be."""
        waiting = self._round
        if waiting is None or not (self._off or waiting.waits):
            found: list[Any] = job()
            return found
        later = waiting.put_off(job, shapes)
        if self._off:
            return list(later)
        waiting.run()
        return [each.found() for each in later]

    def mul(self, x: Share, y: Share, *, magnitude: int | None = None, whole: bool = False) -> Share:
        """Element-wise product, broadcasting. `magnitude` bounds the result and what is summed from it. `whole` makes
        the product right in whole words, so that a product which takes it needs no truncation before.

        Price: one round. Per element of x and of y: window(session's frac, the operand's magnitude) bits where a
        truncation is pending, or it is narrow or promised to be small, since the opening then also lifts it; else
        window(2 frac, magnitude) bits, or 64 for `whole`.
        """
        return self.mul_many([(x, y)], magnitude=magnitude, whole=whole)[0]

    def square(self, x: Share, *, magnitude: int | None = None, whole: bool = False) -> Share:
        """x * x. Price: as `mul`, for x alone."""
        return self.mul_many([(x, x)], magnitude=magnitude, whole=whole)[0]

    def mul_many(self, pairs: Sequence[Pair], *, magnitude: int | Sequence[int] | None = None,
                 whole: bool = False, settled: Sequence[Share] = ()) -> list[Share]:
        """Several products in one round. A pair (x, x), the very same share twice, costs one opening. `magnitude` is
        one for all or one for each. Operands in `settled` are returned behind the products, truncated and as wide as
        these: that is free."""
        return self._products(pairs, magnitude, matmul=False, whole=whole, settled=settled)

    def matmul(self, x: Share, y: Share | Weight | Cached, *, magnitude: int | None = None) -> Share:
        """x @ y over the last two axes; batch axes must be equal. A Weight is not opened; x is (N, K) for a matrix. Of
        a cache, its new rows are opened.

        Price: one round, window(2 frac, magnitude) bits per element of x and of what is opened of y. One round more
        where an operand has a truncation pending, unless it is right modulo the window without its low bits; and where
        a guarded session checks new rows of a cache.
        """
        return self.matmul_many([(x, y)], magnitude=magnitude)[0]

    def matmul_many(self, pairs: Sequence[Pair], *, magnitude: int | None = None) -> list[Share]:
        """Several matrix products in one round."""
        for x, y in pairs:
            self._own(x, y)
            fits = x.ndim >= 2 and len(y.shape) == x.ndim and x.shape[-1] == y.shape[-2]
            if not fits or x.shape[:-2] != y.shape[:-2]:
                raise ShapeError(
                    f"matmul takes (..., n, k) @ (..., k, m) with equal batch axes, got {x.shape} @ {y.shape}"
                )
        return self._products(pairs, magnitude, matmul=True)

    # ---- how operands enter -----------------------------------------------------------------------------------------

    def _products(self, pairs: Sequence[Pair], magnitude: int | Sequence[int] | None, matmul: bool,
                  whole: bool = False, settled: Sequence[Share] = ()) -> list[Share]:
        each = [magnitude] * len(pairs) if magnitude is None or isinstance(magnitude, int) else magnitude
        magnitudes = [self.fixed.magnitude if m is None else max(1, m) for m in each]
        held = [product_width(*pair, m, self.fixed) for pair, m in zip(pairs, magnitudes, strict=True)]
        widths = [WORD_BITS if whole else w for w in held]
        operands = self._operands(pairs, widths, lifts=not matmul)
        enters = operands | {id(y): Entering(y, operands[id(y)]) for _, y in pairs if isinstance(y, Cached)}
        given = [(operands[id(x)], y if isinstance(y, Weight) else enters[id(y)]) for x, y in pairs]
        kept = [operands[id(x)] for x in settled]
        shapes = [(*x.shape[:-1], y.shape[-1]) if matmul else broadcast(x.shape, y.shape) for x, y in pairs]
        job = partial(self._matmul, given, widths) if matmul else partial(self._mul, given, widths, kept)
        products = self._given(job, [*shapes, *(v.shape for v in kept)])
        found = [Share(self, data, x.frac + y.frac, w, min(m, h - 2 - x.frac - y.frac))
                 for data, (x, y), w, h, m in zip(products, given, widths, held, magnitudes, strict=False)]
        wide = {id(v): max(w for pair, w in zip(given, widths, strict=True) if v in pair) for v in kept}
        return found + [Share(self, data, v.frac, wide[id(v)], v.share.magnitude)
                        for data, v in zip(products[len(found) :], kept, strict=True)]

    def _operands(self, pairs: Sequence[Pair], widths: Sequence[int], lifts: bool) -> dict[int, Operand]:
        """How each share enters the products, by its id: without its lowest bits; if what is left is not right modulo
        the products' widths, lifted by its opening in element-wise products, and truncated before in others."""
        wanted: dict[int, int] = {}
        for pair, width in zip(pairs, widths, strict=True):
            for v in pair:
                wanted[id(v)] = max(width, wanted.get(id(v), 0))
        shares = {id(v): v for v in distinct(pairs) if isinstance(v, Share)}
        if lifts and len(shares) < len(wanted):
            raise ShapeError("an element-wise product takes shares, got a weight; multiply by it with matmul")
        rows = {id(v): self._aligned(v.rows, max(v.frac, self.fixed.frac))
                for v in distinct(pairs) if isinstance(v, Cached)}
        shares |= rows
        self._own(*shares.values())
        early = {k: x for k, x in shares.items() if not lifts and (x.width - self._shift_of(x) < wanted[k] or (
            k in rows and x.interval is not None))}  # a mask that stands has no tables that would check it
        least = [WORD_BITS if k in rows else wanted[k] for k in early]  # a later product of a cache may be wider
        done = dict(zip(early, self._settled(list(early.values()), least), strict=True))
        return {k: self._operand_of(done.get(k, x), wanted[k], lifts, checked=k not in done)
                for k, x in shares.items()}

    def _operand_of(self, x: Share, width: int, lifts: bool, checked: bool = True) -> Operand:
        """x as it enters products right mod 2^width: lifted where it is not so wide, or where a promise of its own
        makes that the shorter opening."""
        shift = self._shift_of(x)
        left = x.width - shift
        small = lifts and (shift or x.held)
        window = lifted_window(x, shift, self.fixed) if shift or left < width or small else 0
        if left >= width and not (small and whole_bytes(window) < whole_bytes(width)):
            window = 0
        check = None
        if checked and x.interval is not None:
            bits, offset = (window, 1 << (window - 2)) if window else (width, 0)
            check = self._check(x, x.interval, x.frac - shift, bits, offset)
        data = self._rounded(x.data, shift) if shift else x.data
        return Operand(Share(self, data, x.frac - shift, left, x.magnitude), window, check)

    def _shift_of(self, x: Share) -> int:
        """Fractional bits that x has beyond the session's."""
        return max(0, x.frac - self.fixed.frac)
