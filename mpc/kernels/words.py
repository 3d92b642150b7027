"""Words on the wire: how many bytes and keystream blocks they take, and what was masked or opened already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Array = Any
Key = bytes | Array  # of a stream: 32 bytes; on a GPU also the four words that hold them, in device memory
Guard = tuple[int, int, int]  # shift, low, span (see `mpc/guards`)
BLOCK_BYTES = 64  # bytes of a ChaCha20 block: a keystream is addressed in whole blocks
TERMS = ("product", "left", "right", "both")  # of a pair of factors (see `Hadamard`)
PLANES = ((4, np.uint32), (2, np.uint16), (1, np.uint8))  # bytes and types of the pieces of shorter words


class Piece(NamedTuple):
    """How an array of shares is drawn and travels: `length` words below 2^bits, packed; if `raw`, so many bytes."""

    length: int
    bits: int
    raw: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return self.length * whole_bytes(self.bits)


class Mask(NamedTuple):
    """How the dealer knows a mask of `length` words below 2^bits: both parties' words added mod 2^bits, with `carries`
    mod 2^64, or xored."""

    length: int
    bits: int
    xor: bool = False
    carries: bool = False


@dataclass(frozen=True, eq=False)
class Dropped:
    """Words that lose their lowest `bits` bits where they are used: rounded down, or up (see `Kernels.dropped`)."""

    words: Array = field(repr=False)
    bits: int
    up: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.words.shape)

    @property
    def size(self) -> int:
        return int(self.words.size)


@dataclass(frozen=True, eq=False)
class Masked:
    """Flat words under a mask, to be opened in all the mask's bits.

    plain  what was masked
    kept   what `rest` is, where that is not plain - words
    """

    words: Array = field(repr=False)
    plain: Array = field(repr=False)
    kept: Array = field(repr=False, default=None)

    @property
    def size(self) -> int:
        return int(self.words.size)

    @property
    def rest(self) -> Array:
        """Shares of what was masked without what is opened: both parties' rests and the opened value make it up."""
        return self.plain - self.words if self.kept is None else self.kept


@dataclass(eq=False)
class Sealing:
    """Words that `Kernels.seal` puts under the next words of a stream: the same as `Masked`, in one pass.

    key, block  where the stream stands
    constant    is added, too
    away        whether the mask is subtracted
    keeps       whether `rest` is wanted; it is there once the words are sealed
    """

    key: Any = field(repr=False)
    block: int
    words: Array | Dropped = field(repr=False)
    constant: int = 0
    away: bool = False
    keeps: bool = False
    rest: Array = field(repr=False, default=None)

    @property
    def size(self) -> int:
        return int(self.words.size)


@dataclass(frozen=True, eq=False)
class Factor:
    """An opened operand of an element-wise product at one party: words, of the operand's shape.

    opened  u = (x + r + 2^(window - 2)) mod 2^window where it is lifted, else x - a
    share   this party's share of x; or, if `partly`, what lacks the opened words and the wraps (see `Kernels.lifted`)
    window  bits in which it was lifted; 0 where it was not
    wraps   flat, of a share that lacks them
    """

    opened: Array = field(repr=False)
    share: Array = field(repr=False)
    window: int = 0
    partly: bool = False
    wraps: Array = field(repr=False, default=None)

    @property
    def offset(self) -> np.uint64:
        """What was added before the opening."""
        return np.uint64(1 << (self.window - 2) if self.window else 0)


class Grid(NamedTuple):
    """Rows and columns of what flat operands broadcast to, and for each operand the steps that it takes from row to
    row and from column to column."""

    rows: int
    columns: int
    steps: tuple[tuple[int, int], ...]


@lru_cache(maxsize=1 << 12)
def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that operands of these shapes broadcast to. Raises ValueError where they do not."""
    return np.broadcast_shapes(*shapes)


def grid(shapes: Sequence[tuple[int, ...]]) -> Grid | None:
    """The fewest rows and columns in which operands of these shapes broadcast; None where that takes more axes."""
    return _grid(*shapes)


@lru_cache(maxsize=1 << 12)
def _grid(*shapes: tuple[int, ...]) -> Grid | None:
    out = broadcast(*shapes)
    padded = [(1,) * (len(out) - len(shape)) + tuple(shape) for shape in shapes]
    steps = [1] * len(shapes)
    axes: list[tuple[int, tuple[int, ...]]] = []  # from the last: length, and steps
    for axis in reversed(range(len(out))):
        here = tuple(0 if shape[axis] == 1 else step for shape, step in zip(padded, steps, strict=True))
        steps = [step * shape[axis] for shape, step in zip(padded, steps, strict=True)]
        if out[axis] == 1:
            continue
        if axes and all(own == inner * axes[-1][0] for own, inner in zip(here, axes[-1][1], strict=True)):
            axes[-1] = (axes[-1][0] * out[axis], axes[-1][1])
        else:
            axes.append((out[axis], here))
    if len(axes) > 2:
        return None
    axes += [(1, (0,) * len(shapes))] * (2 - len(axes))
    (columns, inner), (rows, outer) = axes
    return Grid(rows, columns, tuple(zip(outer, inner, strict=True)))


def dropped(words: Array, bits: int, up: bool) -> Array:
    """Words without their lowest `bits` bits, moved down: rounded down or up, where the top bits become 0 or 1."""
    if not up:
        return words >> np.uint64(bits)
    return np.uint64(0) - ((np.uint64(0) - words) >> np.uint64(bits))


def plain(words: Array | Dropped) -> Array:
    """Flat words, without what they are to lose."""
    if isinstance(words, Dropped):
        return dropped(words.words.reshape(-1), words.bits, words.up)
    return words.reshape(-1)


def whole_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return -(-bits // 8)


@lru_cache(maxsize=1 << 12)
def spans(count: int, bits: int, unit: int) -> tuple[tuple[int, int, type], ...]:
    """Where the planes of `count` words of fewer than eight bytes lie: first byte, the one behind the last, and type.
    Each starts at a multiple of `unit` bytes."""
    found, start = [], 0
    for width, dtype in PLANES:
        end = start + (count * width if whole_bytes(bits) & width else 0)
        found.append((start, end, dtype))
        start = -(-end // unit) * unit
    return tuple(found)


@lru_cache(maxsize=1 << 12)
def drawn(count: int, bits: int) -> int:
    """Blocks of a stream that `count` uniform words of so many bits are drawn from: words of eight bytes, or planes as
    a payload has them, each of which starts at a block."""
    widths = [8] if whole_bytes(bits) == 8 else [width for width, _ in PLANES if whole_bytes(bits) & width]
    return sum(-(-count * width // BLOCK_BYTES) for width in widths)
