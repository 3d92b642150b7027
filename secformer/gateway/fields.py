"""The fields of a request's body, each taken by name and checked. What nobody takes is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from secformer.gateway.refusals import Refusal
from secformer.mpc.strict_json import read_own

T = TypeVar("T")
MOST = 2048  # texts of a request
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key")  # they say nothing about the answer


class Fields:
    """A body as a JSON object. A field that is null counts as left out. Every method raises Refusal."""

    def __init__(self, body: bytes):
        try:
            found = read_own(body)
        except ValueError as error:
            raise Refusal(400, "invalid_json", f"the body must be JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refusal(400, "invalid_json", "the body must be a JSON object")
        self._left = {name: value for name, value in found.items() if value is not None}
        self._known: list[str] = []

    def has(self, name: str) -> bool:
        """Whether a field is there, and was not taken."""
        return name in self._left

    def take(self, name: str, default: Any = None) -> Any:
        """A field as it came."""
        self._known.append(name)
        return self._left.pop(name, default)

    def needed(self, name: str) -> Any:
        """A field that must be there."""
        value = self.take(name)
        if value is None:
            raise Refusal(400, "missing_parameter", f"the field {name!r} is missing", param=name)
        return value

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self.needed(name)
        return value if isinstance(value, str) else wrong(name, "a string")

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.take(name, default)
        return value if isinstance(value, bool) else wrong(name, "true or false")

    def whole(self, name: str, least: int, most: int | None = None, default: int | None = None) -> int | None:
        """A whole number, or the default."""
        value = self.take(name)
        if value is None:
            return default
        if not is_whole(value) or value < least or (most is not None and value > most):
            wrong(name, f"a whole number of at least {least}" if most is None else
                  f"a whole number from {least} to {most}")
        return int(value)

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float | None:
        """A number, or the default."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            wrong(name, f"a number from {least:g} to {most:g}")
        return float(value)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of some strings; the first is the default."""
        value = self.take(name, choices[0])
        return value if isinstance(value, str) and value in choices else wrong(name, f"one of {', '.join(choices)}")

    def inputs(self, name: str) -> list[str] | dict[str, list[list[int]]]:
        """Texts: a string, a list of strings, a list of token ids, or a list of such lists. Token ids are a dict, as a
        tokenizer returns it."""
        value = self.needed(name)
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not value:
            wrong(name, "a string, a list of strings, a list of token ids, or a list of such lists, and not empty")
        if all(map(is_whole, value)):
            return {"input_ids": [value]}
        if len(value) > MOST:
            wrong(name, f"a list of at most {MOST} texts; it has {len(value)}")
        if all(isinstance(each, str) for each in value):
            return value
        if all(isinstance(each, list) and each and all(map(is_whole, each)) for each in value):
            return {"input_ids": value}
        wrong(name, "a list of strings, or a list of token ids, or a list of such lists; nothing in it may be empty or "
                    "of another kind")

    def neutral(self, values: Mapping[str, Sequence[Any]]) -> None:
        """Takes options that this gateway does not have, where their value asks for nothing."""
        for name, allowed in values.items():
            value = self.take(name)
            if value is not None and not any(type(value) is type(each) and value == each for each in allowed):
                only = " or ".join(_shown(each) for each in allowed)
                raise Refusal(400, "unsupported_parameter", f"{name!r} is not supported here; leave it out" + (
                    f", or give {only}" if only else ""), param=name)

    def end(self) -> None:
        """Refuses the fields that nobody has taken."""
        for name in IGNORED:
            self.take(name)
        if self._left:
            name = sorted(self._left)[0]
            options = ", ".join(each for each in self._known if each not in IGNORED)
            raise Refusal(400, "unknown_parameter", f"{name[:64]!r} is not a field of this request; the fields are "
                                                    f"{options}", param=name[:64])


def wrong(name: str, wanted: str) -> NoReturn:
    """Refuses a field. The message does not quote what came, which may be secret."""
    raise Refusal(400, "invalid_value", f"{name!r} must be {wanted}", param=name)


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
