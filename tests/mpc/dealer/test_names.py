"""The names of runs: everything that tells runs apart is in them, and no two spellings give one name."""

from __future__ import annotations

from typing import Any

import pytest

from secformer.mpc import prg
from secformer.mpc.dealer import names
from secformer.mpc.dealer.names import LIVE, NO_NONCE, NONCE_BYTES, STORED, RunKey, fresh_nonce, run_name

N0, N1 = bytes(16), bytes(range(16))
GIVEN: dict[str, Any] = {"epoch": "ab" * 16, "space": LIVE, "serial": 7, "nonces": (N0, N1), "plan": "cd" * 32}


@pytest.mark.parametrize("other", [
    {"epoch": "ac" * 16}, {"space": STORED}, {"serial": 8}, {"nonces": (N1, N1)}, {"nonces": (N0, N0)},
    {"nonces": (N1, N0)}, {"nonces": (NO_NONCE, N1)}, {"plan": "ce" * 32}, {"serial": "7"},
])
def test_whatever_differs_gives_another_name(other: dict[str, Any]) -> None:
    assert len(run_name(**GIVEN)) == 64 and run_name(**GIVEN) == run_name(**GIVEN) != run_name(**GIVEN | other)


def test_the_format_of_the_streams_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_name(**GIVEN)
    monkeypatch.setattr(names, "FORMAT", prg.FORMAT + "x")
    assert run_name(**GIVEN) != before


def test_nonces_are_fresh() -> None:
    assert len({fresh_nonce() for _ in range(99)}) == 99 and len(fresh_nonce()) == NONCE_BYTES == 16


def test_what_a_session_keeps_says_nothing_of_the_run() -> None:
    key = RunKey("name", bytes(32))
    assert key.caches.name == key.name and key.caches.seed == prg.derive(key.seed, "caches") != key.seed
    assert "00" not in repr(key) and "name" in repr(key)
