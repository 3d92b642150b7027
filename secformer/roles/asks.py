"""What a party's note asks of the dealer, checked entry by entry (see `dealing`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secformer.mpc.dealer.names import NONCE_BYTES, STORED
from secformer.mpc.errors import Desync
from secformer.mpc.net.notes import hexadecimal
from secformer.roles.messages import ID_DIGITS, is_id


def named_caches(ask: Mapping[str, Any]) -> str | None:
    """The name of the caches that a note asks for."""
    cache: str | None = None if ask.get("cache") is None else field(ask, "cache", str)
    return cache


def nonces_of(ask: Mapping[str, Any], space: str) -> tuple[bytes, bytes]:
    """The nonces of party 0, which stored runs have none of, and of party 1. Raises Desync."""
    try:
        theirs, own = field(ask, "nonces", list)
        return hexadecimal(theirs, 0 if space == STORED else NONCE_BYTES), hexadecimal(own, NONCE_BYTES)
    except ValueError as error:
        raise Desync(f"a note must hold the nonces of party 0 and of party 1 ({error}); do both sides run the same "
                     f"version?") from error


def requested(ask: Mapping[str, Any]) -> str:
    """The id of the request that runs are for, "" for a store's. Raises Desync."""
    request = ask.get("request", "")
    if request != "" and not (isinstance(request, str) and is_id(request)):
        raise Desync(f"a request's id has {ID_DIGITS} hexadecimal digits, and a store's runs have none; party1 names "
                     f"{str(request)[:64]!r}")
    return str(request)


def field(note: Mapping[str, Any], name: str, kind: type) -> Any:
    """An entry of a note, of that type. Raises Desync."""
    value = note.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Desync(f"a note must hold {name!r} as {kind.__name__}, got {type(value).__name__}; do both sides run the "
                     f"same version?")
    return value
