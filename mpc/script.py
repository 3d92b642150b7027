"""What a recorded program does, step by step, so that programs that differ in public arrays alone are known to.

A program depends on public facts: sizes, numbers, and arrays such as masks and indices. A CUDA graph of it (see
`capture`) has the sizes and numbers baked in, while arrays may be among its inputs. So programs may be one graph if
they take the same steps, with the same numbers, on the same values, and bring arrays of the same shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.scales import Operand
from secformer.mpc.shares import Share, Weight

_NOTHING = bytes(1)  # the memory of all values


@dataclass(frozen=True, eq=False)
class Script:
    """A program as it was recorded.

    plan    its correlations and its price
    name    digest of all that it does, but for the contents of public arrays; "": it was not traced
    arrays  the public arrays that a party brings to where it computes, each once
    places  which of the arrays it brings, in order
    """

    plan: Plan
    name: str = ""
    arrays: tuple[np.ndarray, ...] = field(default=(), repr=False)
    places: tuple[int, ...] = field(default=(), repr=False)


class Trace:
    """Writes down what a program does while it is recorded. Values are known by numbers, in the order of their making.

    Numbers of the program are part of its name. Of arrays that the program brings, only types, shapes, and which of
    them are equal are.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._numbers = count()
        self._known: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self._arrays: list[np.ndarray] = []
        self._places: list[int] = []

    def ghost(self, shape: Sequence[int]) -> Ghost:
        """A new value of that shape."""
        made = Ghost(tuple(shape), np.bool_, _NOTHING, 0, (0,) * len(shape))
        made.of, made.number = self, next(self._numbers)
        return made

    def number(self) -> int:
        """Of the next value."""
        return next(self._numbers)

    def note(self, step: str, *facts: Any) -> None:
        """A step, and all that it depends on: values, and numbers or arrays that are baked in."""
        self._digest.update(repr((step, *map(_told, facts))).encode())

    def brings(self, x: np.ndarray) -> int:
        """A public array that each party brings to where it computes. Returns its place among all arrays."""
        x = np.asarray(x, order="C")
        key = (x.dtype.str, x.shape, hashlib.blake2b(x.tobytes()).digest())
        place = self._known.setdefault(key, len(self._arrays))
        if place == len(self._arrays):
            self._arrays.append(x.copy())
        self._places.append(place)
        self.note("brings", x.dtype.str, x.shape, place)
        return place

    def script(self, plan: Plan) -> Script:
        """What was written down, of a program that has this plan."""
        self.note("ends", plan.kinds, plan.rounds, plan.bytes)
        return Script(plan, self._digest.hexdigest(), tuple(self._arrays), tuple(self._places))


class Ghost(np.ndarray):
    """A value of which only the shape is known, and its number in a trace. Whatever is made of it has another.

    standing  of a value that was there before any trace, such as a bias: which one it is, and what was made of it
    """

    of: Trace | None = None
    number: int = -1
    standing: str = ""

    def __array_finalize__(self, source: Any) -> None:
        self.of = getattr(source, "of", None)
        if self.of is not None:
            self.number = self.of.number()

    def __getitem__(self, index: Any) -> Any:
        self._note("item", ())  # a session has noted the index
        found = super().__getitem__(index)
        if self.of is None:
            return self._made(found, "item", index)
        return found if isinstance(found, Ghost) else self.of.ghost(np.shape(found))

    def reshape(self, *shape: Any, **order: Any) -> Any:
        self._note("reshape", shape)
        return self._made(super().reshape(*shape, **order), "reshape", shape)

    def transpose(self, *axes: Any) -> Any:
        self._note("transpose", axes)
        return self._made(super().transpose(*axes), "transpose", axes)

    def swapaxes(self, *axes: Any) -> Any:
        self._note("swapaxes", axes)
        return self._made(super().swapaxes(*axes), "swapaxes", axes)

    def _note(self, step: str, facts: tuple[Any, ...]) -> None:
        if self.of is not None:
            self.of.note(step, self, *facts)

    def _made(self, found: Any, step: str, facts: Any) -> Any:
        """What a step made of a value that stands."""
        if self.of is not None:
            return found
        if not isinstance(found, Ghost):
            found = standing(np.shape(found), "")
        found.standing = hashlib.sha256(repr((self.standing, step, _told(facts))).encode()).hexdigest()
        return found


class Placed(np.ndarray):
    """An index whose content is an input of the graph, and its place among these."""

    place: int = -1


def placed(x: np.ndarray, place: int) -> Placed:
    found = x.view(Placed)
    found.place = place
    return found


def standing(shape: Sequence[int], which: str) -> Ghost:
    """A value of that shape which is there before any trace."""
    made = Ghost(tuple(shape), np.bool_, _NOTHING, 0, (0,) * len(shape))
    made.standing = which
    return made


def _told(fact: Any) -> Any:
    """A fact in values whose `repr` says all of it."""
    if isinstance(fact, Ghost):
        return ("value", fact.number, fact.shape) if fact.of is not None else ("standing", fact.standing, fact.shape)
    if isinstance(fact, Placed):
        return "brought", fact.place, fact.shape
    if isinstance(fact, Share):
        return "share", _told(fact.data), fact.frac, fact.width, fact.magnitude
    if isinstance(fact, Operand):
        return "operand", _told(fact.share), fact.window, fact.check
    if isinstance(fact, Weight):
        return "weight", fact.index, fact.shape, fact.frac, fact.width
    if isinstance(fact, np.ndarray):
        return "array", fact.dtype.str, fact.shape, hashlib.blake2b(fact.tobytes()).hexdigest()
    if isinstance(fact, Mapping):
        return "mapping", [(key, _told(value)) for key, value in fact.items()]
    return ("all", *map(_told, fact)) if isinstance(fact, tuple | list) else fact
