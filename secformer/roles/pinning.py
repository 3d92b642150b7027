"""Cores for workers: which ones each gets, and processes that are started on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from secformer.mpc.errors import SettingsError

MOST = 1 << 14  # the highest number of a core, so that a range is never long
Cores = frozenset[int]


def usable() -> Cores:
    """The cores that this process may use. Raises SettingsError where the system does not pin processes."""
    if not hasattr(os, "sched_getaffinity"):
        raise SettingsError("this system does not pin processes to cores; leave --cores and --pin out")
    return frozenset(os.sched_getaffinity(0))


def shared_out(each: int, workers: int, cores: Cores) -> list[Cores]:
    """`each` cores for every worker, from the lowest number on. Raises SettingsError where there are too few."""
    if each < 1 or each * workers > len(cores):
        raise SettingsError(f"--cores must be at least 1, and {workers} worker(s) with {each} core(s) each must fit "
                            f"the {len(cores)} core(s) that this process may use; for cores that workers share, leave "
                            f"it out")
    numbers = sorted(cores)
    return [frozenset(numbers[i * each:(i + 1) * each]) for i in range(workers)]


def pins(text: str, workers: int, cores: Cores) -> list[Cores]:
    """The cores that "0-3,4-7" names: a part for each worker, separated by commas. A part is a core, a range, or
    several of these joined by "+". Raises SettingsError."""
    parts = [_cores(part, text) for part in text.split(",")]
    if len(parts) != workers:
        raise SettingsError(f"--pin {text} has {len(parts)} part(s) for {workers} worker(s); give one part for each "
                            f"settings file, separated by commas, such as 0-3,4-7")
    for number, part in enumerate(parts):
        if missing := sorted(part - cores):
            raise SettingsError(f"--pin {text} names core {missing[0]}, which this process may not use; it may use "
                                f"{', '.join(map(str, sorted(cores)))}")
        if twice := sorted(part & frozenset().union(*parts[:number])):
            raise SettingsError(f"--pin {text} gives core {twice[0]} to two workers; give each core to one")
    return parts


def _cores(part: str, text: str) -> Cores:
    found: set[int] = set()
    for span in part.split("+"):
        first, dash, last = span.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends) or not (
                int(ends[0]) <= int(ends[1]) <= MOST):
            raise SettingsError(f"--pin takes cores and ranges of cores, such as 0-3,4-7 or 0+2,1+3; got {text!r}")
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return frozenset(found)


@contextmanager
def pinned(cores: Cores | None) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores, from its first instruction on."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
