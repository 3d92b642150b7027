"""Traces: which requests belong together for those who watch them, as W3C's header `traceparent` says it.

The header is version "-" trace "-" parent "-" flags, in lower-case hexadecimal digits. A party reads the id of the
trace from it, for its logs and for the dealer's, and uses nothing else of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADER = "traceparent"
DIGITS = 32  # of a trace's id
PARENT = 16  # of the id of what asks
LONGEST = 512  # characters of a header of a later version
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def is_trace(text: str) -> bool:
    """Whether this may be the id of a trace."""
    return bool(re.fullmatch(r"(?!0{32})[0-9a-f]{32}", text))


def trace_in(headers: Sequence[str]) -> str:
    """The id of the trace that these headers name; "" if there is not exactly one, or it is not as it must be."""
    found = _FORM.fullmatch(headers[0]) if len(headers) == 1 and len(headers[0]) <= LONGEST else None
    if found is None or (found[1] == "00" and found[3] is not None):
        return ""
    return found[2]


def header_of(trace: str, parent: str) -> str:
    """The header for a request of that trace, by an asker of that id, which has at least 16 digits."""
    return f"00-{trace}-{parent[:PARENT]}-00"


def fields_of(trace: str) -> dict[str, str]:
    """What a log line says beside a request's id."""
    return {"trace": trace} if trace else {}
