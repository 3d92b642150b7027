"""Exact matrix products on a GPU, each way: the reference's words for odd shapes, extremes and long inner sides."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_lab import device

from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.cuda import products as cuda_products
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.kernels.cuda.products import FULL, Products, longest, parted
from secformer.mpc.kernels.cuda.ways import BYTES, FLOAT64, INTEGER, WAYS, Choice, Product, digits

EXTREMES = np.array([0, 1, 2**63, 2**63 - 1, 2**64 - 1, 2**32 - 1, 0x8080808080808080, 0x7F7F7F7F7F7F7F7F],
                    dtype=np.uint64)


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    out = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    where = rng.random(shape) < 0.3
    out[where] = rng.choice(EXTREMES, size=int(where.sum()))
    return out


def agree(
    cuda: CudaKernels, expected: np.ndarray, a: np.ndarray, b: np.ndarray, bits: int, ways: Iterable[str]
) -> None:
    give, take = cuda.backend.asarray, cuda.backend.to_host
    shape = Product(int(np.prod(a.shape[:-2])), *a.shape[-2:], b.shape[-1], bits)
    mask = a.dtype.type(2**bits - 1)
    for way in ways:
        got = take(cuda.products(give(a), give(b), shape, way))
        assert got.dtype == a.dtype
        np.testing.assert_array_equal(got & mask, expected & mask, err_msg=way)


@pytest.mark.parametrize("bits", [8, 32, 40, 48, 56, 64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 2), (65, 40, 9), (3, 100, 17)])
def test_each_way_gives_the_reference(
    ordered_cuda: CudaKernels, reference: Kernels, shape: tuple[int, int, int], bits: int
) -> None:
    n, k, m = shape
    rng = np.random.default_rng(sum(shape) + bits)
    for dtype in (np.uint64, np.uint32)[: 2 if bits <= 32 else 1]:
        a, b = words(rng, n, k).astype(dtype), words(rng, k, m).astype(dtype)
        agree(ordered_cuda, reference.matmul(a, b), a, b, bits, WAYS)


@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
def test_blocks_batches_and_views(cuda: CudaKernels, reference: Kernels, dtype: type) -> None:
    """More than one block in each direction, batches, and operands that are not contiguous."""
    rng = np.random.default_rng(3)
    bits = 64 if dtype == np.uint64 else 32
    a, b = words(rng, 2, 2, 40, 70).astype(dtype), words(rng, 2, 2, 65, 40).astype(dtype)
    a, b = a.swapaxes(-1, -2), b.swapaxes(-1, -2)
    agree(cuda, reference.matmul(a, b), a, b, bits, WAYS)


@pytest.mark.parametrize(("n", "m"), [(640, 128), (579, 70), (1100, 1)])
def test_every_block_finds_its_place(cuda: CudaKernels, reference: Kernels, n: int, m: int) -> None:
    """More blocks than run in one band, and a last band that is lower."""
    rng = np.random.default_rng(n)
    a, b = words(rng, n, 5).astype(np.uint32), words(rng, 5, m).astype(np.uint32)
    agree(cuda, reference.matmul(a, b), a, b, 32, WAYS)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (7, 3, 0)])
@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
def test_nothing_to_multiply(cuda: CudaKernels, shape: tuple[int, int, int], dtype: type) -> None:
    n, k, m = shape
    out = cuda.matmul(cuda.backend.asarray(np.ones((n, k), dtype)), cuda.backend.asarray(np.ones((k, m), dtype)))
    assert out.shape == (n, m)
    assert not cuda.backend.to_host(out).any()


def test_every_digit_pair_lands_in_its_place(cuda: CudaKernels) -> None:
    """Single bytes at every position, against Python's integers."""
    single = np.array([200 << 8 * i for i in range(8)], dtype=np.uint64)
    a, b = single[:, None], single[None, :]
    expected = np.array([[int(x) * int(y) % 2**64 for y in single] for x in single], dtype=np.uint64)
    agree(cuda, expected, a, b, 64, WAYS)


@pytest.mark.parametrize("d", [5, 6, 7, 8])
def test_sums_of_bytes_are_bounded(d: int) -> None:
    """The accumulators hold what is needed of them: shifts up to d - 5 exactly, the others modulo 2^32."""
    for shift in range(d):
        needed = 8 * (d - shift)
        assert needed <= 32 or (shift + 1) * longest(d) * 255**2 < 2**32
    assert (d - 4) * (longest(d) + 32) * 255**2 >= 2**32  # and no shorter than that


@pytest.mark.parametrize("bits", [40, 64])
def test_passes_over_a_long_inner_side_add_up(cuda: CudaKernels, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """With one stage a pass instead of hundreds; the largest bytes everywhere."""
    monkeypatch.setattr(cuda_products, "longest", lambda d: 32)
    a = np.full((1, 100), 2**64 - 1, dtype=np.uint64)
    agree(cuda, np.array([[100]], dtype=np.uint64), a, a.T, bits, [BYTES])


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint32, 32), (np.uint64, 40), (np.uint64, 64)])
@pytest.mark.parametrize("longest", [1 << 20, 96])
def test_few_blocks_are_cut_along_the_inner_side(
    cuda: CudaKernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch, dtype: type, bits: int, longest: int
) -> None:
    """Parts of unequal length, an incomplete last step, a batch, and several passes of several parts."""
    parted.cache_clear()
    monkeypatch.setattr(cuda_products, "LEAST_STEPS", 2)
    monkeypatch.setattr(cuda_products, "longest", lambda d: longest)
    rng = np.random.default_rng(bits)
    a, b = words(rng, 2, 3, 150).astype(dtype), words(rng, 2, 150, 5).astype(dtype)
    assert parted(2, 5) == 2
    agree(cuda, reference.matmul(a, b), a, b, bits, [BYTES])
    parted.cache_clear()


@pytest.mark.parametrize(("bits", "n", "k", "m"), [
    *((bits, *size) for bits in (8, 32, 40, 64) for size in ((1, 1, 1), (3, 70, 5))), (40, 65, 33, 66),
])
def test_products_that_are_added_up(
    ordered_cuda: CudaKernels, reference: Kernels, bits: int, n: int, k: int, m: int
) -> None:
    """onto + a b + c d at once, with right operands that are split beforehand or not."""
    rng = np.random.default_rng(n + k + m + bits)
    give, take = ordered_cuda.backend.asarray, ordered_cuda.backend.to_host
    a, c, b, d = (words(rng, 2, *size) for size in ((n, k), (n, k), (k, m), (k, m)))
    onto = words(rng, 2, n, m)
    expected = onto + reference.matmul(a, b) + reference.matmul(c, d)
    mask, products = np.uint64(2**bits - 1), ordered_cuda.products
    rights = [give(b), give(d)]
    for right in (rights, products.split("columns", rights, digits(bits))):
        got = take(products.joint([give(a), give(c)], right, give(onto.copy()), Product(2, n, k, m, bits)))
        assert got.dtype == np.uint64
        np.testing.assert_array_equal(got & mask, expected & mask)


def test_a_full_device_is_not_cut_further() -> None:
    assert parted(1, 7) == 1
    assert parted(24, 96) == 5
    assert parted(24, 24) == 4
    assert parted(72, 48) == 3  # two waves of a third, not one of the whole
    assert parted(FULL, 1000) == parted(10 * FULL, 1000) == 1


def test_the_longest_pass_of_the_largest_bytes() -> None:
    """Takes a GPU: hundreds of stages are slow on fibers."""
    k = longest(8) + 32
    a = np.full((1, k), 2**64 - 1, dtype=np.uint64)
    agree(device(), np.array([[k]], dtype=np.uint64), a, a.T, 64, WAYS)


def test_long_float64_sums_are_split(cuda: CudaKernels) -> None:
    rng = np.random.default_rng(5)
    a, b = words(rng, 1, 5000), words(rng, 5000, 2)
    exact = [[sum(int(x) * int(y) for x, y in zip(a[0], c, strict=True)) % 2**64 for c in b.T]]
    agree(cuda, np.array(exact, dtype=np.uint64), a, b, 64, (FLOAT64, INTEGER))


@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
@pytest.mark.parametrize("shape", [(3, 5, 2), (2, 70, 100, 40), (0, 4, 3), (3, 0, 2), (1, 300, 320, 64)])
def test_two_products_and_a_term_make_whole_words(
    cuda: CudaKernels, reference: Kernels, shape: tuple[int, ...], dtype: type
) -> None:
    *outer, n, k, m = shape
    rng, bits = np.random.default_rng(7), 64 if dtype == np.uint64 else 32
    lefts = [words(rng, *outer, k, n).astype(dtype).swapaxes(-1, -2) for _ in range(2)]
    rights = [words(rng, *outer, k, m).astype(dtype) for _ in range(2)]
    onto = words(rng, int(np.prod(outer)) * n * m)
    expected = reference.joint(lefts, rights, onto, bits)
    give = cuda.backend.asarray
    got = cuda.backend.to_host(cuda.joint([*map(give, lefts)], [*map(give, rights)], give(onto.copy()), bits))
    assert got.dtype == np.uint64 and got.shape == expected.shape
    mask = np.uint64(2**bits - 1)
    np.testing.assert_array_equal(got & mask, expected & mask)


# ---- the choice -----------------------------------------------------------------------------------------------------


def test_default_choice() -> None:
    hopper, volta = Choice(90), Choice(70)
    assert hopper(Product(1, 512, 768, 3072)) == BYTES
    assert hopper(Product(1, 1, 768, 2)) == INTEGER
    assert hopper(Product(12, 512, 16, 512)) == INTEGER  # half a stage would be padding
    assert volta(Product(1, 512, 768, 3072)) == INTEGER


class Asked(dict[str, Any]):
    """Kernels that notice who asks for more shared memory."""

    def __missing__(self, name: str) -> SimpleNamespace:
        return self.setdefault(name, SimpleNamespace())


@pytest.mark.parametrize(("capability", "asked"), [(70, set()), (75, set()), (80, {f"digits{d}" for d in range(4, 9)})])
def test_older_devices_are_asked_for_nothing_they_lack(capability: int, asked: set[str]) -> None:
    """Before 8.0 there may be no 96 KiB of shared memory, and asking for it is an error."""
    kernels = Asked()
    Products(np, kernels, Choice(capability))
    assert set(kernels) == asked
    assert all(kernel.max_dynamic_shared_size_bytes <= 96 << 10 for kernel in kernels.values())


def test_the_nearest_measured_shape_decides() -> None:
    rows = [(Product(1, 128, 768, 768), FLOAT64), (Product(1, 512, 768, 768), BYTES),
            (Product(1, 512, 768, 768, 32), INTEGER)]
    choose = Choice(90, rows)
    assert choose(Product(1, 130, 768, 768)) == FLOAT64
    assert choose(Product(1, 600, 768, 1024)) == BYTES
    assert choose(Product(1, 512, 768, 768, 32)) == INTEGER
    assert choose(Product(1, 1, 2, 3)) == INTEGER  # nothing near: the default
    assert choose(Product(1, 128, 0, 768)) == choose(Product(0, 512, 768, 768)) == INTEGER  # nothing to do
    assert Choice(70, rows)(Product(1, 512, 768, 768)) == FLOAT64  # what a device cannot do is never chosen
