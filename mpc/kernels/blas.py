"""Keeps the BLAS behind NumPy to one thread while our own threads multiply.

OpenBLAS runs one product at a time over all its threads: callers from several threads wait for each other and its
workers spin meanwhile, which made products of three roles in one process three to five times slower than one thread
each.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import threading
from functools import lru_cache
from typing import Any, Self

EXTENSIONS = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")  # NumPy 2 and 1; both link the BLAS
NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads64_",
         "openblas_{}_num_threads")


class OneThread:
    """`with` it, the BLAS computes in the thread that calls it; the last to leave restores what was set.

    Where the BLAS is not OpenBLAS, or the system does not let us find it, nothing changes and `found` is False.
    """

    def __init__(self) -> None:
        self._get, self._set = _functions()
        self._lock, self._inside, self._before = threading.Lock(), 0, 1

    @property
    def found(self) -> bool:
        return self._set is not None

    def __enter__(self) -> Self:
        if self._set is not None:
            with self._lock:
                if not self._inside:
                    self._before = self._get()
                    self._set(1)
                self._inside += 1
        return self

    def __exit__(self, *error: Any) -> None:
        if self._set is not None:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._set(self._before)


@lru_cache(maxsize=1)
def one_thread() -> OneThread:
    """The one that counts for the whole process, as the BLAS's own setting does."""
    return OneThread()


def _functions() -> tuple[Any, Any]:
    """OpenBLAS' functions that get and set the number of its threads, or None twice."""
    for extension in EXTENSIONS:
        try:
            library = ctypes.CDLL(str(importlib.import_module(extension).__file__))
        except (ImportError, OSError):
            continue
        for name in NAMES:
            try:
                return library[name.format("get")], library[name.format("set")]
            except AttributeError:
                continue
    return None, None
