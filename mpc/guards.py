"""Guards: what must be known of a masked opening to notice, in secret, that the value behind it left its interval.

A value x is opened as u = x + r. The dealer knows r, and shares a table of 64 bits by xor: bit U says that x leaves its
interval, if U are the top bits of u. Each party looks its share of that bit up; nobody sees the bit, and nothing more
is sent (see `ops/guard`).

Facts alone, in units of the opened value's last place: which part of u a table sees, and which x it lets pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from secformer.mpc.errors import RangeError, ShapeError

Texts = Mapping[int, np.ndarray]  # by the length of a value's first axis: the text of each row, or -1 for no text
INDEX_BITS = 6   # a table's bits: 2^6, one word
RING = 3.0       # the finest ring is this many times as long as the interval where the opening has so many bits
TIGHT = 8.0 / 7.0  # the same where parts must be short; the least with which a coarser guard follows
ROUNDING = 2     # units by which a value may be off: low bits of shares are dropped locally


class Guard(NamedTuple):
    """One table per value. A value x passes for certain from `low` + 2^shift to `low` + span - 2^shift, and fails for
    certain outside of [low, low + span]; in between, that depends on the mask. All modulo the ring, 2^(shift + 6).

    shift   the index are the six bits of u from this bit on
    low     of the interval, modulo the ring
    span    the interval's length
    """

    shift: int
    low: int
    span: int


@dataclass(frozen=True)
class Interval:
    """What a value is checked for: low <= x <= high. `place` is where, and which quantity, for users: such as
    "layer.1.softmax: spread"."""

    low: float
    high: float
    place: str


@dataclass(frozen=True)
class Check:
    """A check of one opening: its interval, and the guards that resolve it."""

    interval: Interval
    guards: tuple[Guard, ...]


def part(length: float, frac: int, bits: int, times: float = RING) -> float:
    """The length of a part of the finest guard of an interval, about: see `guard`."""
    return float(2.0 ** (min(bits, math.ceil(math.log2(times * length)) + frac) - INDEX_BITS - frac))


def guard(low: float, high: float, frac: int, bits: int, offset: int = 0, times: float = RING) -> Guard:
    """The guard of an opening of `bits` bits, `frac` of them fractional, for low <= x <= high.

    Where the opening has so many bits, a part is less than a tenth of the interval long, and the ring three times the
    interval or more: a value that is farther out may pass this guard, by chance.

    offset  units that are added to x before it is opened
    times   the ring is at least this many times the interval: fewer make parts shorter, and take more guards

    Raises RangeError where the opening leaves no room to tell values outside of the interval from values inside.
    """
    start, end = math.floor(low * 2.0**frac) - ROUNDING, math.ceil(high * 2.0**frac) + ROUNDING
    span = end - start
    ring = min(bits, max(INDEX_BITS, math.ceil(math.log2(times * span))))
    part = 1 << max(0, ring - INDEX_BITS)
    if bits < INDEX_BITS or span + 2 * part > 1 << ring:
        raise RangeError(f"an opening of {bits} bits leaves no room to notice values outside of [{low:g}, {high:g}] at "
                         f"{frac} fractional bits; open at least one bit more")
    return Guard(ring - INDEX_BITS, (start + offset) % (1 << ring), span)


@lru_cache(maxsize=1 << 12)
def chain(low: float, high: float, frac: int, bits: int, offset: int = 0,
          times: float = RING) -> tuple[Guard, ...]:
    """Guards of an opening of `bits` bits that let no value outside of [low, high] pass, as far as the opening tells
    values apart: the finest as in `guard`, and coarser ones until the last sees all bits."""
    finest = guard(low, high, frac, bits, offset, times)
    found, ring = [finest], finest.shift + INDEX_BITS
    while ring < bits:
        # parts so long that what passes still lies in the ring of the finer guard, which decides about it
        part = ((1 << ring) - finest.span) >> 2
        ring = min(bits, INDEX_BITS + max(0, part.bit_length() - 1))
        more = 1 << (ring - INDEX_BITS)
        start = math.floor(low * 2.0**frac) - ROUNDING - more + offset
        found.append(Guard(ring - INDEX_BITS, start % (1 << ring), finest.span + 2 * more))
    return tuple(found)


def texts_of(texts: Texts, shape: tuple[int, ...]) -> np.ndarray:
    """The text of each row of a value. Raises ShapeError where its first axis counts neither tokens nor texts."""
    found = texts.get(shape[0]) if shape else None
    if found is None:
        raise ShapeError(f"the first axis of a checked value must count tokens or texts, {sorted(texts)}, got the "
                         f"shape {shape}")
    return found
