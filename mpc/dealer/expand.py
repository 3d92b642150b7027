"""A party's side of a correlation, expanded from its seed: fields are drawn one by one, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import Field, Kind, Parcel
from secformer.mpc.errors import ReusedRandomness
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import Masked, Sealing
from secformer.mpc.meter import Meter
from secformer.mpc.prg import Stream

Expand = Callable[[Field], Stream]
Receive = Callable[[Parcel], Any]


class Expansion(Material):
    """A correlation whose fields are streams; with `receive`, derived fields are what the dealer sends. Fields that
    travel together are expanded or received together, when the first of them is drawn."""

    def __init__(self, kind: Kind, expand_from: Expand, receive: Receive | None, kernels: Kernels, meter: Meter):
        self.kind = kind
        self._fields, self._parcels = dict(kind.layout.fields), kind.layout.parcel
        self._opened: dict[str, Any] = {}  # derived fields that came with another and were not drawn yet
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
            if not field.derived:
                return self._stream(field).words(field.count, field.bits)
            if name not in self._opened:
                self._open(self._parcels[name])
            return self._opened.pop(name)

    def _open(self, parcel: Parcel) -> None:
        """This party's shares of all fields of a parcel."""
        if self._receive is None:
            shares = Stream.shares([self._stream(field) for field in parcel.fields], parcel.pieces)
        else:
            with self._kernels.backend.reading(self._receive(parcel)) as payload:
                shares = self._kernels.unpacked(payload, parcel.pieces)
        self._opened |= {field.name: share for field, share in zip(parcel.fields, shares, strict=True)}

    def masked(self, name: str, words: Any, constant: int = 0, *, keeps: bool = False) -> Masked | Sealing:
        """Where kernels fuse, sealed when it is opened; elsewhere expanding stays offline work that nobody waits
        for."""
        field = self._fuses(name)
        if field is None:
            return super().masked(name, self._kernels.plain(words), constant)
        return self._stream(field).sealing(words, field.bits, constant, keeps=keeps)

    def subtracted(self, name: str, words: Any) -> Masked | Sealing:
        """As `masked`."""
        field = self._fuses(name)
        if field is None:
            return super().subtracted(name, self._kernels.plain(words))
        return self._stream(field).sealing(words, field.bits, away=True, keeps=True)

    def _fuses(self, name: str) -> Field | None:
        """The mask of that name, burnt, where it is better expanded into the sum that it masks."""
        field = self._fields.get(name)
        return self._fields.pop(name) if self._kernels.fuses and field is not None and not field.derived else None
