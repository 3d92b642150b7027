"""Generated tokens as text, piece by piece, up to where the text ends.

Three things hold a piece back: a character of which some bytes are still to come, a beginning of a stop text, and the
end of the generation, behind which nothing is given.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

from secformer.models.families.config import read_config
from secformer.mpc.errors import ModelError
from secformer.mpc.strict_json import read_foreign

FILE = "generation_config.json"
KEY = "eos_token_id"
MISSING = "\ufffd"  # what a tokenizer writes for bytes that are not a whole character
CONTEXT = 8         # tokens of the prompt: some tokenizers drop the first space of what they decode


class End(Enum):
    """Why a generation ended."""

    TOKEN = "end token"
    STOP = "stop text"
    LENGTH = "length"
    CLOSED = "closed"  # by its user, by an error or by an interrupt


class Decoding(Protocol):
    """What a stream needs of a tokenizer (see `secformer.models.data.tokenizer.Tokenizer`)."""

    def generated(self, ids: Sequence[int]) -> str: ...

    def special(self, text: str) -> int | None: ...


class TextStream:
    """Tokens in, pieces of text out. What the pieces give, put together, does not depend on how the same text is cut
    into tokens. A piece that was given is never taken back.

    tokenizer  decodes tokens
    prompt     the ids of the prompt
    stop       texts that end the generation; the one that is complete first ends it. The text of a special token, such
               as "<|im_end|>", means this token
    ends       ids of tokens that end the generation
    """

    def __init__(self, tokenizer: Decoding, prompt: Sequence[int] = (), *, stop: Sequence[str] = (),
                 ends: Collection[int] = ()):
        special = {text: tokenizer.special(text) for text in stop}
        self._stop = [text for text, token in special.items() if token is None]
        self._ends = {*ends, *(token for token in special.values() if token is not None)}
        self._tokenizer, self._before = tokenizer, list(prompt[-CONTEXT:])
        self._skipped = len(tokenizer.generated(self._before))
        self._ids: list[int] = []
        self.end: End | None = None
        self.text = ""

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens that were taken, the one that ended the generation included."""
        return tuple(self._ids)

    def take(self, token: int) -> str:
        """The piece of text that one more token completes, often empty. A token behind the end is not taken."""
        if self.end is not None:
            return ""
        self._ids.append(token)
        if token in self._ends:
            return self._closed(End.TOKEN, self._decoded(self._ids[:-1]))
        whole = self._decoded(self._ids).rstrip(MISSING)
        if (place := self._stopped(whole)) is not None:
            return self._closed(End.STOP, whole[:place])
        return self._given(whole[: len(whole) - self._held(whole)])

    def finish(self, end: End = End.LENGTH) -> str:
        """Ends the generation here, and gives the piece that was held back. Nothing, if it has ended."""
        return "" if self.end is not None else self._closed(end, self._decoded(self._ids))

    def _closed(self, end: End, whole: str) -> str:
        place = self._stopped(whole)  # in bytes that are no character, if at all
        self.end = end if place is None else End.STOP
        return self._given(whole[:place])

    def _given(self, whole: str) -> str:
        piece = whole[len(self.text) :]
        self.text += piece
        return piece

    def _decoded(self, ids: Sequence[int]) -> str:
        return self._tokenizer.generated([*self._before, *ids])[self._skipped :]

    def _stopped(self, whole: str) -> int | None:
        """Where the stop text begins that is complete first; None: there is none behind what was given."""
        found = [(place + len(stop), place) for stop in self._stop
                 if (place := whole.find(stop, len(self.text))) >= 0]
        return min(found)[1] if found else None

    def _held(self, whole: str) -> int:
        """How many of the last characters may be the beginning of a stop text."""
        most = max(map(len, self._stop), default=1) - 1
        return next((n for n in range(min(most, len(whole) - len(self.text)), 0, -1)
                     if any(stop.startswith(whole[-n:]) for stop in self._stop)), 0)


def write_ends(ends: Collection[int], folder: Path) -> None:
    """Writes a folder's generation_config.json, so that `end_tokens` needs no defaults there. Raises OSError."""
    (folder / FILE).write_text(json.dumps({KEY: sorted(ends)}) + "\n", "utf-8")


def end_tokens(folder: Path) -> frozenset[int]:
    """The ids of the tokens that end a text: those of generation_config.json, else those of config.json, filled with
    the family's defaults. Empty where there is none.

    Raises ModelError for a file that cannot be read, and for an entry that is neither an id nor a list of ids.
    """
    file, value = folder / FILE, None
    if file.is_file():
        try:
            facts = read_foreign(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {file}: {error}. Copy it again, or remove it: it may be left out") from error
        value = facts.get(KEY) if isinstance(facts, Mapping) else None
    if value is None:
        config = read_config(folder)
        file, value = config.file, config.filled().get(KEY)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in listed):
        raise ModelError(f"{file}: {KEY} must be a token's id or a list of ids, got {value!r}; mend that entry")
    return frozenset(listed)
