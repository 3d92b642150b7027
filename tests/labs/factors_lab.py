"""Factors of element-wise products at one party, made up: for kernels, which add up whatever they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import Factor

SHAPES = [((7,), (7,)), ((5, 1030), (5, 1)), ((4, 33), (33,)), ((3, 1), (1, 4)), ((2, 3, 4, 5), (2, 1, 4, 1)),
          ((), (6,)), ((), ()), ((0,), (0,)), ((1,), (0, 3)), ((520,), None)]  # None: a square
WINDOWS = [(32, 24), (32, 0), (0, 17), (0, 0), (63, 62), (2, 3)]
EXTREMES = np.array([0, 1, 2**63, 2**63 - 1, 2**64 - 1, 2**32, 2**32 - 1], dtype=np.uint64)
Shapes = tuple[tuple[int, ...], tuple[int, ...] | None]


def words(seed: int, *shape: int, bits: int = 64) -> np.ndarray:
    """Random words with extremes strewn in, below 2^bits."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    return np.where(rng.random(shape) < 0.3, rng.choice(EXTREMES, size=shape), out) & np.uint64(2**bits - 1)


def named_terms(windows: tuple[int, int], square: bool) -> list[tuple[str, ...]]:
    """The sets of terms that a pair of such windows may have, at one width or another."""
    left, right = bool(windows[0]), bool(windows[1]) and not square
    found = [("product",), *[("product", "left")] * left, *[("product", "right")] * right]
    found += [("product", "left", "right")] * (left and right)
    return found + [("product", "left", "right", "both")] * (left and right and sum(windows) < 64)


def same_products(kernels: Kernels, reference: Kernels, shapes: Shapes, windows: tuple[int, int]) -> None:
    """Both kernels add up and deal the same words, at both parties, with every set of terms."""
    give, take = kernels.backend.asarray, kernels.backend.to_host
    operands = [shape for shape in shapes if shape is not None]
    given = list(zip(operands, windows[: len(operands)], strict=True))

    def factors(give: Callable[[Any], Any] = lambda x: x) -> list[Factor]:
        return [Factor(give(words(2 * i + 1, *shape, bits=window or 64)), give(words(2 * i + 2, *shape)), window)
                for i, (shape, window) in enumerate(given)]

    here, there = factors(), factors(give)
    shape = np.broadcast_shapes(*operands)
    for names in named_terms(windows, len(operands) == 1):
        terms = {name: words(9 + i, int(np.prod(shape))) for i, name in enumerate(names)}
        for first in (True, False):
            got = take(kernels.multiplied(there[0], there[-1], {n: give(t) for n, t in terms.items()}, first))
            expected = reference.multiplied(here[0], here[-1], terms, first)
            assert got.shape == expected.shape == shape
            np.testing.assert_array_equal(got, expected, strict=True)
        masks = [words(30 + i, *shape, bits=window + 1 if window else 64) for i, (shape, window) in enumerate(given)]
        bits = [window for _, window in given]
        made = kernels.product_terms([give(r) for r in masks], bits, names)
        expected = reference.product_terms(masks, bits, names)
        for a, b in zip(made, expected, strict=True):
            np.testing.assert_array_equal(take(a), b, strict=True)
