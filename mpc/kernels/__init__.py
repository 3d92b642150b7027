"""Hot loops: one interface (`interface`), and a class for each place where they run, with the same results bit for bit.

`reference` works on NumPy and CuPy arrays alike; `cpu` compiles the hottest loops; `cuda` has raw kernels for the GPU.
Beside them: facts of words on the wire (`words`), public tables (`tables`) and coefficients (`taylor`), exact products
by float64 BLAS (`limbs`, `blas`, `threads`). May import errors, backend and ring only.
"""

from __future__ import annotations

import importlib.util

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.interface import Kernels
from secformer.mpc.kernels.reference import NumpyKernels

__all__ = ["Kernels", "NumpyKernels", "kernels_for"]


def kernels_for(backend: Backend, *, compiled: bool = True) -> Kernels:
    """The fastest kernels for a backend; `compiled=False` asks for the plain reference."""
    if backend.on_gpu:
        from secformer.mpc.kernels.cuda.launch import CudaKernels

        return CudaKernels(backend)
    if compiled and importlib.util.find_spec("numba") is not None:
        from secformer.mpc.kernels.cpu.compiled import NumbaKernels

        return NumbaKernels(backend)
    return NumpyKernels(backend)
