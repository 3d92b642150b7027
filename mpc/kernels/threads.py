"""Work on the CPU, spread over threads: rows in parts; matrix products by matrix, or by columns where they are few."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

Array = Any
Part = Callable[[Array, Array, Array, int, int], None]  # (a, b, c, start, stop): c[:, start:stop] += a b there
WORTH_SPLITTING = 1 << 22  # multiplications below which threads cost more than they bring


def threaded(part: Part, a: Array, b: Array, pool: ThreadPoolExecutor | None, threads: int) -> Array:
    """(..., n, k) @ (..., k, m) in the type of a, by `part` of one matrix after the other."""
    batch, (n, k), m = a.shape[:-2], a.shape[-2:], b.shape[-1]
    out = np.zeros((*batch, n, m), dtype=a.dtype)
    if not out.size * k:
        return out
    flat = zip(a.reshape(-1, n, k), b.reshape(-1, k, m), out.reshape(-1, n, m), strict=True)
    jobs = [(x, y, z, 0, m) for x, y, z in flat]
    if pool is None or out.size * k < WORTH_SPLITTING:
        for job in jobs:
            part(*job)
        return out
    if len(jobs) < threads:
        step = -(-m // threads)
        jobs = [(x, y, z, j, min(m, j + step)) for x, y, z, _, _ in jobs for j in range(0, m, step)]
    for future in [pool.submit(part, *job) for job in jobs]:
        future.result()
    return out


def spread(part: Callable[[int, int], None], rows: int, pool: ThreadPoolExecutor | None, threads: int) -> None:
    """`part` of rows [start, stop), in as many parts as there are threads."""
    if pool is None or rows < threads:
        part(0, rows)
        return
    ends = [rows * i // threads for i in range(threads + 1)]
    for future in [pool.submit(part, *each) for each in pairwise(ends)]:
        future.result()
