"""Blocked products of limbs: equal to the plain product modulo what is asked for, on odd shapes and at the extremes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from secformer.mpc.backend import Backend
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.kernels.blas import OneThread, one_thread
from secformer.mpc.kernels.limbs import COLUMNS, ONE, THREE, TWO, TWO_SHORT, Split, product, split_for

SPLITS = [ONE, TWO_SHORT, TWO, THREE]
WIDTHS = [1, 8, 23, 24, 25, 32, 33, 40, 47, 48, 49, 56, 63, 64]


def plain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return NumpyKernels(Backend("numpy", np, 1)).plain_matmul(a, b)


def low(words: np.ndarray, width: int) -> np.ndarray:
    return words & words.dtype.type((1 << width) - 1)


@pytest.mark.parametrize("split", SPLITS)
def test_sums_of_a_block_are_exact_in_float64(split: Split) -> None:
    largest = max(1 << split.bits[i] - 1 + split.bits[j] - 1 for i, j, _ in split.pairs(64))
    assert split.inner * largest <= 1 << 53


@pytest.mark.parametrize("split", SPLITS)
def test_limbs_are_balanced_and_add_up(split: Split) -> None:
    total = sum(split.bits)
    half = np.array([sum(1 << s + b - 1 for s, b in zip(split.shifts, split.bits, strict=True)) % 2**64, 0, 1, 2**63,
                     2**64 - 1, 12345678901234567890], dtype=np.uint64)
    words = np.concatenate([half, half - np.uint64(1), half + np.uint64(1)])
    limbs = [limb.astype(np.int64) for limb in split.limbs(words)]
    assert all(np.abs(limb).max() <= 1 << bits - 1 for limb, bits in zip(limbs, split.bits, strict=True))
    back = sum((limb.view(np.uint64) << np.uint64(s) for limb, s in zip(limbs, split.shifts, strict=True)),
               start=np.zeros_like(words))
    np.testing.assert_array_equal(low(back, total), low(words, total))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 127, 5), (2, 129, COLUMNS + 1), (5, 513, 3), (0, 4, 2), (2, 0, 2)])
def test_equal_to_the_plain_product(width: int, shape: tuple[int, int, int]) -> None:
    n, k, m = shape
    rng = np.random.default_rng(width + k)
    for dtype in (np.uint64, np.uint32) if width <= 32 else (np.uint64,):
        bits = 8 * np.dtype(dtype).itemsize
        a, b = (rng.integers(0, 2**bits, size=size, dtype=dtype) for size in ((n, k), (k, m)))
        got = product(a, b, width)
        assert got.dtype == dtype
        np.testing.assert_array_equal(low(got, width), low(plain(a, b), width))


@pytest.mark.parametrize("width", WIDTHS)
def test_limbs_at_their_largest(width: int) -> None:
    """Every product of a block is the largest there is, but one, so that a lost last bit shows."""
    split, k = split_for(width), 2 * split_for(width).inner + 3
    word = sum(1 << s + b - 1 for s, b in zip(split.shifts, split.bits, strict=True)) % 2**64
    for left in (word, word - 1):
        a, b = np.full((2, k), left, dtype=np.uint64), np.full((k, 2), word, dtype=np.uint64)
        a[1, 0] -= np.uint64(1)
        expected = [[(int(row[0]) * word + (k - 1) * left * word) % 2**width] * 2 for row in a]
        np.testing.assert_array_equal(low(product(a, b, width), width), np.array(expected, dtype=np.uint64))


def test_columns_and_batches_split_over_threads_give_the_same() -> None:
    rng = np.random.default_rng(6)
    a, b = (rng.integers(0, 2**64, size=s, dtype=np.uint64) for s in ((3, 130, 161), (3, 161, 257)))
    with ThreadPoolExecutor(2) as pool:
        np.testing.assert_array_equal(product(a, b, 64, pool, 2), plain(a, b))
        np.testing.assert_array_equal(product(a[0], b[0], 64, pool, 2), plain(a[0], b[0]))


def test_the_blas_gets_its_threads_back() -> None:
    blas = one_thread()
    if not blas.found:
        pytest.skip("NumPy's BLAS is no OpenBLAS here")
    before = blas._get()
    blas._set(2)
    try:
        with blas:
            assert blas._get() == 1
            with blas:
                assert blas._get() == 1
            assert blas._get() == 1
        assert blas._get() == 2
    finally:
        blas._set(before)


def test_without_the_function_nothing_happens() -> None:
    blas = OneThread()
    blas._get = blas._set = None
    with blas:
        assert not blas.found
