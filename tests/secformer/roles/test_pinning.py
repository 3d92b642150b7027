"""Cores for workers: how they are named and shared out, and that what is started runs on them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from secformer.mpc.errors import SettingsError
from secformer.roles.pinning import pinned, pins, shared_out, usable

EIGHT = frozenset(range(2, 10))


def test_cores_are_shared_out_in_order() -> None:
    assert shared_out(3, 2, EIGHT) == [{2, 3, 4}, {5, 6, 7}] and shared_out(8, 1, EIGHT) == [EIGHT]
    for each, workers in ((3, 3), (9, 1), (0, 1), (-1, 1)):
        with pytest.raises(SettingsError, match=r"--cores must be at least 1, and .* must fit the 8 core"):
            shared_out(each, workers, EIGHT)


def test_pins_name_cores_ranges_and_sums_of_them() -> None:
    assert pins("2-3,5", 2, EIGHT) == [{2, 3}, {5}] and pins("2+4-6,3", 2, EIGHT) == [{2, 4, 5, 6}, {3}]


@pytest.mark.parametrize(("text", "workers", "problem"), [
    ("2", 2, "has 1 part"), ("2,3,4", 2, "has 3 part"), ("1,2", 2, "names core 1, which this process may not use"),
    ("2-4,4", 2, "gives core 4 to two workers"), ("", 1, "takes cores and ranges"),
    ("4-2", 1, "takes cores and ranges"),
    ("2-", 1, "takes cores and ranges"), ("-2", 1, "takes cores and ranges"), ("two", 1, "takes cores and ranges"),
    ("2-99999999999", 1, "takes cores and ranges"), ("2-99999", 1, "takes cores and ranges"),
])
def test_pins_that_cannot_be(text: str, workers: int, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        pins(text, workers, EIGHT)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins nothing")
def test_what_is_started_meanwhile_runs_there() -> None:
    before, core = usable(), frozenset([min(usable())])
    command = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with pinned(core):
        assert subprocess.check_output(command).split() == [str(min(core)).encode()]
    with pinned(None):
        assert len(subprocess.check_output(command).split()) == len(before)
    assert usable() == before
    with pytest.raises(ZeroDivisionError), pinned(core):
        raise ZeroDivisionError
    assert usable() == before
