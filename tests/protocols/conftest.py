"""Fixtures of the protocols' tests: one suite, on plain numbers and on shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from mpc_lab import Words
from mpc_lab import run as run_at_parties
from protocols_lab import Run

from secformer.mpc.fixed import encode
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share


def on_twin(program: Callable[..., Share], *values: np.ndarray, fracs: Sequence[int]) -> np.ndarray:
    s = PlainSession()
    return np.asarray(program(s, *(s.accept(v, frac=f) for v, f in zip(values, fracs, strict=True))).data)


def on_shares(program: Callable[..., Share], *values: np.ndarray, fracs: Sequence[int]) -> np.ndarray:
    words = [Words(encode(v, f), f, 48 if f > 16 else 64) for v, f in zip(values, fracs, strict=True)]
    (result,), _ = run_at_parties(program, *words)
    return np.asarray(result)


@pytest.fixture(scope="session")
def twin() -> Run:
    """run(program, *values, fracs=...) on the float64 twin."""
    return on_twin


@pytest.fixture(scope="session", params=[on_twin, on_shares], ids=["twin", "shares"])
def run(request: pytest.FixtureRequest) -> Run:
    """run(program, *values, fracs=...): the program's result in every world. Values carry `fracs` fractional bits."""
    chosen: Run = request.param
    return chosen
