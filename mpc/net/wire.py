"""Frames: a fixed header that says what the payload is, then the payload. Never pickle."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from secformer.mpc.errors import Desync, ProtocolError

MAGIC = b"SFR1"
VERB_BYTES = 16  # of a verb's name
_HEADER = struct.Struct(f"<4sBxxxI{VERB_BYTES}sIQQ")  # magic, type, step, verb, bits, count, payload bytes
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


def joint_name(verbs: Iterable[str]) -> str:
    """The name of what several verbs open together: each of their names once, cut so that a header holds them all."""
    names = list(dict.fromkeys(verbs))
    if len(whole := "+".join(names)) <= VERB_BYTES:
        return whole
    each = (VERB_BYTES + 1) // len(names) - 1
    return "+".join(name[:each] for name in names) if each > 0 else f"{len(names)} verbs"


def pack_header(tag: Tag, nbytes: int, kind: int = DATA) -> bytes:
    """Raises ProtocolError for a verb whose name a header does not hold."""
    if len(verb := tag.verb.encode()) > VERB_BYTES:
        raise ProtocolError(f"a message's verb has at most {VERB_BYTES} bytes, got {tag.verb!r}")
    return _HEADER.pack(MAGIC, kind, tag.step, verb, tag.bits, tag.count, nbytes)


def unpack_header(header: bytes) -> tuple[int, Tag, int]:
    """(type, tag, payload bytes). Raises Desync on anything that is not a frame of this version."""
    magic, kind, step, verb, bits, count, nbytes = _HEADER.unpack(header)
    if magic != MAGIC or kind not in (DATA, ABORT, NOTE):
        raise Desync(f"expected a frame of version {MAGIC!r}, got {header[:8]!r}; do both sides run the same version?")
    tag = Tag(step, verb.rstrip(b"\0").decode("ascii", "replace"), bits, count)
    if not verb.isascii() or pack_header(tag, nbytes, kind) != header:
        raise Desync(f"a frame's header is not written as this version writes it, got {header!r}; do both sides run "
                     f"the same version?")
    return kind, tag, nbytes
