"""Fixtures of the engine's tests: every channel, every kernel set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mpc_lab import KERNELS, PAIRS, kernels_named

from secformer.mpc.kernels import NumpyKernels


@pytest.fixture(params=KERNELS, scope="session")
def kernels(request: pytest.FixtureRequest) -> NumpyKernels:
    """Kernels under test: the reference, and the compiled ones where numba is there."""
    return kernels_named(request.param)


@pytest.fixture(params=sorted(PAIRS), scope="session")
def pair(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes two connected channel ends: pair("a", "b", deadline=...)."""
    return PAIRS[request.param]
