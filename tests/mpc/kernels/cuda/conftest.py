"""The CUDA kernels wherever they can run: on the host through fibers, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
from cuda_lab import HostModules, device
from mpc_lab import kernels_named

from secformer.mpc.backend import Backend
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.cuda.device import Device
from secformer.mpc.kernels.cuda.launch import CudaKernels

DEVICES = ["device"] if importlib.util.find_spec("cupy") else []
ORDERS = {"host": 0, "host, threads backwards": 1, "host, threads shuffled": 2}


@pytest.fixture(scope="session")
def on_host(host_modules: HostModules) -> Callable[[int], CudaKernels]:
    """Kernels that run on the host, their threads in that order."""
    kernels = CudaKernels(Backend("numpy", np, 1), Device("the host", 90, host_modules))

    def ordered(wanted: int) -> CudaKernels:
        host_modules.order = wanted
        return kernels

    return ordered


def chosen(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "device":
        return device()
    kernels: Kernels = request.getfixturevalue("on_host")(ORDERS[request.param])
    return kernels


@pytest.fixture(params=["host", *DEVICES])
def cuda(request: pytest.FixtureRequest) -> Kernels:
    """The CUDA kernels under test whose threads go their own ways."""
    return chosen(request)


@pytest.fixture(params=[*ORDERS, *DEVICES])
def ordered_cuda(request: pytest.FixtureRequest) -> Kernels:
    """The CUDA kernels under test whose threads wait for each other: the host runs them in several orders."""
    return chosen(request)


@pytest.fixture
def reference() -> Kernels:
    return kernels_named("numpy")
