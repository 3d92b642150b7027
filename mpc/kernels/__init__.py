"""Hot loops, one class per place where they run, with the same names and the same results, bit for bit.

`numpy_` is the reference and works on NumPy and CuPy arrays alike; `numba_` compiles the hottest loops for the CPU;
`cuda_` has raw kernels for the GPU. May import errors and backend only.
"""

from __future__ import annotations

import importlib.util

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.numpy_ import NumpyKernels

__all__ = ["NumpyKernels", "kernels_for"]


def kernels_for(backend: Backend, *, compiled: bool = True) -> NumpyKernels:
    """The fastest kernels for a backend; `compiled=False` asks for the plain reference."""
    if backend.on_gpu:
        from secformer.mpc.kernels.cuda_ import CudaKernels

        return CudaKernels(backend)
    if compiled and importlib.util.find_spec("numba") is not None:
        from secformer.mpc.kernels.numba_ import NumbaKernels

        return NumbaKernels(backend)
    return NumpyKernels(backend)
