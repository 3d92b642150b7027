"""Fixtures of the engine's tests: every channel, every kernel set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mpc_lab import KERNELS, PAIRS, close_sockets, kernels_named

from secformer.mpc.kernels import Kernels


@pytest.fixture(params=KERNELS, scope="session")
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Kernels under test: the reference, and the compiled ones where numba is there."""
    return kernels_named(request.param)


@pytest.fixture(params=sorted(PAIRS), scope="session")
def pair(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes two connected channel ends: pair("a", "b", deadline=...)."""
    return PAIRS[request.param]


@pytest.fixture(autouse=True)
def sockets() -> Iterator[None]:
    """Closes the TCP sockets of a test."""
    yield
    close_sockets()
