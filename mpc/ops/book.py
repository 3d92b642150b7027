"""The public series of a program, written down in the order of its calls.

A series' coefficients come from a least-squares solver, whose last bits depend on the machine, and two parties must
multiply their shares by the very same numbers. So one machine writes the book, when the model is provisioned, and the
parties read from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from secformer.mpc.errors import Desync
from secformer.mpc.functions import Series

Agree = Callable[[Series], Series]


def as_fitted(own: Series) -> Series:
    """For programs that run on one machine: its own fit is the one."""
    return own


class Writer:
    """Keeps every series that a program evaluates."""

    def __init__(self) -> None:
        self.series: list[Series] = []

    def __call__(self, own: Series) -> Series:
        self.series.append(own)
        return own


class Reader:
    """Gives a program, run once, the written series in place of its own. Raises Desync where they are not the same
    functions, fitted alike."""

    def __init__(self, series: Iterable[Series]):
        self._series = iter(series)
        self._count = 0

    def __call__(self, own: Series) -> Series:
        written = next(self._series, None)
        self._count += 1
        if written is None or _form(written) != _form(own):
            raise Desync(f"series {self._count} of the program has the form {_form(own)} here and "
                         f"{'none' if written is None else _form(written)} in the provisioned model; provision it "
                         f"again with the version that runs")
        return written


def _form(f: Series) -> tuple[Any, ...]:
    """What two fits of one function have in common: period, harmonics, even or odd, slope, magnitude, precision."""
    return (f.period_bits, f.harmonics, any(f.cos[1:]), any(f.sin[1:]), float(f"{f.linear:.6g}"), f.magnitude,
            f.mask_frac, f.public_frac)


def series_to_list(series: Iterable[Series]) -> list[list[Any]]:
    """Plain lists, for JSON, which keeps doubles exactly."""
    return [[f.period_bits, list(f.cos), list(f.sin), f.linear, f.magnitude, f.mask_frac, f.public_frac,
             list(f.domain or ())] for f in series]


def series_from_list(rows: Iterable[list[Any]]) -> tuple[Series, ...]:
    """The inverse. Raises TypeError or ValueError for anything else."""
    found = []
    for period, cos, sin, linear, magnitude, mask_frac, public_frac, domain in rows:
        ends = tuple(map(float, domain))
        if len(ends) not in (0, 2):
            raise ValueError(f"a series' domain has two ends or none, got {domain!r}")
        found.append(Series(int(period), tuple(map(float, cos)), tuple(map(float, sin)), float(linear), int(magnitude),
                            int(mask_frac), int(public_frac), (ends[0], ends[1]) if ends else None))
    return tuple(found)
