"""Fixed-point bookkeeping: which truncations are due, and in how many bits a verb computes.

Pure functions of public facts, so that both parties, the twin and the recorder decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.guards import Check
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.shares import Share, Weight

WIDEST_COMPARISON = 33  # bits of a window: the sign, and four tables' blocks of at most 8 bits


class Factor(Protocol):
    """What `product_width` asks of a right operand."""

    @property
    def frac(self) -> int: ...


class Truncation(NamedTuple):
    """A truncation that is due.

    x       the share, promised to lie in the window
    shift   fractional bits to drop
    window  bits that hold x with the truncation's headroom
    width   the result is right modulo 2^width
    check   what a guarded session checks x for
    """

    x: Share
    shift: int
    window: int
    width: int
    check: Check | None = None

    def result(self, data: Any) -> Share:
        """The share that the truncation makes."""
        return Share(self.x.session, data, self.x.frac - self.shift, self.width, self.x.magnitude)


@dataclass(frozen=True, eq=False)
class Operand:
    """An operand of products, opened once for all of them.

    share   its low bits are dropped
    window  bits that hold the share with a truncation's headroom, where the opening also lifts it: it is right modulo
            2^window or more. 0 where it is right modulo the products' widths already
    check   what a guarded session checks it for
    """

    share: Share
    window: int = 0
    check: Check | None = None

    @property
    def data(self) -> Any:
        return self.share.data

    @property
    def shape(self) -> tuple[int, ...]:
        return self.share.shape

    @property
    def frac(self) -> int:
        return self.share.frac


def lifted_window(x: Share, shift: int, fixed: FixedPoint) -> int:
    """Bits that hold x, without its lowest `shift`, with a truncation's headroom. Raises RangeError where its width
    does not hold what it promises."""
    need = x.frac + x.magnitude + 2
    if x.width < need:
        raise RangeError(
            f"{x!r} promises values below 2^{x.magnitude}, which takes {need} bits to truncate; it has {x.width}. "
            f"State the product's magnitude, or settle before scaling"
        )
    return min(x.width - shift, fixed.window(x.frac - shift, x.magnitude))


def distinct(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    """The operands of pairs, each once, in the order in which they occur."""
    return list({id(v): v for pair in pairs for v in pair}.values())


def truncations(xs: Sequence[Share], widths: Sequence[int], fixed: FixedPoint) -> list[Truncation]:
    """What settles every x and makes it at least as wide as asked; a share that occurs twice is truncated once, to its
    largest width. Raises RangeError where a share cannot hold what it promises."""
    wanted: dict[int, int] = {}
    for x, width in zip(xs, widths, strict=True):
        wanted[id(x)] = max(width, wanted.get(id(x), 0))
    due: dict[int, Truncation] = {}
    for x in xs:
        shift = max(0, x.frac - fixed.frac)
        if not shift and x.width >= wanted[id(x)] and x.interval is None:
            continue
        window = shift + lifted_window(x, shift, fixed)
        least = window - shift if shift else x.width  # what is lifted to be checked only stays as wide as it is
        due[id(x)] = Truncation(x, shift, window, max(least, wanted[id(x)]))
    return list(due.values())


def product_width(x: Share, y: Factor, magnitude: int, fixed: FixedPoint) -> int:
    """Bits that a product of x and y, once they are settled, is computed in."""
    if isinstance(y, Weight) and y.width < WORD_BITS:
        return y.width if x.frac > fixed.frac else min(x.width, y.width)
    fracs = (v.frac if isinstance(v, Weight) else min(v.frac, fixed.frac) for v in (x, y))
    return fixed.window(max(sum(fracs), 2 * fixed.frac), magnitude)


def comparison_window(x: Share, reach: float, precision: int, room: float = 0.0) -> tuple[int, int]:
    """For a comparison of |x| < reach that keeps `precision` fractional bits: fractional bits to drop from x, and the
    window that holds the rest, and `room` times the reach more. Raises RangeError where it is too wide."""
    keep = min(x.frac, precision)
    dropped = x.frac - keep
    if dropped:
        reach += 2.0 ** (1 - keep)  # rounding down must not leave the window
    reach *= 1.0 + room
    window = keep + 1 + max(0, math.ceil(math.log2(reach)))
    most = min(x.width - dropped, WIDEST_COMPARISON)
    if window > most:
        raise RangeError(
            f"a comparison of |x| < {reach:g} at {keep} fractional bits needs a window of {window} bits; at most "
            f"{most} are there. Lower the bound or the precision"
        )
    return dropped, window


def positive(bound: float) -> float:
    """The bound itself. Raises RangeError for one that is not positive and finite."""
    if not (math.isfinite(bound) and bound > 0):
        raise RangeError(f"a bound must be positive and finite, got {bound}; take it from the range profile")
    return bound
