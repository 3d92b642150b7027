"""Matrix products of words, compiled: vectors of words written out in LLVM, a tile of the result kept in registers.

c += a b, letters n rows, k inner, m columns. A block of b is copied into strips as wide as the tile, which stay in the
second cache while all rows of a pass by (Goto and van de Geijn, 2008, section 4): reading b in whole lines and never
across pages is worth as much as the tile itself.

Words of 64 bits are multiplied and added. Where a product is wanted mod 2^52 or less and the processor has it, one
instruction (vpmadd52luq) does both: it adds the low 52 bits of the product of two operands' low 52 bits, which is all
that counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from secformer.mpc.kernels.cpu.processor import FUSED, WIDE

Array = Any
ROWS = 4                     # rows of a tile: its sums stay in vector registers
INNER, COLUMNS = 128, 256    # rows and columns of a block of b: with 8-byte words, a quarter of a second cache of 1 MiB
LOW_BITS = 52                # bits of a product that the fused instruction keeps; wider products take whole words
LINE = 64                    # bytes of a cache line


VECTOR_BYTES, VECTORS = (64, 4) if WIDE else (32, 2)
TILE_BYTES = VECTOR_BYTES * VECTORS                 # bytes of one row of a tile


def _tile(rows: int, fused: bool) -> Any:
    """The tile as an intrinsic of numba: (a, step of a, b, c, step of c, inner); the strip of b has steps of a tile."""

    def tile(typing: Any, a: Any, a_step: Any, b: Any, c: Any, c_step: Any, inner: Any) -> Any:
        signature = types.void(a, types.intp, b, c, types.intp, types.intp)
        return signature, lambda context, builder, _, args: _Tile(builder, a.dtype.bitwidth, rows, fused).emit(*args)

    return intrinsic(tile)


class _Tile:
    """Writes c[:rows, :strip] += a[:rows, :inner] b[:inner, :strip] as LLVM, one loop over the inner steps."""

    def __init__(self, builder: ir.IRBuilder, bits: int, rows: int, fused: bool):
        self.builder, self.rows, self.align = builder, rows, bits // 8
        self.lanes = 8 * VECTOR_BYTES // bits
        self.vector = ir.VectorType(ir.IntType(bits), self.lanes)
        self.spread = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        self.fused = None
        if fused and bits == 64:
            kind = ir.FunctionType(self.vector, [self.vector] * 3)
            self.fused = builder.module.declare_intrinsic("llvm.x86.avx512.vpmadd52l.uq.512", (), kind)

    def emit(self, a: Any, a_step: Any, b: Any, c: Any, c_step: Any, inner: Any) -> Any:
        build, word = self.builder, inner.type
        lines = [build.gep(c, [build.mul(c_step, word(i))]) for i in range(self.rows)]
        before = [self.load(line) for line in lines]
        entry, loop, end = build.block, build.append_basic_block("inner"), build.append_basic_block("done")
        build.branch(loop)

        build.position_at_end(loop)
        p = build.phi(word)
        p.add_incoming(word(0), entry)
        sums = [[build.phi(self.vector) for _ in row] for row in before]
        right = self.load(build.gep(b, [build.mul(p, word(VECTORS * self.lanes))]))
        after = []
        for i in range(self.rows):
            left = self.filled(build.load(build.gep(a, [build.add(build.mul(a_step, word(i)), p)])))
            after.append([self.multiply_add(left, y, total) for y, total in zip(right, sums[i], strict=True)])
        q = build.add(p, word(1))
        p.add_incoming(q, loop)
        for row, first, then in zip(sums, before, after, strict=True):
            for phi, start, step in zip(row, first, then, strict=True):
                phi.add_incoming(start, entry)
                phi.add_incoming(step, loop)
        build.cbranch(build.icmp_signed("<", q, inner), loop, end)

        build.position_at_end(end)
        for line, row in zip(lines, after, strict=True):
            for j, vector in enumerate(row):
                build.store(vector, self.vector_at(line, j), align=self.align)

    def vector_at(self, line: Any, j: int) -> Any:
        return self.builder.bitcast(self.builder.gep(line, [ir.IntType(64)(j * self.lanes)]), self.vector.as_pointer())

    def load(self, line: Any) -> list[Any]:
        return [self.builder.load(self.vector_at(line, j), align=self.align) for j in range(VECTORS)]

    def filled(self, word: Any) -> Any:
        """A word in all lanes."""
        none = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(none, word, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, none, self.spread)

    def multiply_add(self, x: Any, y: Any, total: Any) -> Any:
        if self.fused is not None:
            return self.builder.call(self.fused, [total, x, y])
        return self.builder.add(total, self.builder.mul(x, y))


_whole, _whole_row = _tile(ROWS, False), _tile(1, False)
_low, _low_row = _tile(ROWS, FUSED), _tile(1, FUSED)


@intrinsic  # type: ignore[untyped-decorator]
def _at(typing: Any, array: Any, offset: Any) -> Any:
    """Address of a word of a contiguous array."""
    signature = types.CPointer(array.dtype)(array, types.intp)
    return signature, lambda context, builder, kind, args: builder.gep(
        context.make_array(kind.args[0])(context, builder, args[0]).data, [args[1]])


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _add_rows(rows: int, low: bool, a: Array, a_at: int, a_step: int, right: Any, c: Array, c_at: int, c_step: int,
              inner: int) -> None:
    """Up to a tile's rows of c from word c_at on += those of a from a_at on, times the strip."""
    if rows == ROWS and low:
        _low(_at(a, a_at), a_step, right, _at(c, c_at), c_step, inner)
    elif rows == ROWS:
        _whole(_at(a, a_at), a_step, right, _at(c, c_at), c_step, inner)
    else:
        for r in range(rows):
            left, out = _at(a, a_at + r * a_step), _at(c, c_at + r * c_step)
            if low:
                _low_row(left, a_step, right, out, c_step, inner)
            else:
                _whole_row(left, a_step, right, out, c_step, inner)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def multiply(a: Array, b: Array, c: Array, start: int, stop: int, low: bool) -> None:
    """c[:, start:stop] += a b there, of contiguous matrices of one type of word; with `low`, mod 2^52 only."""
    n, k = a.shape
    m = b.shape[1]
    strip = TILE_BYTES // a.itemsize
    spare = LINE // a.itemsize
    block = np.empty(INNER * max(COLUMNS, strip) + spare, a.dtype)
    shift = (-block.ctypes.data % LINE) // a.itemsize
    edge = np.empty(ROWS * strip, a.dtype)
    for j0 in range(start, stop, COLUMNS):
        width = min(stop, j0 + COLUMNS) - j0
        for k0 in range(0, k, INNER):
            inner = min(k, k0 + INNER) - k0
            for p in range(inner):  # copy the block: strips side by side, the last one filled with zeros
                line = b[k0 + p, j0 : j0 + width]
                for s in range(0, width, strip):
                    w, to = min(strip, width - s), shift + s * INNER + p * strip
                    source, copy, rest = line[s : s + w], block[to : to + w], block[to + w : to + strip]
                    for j in range(w):
                        copy[j] = source[j]
                    for j in range(strip - w):
                        rest[j] = 0
            for s in range(0, width, strip):
                w, right = min(strip, width - s), _at(block, shift + s * INNER)
                for i in range(0, n, ROWS):
                    rows, left, at = min(ROWS, n - i), i * k + k0, i * m + j0 + s
                    if w == strip:
                        _add_rows(rows, low, a, left, k, right, c, at, m, inner)
                        continue
                    edge[:] = 0
                    _add_rows(rows, low, a, left, k, right, edge, 0, strip, inner)
                    for r in range(rows):
                        for j in range(w):
                            c[i + r, j0 + s + j] += edge[r * strip + j]
