"""How near a protocol comes to the exact function: declared on the protocol, as its citations are.

    @faithful                                computes it: ranges measured with the exact function hold for the protocol
    @approximate                             comes near it: any checkpoint keeps its answers, but ranges are measured
                                             with the protocol itself
    @student("2Quad", quad_shift=5.0)        computes another function: checkpoints must have been trained for it

Nobody believes a protocol that declares nothing: `models/ranges/trained.py` tries it on a few values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Student:
    """The function that a protocol computes in place of the exact one, the constants that weights are trained around,
    and the same function on plain numbers, for the twin; None where the protocol itself holds any value there."""

    function: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    plain: Callable[..., Any] | None = None


def student(function: str, *, plain: Callable[..., Any] | None = None, **constants: Any) -> Callable[[F], F]:
    """Decorator: the protocol computes the function of that name. A checkpoint must have been trained for it, around
    these constants, which its config.json records: they are plain numbers and lists. `plain` as in `Student`."""

    def mark(protocol: F) -> F:
        protocol.__student__ = Student(function, MappingProxyType(constants), plain)  # type: ignore[attr-defined]
        return protocol

    return mark


def faithful(protocol: F) -> F:
    """Decorator: the protocol differs from the exact function by 2e-4 at most (LayerNorm relative to its result)."""
    protocol.__faithful__ = True  # type: ignore[attr-defined]
    return protocol


def approximate(protocol: F) -> F:
    """Decorator: the protocol comes so near the exact function that any checkpoint keeps its answers."""
    protocol.__approximate__ = True  # type: ignore[attr-defined]
    return protocol


def is_declared(protocol: Callable[..., Any]) -> bool:
    """Whether a protocol declares how near it comes to the exact function."""
    return is_faithful(protocol) or getattr(protocol, "__approximate__", False) or student_of(protocol) is not None


def student_of(protocol: Callable[..., Any]) -> Student | None:
    """What a protocol declares with `student`; None if it computes or approximates the exact function."""
    return getattr(protocol, "__student__", None)


def is_faithful(protocol: Callable[..., Any]) -> bool:
    """Whether a protocol declares itself `faithful`."""
    return getattr(protocol, "__faithful__", False)
