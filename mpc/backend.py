"""Which array library computes: NumPy on the CPU or CuPy on a GPU. Only this file and the CUDA kernels know."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from secformer.mpc.errors import BackendUnavailable, SettingsError

BACKENDS = ("auto", "numpy", "cupy")


@dataclass(frozen=True)
class Backend:
    """An array module (`xp`), its name, and how many cores one party may use."""

    name: str
    xp: ModuleType
    threads: int = 1

    @property
    def on_gpu(self) -> bool:
        return self.name == "cupy"

    def asarray(self, x: Any) -> Any:
        """Brings an array to this backend's device."""
        return self.xp.asarray(x)

    def to_host(self, x: Any) -> np.ndarray:
        """Brings an array to host memory as NumPy."""
        return x.get() if self.on_gpu else np.asarray(x)


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def choose_backend(name: str = "auto", *, threads: int | None = None) -> Backend:
    """The backend of that name; `auto` takes CuPy where a GPU answers, else NumPy.

    `threads` defaults to half of the cores, since two parties share a machine by default.
    Raises SettingsError for an unknown name and BackendUnavailable where `cupy` cannot run.
    """
    if name not in BACKENDS:
        raise SettingsError(f"backend must be one of {', '.join(BACKENDS)}; got {name!r}")
    threads = max(1, cores() // 2) if threads is None else threads
    if name != "numpy":
        module, why = _cupy()
        if module is not None:
            return Backend("cupy", module, threads)
        if name == "cupy":
            raise BackendUnavailable(
                f"backend 'cupy' needs the extra `gpu` and an NVIDIA GPU: {why}; use backend='numpy'"
            )
    return Backend("numpy", np, threads)


def _cupy() -> tuple[ModuleType | None, str]:
    if importlib.util.find_spec("cupy") is None:
        return None, "CuPy is not installed"
    try:
        module = importlib.import_module("cupy")
        count = int(module.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises its own kinds for a missing driver
        return None, f"CuPy found no usable device ({error})"
    return (module, "") if count else (None, "no device is present")
