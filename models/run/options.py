"""Settings of a run: a closed set, so that a misspelt key is refused before anything is shared."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from secformer.mpc.capture import GRAPHS
from secformer.mpc.errors import SettingsError
from secformer.mpc.fixed import FixedPoint

GUARDS = ("mark", "nan", "raise", "off")
LONGEST = 365 * 86400  # seconds, a year: far below what the system's clocks and sockets overflow at
DURATION = f"a positive number of seconds, at most {LONGEST} (a year)"
LEAST_FRAC, MOST_FRAC = 12, 16
OFFERED = (f"{LEAST_FRAC} to {MOST_FRAC}: {MOST_FRAC} is the accurate format, {LEAST_FRAC} the fast one; its products "
           f"take 32 bits in place of 40 or 48, with errors about sixteen times as large (docs/accuracy.md)")


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Raises SettingsError, which says what is allowed, for any other value.

    truncation    cut texts that are longer than the model allows; False: refuse such texts
    embedding     "private": token ids stay secret and are looked up in secret tables; "client": the client holds the
                  tables and shares the embedding sums
    output        "auto": reveal all results that the architecture has; "head": reveal the head's answer only
    batch_tokens  the most positions (texts times longest text) per batch; bounds memory
    frac          fractional bits of the fixed point: 12 to 16. 12 is the fast format: products of most layers take
                  32-bit words; a hidden state's errors reach 0.02 (0.07 with 10 bits, 0.3 with 8, which are refused)
    magnitude     absolute values must stay below 2^magnitude
    deadline      seconds that a party waits for its peer or the dealer, at most a year
    guard         "mark": texts whose values leave the ranges that the computation is right in are marked (see
                  `SecureOutput.trusted`); "nan": their numbers are also replaced by NaN; "raise": Untrusted is raised;
                  "off": nothing is checked
    graph         "auto": on a GPU, texts of a length that came before run as one CUDA graph; "off": never
    pad_to        where graphs are in use, texts are filled up to a multiple of so many tokens, so that texts of similar
                  lengths share a graph; the fillers' results are left out. 1: texts keep their lengths
    public_prefix  of a causal language model: what every prompt begins with, which the parties may know. "auto": the
                  tokens that all prompts have in common, those of the chat template, or BOS; another text: that system
                  prompt, with what the chat template puts around it; ids of tokens; None: nothing. Prompts must begin
                  with it; other texts are taken to follow it
    untrained_recipe  allow a recipe whose functions the checkpoint was not trained for, such as 2Quad on an ordinary
                  checkpoint, to measure cost only; the answers are meaningless
    """

    truncation: bool = False
    embedding: str = "private"
    output: str = "auto"
    batch_tokens: int = 1024
    frac: int = 16
    magnitude: int = 14
    deadline: float = 60.0
    guard: str = "mark"
    graph: str = "auto"
    pad_to: int = 16
    public_prefix: str | Sequence[int] | None = None
    untrained_recipe: bool = False

    def __post_init__(self) -> None:
        _require("truncation", isinstance(self.truncation, bool), self.truncation, "True or False")
        _require("untrained_recipe", isinstance(self.untrained_recipe, bool), self.untrained_recipe, "True or False")
        _require("embedding", self.embedding in ("private", "client"), self.embedding, "'private' or 'client'")
        _require("guard", self.guard in GUARDS, self.guard, " or ".join(map(repr, GUARDS)))
        _require("output", self.output in ("auto", "head"), self.output, "'auto' or 'head'")
        _require("graph", self.graph in GRAPHS, self.graph, " or ".join(map(repr, GRAPHS)))
        for name in ("batch_tokens", "frac", "magnitude", "pad_to"):
            value = getattr(self, name)
            _require(name, isinstance(value, int) and not isinstance(value, bool) and value > 0, value,
                     "a positive whole number")
        ids = self.public_prefix
        _require("public_prefix", ids is None or (isinstance(ids, str) and ids != "") or (
            isinstance(ids, Sequence) and not isinstance(ids, str) and all(
                isinstance(i, int) and not isinstance(i, bool) for i in ids)),
            ids, "'auto', a system prompt, ids of tokens, or None")
        _require("deadline", is_duration(self.deadline), self.deadline, DURATION)
        _require("frac", LEAST_FRAC <= self.frac <= MOST_FRAC, self.frac, OFFERED)
        _ = self.fixed  # raises where frac and magnitude do not fit one word

    @property
    def fixed(self) -> FixedPoint:
        return FixedPoint(self.frac, self.magnitude)


def is_duration(value: object) -> bool:
    """Whether a value is a number of seconds that every clock, lock and socket here can wait."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings from keyword arguments. Raises SettingsError for an unknown key, with the nearest known one."""
    require_known(given, Settings, "")
    return Settings(**given)


def require_known(given: Mapping[str, Any], of: type[Any], what: str) -> None:
    """Raises SettingsError for a key that is no field of the dataclass, with the nearest one; `what` says of what
    these are settings."""
    known = [f.name for f in fields(of)]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SettingsError(f"unknown setting {key!r}{what}: {hint}The settings are {', '.join(known)}")


def _require(name: str, holds: bool, came: object, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} must be {wanted}, got {came!r}")
