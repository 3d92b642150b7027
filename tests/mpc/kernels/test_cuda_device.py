"""The CUDA kernels: compiled by nvcc where there is one, run on the host through a shim where there is a C++ compiler,
and compared with the reference on the device where there is a GPU."""

from __future__ import annotations

import ast
import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpc_lab import kernels_named

import secformer.mpc.kernels
from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import BackendUnavailable
from secformer.mpc.fixed import decode, encode
from secformer.mpc.kernels import NumpyKernels, kernels_for
from secformer.mpc.session import CLIENT
from secformer.mpc.simulate import World

FOLDER = Path(secformer.mpc.kernels.__file__).parent
SOURCE = FOLDER / "kernels.cu"
WANTED = ("70", "80", "90")  # compute capabilities; a compiler that dropped one says so itself

# One thread after the other on the host. Kernels that wait for their block's threads (the tiled matrix products) cannot
# run so; everything else is the very source that the GPU runs.
SHIM = """
#define __global__
#define __device__ static
#define __shared__ static
#define __syncthreads()
#define __popc __builtin_popcount
struct Index { unsigned int x, y, z; };
static Index blockIdx, blockDim, threadIdx;
#include "kernels.cu"
extern "C" void place(unsigned int block) { blockIdx.x = block; blockDim.x = 1; threadIdx.x = 0; }
"""


def names() -> dict[str, Any]:
    """The constants of the Python side, read without importing CuPy."""
    tree = ast.parse((FOLDER / "cuda_.py").read_text())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple):
            found[node.targets[0].id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    return found


def test_every_kernel_that_is_launched_exists() -> None:
    defined = set(re.findall(r'extern "C" __global__ void (\w+)\(', SOURCE.read_text()))
    assert defined == set(names()["NAMES"])


def test_multiply_and_add_are_never_fused() -> None:
    """A fused product rounds once, not twice: the parties' public coefficients would differ between backends."""
    assert "-fmad=false" in names()["OPTIONS"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("capability", WANTED)
def test_the_source_compiles(capability: str, tmp_path: Path) -> None:
    known = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    if f"compute_{capability}" not in known.split():
        pytest.skip(f"this nvcc no longer compiles for {capability}")
    done = subprocess.run(
        ["nvcc", f"-arch=sm_{capability}", *names()["OPTIONS"], "-cubin", "-o", str(tmp_path / "out"), str(SOURCE)],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr


# ---- on the host ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """run(kernel, threads, *arguments): arrays go as pointers, numbers as given ctypes."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "shim.cpp").write_text(SHIM)
    library = folder / "kernels.so"
    subprocess.run([compiler, "-std=c++14", "-O2", "-ffp-contract=off", "-fPIC", "-shared", f"-I{FOLDER}",
                    "-o", str(library), str(folder / "shim.cpp")], check=True, capture_output=True)
    loaded = ctypes.CDLL(str(library))

    def run(kernel: str, threads: int, *arguments: Any) -> None:
        given = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments]
        for thread in range(threads):
            loaded.place(thread)
            getattr(loaded, kernel)(*given)

    return run


@pytest.fixture
def reference() -> NumpyKernels:
    return kernels_named("numpy")


@pytest.mark.parametrize(("block", "blocks"), [(0, 1), (7, 3), (2**32 - 2, 1)])
def test_keystream_on_the_host(host: Callable[..., None], reference: NumpyKernels, block: int, blocks: int) -> None:
    key = bytes(range(100, 132))
    out = np.zeros(blocks * 64, dtype=np.uint8)
    host("keystream", blocks, np.frombuffer(key, dtype=np.uint32), ctypes.c_uint32(block), ctypes.c_uint64(blocks), out)
    np.testing.assert_array_equal(out, reference.keystream(key, block, out.size))


@pytest.mark.parametrize("n", [1, 5, 64])
@pytest.mark.parametrize(("bits", "count"), [(3, 2), (24, 20), (52, 9)])
def test_harmonics_and_series_on_the_host(
    host: Callable[..., None], reference: NumpyKernels, n: int, bits: int, count: int
) -> None:
    rng = np.random.default_rng(n + bits)
    u = rng.integers(0, 1 << bits, n, dtype=np.uint64)
    c, s = reference.turn(u, bits)
    out = np.zeros((2 * count, n), dtype=np.uint64)
    host("harmonics", n, c, s, ctypes.c_uint64(n), ctypes.c_int(count), ctypes.c_double(2.0**20), out)
    np.testing.assert_array_equal(out, reference.harmonics(u, bits, count, 20))
    cos, sin = rng.normal(size=(2, 3, count))
    words = rng.integers(0, 2**64, (2 * count, n), dtype=np.uint64)
    total = np.zeros((3, n), dtype=np.uint64)
    host("series", n, c, s, ctypes.c_uint64(n), ctypes.c_int(3), ctypes.c_int(count), cos * 2.0**18, sin * 2.0**18,
         words, total)
    np.testing.assert_array_equal(total, reference.series(u, bits, cos, sin, words, 18))


@pytest.mark.parametrize("size", [1, 4, 32])
def test_look_up_on_the_host(host: Callable[..., None], reference: NumpyKernels, size: int) -> None:
    rng = np.random.default_rng(size)
    tables = rng.integers(0, 256, (50, size), dtype=np.uint8)
    v = rng.integers(0, 8 * size, 50, dtype=np.uint64)
    equal, less = np.zeros(50, dtype=np.uint8), np.zeros(50, dtype=np.uint8)
    host("look_up", 50, tables, v, ctypes.c_uint64(50), ctypes.c_int(size), equal, less)
    for got, expected in zip((equal, less), reference.look_up(tables, v), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("shift", "window"), [(16, 48), (16, 64), (0, 32), (0, 61), (5, 17)])
@pytest.mark.parametrize("first", [False, True])
def test_truncated_on_the_host(
    host: Callable[..., None], reference: NumpyKernels, shift: int, window: int, first: bool
) -> None:
    rng = np.random.default_rng(window)
    u = rng.integers(0, 2**window, 40, dtype=np.uint64) if window < 64 else rng.integers(0, 2**64, 40, dtype=np.uint64)
    shifted, msb = rng.integers(0, 2**64, (2, 40), dtype=np.uint64)
    out = np.zeros(40, dtype=np.uint64)
    host("truncated", 40, u, shifted, msb, ctypes.c_uint64(40), ctypes.c_int(shift), ctypes.c_int(window),
         ctypes.c_int(first), out)
    np.testing.assert_array_equal(out, reference.truncated(u, shifted, msb, shift, window, first))


# ---- on a device ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def device() -> NumpyKernels:
    try:
        return kernels_for(choose_backend("cupy"))
    except BackendUnavailable as error:
        pytest.skip(str(error))


def test_kernels_on_a_device(device: NumpyKernels, reference: NumpyKernels) -> None:
    rng = np.random.default_rng(0)
    give, take = device.backend.asarray, device.backend.to_host
    np.testing.assert_array_equal(take(device.keystream(bytes(32), 5, 1000)), reference.keystream(bytes(32), 5, 1000))
    for shape in ((1, 1, 1), (17, 33, 49), (3, 128, 5)):
        for dtype in (np.uint64, np.uint32):
            a = rng.integers(0, 2**32, shape[:2], dtype=np.uint64).astype(dtype)
            b = rng.integers(0, 2**32, shape[1:], dtype=np.uint64).astype(dtype)
            np.testing.assert_array_equal(take(device.matmul(give(a), give(b))), reference.matmul(a, b))
    u = rng.integers(0, 2**24, 1000, dtype=np.uint64)
    np.testing.assert_array_equal(take(device.harmonics(give(u), 24, 20, 20)), reference.harmonics(u, 24, 20, 20))
    cos, sin = rng.normal(size=(2, 2, 20))
    words = rng.integers(0, 2**64, (40, 1000), dtype=np.uint64)
    np.testing.assert_array_equal(
        take(device.series(give(u), 24, cos, sin, give(words), 18)), reference.series(u, 24, cos, sin, words, 18)
    )
    for bits in (3, 12, 24, 37, 48, 64):
        packed = device.pack(give(words), bits)
        np.testing.assert_array_equal(take(packed), reference.pack(words, bits))
        np.testing.assert_array_equal(take(device.unpack(packed, words.size, bits)),
                                      reference.unpack(reference.pack(words, bits), words.size, bits))


def test_a_world_on_a_device(device: NumpyKernels) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, (6, 8))
    mask = rng.integers(0, 2**64, x.shape, dtype=np.uint64)

    def program(s: Any, mine: np.ndarray) -> Any:
        y = s.accept(mine)
        return s.reveal(s.square(y) + s.relu(y, bound=8.0) + s.lift(s.maximum(y, 1, bound=8.0))[0], CLIENT)

    a, b = World(kernels=device).run(program, encode(x, 16) - mask, mask).results
    expected = x**2 + np.maximum(x, 0) + x.max(1, keepdims=True)
    assert np.abs(decode(a + b, 16) - expected).max() < 1e-3
