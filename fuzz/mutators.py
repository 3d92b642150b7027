"""Mutation that knows a form: most changed inputs are still JSON, TOML, lines, tensors or HTTP, so that they reach what
lies behind the first check. One in eight is changed as plain bytes, whatever its form."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

Mutate = Callable[[bytes, int, Random], bytes]  # (input, most bytes, where chance comes from)
Repair = Callable[[Any], Any]                   # makes a changed value consistent again, such as its digest

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 65, 255, 256, 4095, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**32,
           2**40, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400, -2**31, -2**63)
STRINGS = ("", "0", "00", "1", "-1", " 1", "1 ", "+1", "1_0", "\u0661", "1e9", "nan", "a" * 64, "ab" * 32, "AB" * 32,
           "ab" * 16, "../x", "/", ".", "..", "\0", "\n", "\ud800", "\u202e", "{}", "live", "stored", "join", "deal",
           "party0", "secformer", "F32", "U64", "I64", "BF16", "x" * 5000, "9" * 5000, "\u00e9")
ODD: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": ""}, 0.5, -0.5, 1e308, 5.0, 1e-320)
TEXTS = ("NaN", "Infinity", "-Infinity", "1e999", "-0", "1E2", "0.10", "[" * 2000, "{\"a\":" * 2000, "01", "1.0",
         "\ufeff", "[]", "{}", "null", "true", "\"\\ud800\"", "9" * 400)
PIECES = (b"\0", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\0\0\0\0\0\1\0\0", b"\r\n", b"\n", b" ", b"=", b"-",
          b"9" * 30, b"\xc3", b"\xed\xa0\x80", b"\0" * 64)


def raw(data: bytes, most: int, chance: Random) -> bytes:
    """Bytes replaced, put in, left out, doubled or moved."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(found) + 1)
        end = min(len(found), place + chance.choice((1, 1, 2, 4, 8, 64)))
        match chance.randrange(6):
            case 0 if place < len(found):
                found[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(found):
                found[place] = chance.randrange(256)
            case 2:
                found[place:place] = chance.choice(PIECES)
            case 3:
                del found[place:end]
            case 4:
                found[place:place] = found[place:end]
            case _:
                other = chance.randrange(len(found) + 1)
                found[other:other] = found[place:end]
    return bytes(found[:most])


def json_text(repair: Repair | None = None) -> Mutate:
    """Values of a JSON text changed. `repair` runs on most results."""
    def mutate(data: bytes, most: int, chance: Random) -> bytes:
        value = _parsed(data)
        if value is _NONE or not chance.randrange(8):
            return raw(data, most, chance)
        for _ in range(chance.choice((1, 1, 2, 3))):
            value = _changed(value, chance)
        if repair is not None and chance.randrange(8):
            with suppress(Exception):  # what cannot be mended stays broken
                value = repair(value)
        return _spelt(value, chance).encode("utf-8", "surrogatepass")[:most]

    return mutate


def tensors(repair: Repair | None = None) -> Mutate:
    """A safetensors file: its header as JSON, or its data as bytes; mostly with the right length in front."""
    change = json_text(repair)

    def mutate(data: bytes, most: int, chance: Random) -> bytes:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > len(data) - 8 or not chance.randrange(8):
            return raw(data, most, chance)
        header, rest = data[8 : 8 + size], data[8 + size :]
        if chance.randrange(4):
            header = change(header, most, chance)
        else:
            rest = raw(rest, most, chance)
        length = len(header) if chance.randrange(16) else chance.choice((0, 1, size + 1, 2**20, 2**40, 2**64 - 1))
        return (length.to_bytes(8, "little") + header + rest)[:most]

    return mutate


def lines(*words: str) -> Mutate:
    """Lines left out, doubled and moved, and the words in them replaced, also by `words`."""
    def mutate(data: bytes, most: int, chance: Random) -> bytes:
        if not chance.randrange(8):
            return raw(data, most, chance)
        rows = data.split(b"\n")
        for _ in range(chance.choice((1, 1, 2, 3))):
            place = chance.randrange(len(rows))
            match chance.randrange(5):
                case 0 if len(rows) > 1:
                    del rows[place]
                case 1:
                    rows.insert(chance.randrange(len(rows) + 1), rows[place])
                case _:
                    parts = rows[place].split(b" ")
                    word = chance.choice((*words, *map(str, NUMBERS), *STRINGS, *TEXTS))
                    parts[chance.randrange(len(parts))] = word.encode("utf-8", "surrogatepass")
                    rows[place] = b" ".join(parts)
        return b"\n".join(rows)[:most]

    return mutate


_NONE = object()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return _NONE


def _changed(value: Any, chance: Random) -> Any:
    """A copy with one place changed."""
    if isinstance(value, dict) and value and chance.randrange(8):
        return _changed_object(value, chance)
    if isinstance(value, list) and value and chance.randrange(8):
        return _changed_list(value, chance)
    if isinstance(value, str) and chance.randrange(2):
        text = raw(value.encode("utf-8", "surrogatepass"), len(value) * 4 + 64, chance)
        return text.decode("utf-8", "replace")
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.randrange(2):
        near = (value + 1, value - 1, -value, str(value))
        return chance.choice((*near, float(value)) if abs(value) < 2**60 else near)
    return chance.choice((*NUMBERS, *STRINGS, *ODD))


def _changed_object(value: dict[str, Any], chance: Random) -> dict[str, Any]:
    key, found = chance.choice(list(value)), dict(value)
    match chance.randrange(12):
        case 0:
            del found[key]
        case 1:
            found[chance.choice((*STRINGS, *value))] = found[key]
        case 2:
            found[_changed_key(key, chance)] = found.pop(key)
        case 3:
            found[key] = chance.choice(list(value.values()))
        case _:
            found[key] = _changed(value[key], chance)
    return found


def _changed_list(value: list[Any], chance: Random) -> list[Any]:
    place, found = chance.randrange(len(value)), list(value)
    match chance.randrange(12):
        case 0:
            del found[place]
        case 1:
            found.insert(place, found[chance.randrange(len(found))])
        case 2:
            chance.shuffle(found)
        case 3:
            found[place] = chance.choice(value)
        case 4 if len(found) < 256:
            found += found
        case _:
            found[place] = _changed(value[place], chance)
    return found


def _changed_key(key: str, chance: Random) -> str:
    return raw(key.encode("utf-8", "surrogatepass"), 256, chance).decode("utf-8", "replace")


def _spelt(value: Any, chance: Random) -> str:
    """JSON, at times in an odd spelling: a key twice, a number that is none, white space."""
    text = json.dumps(value, ensure_ascii=bool(chance.randrange(4)))
    match chance.randrange(12):
        case 0 if isinstance(value, dict) and value:
            key = chance.choice(list(value))
            twice = json.dumps({key: chance.choice((value[key], _changed(value[key], chance)))})
            return f"{text[:-1]}, {twice[1:]}"
        case 1:
            places = [i for i, character in enumerate(text) if character.isdigit()]
            if places:
                place = chance.choice(places)
                return text[:place] + chance.choice(TEXTS) + text[place + 1 :]
        case 2:
            return json.dumps(value, indent=1)
    return text
