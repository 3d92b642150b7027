"""Exact matrix products, in every way: compared, timed, and the fastest recorded for the engine to choose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.kernels.cuda.ways import BYTES, INTEGER, TABLE, WAYS, Product, digits
from secformer.mpc.ring import word_type

TARGET = Product(1, 4096, 4096, 4096)
AT_LEAST = 10e12  # multiplications of words per second, for TARGET
VOCABULARY = 30524
RECORDABLE = {BYTES, INTEGER}  # cuBLAS refuses to be recorded in a CUDA graph
ROWS = 8          # rows of a result that NumPy checks


def shapes(hidden: int, heads: int, tokens: int) -> list[Product]:
    """The products of one encoder layer, and of the private embedding: at 40 bits, the usual window, and at 32."""
    head = hidden // heads
    return [
        Product(1, tokens, hidden, hidden, 40), Product(1, tokens, hidden, 3 * hidden, 40),
        Product(1, tokens, hidden, 4 * hidden, 40), Product(1, tokens, 4 * hidden, hidden, 40),
        Product(heads, tokens, head, tokens, 40), Product(heads, tokens, tokens, head, 40),
        Product(1, tokens, VOCABULARY, hidden, 32),
    ]


def measured_shapes() -> list[Product]:
    squares = [Product(1, 4096, 4096, 4096, bits) for bits in (64, 48, 32)]
    small = [Product(1, n, 768, 768, 64) for n in (1, 16, 64, 256)]
    bert = [p for size in ((768, 12), (1024, 16)) for tokens in (128, 512) for p in shapes(*size, tokens)]
    return [*squares, *small, *bert]


def verify(cuda: CudaKernels, reference: Kernels, wanted: Iterable[Product]) -> list[str]:
    """Names the shapes and ways whose first and last rows differ from NumPy's, or that differ from one another."""
    wrong = []
    for shape in wanted:
        a, b, first, last = operands(cuda, shape)
        mask = a.dtype.type(2**shape.bits - 1)
        results = {way: cuda.products(a, b, shape, way) & mask for way in ways(cuda)}
        host = cuda.backend.to_host
        expected = [reference.matmul(rows, host(b)[i]) & mask for i, rows in ((0, first), (-1, last))]
        for way, result in results.items():
            got = [host(result[i, :ROWS]) if i == 0 else host(result[i, -ROWS:]) for i in (0, -1)]
            agree = all(np.array_equal(x, y) for x, y in zip(got, expected, strict=True))
            if not agree or bool((result != results[INTEGER]).any()):
                wrong.append(f"{shape} by {way}")
    return wrong


def operands(cuda: CudaKernels, shape: Product) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Uniform words on the device, and the rows that NumPy checks: the first batch's first, the last batch's last."""
    dtype = np.dtype(word_type(shape.bits))
    sizes = shape.batch * shape.n * shape.k, shape.batch * shape.k * shape.m
    a, b = (cuda.keystream(bytes([i] * 32), 0, size * dtype.itemsize).view(dtype) for i, size in enumerate(sizes))
    a, b = a.reshape(shape.batch, shape.n, shape.k), b.reshape(shape.batch, shape.k, shape.m)
    return a, b, cuda.backend.to_host(a[0, :ROWS]), cuda.backend.to_host(a[-1, -ROWS:])


def ways(cuda: CudaKernels) -> list[str]:
    return [way for way in WAYS if cuda.products.choice.possible(way)]


def measure(
    cuda: CudaKernels, clock: Any, peaks: Mapping[str, float], wanted: Iterable[Product]
) -> list[dict[str, Any]]:
    """One row per shape: the seconds of each way, the fastest that a graph can have, and its fraction of the unit's
    ceiling."""
    rows = []
    for shape in wanted:
        a, b, *_ = operands(cuda, shape)
        seconds = {way: clock.seconds(lambda w=way, a=a, b=b, s=shape: cuda.products(a, b, s, w)) for way in ways(cuda)}
        fastest = min(RECORDABLE & seconds.keys(), key=lambda way: seconds[way])
        rows.append({
            "product": asdict(shape), "seconds": seconds, "fastest": fastest,
            "words_a_second": shape.work / seconds[fastest],
            "share": {way: share(shape, way, s, peaks) for way, s in seconds.items()},
        })
        del a, b
    return rows


def share(shape: Product, way: str, seconds: float, peaks: Mapping[str, float]) -> float | None:
    """The fraction of its ceiling that the working unit reaches: operations needed, over operations possible."""
    d = digits(shape.bits)
    each = {BYTES: d * (d + 1) / 2, INTEGER: 1.0}.get(way)
    unit = {BYTES: "bytes", INTEGER: "words"}.get(way, "")
    return shape.work * each / seconds / peaks[unit] if each is not None and unit in peaks else None


def write_table(rows: Iterable[dict[str, Any]], device: str, folder: Path) -> Path:
    """Adds this device's winners to the table that the package chooses by."""
    path = folder / TABLE
    tables = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    tables[device] = [{"product": row["product"], "fastest": row["fastest"]} for row in rows]
    path.write_text(json.dumps(tables, indent=1) + "\n", "utf-8")
    return path


def table(rows: Iterable[dict[str, Any]]) -> str:
    lines = [f"{'batch':>6}{'n':>6}{'k':>7}{'m':>6}{'bits':>6}"
             + "".join(f"{way + ' ms':>13}{'of peak':>9}" for way in WAYS) + f"{'fastest':>10}{'TMAC/s':>8}"]
    for r in rows:
        p = r["product"]
        cells = []
        for way in WAYS:
            part = r["share"].get(way)
            spent = f"{1e3 * r['seconds'][way]:.3f}" if way in r["seconds"] else "-"
            cells.append(f"{spent:>13}{'-' if part is None else f'{100 * part:.0f} %':>9}")
        lines.append(f"{p['batch']:>6}{p['n']:>6}{p['k']:>7}{p['m']:>6}{p['bits']:>6}{''.join(cells)}"
                     f"{r['fastest']:>10}{r['words_a_second'] / 1e12:>8.2f}")
    return "\n".join(lines)


def target(rows: Iterable[dict[str, Any]]) -> str:
    for r in rows:
        if r["product"] == asdict(TARGET):
            reached = r["words_a_second"] >= AT_LEAST
            return (f"4096 cubed, 64 bits: {r['words_a_second'] / 1e12:.2f} TMAC/s by {r['fastest']}; the target of "
                    f"{AT_LEAST / 1e12:.0f} is {'reached' if reached else 'MISSED'}")
    return "4096 cubed was not measured"


