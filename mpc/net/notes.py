"""What peers write in notes, read strictly. JSON gives strings, booleans and fractions too; `int` and `fromhex` take
spaces, signs, underscores and the digits of other scripts."""

from __future__ import annotations

from typing import Any

WHOLE = 1 << 63  # whole numbers in notes stay below
DIGITS = frozenset("0123456789abcdef")


def whole(value: Any, least: int = 0, most: int = WHOLE - 1) -> int:
    """A JSON number without a fraction, from `least` to `most`. Raises ValueError."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"a whole number from {least} to {most} is needed, got {str(value)[:40]!r}")
    return value


def text(value: Any) -> str:
    """A JSON string. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"a string is needed, got {type(value).__name__}")
    return value


def hexadecimal(value: Any, nbytes: int) -> bytes:
    """So many bytes, written as lower-case hexadecimal digits and nothing else. Raises ValueError, which does not quote
    the value: it may be a secret."""
    if not isinstance(value, str) or len(value) != 2 * nbytes or not DIGITS.issuperset(value):
        raise ValueError(f"{nbytes} bytes are needed as {2 * nbytes} digits 0-9 and a-f")
    return bytes.fromhex(value)


def decimal(value: str) -> int:
    """A whole number below 2^63 that a file states in ASCII digits and nothing else. Raises ValueError."""
    if not value.isascii() or not value.isdigit() or len(value) > len(str(WHOLE)):
        raise ValueError(f"digits 0-9 are needed, got {value[:40]!r}")
    return whole(int(value))
