"""JSON from outside, read strictly: it cannot mean two things, and a bad text is a ValueError and nothing else.

Bytes are UTF-8, and strings are text: whatever is read can be told to a peer, logged and written.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def read_own(text: str | bytes) -> Any:
    """A value that a role of this package wrote. Raises ValueError.

    Beyond JSON's own rules: no object has a key twice, and every number is finite.
    """
    return _read(text, object_pairs_hook=_keys_once, parse_constant=_not_finite, parse_float=_finite)


def read_foreign(text: str | bytes) -> Any:
    """A value that other software wrote, such as a model's config. Raises ValueError."""
    return _read(text)


def _read(text: str | bytes, **hooks: Any) -> Any:
    text = text if isinstance(text, str) else text.decode("utf-8")
    try:
        value = json.loads(text, **hooks)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # halves of a pair alone are no text, and cannot be sent
    except RecursionError:
        raise ValueError("the JSON text nests too deeply") from None
    return value


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
