"""Memory is kept where the C library is glibc; elsewhere nothing happens."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from secformer import memory


class Library:
    """Stands for the C library; remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.told.append((parameter, value))
        return 1


def test_freed_memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep_memory()
    assert library.told == [(memory.M_ARENA_MAX, 1), (memory.M_MMAP_THRESHOLD, memory.KEPT),
                            (memory.M_TRIM_THRESHOLD, memory.KEPT)]


@pytest.mark.parametrize("library", [object(), OSError("none")], ids=["another C library", "no library"])
def test_elsewhere_nothing_happens(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: None) -> Any:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    memory.keep_memory()
