"""The exact matrix product mod 2^64 and mod 2^32, against Python integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, examples, kernels_named, words_of

from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.reference import EXACT_K, EXACT_K_NARROW, LIMB_SHIFTS
from secformer.mpc.ring import mask, word_type

ALL_ONES, TOP = 2**64 - 1, 2**63
LIMB = 1 << 21  # the largest magnitude of a balanced limb; as the low 22 bits it stands for -2^21
# Words whose limbs are as large as they get: every one of -2^21 (low), -2^20 (middle, high), or their positive peers.
WORST = [
    LIMB,
    (LIMB + (1 << 42) + (1 << 63)) % 2**64,
    (-LIMB - (1 << 42) - (1 << 63)) % 2**64,
    (LIMB - 1) + ((1 << 20) - 1 << 22) + ((1 << 20) - 1 << 43),
    ALL_ONES,
    TOP,
    TOP - 1,
]


def exact(a: np.ndarray, b: np.ndarray, bits: int = 64) -> np.ndarray:
    """The product over Python integers."""
    full = (
        np.matmul(a.astype(object), b.astype(object))
        if a.shape[-1]
        else np.zeros((*a.shape[:-1], b.shape[-1]), dtype=object)
    )
    return words_of(np.vectorize(lambda v: int(v) % 2**bits, otypes=[object])(full) if full.size else full)


@examples(60)
@given(
    name=st.sampled_from(KERNELS),
    shape=st.tuples(*[st.integers(0, 11)] * 3),
    batch=st.sampled_from([(), (1,), (2, 3)]),
    dtype=st.sampled_from([np.uint64, np.uint32]),
    seed=st.integers(0, 2**32 - 1),
    extremes=st.booleans(),
)
def test_random_and_extreme_words(
    name: str, shape: tuple[int, int, int], batch: tuple[int, ...], dtype: type, seed: int, extremes: bool
) -> None:
    n, k, m = shape
    rng, bits = np.random.default_rng(seed), 8 * np.dtype(dtype).itemsize
    pool = np.array([w % 2**bits for w in [0, 1, *WORST, 0x7FFF, 0x8000, 0x8000_8000, 0x7FFF_8000]], dtype=dtype)

    def draw(*size: int) -> np.ndarray:
        return rng.choice(pool, size=size) if extremes else rng.integers(0, 2**bits, size=size, dtype=dtype)

    a, b = draw(*batch, n, k), draw(*batch, k, m)
    out = kernels_named(name).matmul(a, b)
    assert out.dtype == dtype
    assert out.shape == (*batch, n, m)
    np.testing.assert_array_equal(out.astype(np.uint64), exact(a, b, bits))


@pytest.mark.parametrize("k", [EXACT_K - 1, EXACT_K, EXACT_K + 1, 2 * EXACT_K + 3])
@pytest.mark.parametrize("left", range(len(WORST)))
def test_the_limb_bound_at_its_worst(kernels: Kernels, k: int, left: int) -> None:
    """Constant rows make every float64 sum k times the largest product of limbs: 2^53 at k = 2048, odd just below."""
    a = np.full((2, k), WORST[left], dtype=np.uint64)
    b = np.array([[w] * k for w in WORST], dtype=np.uint64).T
    a[1, 0] = (WORST[left] - 1) % 2**64  # makes sums odd, so that a lost last bit shows
    total = [[(int(a[i, 0]) * w + (k - 1) * WORST[left] * w) % 2**64 for w in WORST] for i in (0, 1)]
    np.testing.assert_array_equal(kernels.matmul(a, b), np.array(total, dtype=np.uint64))


def test_limbs_are_balanced_and_add_up() -> None:
    k = kernels_named("numpy")
    words = np.array([*WORST, 0, 1, 12345678901234567890], dtype=np.uint64)
    limbs = [limb.astype(np.int64).astype(object) for limb in k._limbs64(words)]
    assert all(abs(int(v)) <= 1 << bits - 1 for limb, bits in zip(limbs, (22, 21, 21), strict=True) for v in limb)
    total = sum(
        (limb * (1 << s) for limb, s in zip(limbs, LIMB_SHIFTS, strict=True)), start=np.zeros(words.size, object)
    )
    np.testing.assert_array_equal(words_of([int(t) for t in total]), words)


def test_narrow_words_beyond_the_narrow_bound(kernels: Kernels) -> None:
    k = EXACT_K_NARROW + 5
    a = np.full((1, k), 0x8000_8000, dtype=np.uint32)
    b = np.full((k, 1), 0x8000_8000, dtype=np.uint32)
    a[0, 7] = 0xFFFF_FFFF
    expected = ((k - 1) * 0x8000_8000 * 0x8000_8000 + 0xFFFF_FFFF * 0x8000_8000) % 2**32
    assert int(kernels.matmul(a, b)[0, 0]) == expected


def test_views_and_read_only_arrays(kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    a = rng.integers(0, 2**64, size=(9, 14), dtype=np.uint64)[::2, ::-2]
    b = rng.integers(0, 2**64, size=(5, 7), dtype=np.uint64).T
    wide = np.broadcast_to(b, (3, 7, 5))
    expected = exact(np.ascontiguousarray(a), np.ascontiguousarray(b))
    np.testing.assert_array_equal(kernels.matmul(a, b), expected)
    np.testing.assert_array_equal(kernels.matmul(np.broadcast_to(a, (3, *a.shape)), wide), [expected] * 3)


def test_columns_split_over_threads_give_the_same() -> None:
    if "numba" not in KERNELS:
        pytest.skip("numba is not installed")
    from secformer.mpc.backend import Backend
    from secformer.mpc.kernels.cpu.compiled import NumbaKernels

    rng = np.random.default_rng(6)
    shape = ((3, 130, 161), (3, 161, 257))  # 16 million multiplications: worth splitting, odd everywhere
    a, b = (rng.integers(0, 2**64, size=s, dtype=np.uint64) for s in shape)
    wide = NumbaKernels(Backend("numpy", np, 2))
    np.testing.assert_array_equal(wide.matmul(a, b), kernels_named("numpy").matmul(a, b))
    np.testing.assert_array_equal(wide.matmul(a[0], b[0]), kernels_named("numpy").matmul(a[0], b[0]))


def test_mask() -> None:
    assert [int(mask(b)) for b in (0, 1, 24, 64)] == [0, 1, 2**24 - 1, ALL_ONES]


def test_words_that_need_be_right_in_few_bits_are_short() -> None:
    assert [word_type(width) for width in (1, 32, 33, 64)] == [np.uint32, np.uint32, np.uint64, np.uint64]
