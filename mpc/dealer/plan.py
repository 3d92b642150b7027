"""Plans: the ordered correlations that a program will ask for, known from shapes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import islice
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from secformer.mpc.dealer.comparisons import Less, Relu
from secformer.mpc.dealer.kinds import (
    CHUNK,
    Coin,
    ExpMask,
    Kind,
    Lift,
    SeriesMask,
    WeightMask,
    Witness,
)
from secformer.mpc.dealer.products import Hadamard, MatMul, UnknownFactor
from secformer.mpc.dealer.thresholds import Empty, Reached
from secformer.mpc.errors import Desync
from secformer.mpc.net.notes import text, whole
from secformer.mpc.net.wire import Tag
from secformer.mpc.ring import WORD_BITS

FORMAT = "secformer plan 7"  # raise it when a kind's fields, their order or their messages change
MOST_FIELDS = 1 << 18  # of a plan's different kinds together
MOST_WORDS = 1 << 34   # of a field
# facts of kinds that are at most WORD_BITS
NARROW = frozenset({"bits", "window", "width", "period_bits", "frac", "spare", "segments", "lifts"})
KINDS: dict[str, type[Kind]] = {
    cls.__name__: cls for cls in (Hadamard, MatMul, Lift, SeriesMask, ExpMask, Less, Relu, Reached, Empty, WeightMask,
                                  Witness, Coin, UnknownFactor)
}


@dataclass(frozen=True)
class Plan:
    """What the dealer works from. Both parties and the dealer must hold the same one: compare `digest`.

    rounds and bytes are the price of running it: message exchanges, and what both parties together send in them.
    constants is a digest of the program's public numbers (factors, thresholds, coefficients): programs that differ in
    these alone have the same correlations and different plans.
    """

    kinds: tuple[Kind, ...]
    rounds: int = 0
    bytes: int = 0
    constants: str = ""
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        same: dict[Kind, Kind] = {}  # equal kinds are one value, so that each is laid out and spelt once
        kinds = tuple(same.setdefault(kind, kind) for kind in self.kinds)
        object.__setattr__(self, "kinds", kinds)
        spelt = {id(kind): repr(kind) for kind in same}
        stated = "\n".join((*map(repr, (FORMAT, CHUNK)), *(spelt[id(kind)] for kind in kinds),
                            *map(repr, (self.rounds, self.bytes, self.constants))))
        object.__setattr__(self, "digest", hashlib.sha256(stated.encode()).hexdigest())

    @property
    def dealer_bytes(self) -> int:
        return sum(kind.corrections for kind in self.kinds)

    @property
    def messages(self) -> int:
        """How many messages of corrections a run has."""
        return sum(len(kind.layout.parcels) for kind in self.kinds)

    @property
    def standing(self) -> bool:
        """Whether it has masks that serve more than once: those of weights, which provisioning alone may take."""
        return any(isinstance(kind, WeightMask) for kind in self.kinds)

    @property
    def dealt(self) -> str:
        """A digest of what the dealer makes: plans that differ in the program's numbers alone have it in common."""
        return hashlib.sha256("\n".join(map(repr, (FORMAT, *self.kinds))).encode()).hexdigest()

    def corrections(self) -> Iterator[tuple[Tag, int]]:
        """Every message that the dealer sends to party 1, in order: its tag and its bytes."""
        for index, kind in enumerate(self.kinds):
            for parcel in kind.layout.parcels:
                yield parcel.tag(index), parcel.nbytes

    def as_dict(self) -> dict[str, Any]:
        """Names, numbers and lists, for JSON; `from_dict` is the inverse."""
        return {
            "format": FORMAT, "digest": self.digest, "rounds": self.rounds, "bytes": self.bytes,
            "constants": self.constants,
            "kinds": [[type(kind).__name__, *(getattr(kind, f.name) for f in fields(kind))] for kind in self.kinds],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Raises Desync for anything that is not a plan of this version, whole and unaltered: the digest tells."""
        try:
            plan = cls(tuple(_kind(*row) for row in facts["kinds"]), whole(facts["rounds"]), whole(facts["bytes"]),
                       text(facts["constants"]))
            stated, version = facts["digest"], facts["format"]
            _require_sound(plan.kinds)
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Desync(f"this is not a plan ({type(error).__name__}: {error}); do both sides run the same "
                         f"version?") from error
        if version != FORMAT or plan.digest != stated:
            raise Desync(f"the plan states format {version!r} and digest {stated}, but reads as {FORMAT!r} and "
                         f"{plan.digest}; do both sides run the same version?")
        return plan


def _kind(name: str, *values: Any) -> Kind:
    if name not in KINDS:
        raise ValueError(f"unknown correlation {name!r}")
    kind, hints = KINDS[name], _hints(KINDS[name])
    if len(values) != len(hints):
        raise ValueError(f"{name} has {len(hints)} facts, got {len(values)}")
    found = tuple(map(_frozen, values))
    for value, (key, hint) in zip(found, hints.items(), strict=True):
        if not _fits(value, hint) or (key in NARROW and not _narrow(value)):
            raise ValueError(f"{key} of {name} cannot be {str(value)[:40]}")
    return kind(*found)


@cache
def _hints(kind: type[Kind]) -> dict[str, Any]:
    """The types of a kind's fields, in order."""
    types = get_type_hints(kind)
    return {f.name: types[f.name] for f in fields(kind)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a frozen value has a type of whole numbers, None, and tuples of them."""
    parts = get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) is not tuple:
        return type(value) is hint
    if not isinstance(value, tuple):
        return False
    each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    return len(value) == len(each) and all(map(_fits, value, each))


def _narrow(value: Any) -> bool:
    return all(map(_narrow, value)) if isinstance(value, tuple) else value <= WORD_BITS


def _require_sound(kinds: Iterable[Kind]) -> None:
    """Works every layout out. Raises LookupError, TypeError or ValueError where one has none, or is larger than any run
    is, which could take all memory."""
    left = MOST_FIELDS
    for kind in dict.fromkeys(kinds):
        for each in islice(kind.fields(), left + 1):
            left -= 1
            if left < 0 or each.count > MOST_WORDS or not 0 <= each.bits <= WORD_BITS:
                raise ValueError(f"{type(kind).__name__} is larger than any correlation of a run")
        _ = kind.layout


def _frozen(value: Any) -> Any:
    """Lists as tuples; nothing but whole numbers, booleans and None inside."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if value is not None and (not isinstance(value, int) or value < 0):
        raise ValueError(f"a correlation is described by whole numbers, got {value!r}")
    return value
