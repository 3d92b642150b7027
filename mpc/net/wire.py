"""Frames: a fixed header that says what the payload is, then the payload. Never pickle."""

from __future__ import annotations

import struct
from typing import NamedTuple

from secformer.mpc.errors import Desync

MAGIC = b"SFR1"
_HEADER = struct.Struct("<4sBxxxI16sIQQ")  # magic, type, step, verb, bits, count, payload bytes
HEADER_BYTES = _HEADER.size
DATA, ABORT, NOTE = 0, 1, 2
MAX_ABORT = 4096


class Tag(NamedTuple):
    """What a message is: its step in the program, the verb, the opened bits and the number of elements."""

    step: int
    verb: str
    bits: int
    count: int  # type: ignore[assignment]  # not a tuple's

    def __str__(self) -> str:
        return f"step {self.step}: {self.verb} of {self.count} elements at {self.bits} bits"


def pack_header(tag: Tag, nbytes: int, kind: int = DATA) -> bytes:
    return _HEADER.pack(MAGIC, kind, tag.step, tag.verb.encode()[:16], tag.bits, tag.count, nbytes)


def unpack_header(header: bytes) -> tuple[int, Tag, int]:
    """(type, tag, payload bytes). Raises Desync on anything that is not a frame of this version."""
    magic, kind, step, verb, bits, count, nbytes = _HEADER.unpack(header)
    if magic != MAGIC or kind not in (DATA, ABORT, NOTE):
        raise Desync(f"expected a frame of version {MAGIC!r}, got {header[:8]!r}; do both sides run the same version?")
    tag = Tag(step, verb.rstrip(b"\0").decode("ascii", "replace"), bits, count)
    if pack_header(tag, nbytes, kind) != header:
        raise Desync(f"a frame's header is not written as this version writes it, got {header!r}; do both sides run "
                     f"the same version?")
    return kind, tag, nbytes
