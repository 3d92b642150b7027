"""Texts must be valid Unicode: Python's strings may also hold half characters, which no tokenizer takes."""

from __future__ import annotations

from secformer.mpc.errors import InputError

ESCAPED = range(0xDC80, 0xDD00)  # how Python keeps the bytes 0x80 to 0xFF that it could not decode


def require_unicode(text: str, name: str) -> None:
    """Raises InputError for a lone surrogate. The error says which text has it, where, and what to do.

    name  what the text is called, such as "text 3"
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        place, code = error.start, ord(text[error.start])
        if code in ESCAPED:
            raise InputError(f"{name} is not valid UTF-8: character {place} (counted from 0) stands for the byte "
                             f"0x{code - 0xDC00:02X}, which could not be decoded; convert the text to UTF-8") from None
        raise InputError(f"{name} is not valid Unicode: character {place} (counted from 0) is U+{code:04X}, half of a "
                         f"surrogate pair; replace it, or decode the text again") from None


def undecodable(error: UnicodeDecodeError, name: str) -> InputError:
    """What to raise for bytes that could not be decoded: the error says in which line, and where in it."""
    before = error.object[: error.start]
    line, place = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1)
    found = error.object[error.start]
    return InputError(f"{name} is not {error.encoding.upper()} text: line {line} has the byte 0x{found:02X} at byte "
                      f"{place} (counted from 0), {error.reason}; convert it to {error.encoding.upper()}")
