"""JSON from outside, read strictly: it cannot mean two things, and a bad text is a ValueError and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any


def read_own(text: str | bytes) -> Any:
    """A value that a role of this package wrote. Raises ValueError.

    Beyond JSON's own rules: bytes are UTF-8, no object has a key twice, and every number is finite.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    return _read(text, object_pairs_hook=_keys_once, parse_constant=_not_finite, parse_float=_finite)


def read_foreign(text: str | bytes) -> Any:
    """A value that other software wrote, such as a model's config. Raises ValueError."""
    return _read(text)


def _read(text: str | bytes, **hooks: Any) -> Any:
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise ValueError("the JSON text nests too deeply") from None


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:64]!r} stands twice in one object")
    return found


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"the number {number[:64]} is too large")
    return value


def _not_finite(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON has")
