"""What all tests share: where the tree lies, one thread for each matrix product, and hypothesis without a clock (shared
machines are uneven)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cuda_lab import HostModules

    from secformer.models.run.comparison import Comparison

# Before NumPy is first imported, and for the processes that tests start. The matrices here are small: threads of the
# linear algebra library only wait for each other, and those of several workers take the cores from one another.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

# For `fuzz` and `prototypes`, which no wheel has. Last, so that an installed secformer is what is tested.
sys.path.append(str(ROOT))

settings.register_profile("secformer", deadline=None)
settings.load_profile("secformer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: several workers then end at the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that a test runs in this process logs to that test's stderr; later tests must not."""
    top, ours = logging.getLogger(), logging.getLogger("secformer")
    before, levels = set(top.handlers), (top.level, ours.level)
    yield
    for handler in set(top.handlers) - before:
        top.removeHandler(handler)
    top.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared(root: Path) -> Path:
    """The folder of real checkpoints and data sets beside the repository; tests that need it are skipped without."""
    folder = root.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder ../shared with real checkpoints here")
    return folder


@pytest.fixture(scope="session")
def host_modules(tmp_path_factory: pytest.TempPathFactory) -> HostModules:
    """The CUDA kernels' files, compiled for the host, once for all workers; skips the test where no compiler is."""
    from cuda_lab import NO_COMPILER, HostModules, compiler

    if compiler() is None:
        pytest.skip(NO_COMPILER)
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder lies in that of the whole run
        folder = folder.parent
    (folder / "cuda").mkdir(exist_ok=True)
    return HostModules(folder / "cuda")


@pytest.fixture(scope="session")
def compared() -> Comparison:
    """Three recipes side by side on the shipped model; the third cannot run."""
    from comparison_lab import three_recipes

    return three_recipes()
