"""Products of few rows: the words of the reference, however the right matrix lies in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.mpc.backend import Backend
from secformer.mpc.kernels import NumpyKernels, kernels_for

thin: Any = pytest.importorskip("secformer.mpc.kernels.cpu.thin", reason="numba is an extra")
BACKEND = Backend("numpy", np, 1)
SIZES = st.one_of(st.integers(0, 9), st.sampled_from([63, 512, 513, 1025, 2049]))
LAYOUTS = {
    "rows": lambda b: b,
    "columns": lambda b: np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2),
    "columns of a wider matrix": lambda b: np.concatenate([b, b[..., :3], b[..., :1]], axis=-1)[..., : b.shape[-1]],
    "rows of a longer matrix, turned": lambda b: np.concatenate([b, b], -2).swapaxes(-1, -2).copy().swapaxes(-1, -2)[
        ..., : b.shape[-2], :],
    "backwards": lambda b: b[..., ::-1, :].copy()[..., ::-1, :],
    "every other column": lambda b: np.repeat(b, 2, axis=-1)[..., ::2],
}


def words(seed: int, *shape: int, dtype: type = np.uint64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64).astype(dtype)


def plain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return NumpyKernels(BACKEND).plain_matmul(a, np.ascontiguousarray(b))


@given(n=st.integers(0, thin.ROWS), k=SIZES, m=SIZES, layout=st.sampled_from(sorted(LAYOUTS)), narrow=st.booleans(),
       seed=st.integers(0, 999))
@examples(50)
def test_equal_to_the_reference(n: int, k: int, m: int, layout: str, narrow: bool, seed: int) -> None:
    dtype = np.uint32 if narrow else np.uint64
    a, b = words(seed, n, k, dtype=dtype), words(seed + 1, k, m, dtype=dtype)
    laid = LAYOUTS[layout](b)
    np.testing.assert_array_equal(laid, b)
    got = thin.product(a, laid, None, 1)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, plain(a, b))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_batches(layout: str) -> None:
    a, b = words(1, 2, 3, 2, 7), words(2, 2, 3, 7, 5)
    np.testing.assert_array_equal(thin.product(a, LAYOUTS[layout](b), None, 1), plain(a, b))
    shared = np.broadcast_to(b[:1], b.shape)
    np.testing.assert_array_equal(thin.product(a, shared, None, 1), plain(a, shared))


@pytest.mark.parametrize("layout", ["rows", "columns", "columns of a wider matrix"])
def test_the_right_matrix_is_read_where_it_lies(layout: str) -> None:
    b = LAYOUTS[layout](words(3, 6, 9))[None]
    found = thin.lines(b)
    assert np.shares_memory(found.flat, b)
    assert found.turned == (layout == "columns")


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_columns_spread_over_threads_give_the_same(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "WORTH_SPLITTING", 1)
    a, b = words(4, 3, 11), words(5, 11, 13)
    with ThreadPoolExecutor(2) as pool:
        for threads in (2, 3, 14):
            np.testing.assert_array_equal(thin.product(a, LAYOUTS[layout](b), pool, threads), plain(a, b))


@pytest.mark.parametrize("n", [1, thin.ROWS, thin.ROWS + 1])
def test_kernels_choose_by_rows_and_agree(n: int) -> None:
    a, b = words(6, n, 21), words(7, 21, 10)
    compiled, reference = kernels_for(BACKEND), NumpyKernels(BACKEND)
    for layout in LAYOUTS.values():
        for bits in (64, 48):
            kept = np.uint64(2**bits - 1)
            np.testing.assert_array_equal(compiled.matmul(a, layout(b), bits) & kept,
                                          reference.matmul(a, layout(b), bits) & kept)
