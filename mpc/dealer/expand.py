"""A party's side of a correlation, expanded from its seed: fields are drawn one by one, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import Field, Kind
from secformer.mpc.errors import ReusedRandomness
from secformer.mpc.kernels import Kernels
from secformer.mpc.meter import Meter
from secformer.mpc.prg import Stream

Expand = Callable[[Field], Stream]
Receive = Callable[[Field], Any]


def expand(stream: Stream, field: Field) -> Any:
    """The words of a field from its stream: uint64, or uint8 where the field is xor-combined bytes."""
    return stream.read(field.count) if field.xor and field.derived else stream.words(field.count, field.bits)


class Expansion(Material):
    """A correlation whose fields are streams; with `receive`, derived fields are what the dealer sends."""

    def __init__(self, kind: Kind, expand_from: Expand, receive: Receive | None, kernels: Kernels, meter: Meter):
        self.kind = kind
        self._fields = {f.name: f for f in kind.fields()}
        self._stream, self._receive = expand_from, receive
        self._kernels, self._meter = kernels, meter

    def draw(self, name: str) -> Any:
        field = self._fields.pop(name, None)
        if field is None:
            raise ReusedRandomness(
                f"{name} of {self.kind!r} was drawn before or does not exist; a mask serves once: ask for a new "
                f"correlation"
            )
        with self._meter.offline():
            if not field.derived or self._receive is None:
                return expand(self._stream(field), field)
            payload = self._receive(field)
            return payload if field.xor else self._kernels.unpack(payload, field.count, field.bits)

    def masked(self, name: str, words: Any, constant: int = 0) -> Any:
        """Where kernels fuse, sealed already; elsewhere expanding stays offline work that nobody waits for."""
        field = self._fields.get(name)
        if not self._kernels.fuses or field is None or field.derived:
            return super().masked(name, words, constant)
        return self._stream(self._fields.pop(name)).sealed(words, field.bits, constant)

    def subtracted(self, name: str, words: Any) -> tuple[Any, Any]:
        """As `masked`."""
        field = self._fields.get(name)
        if not self._kernels.fuses or field is None or field.derived:
            return super().subtracted(name, words)
        return self._stream(self._fields.pop(name)).subtracted(words, field.bits)
